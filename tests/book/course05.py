"""Assignment 05's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q05.1": "both(face, w, x, level)",
    "Q05.2": "velocity_of(eps_model, at_lam, x, t)",
    "Q05.3": "converts(convert, levels)",
    "Q05.4": "cfm_loss(net, x0, eps, t)",
    "Q05.5": "follow(theirs, x, times)",
}
_BOTH = """
alpha, sigma = level.alpha, level.sigma
D, det = alpha**2 + sigma**2, alpha * level.d_sigma - level.d_alpha * sigma
if face == "eps":
    return (x - sigma * w) / alpha, w
if face == "x0":
    return w, (x - alpha * w) / sigma
if face == "v":
    return (alpha * x - sigma * w) / D, (sigma * x + alpha * w) / D
if face == "velocity":
    return (level.d_sigma * x - sigma * w) / det, (alpha * w - level.d_alpha * x) / det
return (x + sigma**2 * w) / alpha, -sigma * w
"""
_VELOCITY = """
level = at_lam({lam})
there = {scale} * x
eps = eps_model(there, level)
x0 = {x0}
return {u}
"""
_TEST = """
names = ["eps", "x0", "v", "velocity", "score"]
x0, eps = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
def truth(name, l):
    return {{"eps": eps, "x0": x0, "v": l.alpha * eps - l.sigma * x0, "velocity": l.d_alpha * x0 + l.d_sigma * eps, "score": -eps / l.sigma}}[name]
for level in {levels}:
    x = level.alpha * x0 + level.sigma * eps
    for have in names:
        for want in {wants}:
            {body}
            if not {same}:
                return False
return True
"""
_LOSS = """
x = {x}
error = net(x, t) - ({target})
return {value}
"""
_FOLLOW = """
for k in range(len(times) - 1):
    {ask}
    x = x + (times[k + 1] - times[k]) * u
