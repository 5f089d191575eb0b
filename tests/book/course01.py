"""Assignment 01's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q01.1": "mixture_score(x, weights, means, stds)",
    "Q01.2": "denoise(x, sigma, weights, means, stds)",
    "Q01.3": "implicit_loss(score, x)",
    "Q01.4": "denoising_loss(score, x0, z, sigma)",
    "Q01.5": "langevin_chain(score, x, eta, noise)",
}
_SCORE = """
def score(x, weights, means, stds):
    away = means[None] - x[:, None]
    log_joint = torch.log(weights) - (away**2).sum(-1) / (2 * stds**2) - x.shape[1] * torch.log(stds)
    r = torch.exp(log_joint - torch.logsumexp(log_joint, 1, keepdim=True))
    return torch.einsum("bk,bkd->bd", r / stds**2, away)
"""
_AUTOGRAD = """
def log_p(x, weights, means, stds):
    away = means[None] - x[:, None]
    return torch.logsumexp(torch.log(weights) - (away**2).sum(-1) / (2 * stds**2) - x.shape[1] * torch.log(stds), 1)
x = x.clone().requires_grad_()
"""
_POSTERIOR = """
v = stds**2 + sigma**2
r = torch.softmax(torch.log(weights) - torch.cdist(x, means)**2 / (2 * v) - x.shape[1] / 2 * torch.log(v), 1)
"""
_COLUMNS = """
x = x.clone().requires_grad_()
s = score(x)
trace = sum(torch.autograd.grad(s[:, i].sum(), x, {keep})[0][:, i] for i in range(x.shape[1]))
return {value}
"""


def _score(
    old: str = "", new: str = "", then: str = "return score(x, weights, means, stds)"
) -> str:
    assert old in _SCORE
    return _SCORE.replace(old, new) + then if old else _SCORE + then


def _columns(value: str = "(s**2).sum(1) / 2 + trace", keep: str = "create_graph=True") -> str:
    return _COLUMNS.format(value=value, keep=keep)


OTHERWISE = {
    "Q01.1": _score(),
    "Q01.2": _POSTERIOR
    + """
shrink = stds**2 / v                                   # E[x₀ | x, k] = μ_k + shrink (x − μ_k)
each = means + shrink[:, None] * (x[:, None] - means)
return (r[:, :, None] * each).sum(1)""",
    "Q01.3": """
rows = []
for row in x:
    J = torch.autograd.functional.jacobian(lambda y: score(y[None])[0], row, create_graph=True)
    rows.append(score(row[None]).pow(2).sum() / 2 + J.trace())
