"""Assignment 13's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q13.1": "boundary_scalings(kappa, kappa_min, sigma_d)",
    "Q13.2": "consistency_loss(f, step, x, a, b)",
    "Q13.3": "skipped_step(x, eps_cond, eps_null, levels, i, k, omega)",
    "Q13.4": "phase_jump(x, eps, levels, i, phases)",
    "Q13.5": "consistency_sample(model, x, levels, noise)",
}
OTHERWISE = {
    "Q13.1": """
r = (kappa - kappa_min) / sigma_d
return 1 / (1 + r * r), r * sigma_d / torch.sqrt(1 + (kappa / sigma_d) ** 2)""",
    "Q13.2": """
goal = f(step(x, a, b), b).detach()
d = goal - f(x, a)
return (d * d).sum(dim=1) / x.shape[1]""",
    "Q13.3": """
end = levels[i:][:k + 1][-1]
start = levels[i]
e = eps_cond + omega * (eps_cond - eps_null)
return end.alpha * (x / start.alpha + (end.sigma / end.alpha - start.sigma / start.alpha) * e)""",
    "Q13.4": """
n = len(levels) - 1
j = i + 1
while not any(n - j == int(m * n / phases) for m in range(phases)):
    j += 1
k = lambda l: l.sigma / l.alpha
return levels[j].alpha * (x / levels[i].alpha + (k(levels[j]) - k(levels[i])) * eps)""",
    "Q13.5": """
x0 = model(x, levels[0]).x0
for i in range(1, len(levels)):
    x0 = model(levels[i].alpha * x0 + noise[i - 1] * levels[i].sigma, levels[i]).x0
return x0""",
}
_SCALE = (
    "d = kappa - kappa_min\nskip = sigma_d**2 / (d**2 + sigma_d**2)\nout = sigma_d * d / "
    "(kappa**2 + sigma_d**2).sqrt()\n"
)
_STEP = """a, b = levels[i], levels[min({end}, len(levels) - 1)]
e = {guide}
x0 = (x - a.sigma * e) / a.alpha
return {result}"""
_JUMP = """n = len(levels) - 1
edges = {edges}
a, s = levels[i], levels[min(e for e in edges if e {above} i)]
x0 = (x - a.sigma * eps) / a.alpha
return {result}"""
_SAMPLE = """p = model(x, levels[0])
for k in range(1, len(levels)):
    a, b, z = levels[k - 1], levels[k], noise[k - 1]
    p = model({again}, b)
