"""Assignment 08's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q08.1": "phis(h)",
    "Q08.2": "ddim_step(model, x, a, b)",
    "Q08.3": "midpoint_step(model, x, a, b)",
    "Q08.4": "two_m_step(model, x, a, b, memory)",
    "Q08.5": "slope_and_curvature(lam, f)",
}
OTHERWISE = {
    "Q08.1": """
big = h.abs() > 0.5
one, two, term = torch.zeros_like(h), torch.zeros_like(h), torch.ones_like(h)
for n in range(18):
    one, two, term = one + term / math.factorial(n + 1), two + term / math.factorial(n + 2), term * h
H = torch.where(big, h, 1.0)
return torch.where(big, torch.expm1(H) / H, one), torch.where(big, (torch.expm1(H) - H) / H**2, two)""",
    "Q08.2": "eps = model(x, a).eps\nreturn b.alpha / a.alpha * (x - a.sigma * eps) + b.sigma "
    "* eps",
    "Q08.3": """
k = lambda l: l.sigma / l.alpha
e = model(x, a).eps
y = x / a.alpha + (k(b) - k(a)) * e
e2 = model(y * b.alpha, b).eps
return b.alpha * (x / a.alpha + (k(b) - k(a)) * (e + e2) / 2)""",
    "Q08.4": """
p = model(x, a)
memory = (memory or []) + [(a, p.x0)]
D = p.x0
if len(memory) > 1:
    (l0, d0), (l1, d1) = memory[-2:]
    D = d1 + (b.lam - a.lam) / (l1.lam - l0.lam) / 2 * (d1 - d0)
return x * (b.sigma / a.sigma) + b.alpha * (1 - math.exp(a.lam - b.lam)) * D, memory""",
    "Q08.5": """
d = lam - lam[0]
A = torch.stack([torch.ones_like(d), d, d**2 / 2], 1)
c = torch.linalg.solve(A, f)
return c[1], c[2]""",
}
_MID = (
    "mid = model.schedule.at_lam((a.lam + b.lam) / 2)\nddim = lambda x, e, s, t: t.alpha / "
    "s.alpha * (x - s.sigma * e) + t.sigma * e\n"
)
_2M = """p, h = model(x, a), b.lam - a.lam
D = p.x0
if memory is not None:
    D = D + {gain} * (D - memory[1])
