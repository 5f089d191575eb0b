"""Assignment 07's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q07.1": "eps_weights(alpha_s, sigma_s, alpha_t, sigma_t)",
    "Q07.2": "data_weights(alpha_s, sigma_s, alpha_t, sigma_t)",
    "Q07.3": "ddim_sample(model, x, levels)",
    "Q07.4": "gaussian_flow(x, mean, c, alpha_s, sigma_s, alpha_t, sigma_t)",
    "Q07.5": "best_grid(lam_start, lam_end, c, n)",
}
OTHERWISE = {
    "Q07.1": "h = torch.log(alpha_t / sigma_t) - torch.log(alpha_s / sigma_s)\nreturn alpha_t "
    "/ alpha_s, -sigma_t * torch.expm1(h)",
    "Q07.2": "h = torch.log(alpha_t * sigma_s / (sigma_t * alpha_s))\nreturn sigma_t / "
    "sigma_s, alpha_t * (1 - torch.exp(-h))",
    "Q07.3": """
y = x / levels[0].alpha
for a, b in zip(levels, levels[1:]):
    y = y + (b.sigma / b.alpha - a.sigma / a.alpha) * model(a.alpha * y, a).eps
return y * levels[-1].alpha""",
    "Q07.4": """
spread = lambda al, si: math.sqrt(al**2 * c**2 + si**2)
z = (x - alpha_s * mean) / spread(alpha_s, sigma_s)
return alpha_t * mean + spread(alpha_t, sigma_t) * z""",
    "Q07.5": """