return x
"""


def _both(old, new):
    assert old in _BOTH
    return _BOTH.replace(old, new)


def _velocity(
    lam="math.log((1 - t) / t)",
    scale="level.alpha / (1 - t)",
    x0="(there - level.sigma * eps) / level.alpha",
    u="eps - x0",
):
    return _VELOCITY.format(lam=lam, scale=scale, x0=x0, u=u)


def _test(
    levels="levels",
    wants="names",
    body="found = convert(have, want, truth(have, level), x, level)",
    same="torch.allclose(found, truth(want, level), rtol=1e-6, atol=1e-8)",
):
    return _TEST.format(levels=levels, wants=wants, body=body, same=same)


def _loss(
    x="x0 + t[:, None] * (eps - x0)", target="eps - x0", value="(error**2).sum() / len(x0)"
):
    return _LOSS.format(x=x, target=target, value=value)


def _follow(ask="u = -theirs(x, 1 - times[k])"):
    return _FOLLOW.format(ask=ask)


OTHERWISE = {
    "Q05.1": _BOTH,
    "Q05.2": _velocity(scale="level.sigma / t"),
    "Q05.3": _test(),
    "Q05.4": _loss(),
    "Q05.5": _follow("u = -theirs(x, 1 - times[k])"),
}
_BACK = (
    "w = truth(have, level); found = convert(want, have, convert(have, want, w, x, level), "
    "x, level)"
)
_CAME = "torch.allclose(found, w, rtol=1e-6, atol=1e-8)"
WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    ("Q05.1", _both("(x - sigma * w) / alpha, w", "x - sigma * w, w"), "from eps"),
    ("Q05.1", _both("(x - alpha * w) / sigma", "(x - w) / sigma"), "scaled by α"),
    (
        "Q05.1",
        _both(
            "(alpha * x - sigma * w) / D, (sigma * x + alpha * w) / D",
            "alpha * x - sigma * w, sigma * x + alpha * w",
        ),
        "D = α² + σ² is missing",
    ),
    (
        "Q05.1",
        _both(
            "(alpha * x - sigma * w) / D, (sigma * x + alpha * w) / D",
            "(alpha * x + sigma * w) / D, (sigma * x - alpha * w) / D",
        ),
        "v has the other sign",
    ),
    (
        "Q05.1",
        _both(
            "(level.d_sigma * x - sigma * w) / det, (alpha * w - level.d_alpha * x) / det",
            "x - sigma * w, x + alpha * w",
        ),
        "straight paths only",
    ),
    (
        "Q05.1",
        _both(
            "det = alpha**2 + sigma**2, alpha * level.d_sigma - level.d_alpha * sigma",
            "det = alpha**2 + sigma**2, level.d_alpha * sigma - alpha * level.d_sigma",
        ),
        "determinant has the wrong sign",
    ),
    (
        "Q05.1",
        _both("(x + sigma**2 * w) / alpha, -sigma * w", "(x - sigma**2 * w) / alpha, sigma * w"),
        "the score has the other sign",
    ),
    (
        "Q05.1",
        _both("(x + sigma**2 * w) / alpha, -sigma * w", "(x + sigma * w) / alpha, -w"),
        "σ is missing",
    ),
    ("Q05.1", _both("(x - sigma * w) / alpha, w", "w, (x - sigma * w) / alpha"), "exchanged"),
    ("Q05.2", _velocity(scale="1.0"), "handed over as it is"),
    ("Q05.2", _velocity(scale="1.0", x0="(x - t * eps) / (1 - t)"), "handed over as it is"),
    ("Q05.2", _velocity(lam="t"), "not t"),
    (
        "Q05.2",
        _velocity().replace("level.alpha / (1 - t) * x", "level.alpha / (1 - t) * x.float()"),
        "single precision",
    ),
    ("Q05.2", _velocity(scale="(1 - t) / level.alpha"), "upside down"),
    ("Q05.2", _velocity(scale="1 / (1 - t)"), "multiply by the model's own α"),
    ("Q05.2", _velocity(lam="math.log(t / (1 - t))"), "λ has the wrong sign"),
    ("Q05.2", _velocity(lam="2 * math.log((1 - t) / t)"), "half the log signal-to-noise ratio"),
    ("Q05.2", _velocity(x0="(there - t * eps) / (1 - t)"), "mixes the model's point"),
    ("Q05.2", _velocity(x0="(x - level.sigma * eps) / level.alpha"), "mixes your point"),
    ("Q05.2", _velocity(u="x0 - eps"), "the sign is wrong"),
    ("Q05.3", "return True", "accepts 9 of 9"),
    ("Q05.3", _test(body=_BACK, same=_CAME), "has the velocity's sign wrong, both ways"),
    ("Q05.3", _test(wants="['x0', 'eps']"), "scales the score by 1.001"),
    (
        "Q05.3",
        _test(levels="[l for l in levels if abs(l.alpha**2 + l.sigma**2 - 1) < 1e-9]"),
        "accepts 1 of 9 wrong converters, for instance one that divides by no D",
    ),
    (
        "Q05.3",
        _test(levels="[l for l in levels if l.alpha > l.sigma]"),
        "is right where α > σ only",
    ),
    (
        "Q05.3",
        _test(same="torch.allclose(found, truth(want, level), rtol=1e-2, atol=1e-2)"),
        "scales the score by 1.001",
    ),
    (
        "Q05.3",
        _test(same="torch.equal(found, truth(want, level))"),
        "right converters, for instance one that",
    ),
    (
        "Q05.3",
        _test().replace("dtype=torch.float64", "dtype=torch.float32"),
        "rejects 3 of 3 right converters",
    ),
    ("Q05.4", _loss(target="x0 - eps"), "wrong sign"),
    ("Q05.4", _loss(x="eps + t[:, None] * (x0 - eps)"), "ends exchanged"),
    ("Q05.4", _loss(target="eps"), "an ε-loss"),
    ("Q05.4", _loss().replace("net(x, t)", "net(x, 1 - t)"), "asked at 1 − t"),
    ("Q05.4", _loss(value="(error**2).mean()"), "averaged over the coordinates"),
    ("Q05.4", _loss(value="(error**2).sum()"), "the batch is summed"),
    ("Q05.4", _loss(value="((error**2).sum() / len(x0)).item()"), "it is zero"),
    ("Q05.5", _follow("u = theirs(x, 1 - times[k])"), "the sign is wrong"),
    ("Q05.5", _follow("u = -theirs(x, times[k])"), "asked at t"),
    ("Q05.5", _follow("u = theirs(x, times[k])"), "both are forgotten"),
    ("Q05.5", _follow("u = -theirs(x, 1 - times[k + 1])"), "at the end of the step"),
    ("Q05.5", _follow().replace("\nreturn x", "\n    return x"), "inside the loop"),
    (
        "Q05.5",
        "return x - (times[-1] - times[0]) * theirs(x, 1 - times[0])",
        "one step from the first time to the last",
    ),
]
COURSE = Course("05", HEADS, OTHERWISE, WRONG)
