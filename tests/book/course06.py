"""Assignment 06's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q06.1": "guide(told, empty, w, kind)",
    "Q06.2": "guided_x0(told, empty, x, alpha, sigma, predicts, omega)",
    "Q06.3": "guided_gaussian(m_c, m_null, v_c, v_null, omega, low, high)",
    "Q06.4": "tilted_masses(of_class, of_all, omega)",
    "Q06.5": "guided_eps(x, weights, means, stds, labels, c, omega, alpha, sigma)",
}
_KINDS = "return {{'omega': {omega}, 'scale': {scale}, 'extra': {extra}}}[kind]"
_FACES = """
out = {out}
return {{'eps': {eps}, 'v': {v}, 'score': {score}}}[predicts]
"""
_GAUSS = """
cos = lambda kappa: math.sqrt(v_c / (v_c + kappa**2))
flow, tilt = v_c ** (1 + omega) * v_null**-omega, 1 / ((1 + omega) / v_c - omega / v_null)
return {mean}, {flow}, {tilt}
"""
_MEAN = "m_c + omega * (m_c - m_null) * (cos(low) - cos(high))"
_MIXTURE = """
v = (alpha * stds) ** 2 + sigma**2
apart = x[:, None] - alpha * means
density = weights / v * torch.exp(-(apart**2).sum(2) / (2 * v))
def eps(rows):
    share = density * rows
    share = share / share.sum(1, keepdim=True)
    return sigma * ((share / v)[:, :, None] * apart).sum(1)
told, empty = eps(labels == c), eps(labels > -1)
return told + omega * (told - empty)
"""


def _kinds(
    omega="told + w * (told - empty)",
    scale="empty + w * (told - empty)",
    extra="told + w * (told - empty)",
) -> str:
    return _KINDS.format(omega=omega, scale=scale, extra=extra)


def _faces(
    out="told + omega * (told - empty)",
    eps="(x - sigma * out) / alpha",
    v="alpha * x - sigma * out",
    score="(x + sigma**2 * out) / alpha",
) -> str:
    return _FACES.format(out=out, eps=eps, v=v, score=score)


def _gauss(mean=_MEAN, flow="flow", tilt="tilt") -> str:
    return _GAUSS.format(mean=mean, flow=flow, tilt=tilt)


def _mixture(old: str, new: str) -> str:
    assert old in _MIXTURE
    return _MIXTURE.replace(old, new)


OTHERWISE = {
    "Q06.1": _kinds(),
    "Q06.2": """
def x0(o):
    if predicts == 'v':
        return alpha * x - sigma * o
    return (x - sigma * o) / alpha if predicts == 'eps' else (x + sigma * sigma * o) / alpha
return torch.lerp(x0(empty), x0(told), 1 + omega)""",
    "Q06.3": """
f = lambda k: (1 + k * k / v_c) ** -0.5
g = 1 + omega
return m_c + (g - 1) * (m_c - m_null) * (f(low) - f(high)), math.exp(g * math.log(v_c) - omega * math.log(v_null)), v_c * v_null / (g * v_null - omega * v_c)""",
    "Q06.4": "return torch.softmax((1 + omega) * of_class.log() - omega * of_all.log(), 0)",
    "Q06.5": """
