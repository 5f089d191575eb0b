"""Assignment 20's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q20.1": "gaussian_gradients(m, s, mu, tau, alpha, sigma)",
    "Q20.2": "vsd_gradient(x, jacobian, real, nodes, mass, alpha, sigma)",
    "Q20.3": "vsd_loss(student, real, fake, z, eps, alpha, sigma)",
    "Q20.4": "one_step(output, z, alpha, sigma, predicts)",
    "Q20.5": "adapted(x, weight, bias, A, B, a)",
}
_GAUSS = """
v_p = alpha**2 * s**2 + sigma**2
v_q = alpha**2 * tau**2 + sigma**2
return {m}, {kl}, {ce}
"""
_M, _KL, _CE = (
    "alpha**2 * (m - mu) / v_q",
    "alpha**2 * s * (1 / v_q - 1 / v_p)",
    "alpha**2 * s / v_q",
)
_ATOMS = """
x_t = alpha * x.unsqueeze(1) + sigma * nodes
e = (x_t.unsqueeze(2) - alpha * x) / sigma
r = torch.softmax(-e**2 / 2, 2)
fake = (r * e).sum(2)
G = alpha / sigma * (real(x_t) - fake)
return torch.einsum("kj,j,kp->p", G, mass, jacobian) / len(x)
"""
_STEP = """
x = student(z)
with torch.no_grad():
    x_t = alpha * x + sigma * eps
    G = alpha / sigma * (real(x_t) - fake(x_t))
return {value}
"""
_GRAPH = """
x = student(z)
x_t = alpha * x + sigma * eps
G = alpha / sigma * (real(x_t) - fake(x_t))
return {value}
"""
_LORA = "return x @ weight.T + bias + {scale} * (x @ A.T) @ B.T, weight + {scale} * B @ A"


def _gauss(m: str = _M, kl: str = _KL, ce: str = _CE) -> str:
    return _GAUSS.format(m=m, kl=kl, ce=ce)


def _atoms(old: str, new: str) -> str:
    assert old in _ATOMS
    return _ATOMS.replace(old, new)


def _step(
    value: str = "0.5 * ((x - (x - G).detach()) ** 2).sum(1).mean()",
    old: str = "",
    new: str = "",
    body: str = _STEP,
) -> str:
    assert old in body
    return (body.replace(old, new) if old else body).format(value=value)


def _lora(scale: str = "a / A.shape[0]") -> str:
    return _LORA.format(scale=scale)


OTHERWISE = {
    "Q20.1": """
m, s = m.clone().requires_grad_(), s.clone().requires_grad_()
p, q = (alpha * s) ** 2 + sigma**2, (alpha * tau) ** 2 + sigma**2
ce = (q.log() / 2 + (p + alpha**2 * (m - mu)**2) / (2 * q)).sum()
dm, ds = torch.autograd.grad(ce, (m, s), retain_graph=True)
return dm, torch.autograd.grad(ce - p.log().sum() / 2, s)[0], ds""",
    "Q20.2": """
x_t = alpha * x[:, None] + sigma * nodes[None]
y = x_t.clone().requires_grad_()
log_p = torch.logsumexp(-((y[..., None] - alpha * x) / sigma) ** 2 / 2, -1)
score_p = torch.autograd.grad(log_p.sum(), y)[0]
score_q = -real(x_t) / sigma
return ((alpha * (score_p - score_q) * mass).sum(1)[:, None] * jacobian).mean(0)""",
    "Q20.3": """