a, b = (math.atan(math.exp(-lam) / c) for lam in (lam_start, lam_end))
return torch.tensor([-math.log(c * math.tan(a + (b - a) * k / n)) for k in range(n + 1)], dtype=torch.float64)""",
}
_H = "h = torch.log(alpha_t * sigma_s / (sigma_t * alpha_s))\n"
_ANGLES = (
    "a, b = (math.atan(math.exp(-lam) / c) for lam in (lam_start, lam_end))\nphi = "
    "torch.linspace(a, b, n + 1{})\nreturn {}"
)
_STEPS = "for a, b in zip(levels, levels[1:]):\n    p = model(x, a)\n    x = {}\nreturn x"

WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    (
        "Q07.1",
        "return sigma_t / sigma_s, sigma_t - sigma_s * alpha_t / alpha_s",
        "the factor of the data form",
    ),
    ("Q07.1", "return alpha_t / alpha_s, sigma_t - sigma_s", "multiplied by α_t, not by α_s"),
    (
        "Q07.1",
        "return alpha_t / alpha_s, sigma_s * alpha_t / alpha_s - sigma_t",
        "the sign is wrong",
    ),
    (
        "Q07.1",
        "return alpha_t / alpha_s, sigma_t / alpha_t - sigma_s / alpha_s",
        "α_t in front of the integral is missing",
    ),
    (
        "Q07.1",
        "return alpha_t / alpha_s, torch.zeros_like(alpha_s)",
        "only the exponential is left to integrate",
    ),
    ("Q07.1", _H + "return alpha_t / alpha_s, -sigma_t * torch.expm1(-h)", "this has e^{−h}"),
    (
        "Q07.1",
        _H + "return alpha_t / alpha_s, -sigma_t * torch.exp(h)",
        "the lower end of the integral is missing",
    ),
    (
        "Q07.1",
        _H + "return alpha_t / alpha_s, -alpha_t * torch.expm1(h)",
        "α_t stands where σ_t belongs",
    ),
    (
        "Q07.1",
        _H + "return alpha_t / alpha_s, -sigma_s * torch.expm1(h)",
        "σ_s stands where σ_t belongs",
    ),
    ("Q07.1", _H + "return alpha_t / alpha_s, -sigma_t * h", "e^{−λ} is not constant"),
    ("Q07.1", "return alpha_t, sigma_t", "x stands in the place of x₀"),
    (
        "Q07.1",
        "return alpha_t / alpha_s - 1, sigma_t - alpha_t * sigma_s / alpha_s",
        "it stands in front of x_s",
    ),
    (
        "Q07.2",
        "return alpha_t / alpha_s, alpha_t - alpha_s * sigma_t / sigma_s",
        "the factor of the ε form",
    ),
    ("Q07.2", "return sigma_t / sigma_s, alpha_t - alpha_s", "multiplied by σ_t, not by σ_s"),
    (
        "Q07.2",
        "h = torch.log(alpha_t * sigma_s / (sigma_t * alpha_s))\nreturn sigma_t / sigma_s, 1 - "
        "torch.exp(-h)",
        "the factor α_t is missing",
    ),
    (
        "Q07.2",
        "return sigma_t / sigma_s, alpha_s * sigma_t / sigma_s - alpha_t",
        "the sign is wrong",
    ),
    ("Q07.2", _H + "return sigma_t / sigma_s, alpha_t * torch.expm1(h)", "this has e^h"),
    (
        "Q07.2",
        _H + "return sigma_t / sigma_s, -sigma_t * torch.expm1(-h)",
        "σ_t stands where α_t belongs",
    ),
    ("Q07.2", _H + "return sigma_t / sigma_s, alpha_t * h", "e^λ is not constant"),
    ("Q07.2", "return sigma_t, alpha_t", "x stands in the place of ε"),
    ("Q07.3", _STEPS.format("x + (b.t - a.t) * p.velocity"), "Euler's rule in t"),
    (
        "Q07.3",
        _STEPS.format("x + (b.sigma - a.sigma * b.alpha / a.alpha) * p.eps"),
        "x keeps its size",
    ),
    ("Q07.3", _STEPS.format("b.alpha * p.x0 - b.sigma * p.eps"), "wrong sign"),
    ("Q07.3", _STEPS.format("b.alpha * p.x0 + a.sigma * p.eps"), "not by σ_a"),
    ("Q07.3", _STEPS.format("p.x0 + b.sigma * p.eps"), "x₀ lacks its factor"),
    (
        "Q07.3",
        _STEPS.format("b.alpha / a.alpha * x - b.sigma * math.expm1(a.lam - b.lam) * p.eps"),
        "e^{−h} stands where e^h belongs",
    ),
    (
        "Q07.3",
        _STEPS.format("b.alpha * p.x0 + b.sigma * p.eps").replace(
            "return x", "return model(x, levels[-1]).x0"
        ),
        "one step too many",
    ),
    (
        "Q07.3",
        "for a, b in zip(levels, levels[1:]):\n    p = model(x, b)\n    x = b.alpha * p.x0 + "
        "b.sigma * p.eps\nreturn x",
        "asked at the level to come",
    ),
    (
        "Q07.3",
        "for a, b in zip(levels[:-1], levels[1:-1]):\n    p = model(x, a)\n    x = b.alpha * "
        "p.x0 + b.sigma * p.eps\nreturn x",
        "the last step is missing",
    ),
    (
        "Q07.3",
        "for a, b in zip(levels, levels[1:]):\n    x = b.alpha * model(x, a).x0 + b.sigma * "
        "model(x, a).eps\nreturn x",
        "with 14 network calls for 7 steps",
    ),
    (
        "Q07.4",
        "v = lambda al, si: (al * c) ** 2 + si**2\nreturn alpha_t * mean + v(alpha_t, sigma_t) "
        "/ v(alpha_s, sigma_s) * (x - alpha_s * mean)",
        "the width goes with the root",
    ),
    (
        "Q07.4",
        "v = lambda al, si: (al * c) ** 2 + si**2\nreturn (v(alpha_t, sigma_t) / v(alpha_s, "
        "sigma_s)) ** 0.5 * x",
        "the mean is left behind",
    ),
    (
        "Q07.4",
        "v = lambda al, si: (al * c) ** 2 + si**2\nreturn mean + (v(alpha_t, sigma_t) / "
        "v(alpha_s, sigma_s)) ** 0.5 * (x - mean)",
        "does not move with α",
    ),
    (
        "Q07.4",
        "x0 = mean + alpha_s * c**2 / ((alpha_s * c) ** 2 + sigma_s**2) * (x - alpha_s * "
        "mean)\nreturn alpha_t * x0 + sigma_t / sigma_s * (x - alpha_s * x0)",
        "one DDIM step",
    ),
    (
        "Q07.4",
        "v = lambda al, si: (al * c) ** 2 + si**2\nreturn alpha_t * mean + (v(alpha_t, "
        "sigma_t) / v(alpha_s, sigma_s)) ** 0.5 * (x - mean)",
        "without its factor α_s",
    ),
    ("Q07.4", "return alpha_t * mean + sigma_t / sigma_s * (x - alpha_s * mean)", "c is missing"),
    (
        "Q07.4",
        "return alpha_t * mean + (alpha_t * c + sigma_t) / (alpha_s * c + sigma_s) * (x - "
        "alpha_s * mean)",
        "add as squares",
    ),
    ("Q07.4", "return alpha_t / alpha_s * x", "as if there were no noise"),
    ("Q07.5", _ANGLES.format("", "-(c * phi.tan()).log()"), "rounding of float32"),
    (
        "Q07.5",
        _ANGLES.format(", dtype=torch.float64", "-phi.tan().log()"),
        "c is forgotten on the way back",
    ),
    ("Q07.5", _ANGLES.format(", dtype=torch.float64", "phi"), "these are φ"),
    (
        "Q07.5",
        _ANGLES.format(", dtype=torch.float64", "-(c * phi.tan() ** 2).log()").replace(
            "math.exp(-lam) / c", "(math.exp(-lam) / c) ** 0.5"
        ),
        "the angle has no root",
    ),
    (
        "Q07.5",
        "return torch.linspace(lam_start, lam_end, n + 1, dtype=torch.float64)",
        "uniform in λ",
    ),
    (
        "Q07.5",
        "a, b = math.atan(math.exp(-lam_start)), math.atan(math.exp(-lam_end))\nreturn "
        "-torch.linspace(a, b, n + 1, dtype=torch.float64).tan().log()",
        "measured against c",
    ),
    (
        "Q07.5",
        "a, b = math.exp(-lam_start), math.exp(-lam_end)\nreturn -torch.linspace(a, b, n + 1, "
        "dtype=torch.float64).log()",
        "uniform in κ",
    ),
    (
        "Q07.5",
        "return torch.linspace(lam_start, lam_end - 1, n + 1, dtype=torch.float64)",
        "the grid runs from",
    ),
]
COURSE = Course("07", HEADS, OTHERWISE, WRONG)
