"""Assignment 04's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q04.1": "forward_sde(alpha, sigma, d_alpha, d_sigma)",
    "Q04.2": "reverse_drift(score, x, f, g2, eta)",
    "Q04.3": "reverse_walk(score, x, times, f, g2, eta, noise)",
    "Q04.4": "same_curve(x, u, a, b)",
    "Q04.5": "log_density(velocity, log_prior, x, times)",
}
_WALK = """
for k in range(len(noise)):
    t, dt = times[k], times[k + 1] - times[k]
    drift = f(t) * x - (1 + eta**2) / 2 * g2(t) * score(x, t)
    x = x + drift * dt + eta * (g2(t) * -dt) ** 0.5 * noise[k]
return x
"""
_MOVE = """
det = a.alpha * a.d_sigma - a.sigma * a.d_alpha
x0 = (a.d_sigma * x - a.sigma * u) / det
eps = (a.alpha * u - a.d_alpha * x) / det
return {x}, {u}
"""
_DENSITY = """
def rate(x, t):
    x = x.detach().requires_grad_()
    u = velocity(x, t)
    trace = {trace}
    return u.detach(), trace
total = torch.zeros(len(x), dtype=x.dtype)
start = x
for t, s in zip(times, times[1:]):
    u, trace = rate(x, t)
    middle, trace_m = rate(x + (s - t) / 2 * u, (s + t) / 2)
    x, total = x + (s - t) * middle, total + (s - t) * trace_m
return {value}
"""
_TRACE = (
    "sum(torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in "
    "range(x.shape[1]))"
)


def _walk(old: str, new: str) -> str:
    assert old in _WALK
    return _WALK.replace(old, new)


def _move(x: str = "b.alpha / a.alpha * x", u: str = "b.d_alpha * x0 + b.d_sigma * eps") -> str:
    return _MOVE.format(x=x, u=u)


def _density(value: str = "log_prior(x) + total", trace: str = _TRACE) -> str:
    return _DENSITY.format(value=value, trace=trace)


OTHERWISE = {
    "Q04.1": "lam_rate = d_alpha / alpha - d_sigma / sigma\nreturn d_alpha / alpha, -2 * "
    "sigma**2 * lam_rate",
    "Q04.2": "ode = f * x - g2 / 2 * score(x)\nlangevin = eta**2 * g2 / 2 * score(x)\nreturn "
    "ode - langevin",
    "Q04.3": _WALK,
    "Q04.4": """