v = (alpha * stds) ** 2 + sigma**2
y = x.clone().requires_grad_()
log_p = weights.log() - v.log() - ((y[:, None] - alpha * means)**2).sum(2) / (2 * v)
tilted = (1 + omega) * torch.logsumexp(log_p[:, labels == c], 1) - omega * torch.logsumexp(log_p, 1)
return -sigma * torch.autograd.grad(tilted.sum(), y)[0]""",
}
WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    ("Q06.1", _kinds(omega="empty + w * (told - empty)"), "this takes ω for a scale"),
    ("Q06.1", _kinds(scale="told + w * (told - empty)"), "this takes the scale for ω"),
    ("Q06.1", _kinds(scale="told + (w + 1) * (told - empty)"), "not g + 1"),
    ("Q06.1", _kinds(extra="empty + w * (told - empty)"), "this takes w′ for a scale"),
    ("Q06.1", _kinds(omega="told - w * (told - empty)"), "the sign of ω is wrong"),
    (
        "Q06.1",
        _kinds(omega="told + w * (empty - told)", scale="told + w * (empty - told)"),
        "told and empty are exchanged",
    ),
    ("Q06.1", _kinds(omega="(1 + w) * told - (w - 1) * empty"), "must sum to 1"),
    ("Q06.1", _kinds(omega="(1 + w) * told + w * empty"), "sum to 1 + 2ω"),
    ("Q06.1", _kinds(scale="told + (1 - w) * (told - empty)"), "not 1 − g"),
    ("Q06.1", _kinds(extra="told + (w + 1) * (told - empty)"), "nothing is added"),
    ("Q06.2", _faces(out="empty + omega * (told - empty)"), "this takes ω for a scale"),
    ("Q06.2", _faces(out="told"), "there is no guidance in it"),
    ("Q06.2", _faces(eps="x - sigma * out"), "the division by α is missing"),
    ("Q06.2", _faces(v="alpha * x + sigma * out"), "ε cancels in"),
    ("Q06.2", _faces(v="x - out"), "a flow model"),
    ("Q06.2", _faces(score="(x - sigma**2 * out) / alpha"), "the score is −ε/σ"),
    ("Q06.2", _faces(score="(x + sigma * out) / alpha"), "one factor σ is missing"),
    ("Q06.2", _faces(score="(x - sigma * out) / alpha"), "this is the formula for eps"),
    (
        "Q06.2",
        "return (1 + omega) * (x - sigma * told) / alpha + omega * (x - sigma * empty) / alpha",
        "x enters 1 + 2ω times",
    ),
    ("Q06.2", _faces(out="told + omega * (told + empty)"), "the sign of empty is wrong"),
    ("Q06.2", _faces(score="(x + out) / alpha"), "do not divide"),
    ("Q06.3", _gauss(mean="m_c + omega * (m_c - m_null)"), "this is guidance at all levels"),
    (
        "Q06.3",
        _gauss(mean="m_c - omega * (m_c - m_null) * (cos(low) - cos(high))"),
        "the sign of the shift",
    ),
    ("Q06.3", _gauss(mean="omega * (m_c - m_null) * (cos(low) - cos(high))"), "add m_c"),
    (
        "Q06.3",
        _gauss(mean="m_c + omega * (m_c - m_null) * (cos(high) - cos(low))"),
        "guidance pushes away from m_null",
    ),
    (
        "Q06.3",
        _gauss(mean="m_c + omega * (m_c - m_null) * (cos(low)**2 - cos(high)**2)"),
        "wants a root",
    ),
    (
        "Q06.3",
        _gauss(mean="m_c + omega * (m_c - m_null) * (1 - cos(high))"),
        "its low end is missing",
    ),
    ("Q06.3", _gauss(flow="tilt"), "which the flow does not sample"),
    ("Q06.3", _gauss(flow="flow**0.5"), "this is the standard deviation"),
    (
        "Q06.3",
        _gauss(flow="v_c**-omega * v_null ** (1 + omega)"),
        "the exponents are interchanged",
    ),
    ("Q06.3", _gauss(flow="v_c"), "guidance changes it"),
    ("Q06.3", _gauss(tilt="flow"), "the tilt's precisions add"),
    ("Q06.3", _gauss(tilt="1 / tilt"), "this is the precision"),
    ("Q06.3", _gauss(tilt="(1 + omega) * v_c - omega * v_null"), "precisions add, not variances"),
    (
        "Q06.3",
        _gauss(mean="m_c + (1 + omega) * (m_c - m_null) * (cos(low) - cos(high))"),
        "not 1 + ω times",
    ),
    (
        "Q06.3",
        _gauss(
            mean="m_c + omega * (m_c - m_null) * (math.acos(cos(high)) - math.acos(cos(low)))"
        ),
        "the range of θ stands",
    ),
    ("Q06.3", _gauss(flow="v_c * (v_c / v_null) ** (omega / 2)"), "half of them"),
    ("Q06.3", _gauss(tilt="1 / ((1 + omega) * v_c - omega * v_null)"), "and then inverted"),
    ("Q06.3", "return m_c, v_c", "got 2 arrays, wanted 3"),
    ("Q06.4", "return of_class ** (1 + omega) * of_all**-omega", "divide by their sum"),
    ("Q06.4", "m = (of_class / of_all) ** omega\nreturn m / m.sum()", "one for p(x|c) itself"),
    ("Q06.4", "return of_class", "the class's own masses"),
    (
        "Q06.4",
        "m = of_class**omega * of_all ** (1 - omega)\nreturn m / m.sum()",
        "this takes ω for a scale",
    ),
    (
        "Q06.4",
        "m = (1 + omega) * of_class - omega * of_all\nreturn m / m.sum()",
        "extrapolated linearly",
    ),
    ("Q06.4", "m = of_class**2 / of_all\nreturn m / m.sum()", "there is no ω in it"),
    ("Q06.4", "m = of_class ** (1 + omega)\nreturn m / m.sum()", "p(x) is missing"),
    (
        "Q06.4",
        "m = of_class ** (1 + omega) * of_all**omega\nreturn m / m.sum()",
        "the sign of ω is wrong",
    ),
    (
        "Q06.5",
        _mixture("told + omega * (told - empty)", "empty + omega * (told - empty)"),
        "this takes ω for a scale",
    ),
    ("Q06.5", _mixture("told + omega * (told - empty)", "told"), "there is no guidance in it"),
    (
        "Q06.5",
        _mixture(
            "return told + omega * (told - empty)",
            "return -(told + omega * (told - empty)) / sigma",
        ),
        "this is the guided score",
    ),
    ("Q06.5", _mixture("labels > -1", "labels != c"), "∅ is the other classes"),
    (
        "Q06.5",
        _mixture("(alpha * stds) ** 2 + sigma**2", "stds ** 2"),
        "variances are those of clean data",
    ),
    ("Q06.5", _mixture("(alpha * stds) ** 2", "stds ** 2"), "lack their factor α²"),
    ("Q06.5", _mixture("- alpha * means", "- means"), "the means are those of clean data"),
    ("Q06.5", _mixture("weights / v * ", "1 / v * "), "the weights are missing"),
    ("Q06.5", _mixture("weights / v * ", "weights * "), "log v is missing"),
    ("Q06.5", _mixture("weights / v * ", "weights / v.sqrt() * "), "½ log v stands"),
    ("Q06.5", _mixture("(2 * v)", "v"), "the ½ is missing"),
    ("Q06.5", _mixture("share / share.sum(", "share / density.sum("), "do not sum to 1"),
    ("Q06.5", _mixture("(share / v)[", "share["), "its 1/v is missing"),
    ("Q06.5", _mixture("return sigma * ", "return sigma**2 * "), "σ² times the gradient"),
    (
        "Q06.5",
        _mixture("(alpha * stds) ** 2 + sigma**2", "((alpha * stds) ** 2 + sigma**2) ** 0.5"),
        "the standard deviation stands where v belongs",
    ),
    ("Q06.5", _mixture("(alpha * stds) ** 2", "alpha * stds**2"), "α is not squared"),
    ("Q06.5", _mixture("return sigma * ", "return "), "it is −σ times the gradient"),
    (
        "Q06.5",
        _mixture(
            "(share / v)[:, :, None] * apart).sum(1)",
            "(share / v)[:, :, None] * apart).sum((1, 2))",
        ),
        "has shape",
    ),
]
COURSE = Course("06", HEADS, OTHERWISE, WRONG)