return b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * D, {keep}"""
_NEWTON = (
    "d1, d0 = (f[0] - f[1]) / (lam[0] - lam[1]), (f[1] - f[2]) / (lam[1] - lam[2])\nd2 = "
    "(d1 - d0) / (lam[0] - lam[2])\n"
)


def _two_m(gain="h / (2 * (a.lam - memory[0]))", keep="(a.lam, p.x0)"):
    return _2M.format(gain=gain, keep=keep)


WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    ("Q08.1", "p = (torch.exp(h) - 1) / h\nreturn p, (p - 1) / h", "h = 0 gives nan"),
    (
        "Q08.1",
        "H = torch.where(h == 0, 1e-15, h)\np = (torch.exp(H) - 1) / H\nreturn p, (p - 1) / H",
        "cancels",
    ),
    (
        "Q08.1",
        "s = h.abs() < 0.3\nH = torch.where(s, 1.0, h)\np = torch.expm1(H) / H\nreturn "
        "torch.where(s, 1 + h / 2 + h**2 / 6, p), torch.where(s, 0.5 + h / 6, (p - 1) / H)",
        "too few terms",
    ),
    (
        "Q08.1",
        "s = h.abs() < 1e-12\nH = torch.where(s, 1.0, h)\np = torch.expm1(H) / H\nreturn "
        "torch.where(s, 1.0, p), torch.where(s, 0.5, (p - 1) / H)",
        "ϕ₂: relative error",
    ),
    ("Q08.1", "h = -h\n" + OTHERWISE["Q08.1"].strip(), "you have ϕ₁(−h)"),
    ("Q08.2", "p = model(x, b)\nreturn b.alpha * p.x0 + b.sigma * p.eps", "asked at level b"),
    ("Q08.2", "return x + (b.sigma - a.sigma) * model(x, a).eps", "x keeps its size"),
    ("Q08.2", "return b.alpha * model(x, a).x0 - b.sigma * model(x, a).eps", "wrong sign"),
    ("Q08.2", "return model(x, a).x0", "this is x₀"),
    (
        "Q08.2",
        "return b.alpha * model(x, a).x0 + b.sigma * model(x, a).eps",
        "with 2 network calls",
    ),
    ("Q08.3", "p = model(x, a)\nreturn b.alpha * p.x0 + b.sigma * p.eps", "this is DDIM"),
    (
        "Q08.3",
        "from dlib import vp\n"
        + _MID.replace("model.schedule", "vp()")
        + "u = ddim(x, model(x, a).eps, a, mid)\nreturn ddim(x, model(u, mid).eps, a, b)",
        "one of model.schedule",
    ),
    ("Q08.3", _MID + "e = model(x, mid).eps\nreturn ddim(x, e, a, b)", "at the old x"),
    (
        "Q08.3",
        _MID + "u = ddim(x, model(x, a).eps, a, mid)\nreturn ddim(u, model(u, mid).eps, mid, b)",
        "two DDIM steps",
    ),
    (
        "Q08.3",
        _MID + "u = ddim(x, model(x, a).eps, a, mid)\nreturn ddim(x, model(u, a).eps, a, b)",
        "told that u is at level a",
    ),
    (
        "Q08.3",
        _MID + "u = ddim(x, model(x, a).eps, a, mid)\nreturn ddim(x, (model(x, a).eps + model(u, "
        "mid).eps) / 2, a, b)",
        "averaged",
    ),
    (
        "Q08.3",
        _MID + "u = ddim(x, model(x, a).eps, a, mid)\nv = ddim(u, model(u, mid).eps, mid, "
        "b)\nreturn 2 * v - ddim(x, model(x, a).eps, a, b)",
        "with 3 network calls",
    ),
    ("Q08.4", "p = model(x, a)\nreturn b.alpha * p.x0 + b.sigma * p.eps, None", "this is DDIM"),
    ("Q08.4", _two_m(gain="(a.lam - memory[0]) / (2 * h)"), "the ratio is h₀/h"),
    (
        "Q08.4",
        _two_m(gain="(a.lam - memory[0]) / (2 * h)"),
        "take turns here and their errors cancel",
    ),
    (
        "Q08.4",
        _two_m(gain="h / (h + a.lam - memory[0])"),
        "extrapolated to the middle of the step, by h/2h₀",
    ),
    (
        "Q08.4",
        _two_m().replace("b.sigma / a.sigma * x", "b.alpha / a.alpha * x"),
        "for constant x₀ moves x/σ",
    ),
    ("Q08.4", _two_m(gain="0.5"), "right only for equal steps"),
    ("Q08.4", _two_m(gain="h / (a.lam - memory[0])"), "half of h/h₀"),
    ("Q08.4", _two_m(keep="(a.lam, x)"), "the memory holds x"),
    ("Q08.4", _two_m(keep="(a.lam, p.eps)"), "the memory holds ε"),
    ("Q08.5", _NEWTON + "return d1 + (lam[0] - lam[1]) * d2, d2", "released 3M codes"),
    ("Q08.5", _NEWTON + "return d1, 2 * d2", "newest point is h₀/2 further"),
    ("Q08.5", _NEWTON + "return d1 - (lam[0] - lam[1]) * d2, 2 * d2", "wrong sign"),
    (
        "Q08.5",
        "h = (lam[0] - lam[2]) / 2\nreturn (f[0] - f[2]) / (2 * h), (f[0] - 2 * f[1] + f[2]) / "
        "h**2",
        "equal steps",
    ),
    ("Q08.5", _NEWTON + "return d1 + (lam[0] - lam[1]) * d2", "got 8 arrays, wanted 2"),
]

COURSE = Course("08", HEADS, OTHERWISE, WRONG)