return {last}"""


def _step(
    guide="(1 + omega) * eps_cond - omega * eps_null",
    end="i + k",
    result="b.alpha * x0 + b.sigma * e",
):
    return _STEP.format(guide=guide, end=end, result=result)


def _jump(
    edges="[n - m * n // phases for m in range(phases)]",
    above=">",
    result="s.alpha * x0 + s.sigma * eps",
):
    return _JUMP.format(edges=edges, above=above, result=result)


def _sample(again="b.alpha * p.x0 + b.sigma * z", last="p.x0"):
    return _SAMPLE.format(again=again, last=last)


WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    (
        "Q13.1",
        "r = (kappa**2 + sigma_d**2).sqrt()\nreturn sigma_d**2 / r**2, sigma_d * kappa / r",
        "must be 1 at κ_min, not at 0",
    ),
    ("Q13.1", _SCALE + "return skip, out / sigma_d", "LCM's released code leaves it out"),
    (
        "Q13.1",
        _SCALE + "return skip, sigma_d * d / (d**2 + sigma_d**2).sqrt()",
        "under the root stands κ, not κ − κ_min",
    ),
    ("Q13.1", _SCALE + "return out, skip", "wrong order"),
    ("Q13.1", _SCALE + "return skip, 1 - skip", "1 − c_skip is not c_out"),
    ("Q13.1", _SCALE + "return skip, 0.9 * out", "right at κ_min, not beyond"),
    (
        "Q13.2",
        "return (f(x, a) - f(step(x, a, b), b)).square().mean(1)",
        "also flows through the target",
    ),
    (
        "Q13.2",
        "return (f(x, a) - f(step(x, a, b).detach(), b)).square().mean(1)",
        "also flows through the target",
    ),
    (
        "Q13.2",
        "return (f(x, a).detach() - f(step(x, a, b), b)).square().mean(1)",
        "on the wrong side",
    ),
    (
        "Q13.2",
        "with torch.no_grad():\n    return (f(x, a) - f(step(x, a, b), b)).square().mean(1)",
        "no gradient reaches the weights",
    ),
    (
        "Q13.2",
        "t = f(step(x, a, b), a).detach()\nreturn (f(x, a) - t).square().mean(1)",
        "told that x̂ is at level a",
    ),
    ("Q13.2", "t = f(x, b).detach()\nreturn (f(x, a) - t).square().mean(1)", "at the old x"),
    ("Q13.2", "return (f(x, a) - step(x, a, b)).square().mean(1)", "x̂ itself is the target"),
    (
        "Q13.2",
        "t = f(step(x, a, b), b).detach()\nreturn (f(x, a) - t).square().mean()",
        "has shape ()",
    ),
    ("Q13.3", _step(guide="eps_null + omega * (eps_cond - eps_null)"), "this is guidance_scale"),
    ("Q13.3", _step(guide="(1 + omega) * eps_null - omega * eps_cond"), "swapped"),
    ("Q13.3", _step(end="i + 1"), "one step of the grid"),
    ("Q13.3", _step(result="x0"), "this is x₀"),
    ("Q13.3", _step().replace("/ a.alpha", ""), "not divided by α"),
    ("Q13.3", _step(end="max(i - k, 0)"), "towards the noise"),
    (
        "Q13.3",
        _step(result="b.alpha * x0 + b.sigma * eps_cond"),
        "x₀ is guided, the noise is not",
    ),
    (
        "Q13.3",
        _step().replace("min(i + k, len(levels) - 1)", "i + k"),
        "must stop at the last level",
    ),
    (
        "Q13.3",
        _step()
        .replace("levels[i]", "levels[i + k]")
        .replace("levels[min(i + k, len(levels) - 1)]", "levels[i]"),
        "the wrong way",
    ),
    ("Q13.4", _jump(above=">="), "jumps to the *next* one"),
    ("Q13.4", _jump(edges="[n]"), "whatever the phase"),
    (
        "Q13.4",
        _jump(edges="[k * n // phases for k in range(1, phases + 1)]"),
        "counted from the noisy end",
    ),
    ("Q13.4", _jump(edges="[n - round(m * n / phases) for m in range(phases)]"), "rounded"),
    ("Q13.4", _jump(result="x0"), "there is noise"),
    ("Q13.4", _jump(edges="range(n + 1)"), "single step of the grid"),
    (
        "Q13.5",
        _sample(last="levels[-1].alpha * p.x0 + levels[-1].sigma * noise[-1]"),
        "after the last call, too",
    ),
    ("Q13.5", _sample(again="b.alpha * p.x0 + b.sigma * p.eps"), "this is DDIM"),
    ("Q13.5", _sample(again="p.x0 + b.sigma * z"), "not scaled by α"),
    ("Q13.5", _sample(again="b.alpha * p.x0 + a.sigma * z"), "the level that was left"),
    (
        "Q13.5",
        _sample(again="b.alpha * p.x0 + b.sigma * noise[0]"),
        "every level gets the same noise",
    ),
    (
        "Q13.5",
        "for a, b, z in zip(levels, levels[1:], noise):\n    x0 = model(x, a).x0\n    x = "
        "b.alpha * x0 + b.sigma * z\nreturn x0",
        "one call too few",
    ),
    (
        "Q13.5",
        "for a, b, z in zip(levels, levels[1:], noise):\n    x = b.alpha * model(x, a).x0 + "
        "b.sigma * z\nreturn x",
        "ask the network there",
    ),
    (
        "Q13.5",
        "for a, b, z in zip(levels, levels[1:], noise):\n    x = b.alpha * model(x, a).x0 + "
        "b.sigma * z\n    y = model(x, b).x0\nreturn y",
        "network calls",
    ),
]

COURSE = Course("13", HEADS, OTHERWISE, WRONG)