return torch.stack(rows)""",
    "Q01.4": "s = score(x0 + sigma * z)\nreturn 0.5 * torch.linalg.vector_norm(s - (x0 - (x0 + "
    "sigma * z)) / sigma**2, dim=1) ** 2",
    "Q01.5": "for k in range(len(noise)):\n    x = x + eta * (score(x) + (2 / eta) ** 0.5 * "
    "noise[k])\nreturn x",
}
WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    (
        "Q01.1",
        "d = means - x[:, None]\np = weights * torch.exp(-(d**2).sum(2) / (2 * stds**2)) / "
        "stds ** x.shape[1]\nr = p / p.sum(1, keepdim=True)\nreturn (r[:, :, None] * d / "
        "stds[:, None]**2).sum(1)",
        "right among the modes",
    ),
    (
        "Q01.1",
        "d = means - x[:, None]\np = weights * torch.exp(-(d**2).sum(2) / (2 * stds**2)) / "
        "stds ** x.shape[1]\nr = p / (p.sum(1, keepdim=True) + 1e-30)\nreturn (r[:, :, None] * "
        "d / stds[:, None]**2).sum(1)",
        "right among the modes",
    ),
    ("Q01.1", _score(then="return -score(x, weights, means, stds)"), "the sign is wrong"),
    ("Q01.1", _score("r / stds**2", "r / stds"), "S_k instead of S_k²"),
    ("Q01.1", _score("r / stds**2", "r"), "not divided by S_k²"),
    (
        "Q01.1",
        _score("r / stds**2", "weights.expand_as(r) / stds**2"),
        "averaged with their weights",
    ),
    ("Q01.1", _score("torch.log(weights) - ", "-"), "lack the weights"),
    ("Q01.1", _score(" - x.shape[1] * torch.log(stds)", ""), "lack the Gaussians' normaliser"),
    ("Q01.1", _score("x.shape[1] * ", ""), "in d dimensions it is"),
    (
        "Q01.1",
        _score(
            "torch.exp(log_joint - torch.logsumexp(log_joint, 1, keepdim=True))",
            "torch.nn.functional.one_hot(log_joint.argmax(1), len(weights))",
        ),
        "only the likeliest",
    ),
    (
        "Q01.1",
        _score(
            "r = torch.exp(log_joint - torch.logsumexp(log_joint, 1, keepdim=True))",
            "r = torch.exp(log_joint) / (2 * math.pi) ** (x.shape[1] / 2)",
        ),
        "this is ∇p",
    ),
    ("Q01.1", _score(then="return score(x, weights, means, stds)[0]"), "has shape"),
    ("Q01.1", "stds = stds.sqrt()\n" + _score(), "stds is taken for the variances"),
    ("Q01.1", _score(" / (2 * stds**2)", " / stds**2"), "the ½ in the exponent"),
    ("Q01.1", _score("log_joint, 1, keepdim", "log_joint, 0, keepdim"), "runs over the points"),
    (
        "Q01.1",
        _AUTOGRAD + "return torch.autograd.grad(log_p(x, weights, means, stds).sum(), x)[0]",
        "needs autograd",
    ),
    (
        "Q01.1",
        _AUTOGRAD
        + "return torch.autograd.functional.jacobian(lambda y: log_p(y, weights, means, "
        "stds).sum(), x)",
        "needs autograd",
    ),
    (
        "Q01.1",
        "with torch.enable_grad():\n"
        + "".join(f"    {line}\n" for line in _AUTOGRAD.strip().splitlines())
        + "    log_p(x, weights, means, stds).sum().backward()\nreturn x.grad",
        "needs autograd",
    ),
    (
        "Q01.2",
        _score(then="return x + sigma**2 * score(x, weights, means, stds**2 + sigma**2)"),
        "take its root",
    ),
    (
        "Q01.2",
        _score(then="return x + sigma**2 * score(x, weights, means, (stds + sigma**2) ** 0.5)"),
        "stds is taken for the variances",
    ),
    (
        "Q01.2",
        _score(then="return x + sigma**2 * score(x, weights, means, stds)"),
        "that of p, not of p_σ",
    ),
    (
        "Q01.2",
        _score(then="return x + sigma**2 * score(x, weights, means, stds + sigma)"),
        "variances add",
    ),
    (
        "Q01.2",
        _score(then="return x + sigma * score(x, weights, means, (stds**2 + sigma**2) ** 0.5)"),
        "σ instead of σ²",
    ),
    (
        "Q01.2",
        _score(
            then="return x - sigma**2 * score(x, weights, means, (stds**2 + sigma**2) ** 0.5)"
        ),
        "has a plus",
    ),
    ("Q01.2", _POSTERIOR + "return r @ means", "is not μ_k"),
    (
        "Q01.2",
        _score(then="return score(x, weights, means, (stds**2 + sigma**2) ** 0.5)"),
        "this is the score",
    ),
    ("Q01.3", _columns("(s**2).sum(1) / 2 - trace"), "wrong sign"),
    ("Q01.3", _columns("(s**2).sum(1) + trace"), "½ in front"),
    (
        "Q01.3",
        _columns("(s**2).mean(1) / 2 + trace / x.shape[1]"),
        "average over the coordinates",
    ),
    ("Q01.3", _columns("s.norm(dim=1) / 2 + trace"), "not squared"),
    (
        "Q01.3",
        "x = x.clone().requires_grad_()\ns = score(x)\ng = torch.autograd.grad(s.sum(), x, "
        "create_graph=True)[0]\nreturn (s**2).sum(1) / 2 + g.sum(1)",
        "all entries of the Jacobian",
    ),
    (
        "Q01.3",
        _columns(keep="retain_graph=True"),
        "cannot train a network: their gradient in its weights is not. Autograd does not see "
        "the trace",
    ),
    ("Q01.3", _columns("(s.detach()**2).sum(1) / 2 + trace"), "does not see ½‖s‖²"),
    ("Q01.3", _columns("((s**2).sum(1) / 2 + trace).detach()"), "sees nothing of them"),
    (
        "Q01.4",
        "with torch.no_grad():\n    return ((score(x0 + sigma * z) + z / sigma) ** 2).sum(1) / 2",
        "cannot train a network: their gradient in its weights is not. Autograd sees nothing",
    ),
    (
        "Q01.4",
        "return ((score(x0 + sigma * z).detach() + z / sigma) ** 2).sum(1) / 2",
        "sees nothing of them",
    ),
    ("Q01.4", "return (score(x0 + sigma * z) + z / sigma).norm(dim=1) / 2", "not squared"),
    ("Q01.3", _columns("((s**2).sum(1) / 2 + trace).mean()"), "has shape ()"),
    ("Q01.4", "return ((score(x0 + sigma * z) - z / sigma) ** 2).sum(1) / 2", "wrong sign"),
    ("Q01.4", "return ((score(x0 + sigma * z) + z) ** 2).sum(1) / 2", "division by σ is missing"),
    ("Q01.4", "return ((score(x0) + z / sigma) ** 2).sum(1) / 2", "asked at x₀"),
    ("Q01.4", "return ((score(x0 + sigma * z) + z / sigma) ** 2).sum(1)", "the ½ is missing"),
    ("Q01.4", "return ((sigma * score(x0 + sigma * z) + z) ** 2).sum(1) / 2", "weight σ²"),
    (
        "Q01.5",
        "for z in noise:\n    x = x + eta / 2 * score(x) + eta**0.5 * z\nreturn x",
        "NCSN's convention",
    ),
    (
        "Q01.5",
        "for z in noise:\n    x = x + eta * score(x) + 2**0.5 * eta * z\nreturn x",
        "factor √2·η",
    ),
    (
        "Q01.5",
        "for z in noise:\n    x = x + eta * score(x) + (2 * eta)**0.5 * z\n    return x",
        "inside the loop",
    ),
    (
        "Q01.5",
        "for k, z in enumerate(noise):\n    x = x + eta * score(x)\n    if k < len(noise) - "
        "1:\n        x = x + (2 * eta)**0.5 * z\nreturn x",
        "last step is left out",
    ),
    (
        "Q01.5",
        "for z in noise:\n    x = x + eta * score(x) + eta**0.5 * z\nreturn x",
        "factor √η",
    ),
    (
        "Q01.5",
        "for z in noise:\n    x = x + eta / 2 * score(x) + (2 * eta)**0.5 * z\nreturn x",
        "factor η/2",
    ),
    (
        "Q01.5",
        "for z in noise:\n    x = x - eta * score(x) + (2 * eta)**0.5 * z\nreturn x",
        "walks downhill",
    ),
    (
        "Q01.5",
        "s = score(x)\nfor z in noise:\n    x = x + eta * s + (2 * eta)**0.5 * z\nreturn x",
        "asked once",
    ),
    (
        "Q01.5",
        "for z in noise:\n    x = x + (2 * eta)**0.5 * z\n    x = x + eta * score(x)\nreturn x",
        "before the score is asked",
    ),
    ("Q01.5", "for z in noise:\n    x = x + eta * score(x)\nreturn x", "noise is missing"),
]
COURSE = Course("01", HEADS, OTHERWISE, WRONG)
