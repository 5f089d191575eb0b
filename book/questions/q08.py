"""The questions of assignment 08: exponential integrators, from ϕ to a multistep solver."""

import numpy as np
import torch
from dlib.solvers import ddim, dpm_solver_3, dpm_solver_pp_2m, phi

from book.questions import Case, Question, Verdict, q08_mistakes
from book.questions.judging import RIGHT, distance, malformed, recognise, slope, wrong
from book.questions.problems import (
    STEPS,
    arrays,
    draw_problem,
    even,
    model_of,
    network_of,
    typical,
    uneven,
    walk,
)

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch
from dlib import vp"""
ORDER_2 = (1.85, 2.15)


# Q08.1: ϕ₁ and ϕ₂ to full precision


def draw_phi(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    small = rng.choice([-1.0, 1.0], 60) * 10 ** rng.uniform(-14, -0.3, 60)
    h = np.concatenate([[0.0], small, rng.uniform(-5, 5, 20)])
    return Case({"h": h}, {k: phi(k, torch.from_numpy(h)).numpy() for k in (1, 2)})


def run_phi(answer, inputs, network) -> list:
    return _both(answer(torch.tensor(inputs["h"])))


def _both(returned) -> list:
    """The arrays of an answer that returns a pair."""
    return arrays(None) if returned is None else arrays(*returned)


def judge_phi(case: Case, outputs: list, calls: float) -> Verdict:
    h = case.inputs["h"]
    if len(outputs) == 2 and all(
        value.shape == h.shape and np.isfinite(value[1:]).all() for value in outputs
    ):
        if not all(np.isfinite(value[0]) for value in outputs):
            return wrong(
                "h = 0 gives nan or inf: the limits are ϕ₁(0) = 1 and ϕ₂(0) = 1/2. torch.where "
                "evaluates both of its branches: feed each a safe h"
            )
    bad = malformed(outputs, ("ϕ₁", "ϕ₂"), (h.shape, h.shape))
    if bad:
        return bad
    first, second = (
        _phi_fault(f"ϕ{sub}", value, case.truth[k], h)
        for k, sub, value in ((1, "₁", outputs[0]), (2, "₂", outputs[1]))
    )
    faults = [fault for fault in (first, second) if fault]
    return wrong(" · ".join(faults), 0.5 * (2 - len(faults))) if faults else RIGHT


def _phi_fault(name: str, value: np.ndarray, truth: np.ndarray, h: np.ndarray) -> str | None:
    """What is wrong with one ϕ, judged by where on the axis of |h| its error lies."""
    error = np.abs(value - truth) / truth
    if error.max() < 1e-10:
        return None
    worst, size = int(error.argmax()), np.abs(h)
    where = f"{name}: relative error {error[worst]:.1e} at h = {h[worst]:.2g}"
    if (error[size > 1] < 1e-10).all() and (error[size > 0.3] < 1e-8).all():
        if (error[size < 1e-6] < 1e-8).all():
            return (
                f"{where}, while smaller and larger h are right: the series has too few "
                "terms for the |h| at which you leave it"
            )
        if (error[size < 1e-12] > 0.3).all():
            return f"{where}: its limit at h = 0 is wrong ({name}(0) = {truth[0]:g})"
        return (
            f"{where}, right for large h: a difference of nearly equal numbers cancels. Use "
            "torch.expm1 and, for ϕ₂, the series Σ hⁿ/(n+2)!"
        )
    if np.allclose(value[size > 0.3], q08_mistakes.phi(int(name == "ϕ₂") + 1, -h)[size > 0.3]):
        return f"{where}: you have {name}(−h)"
    return f"{where}: compare with the integral that defines {name}, or with ϕ₂ = (ϕ₁ − 1)/h"


# Q08.2: the DDIM step


def draw_step(seed: int) -> Case:
    """One step between random levels of a random schedule."""
    rng, inputs, model = draw_problem(seed)
    lam = rng.uniform(-2, 0)
    inputs["lams"] = np.array([lam, lam + rng.uniform(0.5, 1.5)])
    a, b = map(model.schedule.at_lam, inputs["lams"])
    x = torch.from_numpy(inputs["x"])
    truth = {
        "x": ddim(model, x, a, b)[0].numpy(),
        "mistakes": q08_mistakes.of_ddim(model, x, a, b),
    }
    return Case(inputs, truth, network_of(model))


def run_step(answer, inputs, network) -> list:
    model, x = model_of(inputs, network), torch.tensor(inputs["x"])
    return arrays(answer(model, x, *map(model.schedule.at_lam, map(float, inputs["lams"]))))


def judge_step(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("x at level b",), (case.inputs["x"].shape,))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["x"])
    if off < 1e-9:
        return (
            RIGHT
            if abs(calls - 1) < 1e-9
            else wrong(
                f"right, but with {calls:g} network calls: one is enough, keep its prediction "
                "in a variable",
                0.5,
            )
        )
    why = recognise(outputs[0], case.truth["mistakes"])
    return wrong(
        f"off by {off:.1e} (relative): "
        f"{why or 'write x_b = α_b x₀ + σ_b ε, with both faces of one prediction at level a'}"
    )


# Q08.3: order 2 in two calls


def draw_midpoint(seed: int) -> Case:
    _, inputs, model = draw_problem(seed)
    x = torch.from_numpy(inputs["x"])
    truth = {
        "end": walk(dpm_solver_3, model, x, even(320)).numpy(),
        "mistakes": q08_mistakes.of_midpoint(model, x, even(4)),
    }
    return Case(inputs, truth, network_of(model))


def run_midpoint(answer, inputs, network) -> list:
    model, x = model_of(inputs, network), torch.tensor(inputs["x"])

    def step(model, x, a, b, memory):
        return answer(model, x, a, b), None

    return arrays(*(walk(step, model, x.clone(), even(n)) for n in (4, *STEPS)))


def judge_midpoint(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(
        outputs,
        [f"x after {n} steps" for n in (4, *STEPS)],
        [case.inputs["x"].shape] * (1 + len(STEPS)),
    )
    if bad:
        return bad
    order, each = _order(case, outputs), calls / (4 + sum(STEPS))
    if ORDER_2[0] <= order <= ORDER_2[1]:
        return (
            RIGHT
            if abs(each - 2) < 1e-9
            else wrong(
                f"slope {order:.2f} is right, but with {each:g} network calls a step, wanted 2",
                0.5,
            )
        )
    why = recognise(outputs[0], case.truth["mistakes"]) or _order_hint(
        case, outputs, order, MIDPOINT_HINTS
    )
    return wrong(f"slope {order:.2f}, wanted {ORDER_2[0]}–{ORDER_2[1]}: {why}")


def _order(case: Case, outputs: list) -> float:
    return slope({n: typical(x, case.truth["end"]) for n, x in zip(STEPS, outputs[1:])})


MIDPOINT_HINTS = (
    "it does not converge to the solution: is every level one of model.schedule? A single step "
    "for constant ε moves x/α by (σ_b/α_b − σ_a/α_a) ε",
    "first order: is ε taken in the middle of the step, and at the point that a DDIM step to "
    "the middle reaches?",
    "not second order: compare each coefficient with the midpoint formula of section 8.3",
)
MULTISTEP_HINTS = (
    "it does not converge to the solution: a single step for constant x₀ moves x/σ by (e^{λ_b} "
    "− e^{λ_a}) x₀",
    "first order: does the memory hold this step's own λ and x₀, and is x₀ extrapolated to the "
    "middle of the step, by h/2h₀?",
    "not second order: compare each coefficient with the formula of 2M in section 8.4",
)


def _order_hint(case: Case, outputs: list, order: float, hints: tuple[str, str, str]) -> str:
    """The first hint for a walk that does not converge, the second for order 1, the last for
    anything else.
    """
    if typical(outputs[-1], case.truth["end"]) > 1e-3 and order < 0.5:
        return hints[0]
    return hints[1] if order < 1.5 else hints[2]


# Q08.4: 2M, a solver with memory


def draw_multistep(seed: int) -> Case:
    _, inputs, model = draw_problem(seed)
    x = torch.from_numpy(inputs["x"])
    truth = {
        "end": walk(dpm_solver_3, model, x, even(320)).numpy(),
        "short": walk(dpm_solver_pp_2m, model, x, uneven(4)).numpy(),
    }
    return Case(
        inputs, truth | {"mistakes": q08_mistakes.of_2m(model, x, uneven(4))}, network_of(model)
    )


def run_multistep(answer, inputs, network) -> list:
    model, x = model_of(inputs, network), torch.tensor(inputs["x"])

    def step(*given):
        found = answer(*given)
        if found is None or (isinstance(found, (tuple, list)) and len(found) == 2):
            return found
        raise TypeError(
            f"the answer returned a {type(found).__name__}, wanted two things: x at level b, "
            "and the memory for the next step"
        )

    return arrays(*(walk(step, model, x.clone(), uneven(n)) for n in (4, *STEPS)))


def judge_multistep(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(
        outputs,
        [f"x after {n} steps" for n in (4, *STEPS)],
        [case.inputs["x"].shape] * (1 + len(STEPS)),
    )
    if bad:
        return bad
    order, each = _order(case, outputs), calls / (4 + sum(STEPS))
    right = ORDER_2[0] <= order <= ORDER_2[1] and distance(outputs[0], case.truth["short"]) < 1e-8
    if right:
        return (
            RIGHT
            if abs(each - 1) < 1e-9
            else wrong(
                f"right, but with {each:g} network calls a step: memory is there to save the "
                "second",
                0.5,
            )
        )
    why = recognise(outputs[0], case.truth["mistakes"])
    if why is None and ORDER_2[0] <= order <= ORDER_2[1]:
        return wrong(
            f"slope {order:.2f} is second order, but this is not DPM-Solver++(2M): compare "
            "with its formula in section 8.4",
            0.5,
        )
    if ORDER_2[0] <= order <= ORDER_2[1]:
        return wrong(
            f"slope {order:.2f} looks right, but only because long and short steps take turns "
            f"here and their errors cancel: {why}"
        )
    return wrong(
        f"slope {order:.2f} on steps of unequal length, wanted {ORDER_2[0]}–{ORDER_2[1]}: "
        f"{why or _order_hint(case, outputs, order, MULTISTEP_HINTS)}"
    )


# Q08.5: the factor of two that the world forgot


def draw_newton(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    lam = rng.uniform(-1, 1) - np.concatenate([[0.0], np.cumsum(rng.uniform(0.3, 1.5, 2))])
    c = rng.normal(size=(3, 8)) + np.sign(rng.normal(size=(3, 8)))
    f = c[0] + c[1] * lam[:, None] + c[2] * lam[:, None] ** 2
    truth = {
        "slope": c[1] + 2 * c[2] * lam[0],
        "curvature": 2 * c[2],
        "mistakes": q08_mistakes.of_newton(lam, f),
    }
    return Case({"lam": lam, "f": f}, truth)


def run_newton(answer, inputs, network) -> list:
    return _both(answer(torch.tensor(inputs["lam"]), torch.tensor(inputs["f"])))


def judge_newton(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("slope", "curvature"), ((8,), (8,)))
    if bad:
        return bad
    faults = []
    for name, value in zip(("slope", "curvature"), outputs):
        if distance(value, case.truth[name]) > 1e-9:
            why = recognise(value, case.truth["mistakes"][name])
            faults.append(
                f"{name}: {why or 'not that of the parabola through the three points, at the newest of them (the first row)'}"
            )
    return wrong(" · ".join(faults), 0.5 * (2 - len(faults))) if faults else RIGHT


QUESTIONS = [
    Question("Q08.1", "phis", 3, draw_phi, run_phi, judge_phi),
    Question("Q08.2", "ddim_step", 3, draw_step, run_step, judge_step),
    Question("Q08.3", "midpoint_step", 6, draw_midpoint, run_midpoint, judge_midpoint),
    Question("Q08.4", "two_m_step", 5, draw_multistep, run_multistep, judge_multistep),
    Question("Q08.5", "slope_and_curvature", 3, draw_newton, run_newton, judge_newton),
]
