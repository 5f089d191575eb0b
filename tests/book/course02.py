"""Assignment 02's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q02.1": "geometric(top, low, n)",
    "Q02.2": "level_loss(score, x0, z, sigma)",
    "Q02.3": "langevin_variance(start, v, eta, n)",
    "Q02.4": "annealed(score, x, sigmas, epsilon, noise)",
    "Q02.5": "choose_ladder(apart, width, calls)",
}
_LOSS = "s = sigma[:, None]\nreturn {value}"
_CHAIN = """
last = sigmas[-1]
for sigma, normals in zip(sigmas, noise):
    eta = epsilon * (sigma / last)**2
    for z in normals:
        x = x + eta * score(x, sigma) + (2 * eta)**0.5 * z
return x + last**2 * score(x, last)
"""
_CHOICE = (
    "sigmas = torch.logspace(math.log10(apart), math.log10(width / 10), 30)\nreturn "
    "sigmas, calls // 30"
)


def _loss(value: str) -> str:
    return _LOSS.format(value=value)


def _swap(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def _chain(old: str, new: str) -> str:
    return _swap(_CHAIN, old, new)


def _choice(old: str, new: str) -> str:
    return _swap(_CHOICE, old, new)


OTHERWISE = {
    "Q02.1": "gamma = (top / low) ** (1 / (n - 1))\nreturn torch.tensor([low * gamma**k for k "
    "in reversed(range(n))], dtype=torch.float64)",
    "Q02.2": _loss(
        "0.5 * sigma**2 * (score(x0 + s * z, sigma) - (x0 - (x0 + s * z)) / s**2).pow(2).sum(1)"
    ),
    "Q02.3": "a = (1 - eta / v) ** (2 * n)\nfixed = 2 * eta / (1 - (1 - eta / v)**2)\nreturn a "
    "* start + (1 - a) * fixed, fixed",
    "Q02.4": _CHAIN,
    "Q02.5": _CHOICE,
}
WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    ("Q02.1", "return torch.linspace(top, low, n)", "evenly spaced"),
    (
        "Q02.1",
        "return top * (low / top) ** (torch.arange(n, dtype=torch.float64) / n)",
        "n − 1 steps",
    ),
    (
        "Q02.1",
        "return low * (top / low) ** (torch.arange(n, dtype=torch.float64) / (n - 1))",
        "from data to noise",
    ),
    (
        "Q02.1",
        "return torch.linspace(math.log(top), math.log(low), n, dtype=torch.float64)",
        "logarithms",
    ),
    (
        "Q02.1",
        "return top * (low / top) ** (torch.arange(1, n + 1, dtype=torch.float64) / (n - 1))",
        "first level is missing",
    ),
    (
        "Q02.1",
        "return torch.logspace(math.log10(top), math.log10(low), n + 1, dtype=torch.float64)",
        "has shape",
    ),
    (
        "Q02.2",
        _loss("0.5 * (score(x0 + s * z, sigma) + z / s).pow(2).sum(1)"),
        "weight σ² is missing",
    ),
    ("Q02.2", _loss("(s * score(x0 + s * z, sigma) + z).pow(2).sum(1)"), "the ½ is missing"),
    ("Q02.2", _loss("0.5 * (s * score(x0 + s * z, sigma) - z).pow(2).sum(1)"), "wrong sign"),
    ("Q02.2", _loss("0.5 * (s * score(x0, sigma) + z).pow(2).sum(1)"), "asked at x₀"),
    ("Q02.2", _loss("0.5 * (score(x0 + s * z, sigma) + z).pow(2).sum(1)"), "not multiplied by σ"),
    (
        "Q02.2",
        _loss("0.5 * sigma * (score(x0 + s * z, sigma) + z / s).pow(2).sum(1)"),
        "the weight is σ:",
    ),
    (
        "Q02.2",
        _loss("0.5 * (s * score(x0 + s * z, sigma) + z).pow(2).mean(1)"),
        "average over the coordinates",
    ),
    (
        "Q02.2",
        _loss("0.5 * (s * score(x0 + s * z, sigma).detach() + z).pow(2).sum(1)"),
        "cannot train a network",
    ),
    (
        "Q02.2",
        _loss("(0.5 * (s * score(x0 + s * z, sigma) + z).pow(2).sum(1)).mean()"),
        "has shape ()",
    ),
    ("Q02.2", _loss("0.5 * (s * score(x0 + s**2 * z, sigma) + z).pow(2).sum(1)"), "added as σ²z"),
    (
        "Q02.2",
        _loss("0.5 * sigma**2 * (score(x0 + s * z, sigma) + s * z).pow(2).sum(1)"),
        "σz stands where",
    ),
    (
        "Q02.2",
        _loss("0.5 * sigma**2 * (score(x0 + s * z, sigma) + z / s).norm(dim=1)"),
        "not squared",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v) * V + 2 * eta\nreturn V, v / (1 "
        "- eta / (2 * v))",
        "not squared",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v)**2 * V + (2 * eta)**0.5\nreturn "
        "V, v / (1 - eta / (2 * v))",
        "not its standard deviation",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v)**2 * V + 2 * eta\nreturn V, v",
        "this is v itself",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v)**2 * V + 2 * eta\nreturn V, v / "
        "(1 - eta / v)",
        "the ½ is missing",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v)**2 * V + 2 * eta\nreturn V, V",
        "does not depend on n",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v)**2 * V + eta\nreturn V, v / (1 - "
        "eta / (2 * v))",
        "2η, not η",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n - 1):\n    V = (1 - eta / v)**2 * V + 2 * eta\nreturn V, "
        "v / (1 - eta / (2 * v))",
        "too few",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v)**2 * V + 2 * eta\nreturn V, 2 * "
        "eta / (1 - (1 - eta / v))",
        "not squared",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v)**2 * V + 2 * eta\nreturn V**0.5, "
        "v / (1 - eta / (2 * v))",
        "the standard deviation",
    ),
    (
        "Q02.3",
        "V = start\nfor _ in range(n):\n    V = (1 - eta / v)**2 * V + 2 * eta\nreturn V",
        "has shape ()",
    ),
    ("Q02.4", _chain("(sigma / last)**2", "sigma**2"), "division by σ_L²"),
    ("Q02.4", _chain("(sigma / last)**2", "(sigma / last)"), "not with σ_i/σ_L"),
    ("Q02.4", _chain("epsilon * (sigma / last)**2", "epsilon"), "same step ε"),
    ("Q02.4", _chain("(sigma / last)**2", "(last / sigma)**2"), "upside down"),
    ("Q02.4", _chain("(2 * eta)**0.5", "eta**0.5"), "factor √η"),
    ("Q02.4", _chain(" + (2 * eta)**0.5 * z", ""), "noise is missing"),
    ("Q02.4", _chain("eta * score(x, sigma)", "eta * score(x, last)"), "always asked at σ_L"),
    ("Q02.4", _chain("x + last**2 * score(x, last)", "x"), "last denoising is missing"),
    ("Q02.4", _chain("x + last**2", "x - last**2"), "last denoising has the wrong sign"),
    ("Q02.4", _chain("x + last**2", "x + last"), "σ_L where σ_L² belongs"),
    ("Q02.4", _chain("in normals:", "in normals[:1]:"), "one step a level"),
    ("Q02.4", _chain("(2 * eta)**0.5", "(2 * epsilon)**0.5"), "√(2ε) at every level"),
    ("Q02.4", _chain("x + eta * score", "x - eta * score"), "the score is subtracted"),
    (
        "Q02.4",
        _chain(
            "return x + last**2 * score(x, last)",
            "    x = x + sigma**2 * score(x, sigma)\nreturn x",
        ),
        "after every level",
    ),
    ("Q02.5", _choice("math.log10(apart)", "math.log10(width)"), "first level is too low"),
    ("Q02.5", "return torch.tensor([apart, width / 10]), calls // 2", "too far apart"),
    ("Q02.5", _choice("calls // 30", "1"), "unused"),
    ("Q02.5", _choice("calls // 30", "calls"), "allowed are"),
    ("Q02.5", _choice("width / 10", "width"), "blurred data"),
    ("Q02.5", _choice("return sigmas", "return sigmas.flip(0)"), "must fall"),
    ("Q02.5", _choice("calls // 30", "calls / 30.5"), "whole number"),
    ("Q02.5", _choice("return sigmas, calls // 30", "return sigmas"), "wanted 2"),
]
COURSE = Course("02", HEADS, OTHERWISE, WRONG)
