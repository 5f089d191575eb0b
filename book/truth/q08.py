"""Assignment 08: exponential integrators, from ϕ to a multistep solver."""

import numpy as np
import torch
from dlib.solvers import phi

from book.truth import Case, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import RIGHT, SINGLE, apart, fitted, known, malformed, wrong
from book.truth.problems import STEPS, order, typical


def lengths(rng: np.random.Generator) -> dict:
    small = rng.choice([-1.0, 1.0], 60) * 10 ** rng.uniform(-14, -0.3, 60)
    return {"h": np.concatenate([[0.0], small, rng.uniform(-5, 5, 20)])}


def _phis(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """Judged relative to each value, by where on the axis of |h| an error lies."""
    outputs = fitted(outputs, case.values)
    if len(outputs) == 2 and all(value.shape == case.inputs["h"].shape for value in outputs):
        bad = [~np.isfinite(value) for value in outputs]
        if any(b[0] for b in bad) and not any(b[1:].any() for b in bad):
            return wrong(
                "h = 0 gives nan or inf: the limits are ϕ₁(0) = 1 and ϕ₂(0) = 1/2. torch.where "
                "evaluates both of its branches: feed each a safe h"
            )
    bad = malformed(outputs, q.returns, case.values)
    if bad:
        return bad
    faults = [fault for k in (0, 1) if (fault := _fault(q, case, outputs, k))]
    return wrong(" · ".join(faults), 0.5 * (2 - len(faults))) if faults else RIGHT


def _fault(q: Exact, case: Case, outputs: list, k: int) -> str | None:
    h, value, truth, name = case.inputs["h"], outputs[k], case.values[k], q.returns[k]
    error, size = np.abs(value - truth) / truth, np.abs(h)
    if error.max() < 1e-10:
        return None
    worst = int(error.argmax())
    where = f"{name}: relative error {error[worst]:.1e} at h = {h[worst]:.2g}"
    if value.dtype == np.float32 and error.max() < 1e-6:
        return f"{where}: {SINGLE}"
    if (error[size > 1] < 1e-10).all() and (error[size > 0.3] < 1e-8).all():
        if (error[size < 1e-6] < 1e-8).all():
            return (
                f"{where}, while smaller and larger h are right: the series has too few terms "
                "for the |h| at which you leave it"
            )
        if (error[size < 1e-12] > 0.3).all():
            return f"{where}: its limit at h = 0 is wrong ({name}(0) = {truth[0]:g})"
        return (
            f"{where}, right for large h: a difference of nearly equal numbers cancels. Use "
            "torch.expm1 and, for ϕ₂, the series Σ hⁿ/(n+2)!"
        )
    return f"{where}: {known(case, outputs, [k]) or q.hint}"


PHIS = Exact(
    "Q08.1",
    lengths,
    returns=("ϕ₁", "ϕ₂"),
    hint="compare with the integral that defines it, or with ϕ₂ = (ϕ₁ − 1)/h",
    truth=lambda case: [phi(k, torch.tensor(case.inputs["h"])).numpy() for k in (1, 2)],
    verdict=_phis,
    mistakes="""
        small = h.abs() < 1 → h = -h
            small = h.abs() < 1
        # you have ϕ₁(−h) and ϕ₂(−h)
    """,
)


def step(rng: np.random.Generator) -> Case:
    """One step between random levels of a random schedule."""
    inputs, model = problems.problem(rng)
    lam = rng.uniform(-2, 0)
    inputs["lams"] = np.array([lam, lam + rng.uniform(0.5, 1.5)])
    return Case(inputs, problems.network_of(model))


DDIM = Exact(
    "Q08.2",
    step,
    returns="x at level b",
    hint="write x_b = α_b x₀ + σ_b ε, with both faces of one prediction at level a",
    mistakes="""
        (x, a) → (x, b)
        # the network is asked at level b. It must see the level that x is at: a. (Level a's
        # coefficients with level a's prediction return x itself, too)
        b.alpha * prediction.x0 + b.sigma * prediction.eps
        → x + (b.sigma - a.sigma) * prediction.eps
        # x keeps its size: in the variance-preserving schedule the linear part is x·α_b/α_a
        + b.sigma → - b.sigma  # the noise enters with the wrong sign
        b.alpha * prediction.x0 + b.sigma * prediction.eps → prediction.x0
        # this is x₀, the data prediction: noise it again to level b
        b.alpha * prediction.x0 + b.sigma * prediction.eps → x + (b.t - a.t) * prediction.velocity
        # this is Euler's rule in t, which does not integrate the linear part exactly
        b.sigma → a.sigma  # σ_a stands where σ_b belongs
        b.alpha * prediction.x0 → b.alpha / a.alpha * x
        b.sigma → (b.sigma - a.sigma)
        # the linear part is right, but ε is multiplied by σ_b − σ_a instead of σ_b − σ_a·α_b/α_a
    """,
)


def _measured(case: Case, outputs: list) -> tuple[int, str]:
    """The order of walks, and in words how the error falls."""
    errors = np.stack(outputs) - case.facts["end"]
    slope = np.log2(typical(errors[-2]) / typical(errors[-1]))
    n = order(errors)
    return n, f"the error falls with slope {slope:.2f} from 80 to 160 steps, as order {n}"


def _second(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """Any rule of order 2 with two calls a step."""
    outputs = fitted(outputs, case.values)
    bad = malformed(outputs, [f"x after {n} steps" for n in STEPS], case.values)
    if bad:
        return bad
    n, falls = _measured(case, outputs)
    each = calls / STEPS.sum()
    if n == 2 and each < 2 + 1e-9:
        return RIGHT
    if n >= 2:
        return wrong(
            f"{falls}, with {each:g} network calls a step. Wanted are order 2 and 2 calls", 0.5
        )
    if outputs[-1].dtype == np.float32:
        return wrong(f"{falls}, wanted 2: the walk is {SINGLE.removeprefix('right, but ')}")
    why = known(case, outputs, [0]) or _hint(case, outputs, MIDPOINT_HINTS)
    return wrong(f"{falls}, wanted 2: {why}")


MIDPOINT_HINTS = (
    "it does not converge to the solution: is every level one of model.schedule? A single step "
    "for constant ε moves x/α by (σ_b/α_b − σ_a/α_a) ε",
    "is ε taken in the middle of the step, and at the point that a DDIM step to the middle "
    "reaches?",
)
MULTISTEP_HINTS = (
    "it does not converge to the solution: a single step for constant x₀ moves x/σ by (e^{λ_b} − "
    "e^{λ_a}) x₀",
    "does the memory hold this step's own λ and x₀, and is x₀ extrapolated to the middle of the "
    "step, by h/2h₀?",
)


def _hint(case: Case, outputs: list, hints: tuple[str, str]) -> str:
    """The first hint for a walk that does not converge, else the second."""
    last, before = (typical(value - case.facts["end"]) for value in (outputs[-1], outputs[-2]))
    return hints[0] if last > 1e-3 and last > 0.7 * before else hints[1]


MIDPOINT = Exact(
    "Q08.3",
    problems.walks(problems.even),
    returns="x after a walk",
    hint=MIDPOINT_HINTS,
    verdict=_second,
    short={"steps": STEPS[:1]},
    mistakes="""
        model(u, middle) → start  # this is DDIM: ε is frozen at the start of the step
        model(u, middle) → model(x, middle)
        # ε is taken at the level of the midpoint but at the old x: move x there first, by a DDIM
        # step to u
        return b.alpha / a.alpha * x - b.sigma * growth * model(u, middle).eps
        → start = model(u, middle)
            return b.alpha * start.x0 + b.sigma * start.eps
        # these are two DDIM steps of half the length: start the second from x again, with ε of
        # the midpoint
        model(u, middle) → model(u, a)
        # the network is asked about u, but told that u is at level a: it is at the midpoint's
        # level
        model(u, middle) → model(u, b)
        # the network is asked about u, but told that u is at level b: it is at the midpoint's
        # level
        model(u, middle).eps → (start.eps + model(u, middle).eps) / 2
        # ε of the start and of the midpoint are averaged: the midpoint's alone is second order
        (b.lam - a.lam) → ((b.lam - a.lam) / 2)
        # e^{h/2} − 1 stands where e^h − 1 belongs: the last line covers the whole step
    """,
)


def _formula(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """DPM-Solver++(2M) itself, on every walk; the order only explains."""
    outputs = fitted(outputs, case.values)
    bad = malformed(outputs, [f"x after {n} steps" for n in STEPS], case.values)
    if bad:
        return bad
    each = calls / STEPS.sum()
    off = apart(outputs, case.values)
    if off < 1e-8:
        return (
            RIGHT
            if each < 1 + 1e-9
            else wrong(
                f"right, but with {each:g} network calls a step: memory is there to save the "
                "second",
                0.5,
            )
        )
    if off < (1e-5 if outputs[-1].dtype == np.float32 else 1e-6):
        return wrong(SINGLE, 0.5)
    n, falls = _measured(case, outputs)
    why = known(case, outputs, [0])
    if n == 2 and why:
        return wrong(
            f"{falls}, but only because long and short steps take turns here and their errors "
            f"cancel: {why}"
        )
    if n >= 2:
        return wrong(
            f"{falls}, with {each:g} network calls a step, but this is not DPM-Solver++(2M): "
            "compare with its formula in section 8.4",
            0.5,
        )
    why = why or _hint(case, outputs, MULTISTEP_HINTS)
    return wrong(f"{falls} on steps of unequal length, wanted 2: {why}")


TWO_M = Exact(
    "Q08.4",
    problems.walks(problems.uneven),
    returns="x after a walk",
    hint=MULTISTEP_HINTS,
    verdict=_formula,
    short={"steps": STEPS[:1]},
    mistakes="""
        * middle, → * x0,  # this is DDIM: is the memory returned, and used when it is not None?
        h / (2 * (a.lam - lam_before)) → (a.lam - lam_before) / (2 * h)
        # the ratio is h₀/h: extrapolating further takes h/h₀
        h / (2 * (a.lam - lam_before)) → 0.5
        # this is right only for equal steps: the difference must be scaled by h/h₀
        (2 * (a.lam - lam_before)) → (a.lam - lam_before)
        # the extrapolation goes to the end of the step: half of h/h₀ reaches its middle
        middle = x0 + → middle = x0 -
        # the difference is subtracted: extrapolate away from the former value
        (a.lam, x0) → (a.lam, x)
        # the memory holds x: it should hold the data prediction x₀ of the step before
        (a.lam, x0) → (a.lam, model(x, a).eps)
        # the memory holds ε: the data form extrapolates x₀
        v = model(x, a).velocity
        return x + (b.t - a.t) / 2 * (v + model(x + (b.t - a.t) * v, b).velocity), None
        # this is Heun's rule: second order, but with two calls a step
    """,
)


def parabolas(rng: np.random.Generator) -> Case:
    lam = rng.uniform(-1, 1) - np.cumsum([0, *rng.uniform(0.3, 1.5, 2)])
    c = rng.normal(size=(3, 8)) + np.sign(rng.normal(size=(3, 8)))
    f = c[0] + c[1] * lam[:, None] + c[2] * lam[:, None] ** 2
    return Case({"lam": lam, "f": f}, facts={"values": [c[1] + 2 * c[2] * lam[0], 2 * c[2]]})


NEWTON = Exact(
    "Q08.5",
    parabolas,
    returns=("slope", "curvature"),
    hint="not that of the parabola through the three points, at the newest of them (the first "
    "row)",
    truth=lambda case: case.facts["values"],
    mistakes="""
        d1 + (lam[0] - lam[1]) * d2 → d1
        # this is d₁, the slope in the middle of the last step: the newest point is h₀/2 further
        # on
        d1 + (lam → d1 - (lam  # the correction h₀·d₂ has the wrong sign
        d1 + (lam[0] - lam[1]) * d2 → d1_before - (lam[1] - lam[2]) * d2
        # this is the slope at the oldest point: row 0 is the newest
        d1 + (lam → d1 + 2 * (lam
        # the correction is counted twice: h₀·d₂ with d₂ the divided difference, not the curvature
        2 * d2 → d2
        # half of it: the second divided difference is f''/2. The released 3M codes forget this
        # very factor
        2 * d2 → (d1 - d1_before) / (lam[0] - lam[1])
        # the difference of the two slopes is divided by the wrong length: they lie (λ₀ − λ₂)/2
        # apart
        2 * d2 → (f[0] - 2 * f[1] + f[2]) / ((lam[0] - lam[2]) / 2) ** 2
        # this formula is for equal steps
        2 * d2 → -2 * d2  # the sign is wrong: which row is the newest?
    """,
)

QUESTIONS = [PHIS, DDIM, MIDPOINT, TWO_M, NEWTON]