y, kappa_rate = x / a.alpha, lambda s: s.d_sigma / s.alpha - s.sigma * s.d_alpha / s.alpha**2
dy = (u / a.alpha - x * a.d_alpha / a.alpha**2) / kappa_rate(a)            # dy/dκ = ε
return b.alpha * y, b.d_alpha * y + b.alpha * dy * kappa_rate(b)""",
    "Q04.5": _density(),
}
_DRIFT = "return f * x - 0.5 * (1 + eta**2) * g2 * score(x)"
WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    ("Q04.1", "return d_alpha, 2 * sigma * (d_sigma - d_alpha / alpha * sigma)", "this is α̇"),
    (
        "Q04.1",
        "f = -d_alpha / alpha\nreturn f, 2 * sigma * (d_sigma + f * sigma)",
        "the sign is wrong: noising shrinks",
    ),
    (
        "Q04.1",
        "return -2 * d_alpha / alpha, 2 * sigma * (d_sigma - d_alpha / alpha * sigma)",
        "f = −½β",
    ),
    ("Q04.1", "return d_alpha / alpha, 2 * sigma * d_sigma", "dσ²/dt alone"),
    (
        "Q04.1",
        "return d_alpha / alpha, 2 * sigma * (d_sigma + d_alpha / alpha * sigma)",
        "has the wrong sign",
    ),
    (
        "Q04.1",
        "return d_alpha / alpha, sigma * (d_sigma - d_alpha / alpha * sigma)",
        "half of it",
    ),
    (
        "Q04.1",
        "return d_alpha / alpha, -2 * (d_alpha / alpha - d_sigma / sigma)",
        "multiply by σ²",
    ),
    (
        "Q04.1",
        "return d_alpha / alpha, (2 * sigma * (d_sigma - d_alpha / alpha * sigma)) ** 0.5",
        "this is g, the question",
    ),
    (
        "Q04.1",
        "return d_alpha / alpha, 2 * sigma * d_sigma - d_alpha / alpha * sigma**2",
        "counts twice in a variance",
    ),
    (
        "Q04.1",
        "return d_alpha / alpha, 2 * sigma**2 * (d_alpha / alpha - d_sigma / sigma)",
        "−2σ²λ̇ is positive",
    ),
    (
        "Q04.1",
        "return d_alpha / alpha, d_sigma**2 - 2 * d_alpha / alpha * sigma**2",
        "the slope of σ² is 2σσ̇",
    ),
    ("Q04.1", "return d_alpha / alpha, -2 * d_alpha / alpha", "have another g²"),
    ("Q04.1", "return d_alpha / alpha, -2 * sigma * (d_alpha / alpha - d_sigma / sigma)", "−2σλ̇"),
    ("Q04.1", "return d_alpha / alpha, -2 * sigma**2 * (alpha / sigma).log()", "its slope λ̇"),
    ("Q04.1", "return d_alpha / alpha", "wanted 2"),
    ("Q04.2", _DRIFT.replace("(1 + eta**2)", "(1 - eta**2)"), "needs more of the score"),
    ("Q04.2", _DRIFT.replace("(1 + eta**2)", "(1 + eta)**2"), "belongs to η alone"),
    ("Q04.2", _DRIFT.replace("0.5 * (1 + eta**2)", "eta**2"), "right at η = 1 only"),
    ("Q04.2", _DRIFT.replace("g2", "g2**2"), "g2 is g² already"),
    ("Q04.2", _DRIFT.replace("f * x", "f"), "f stands where f·x"),
    ("Q04.2", _DRIFT.replace("x - 0.5", "x + 0.5"), "climbs towards the data"),
    ("Q04.2", _DRIFT.replace("f * x - 0.5", "-f * x + 0.5"), "time that grows while you sample"),
    ("Q04.2", "return f * x", "the forward drift"),
    ("Q04.2", "return f * x - 0.5 * g2 * score(x)", "the ODE's drift"),
    ("Q04.2", "return f * x - g2 * score(x)", "the drift of η = 1"),
    ("Q04.2", _DRIFT.replace("0.5 * ", ""), "the ½ is missing"),
    ("Q04.2", _DRIFT.replace("eta**2", "eta"), "η enters as its square"),
    ("Q04.2", _DRIFT.replace("(1 + eta**2)", "eta**2"), "not ½η²"),
    ("Q04.2", _DRIFT.replace("g2", "g2**0.5"), "g stands where g² belongs"),
    ("Q04.2", _DRIFT.replace("f * x", "-f * x"), "the linear part has the wrong sign"),
    ("Q04.3", _walk("x + drift * dt", "x - drift * dt"), "the drift has the wrong sign"),
    ("Q04.3", _walk("+ eta * (g2", "+ (g2"), "the noise lacks η"),
    ("Q04.3", _walk("+ eta * (g2", "+ eta**2 * (g2"), "η² instead of η"),
    (
        "Q04.3",
        _walk("(g2(t) * -dt) ** 0.5", "g2(t) ** 0.5 * -dt"),
        "grows with the length of the step",
    ),
    ("Q04.3", _walk("(g2(t) * -dt) ** 0.5", "g2(t) * (-dt) ** 0.5"), "g² instead of g"),
    ("Q04.3", _walk(" + eta * (g2(t) * -dt) ** 0.5 * noise[k]", ""), "the noise is missing"),
    ("Q04.3", _walk("t, dt = times[k]", "t, dt = times[k + 1]"), "at the end of the step"),
    (
        "Q04.3",
        _walk("noise[k]", "(noise[k] if k + 1 < len(noise) else 0)"),
        "the noise of the last step",
    ),
    ("Q04.3", _walk("(1 + eta**2) / 2", "1 / 2"), "the ODE's, the noise is the SDE's"),
    ("Q04.3", _walk("\nreturn x", "\n    return x"), "inside the loop"),
    (
        "Q04.3",
        "for k, z in enumerate(noise):\n    t, dt = times[k], times[k + 1] - times[k]\n    "
        "kick = eta * (g2(t) * -dt) ** 0.5 * z\n    y = x + kick\n"
        "    x = y + dt * (f(t) * y - (1 + eta**2) / 2 * g2(t) * score(y, t))\nreturn x",
        "before the score is asked",
    ),
    ("Q04.3", _walk("(1 + eta**2) / 2", "1"), "drift is that of η = 1"),
    ("Q04.3", _walk("(1 + eta**2) / 2", "(1 + eta**2)"), "½ is missing"),
    ("Q04.3", _walk("(1 + eta**2) / 2", "(1 + eta) / 2"), "enters the drift as its square"),
    ("Q04.3", _walk("x - (1", "x + (1"), "a minus climbs"),
    (
        "Q04.3",
        _walk("times[k + 1] - times[k]", "(times[-1] - times[0]) / len(noise)"),
        "equally long",
    ),
    ("Q04.3", _walk("score(x, t)", "score(x, times[k + 1])"), "asked at t_b"),
    ("Q04.3", _walk("range(len(noise))", "range(len(noise) - 1)"), "last step is left out"),
    ("Q04.4", _move(u="b.alpha * eps - b.sigma * x0"), "which knows no time"),
    (
        "Q04.4",
        _move(
            u="u * (b.d_sigma - b.sigma * b.d_alpha / b.alpha) / (a.d_sigma - a.sigma * "
            "a.d_alpha / a.alpha)"
        ),
        "not all of u",
    ),
    ("Q04.4", _move(x="x"), "x is not the same"),
    ("Q04.4", _move(x="a.alpha / b.alpha * x"), "upside down"),
    ("Q04.4", _move(x="x / a.alpha"), "multiply by α_b"),
    ("Q04.4", _move(x="x0"), "the data prediction"),
    ("Q04.4", _move(u="u"), "the clocks differ"),
    ("Q04.4", _move(u="b.alpha / a.alpha * u"), "not the clock"),
    (
        "Q04.4",
        _move(u="(b.d_sigma - b.sigma * b.d_alpha / b.alpha) * eps"),
        "the linear part is missing",
    ),
    ("Q04.4", _move(u="b.d_sigma * x0 + b.d_alpha * eps"), "are exchanged"),
    ("Q04.4", _move(u="b.alpha * x0 + b.sigma * eps"), "not its velocity"),
    ("Q04.5", _density("log_prior(x) - total"), "has the wrong sign"),
    ("Q04.5", _density("log_prior(x)"), "is missing"),
    ("Q04.5", _density("log_prior(start) + total"), "taken at x itself"),
    (
        "Q04.5",
        _density(trace="torch.autograd.grad(u.sum(), x)[0].sum(1)"),
        "not of all its entries",
    ),
    ("Q04.5", _density("log_prior(x) + total / x.shape[1]"), "averaged over the coordinates"),
    ("Q04.5", _density("total"), "the integral alone"),
    ("Q04.5", _density("(log_prior(x) + total).exp()"), "this is the density"),
    (
        "Q04.5",
        _density().replace(
            "middle, trace_m = rate(x + (s - t) / 2 * u, (s + t) / 2)",
            "middle, trace_m = u, trace",
        ),
        "not accurate enough",
    ),
]
COURSE = Course("04", HEADS, OTHERWISE, WRONG)