x = student(z)
x_t = (alpha * x + sigma * eps).detach()
G = (alpha * (real(x_t) - fake(x_t)) / sigma).detach()
return (G * x).sum() / len(x)""",
    "Q20.4": "eps = output if predicts == 'eps' else sigma * z + alpha * output\nreturn (z - "
    "sigma * eps) / alpha",
    "Q20.5": "W = weight + (a / B.shape[1]) * torch.einsum('or,ri->oi', B, A)\nreturn "
    "torch.nn.functional.linear(x, W, bias), W",
}
WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    ("Q20.1", _gauss(m="-" + _M), "the sign is wrong: descent must move m"),
    (
        "Q20.1",
        "return (m - mu) / tau**2, s / tau**2 - 1 / s, s / tau**2",
        "variances are those of clean samples",
    ),
    ("Q20.1", _gauss(m="alpha * (m - mu) / v_q"), "one factor α is missing"),
    ("Q20.1", _gauss(m="alpha**2 * (m - mu) / v_p"), "v_p stands where v_q belongs"),
    ("Q20.1", _gauss(kl=_CE), "the entropy of p_t is missing"),
    ("Q20.1", _gauss(kl="-" + _KL), "a student narrower than the data must widen"),
    ("Q20.1", _gauss(kl="s * (1 / v_q - 1 / v_p)"), "the factor α² is missing"),
    ("Q20.1", _gauss(kl="alpha**2 * (1 / v_q - 1 / v_p)"), "the factor s is missing"),
    (
        "Q20.1",
        _gauss(kl="alpha**2 * s * (1 / v_p - (v_q + alpha**2 * (m - mu)**2) / v_p**2)"),
        "this is KL(q‖p)",
    ),
    (
        "Q20.1",
        _gauss(kl="alpha * s * (1 / v_q - 1 / v_p)", ce="alpha * s / v_q"),
        "one factor α is missing: ∂v_p/∂s",
    ),
    ("Q20.1", _gauss(ce=_KL), "cross-entropy has no entropy"),
    ("Q20.1", _gauss(ce="-" + _CE), "grows with the student's width"),
    ("Q20.1", _gauss(ce="alpha**2 * s / (2 * v_q)"), "a factor ½ is left"),
    ("Q20.1", _gauss(m="alpha**2 * m / v_q"), "the data's mean is taken for 0"),
    ("Q20.1", _gauss(m="alpha * (alpha * m - mu) / v_q"), "both means shrink by α"),
    (
        "Q20.1",
        _gauss("2 * " + _M, "2 * " + _KL, "2 * " + _CE),
        "∂KL/∂m is off by 1.0e+00 (relative): a factor 2 too much",
    ),
    ("Q20.1", _GAUSS.replace("tau**2", "tau").format(m=_M, kl=_KL, ce=_CE), "τ is not squared"),
    ("Q20.1", _gauss(ce="alpha**2 / v_q"), "the factor s is missing"),
    ("Q20.1", _gauss(ce="alpha**2 / (2 * v_q)"), "by s², not by s"),
    ("Q20.1", _gauss(ce="0 * s + 1"), "∂CE/∂s is off"),
    ("Q20.1", _gauss(ce="(alpha**2 * s / v_q).sum()"), "has shape ()"),
    ("Q20.1", "return m, s", "got 2 arrays, wanted 3"),
    ("Q20.2", _atoms("real(x_t) - fake", "fake - real(x_t)"), "the sign is wrong"),
    ("Q20.2", _atoms("real(x_t) - fake", "real(x_t) - nodes"), "this is SDS"),
    ("Q20.2", _atoms("alpha / sigma * (real", "(real"), "the factor α/σ is missing"),
    ("Q20.2", _atoms("alpha / sigma * (real", "sigma**2 * (real"), "SwiftBrush's weight"),
    (
        "Q20.2",
        _atoms("alpha / sigma * (real", "1 / sigma * (real"),
        "α is missing, which comes from",
    ),
    ("Q20.2", _atoms("(r * e).sum(2)", "e.mean(2)"), "the atoms count alike"),
    (
        "Q20.2",
        _atoms(
            "r = torch.softmax(-e**2 / 2, 2)",
            "r = torch.nn.functional.one_hot(e.abs().argmin(2), len(x))",
        ),
        "only the nearest atom",
    ),
    ("Q20.2", _atoms("-e**2 / 2", "-e**2"), "the ½ in the exponent"),
    ("Q20.2", _atoms("2, 2)", "2, 0)"), "over the wrong axis"),
    ("Q20.2", _atoms("unsqueeze(2) - alpha * x", "unsqueeze(2) - x"), "they sit at α x_k"),
    ("Q20.2", _atoms("(r * e).sum(2)", "-(r * e).sum(2) / sigma"), "the fake is its score"),
    ("Q20.2", _atoms("(r * e).sum(2)", "sigma * (r * e).sum(2)"), "not divided by σ"),
    ("Q20.2", _atoms("(r * e).sum(2)", "(r * x).sum(2)"), "the fake is its x̂₀"),
    ("Q20.2", _atoms("-e**2 / 2", "-e**2 * sigma / 2"), "σ is not squared in the exponent"),
    ("Q20.2", _atoms("-e**2 / 2", "-(sigma * e)**2 / 2"), "σ is missing in the exponent"),
    ("Q20.2", _atoms(" / len(x)", ""), "take the mean"),
    (
        "Q20.2",
        _atoms(
            "G, mass, jacobian) / len(x)",
            "G, torch.full_like(mass, 1 / len(mass)), jacobian) / len(x)",
        ),
        "each has its mass",
    ),
    ("Q20.2", _atoms("alpha / sigma * (real", "alpha / sigma**2 * (real"), "one σ too many"),
    ("Q20.2", _atoms(" / len(x)", " / len(x) / len(nodes)"), "on top of their masses"),
    (
        "Q20.2",
        _atoms("real(x_t)", "real(x.unsqueeze(1).expand_as(x_t))"),
        "the teacher is asked at x₀",
    ),
    ("Q20.2", _atoms('kp->p", G, mass, jacobian', 'kp->kp", G, mass, jacobian'), "has shape"),
    ("Q20.2", _atoms("(r * e).sum(2)", "0 * x_t"), "or nothing, which has the same mean"),
    ("Q20.2", _atoms("(r * e).sum(2)", "x_t"), "not the finite difference of KL"),
    ("Q20.3", _step("0.5 * ((x - (x + G).detach()) ** 2).sum(1).mean()"), "the sign is wrong"),
    ("Q20.3", _step("0.5 * ((x - (x - G)) ** 2).sum(1).mean()"), "no longer contains x at all"),
    (
        "Q20.3",
        _step("0.5 * ((x - (x - G)) ** 2).sum(1).mean()", body=_GRAPH),
        "autograd differentiates G",
    ),
    ("Q20.3", _step("(G * x).sum(1).mean()", body=_GRAPH), "G is not a constant"),
    (
        "Q20.3",
        _step("0.5 * ((x - (x.detach() - G)) ** 2).sum(1).mean()", body=_GRAPH),
        "only x is stopped",
    ),
    ("Q20.3", _step(old="fake(x_t)", new="eps"), "this is SDS"),
    ("Q20.3", _step(old="alpha / sigma * ", new=""), "the factor α/σ is missing"),
    ("Q20.3", _step(old="alpha / sigma * ", new="sigma**2 * "), "the factor is σ²"),
    (
        "Q20.3",
        _step("0.5 * ((x - (x - G).detach()) ** 2).mean()"),
        "over the values of a sample as well",
    ),
    ("Q20.3", _step("0.5 * ((x - (x - G).detach()) ** 2).sum()"), "the samples are summed"),
    ("Q20.3", _step("((x - (x - G).detach()) ** 2).sum(1).mean()"), "the ½ is missing"),
    ("Q20.3", _step("torch.nn.functional.mse_loss(x, (x - G).detach())"), "mse_loss of x and"),
    (
        "Q20.3",
        _step("torch.nn.functional.mse_loss(x, (x - G).detach(), reduction='sum')"),
        "take half of their mean",
    ),
    ("Q20.3", _step("0.5 * ((x - (x - G).detach()) ** 2).sum(1)"), "wanted a scalar tensor"),
    (
        "Q20.3",
        _step("(0.5 * ((x - (x - G).detach()) ** 2).sum(1).mean()).item()"),
        "without its graph",
    ),
    (
        "Q20.3",
        _step("loss", "    G = ", "    G = ").replace(
            "return", "loss = (x * G).sum(1).mean()\nloss.backward()\nreturn"
        ),
        "has called .backward() itself",
    ),
    (
        "Q20.3",
        _step(
            "(G * x).sum(1).mean()",
            "G = alpha / sigma * (real(x_t) - fake(x_t))",
            "e = fake(x_t)\nx_t = x_t.detach()\nG = alpha / sigma * (real(x_t) - e)",
        ),
        "but the teacher gets a gradient",
    ),
    (
        "Q20.3",
        "with torch.no_grad():\n    x = student(z)\n    x_t = alpha * x + sigma * eps\n    G = "
        "real(x_t) - fake(x_t)\nreturn (G * x).sum(1).mean()",
        "autograd sees no path",
    ),
    (
        "Q20.3",
        _step(old="x_t = alpha * x + sigma * eps", new="x_t = x"),
        "the networks are asked at x",
    ),
    (
        "Q20.3",
        _step(
            "(x.detach() * G + (x - x.detach()) * G.detach()).sum(1).mean()",
            "x_t = alpha * x",
            "x_t = alpha * x.detach()",
            _GRAPH,
        ),
        "get a gradient as well",
    ),
    (
        "Q20.3",
        "x = student(z)\nx_t = alpha * x + sigma * eps\nG = (alpha / sigma * (real(x_t) - "
        "fake(x_t))).detach()\nreturn (0.5 * (x_t - (x_t - G).detach())**2).sum(1).mean()",
        "injected at x_t",
    ),
    ("Q20.3", _step("x.sum()"), "must be the mean over the batch"),
    ("Q20.4", "return (z - sigma * output) / alpha", "this is the formula for ε"),
    ("Q20.4", "return alpha * z - sigma * output", "this is the formula for v"),
    (
        "Q20.4",
        "return (z - sigma * output) if predicts == 'eps' else alpha * z - sigma * output",
        "the division by α is missing",
    ),
    (
        "Q20.4",
        "return (z - sigma * output) / alpha if predicts == 'eps' else z - output",
        "a flow model",
    ),
    (
        "Q20.4",
        "return (z - sigma * output) / alpha if predicts == 'eps' else alpha * z + sigma * "
        "output",
        "the sign is wrong",
    ),
    (
        "Q20.4",
        "return (z - output) / alpha if predicts == 'eps' else alpha * z - sigma * output",
        "without its σ",
    ),
    (
        "Q20.4",
        "return (z - sigma * output) / alpha if predicts == 'eps' else sigma * z + alpha * "
        "output",
        "interchanged",
    ),
    (
        "Q20.4",
        "return (z - sigma * output) / alpha if predicts == 'eps' else (alpha * z - output) / "
        "sigma",
        "ε is taken for z",
    ),
    ("Q20.5", _lora("1"), "the scale a/r is missing"),
    ("Q20.5", _lora("a"), "the scale is a: it is a/r"),
    ("Q20.5", _lora("len(A) / a"), "the scale is r/a"),
    ("Q20.5", _lora("1 / len(A)"), "a is missing"),
    ("Q20.5", _lora("a / A.shape[1]"), "r is A's first axis"),
    ("Q20.5", _lora("a / len(B)"), "r is B's second axis"),
    ("Q20.5", _lora("-a / len(A)"), "the adapter is subtracted"),
    (
        "Q20.5",
        "return x @ weight.T + bias + a / len(A) * (x @ A.T) @ B.T",
        "got 1 array, wanted 2",
    ),
    ("Q20.5", _lora("a / len(A)**0.5"), "rank-stabilised"),
    (
        "Q20.5",
        "scale = a / len(A)\nreturn x @ weight.T + bias + scale * x @ A.T @ B.T, scale * B @ A",
        "the adapter stands alone",
    ),
    (
        "Q20.5",
        "scale = a / len(A)\nreturn x @ weight.T + scale * x @ A.T @ B.T, weight + scale * B @ A",
        "the bias is missing",
    ),
    (
        "Q20.5",
        "scale = a / len(A)\ny = x @ weight.T + bias\nreturn y + scale * x @ A.T @ B.T + bias, "
        "weight + scale * B @ A",
        "the bias is added twice",
    ),
    (
        "Q20.5",
        "scale = a / len(A)\nreturn x @ weight.T + bias + scale * x @ A.T @ B.T, (weight + "
        "scale * B @ A).T",
        "has shape",
    ),
]
COURSE = Course("20", HEADS, OTHERWISE, WRONG)
