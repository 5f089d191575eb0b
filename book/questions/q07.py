"""The questions of assignment 07: the exact solution, its first term, and what it costs on a
Gaussian.
"""

import numpy as np
import torch
from dlib.solvers import ddim

from book.questions import Case, Question, Verdict, q07_mistakes
from book.questions.judging import RIGHT, distance, malformed, recognise, wrong
from book.questions.problems import LAM, arrays, draw_problem, model_of, network_of, walk

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
LEVELS = ("alpha_s", "sigma_s", "alpha_t", "sigma_t")


def _levels(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Pairs of levels, noisier first, on no particular schedule: α and σ each have a scale of
    their own.
    """
    lam = np.sort(rng.uniform(-3, 3, (n, 2)), axis=1) + np.array([0.0, 0.3])
    size = rng.uniform(0.4, 2.5, (n, 2))
    alpha, sigma = size / np.sqrt(1 + np.exp(-2 * lam)), size / np.sqrt(1 + np.exp(2 * lam))
    return dict(zip(LEVELS, (alpha[:, 0], sigma[:, 0], alpha[:, 1], sigma[:, 1])))


# Q07.1 and Q07.2: the two forms, with the network frozen


def _draw_weights(form):
    def draw(seed: int) -> Case:
        inputs = _levels(np.random.default_rng(seed), 24)
        al_s, si_s, al_t, si_t = inputs.values()
        truth = {
            "eps": (al_t / al_s, si_t - si_s * al_t / al_s),
            "x0": (si_t / si_s, al_t - al_s * si_t / si_s),
        }[form]
        mistakes = {"eps": q07_mistakes.of_eps_weights, "x0": q07_mistakes.of_data_weights}[form](
            *inputs.values()
        )
        return Case(inputs, {"values": truth, "mistakes": mistakes})

    return draw


def run_weights(answer, inputs, network) -> list:
    returned = answer(*(torch.tensor(inputs[name]) for name in LEVELS))
    return arrays(None) if returned is None else arrays(*returned)


def _judge_weights(what: str):
    names = ("the factor of x", f"the factor of {what}")
    hints = (
        "it stands in front of x_s in the exact solution",
        "with the network constant, only the exponential is left to integrate, from λ_s to λ_t",
    )

    def judge(case: Case, outputs: list, calls: float) -> Verdict:
        bad = malformed(outputs, names, ((24,), (24,)))
        if bad:
            return bad
        faults = []
        for name, hint, value, truth, mistakes in zip(
            names, hints, outputs, case.truth["values"], case.truth["mistakes"]
        ):
            off = distance(value, truth)
            if off > 1e-9:
                faults.append(
                    f"{name}: off by {off:.1e} (relative): {recognise(value, mistakes) or hint}"
                )
        return wrong(" · ".join(faults), 0.5 * (2 - len(faults))) if faults else RIGHT

    return judge


# Q07.3: the sampler


def draw_sampler(seed: int) -> Case:
    rng, inputs, model = draw_problem(seed)
    inputs["lams"] = np.linspace(*LAM, 8) + np.concatenate(
        [[0.0], rng.uniform(-0.2, 0.2, 6), [0.0]]
    )
    x = torch.from_numpy(inputs["x"])
    truth = {
        "end": walk(ddim, model, x, inputs["lams"]).numpy(),
        "mistakes": q07_mistakes.of_ddim(model, x, inputs["lams"]),
    }
    return Case(inputs, truth, network_of(model))


def run_sampler(answer, inputs, network) -> list:
    model, x = model_of(inputs, network), torch.tensor(inputs["x"])
    return arrays(answer(model, x, [model.schedule.at_lam(float(lam)) for lam in inputs["lams"]]))


def judge_sampler(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("x at the last level",), (case.inputs["x"].shape,))
    if bad:
        return bad
    off, steps = distance(outputs[0], case.truth["end"]), len(case.inputs["lams"]) - 1
    if off < 1e-9:
        return (
            RIGHT
            if abs(calls - steps) < 1e-9
            else wrong(
                f"right, but with {calls:g} network calls for {steps} steps: keep the "
                "prediction in a variable",
                0.5,
            )
        )
    return wrong(
        f"off by {off:.1e} (relative): "
        f"{recognise(outputs[0], case.truth['mistakes']) or 'each step is x_b = α_b x₀ + σ_b ε, with both faces from one call at level a'}"
    )


# Q07.4: the flow of a Gaussian


def draw_flow(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    level = {name: value[:1] for name, value in _levels(rng, 1).items()}
    inputs = {
        "x": rng.normal(size=(16, 2)),
        "mean": rng.normal(size=2) + 1.0,
        "c": np.array([rng.uniform(0.3, 0.8)]),
        **level,
    }
    al_s, si_s, al_t, si_t = (value.item() for value in level.values())
    x, mean, c = inputs["x"], inputs["mean"], inputs["c"].item()
    v_s, v_t = (al_s * c) ** 2 + si_s**2, (al_t * c) ** 2 + si_t**2
    truth = al_t * mean + (v_t / v_s) ** 0.5 * (x - al_s * mean)
    return Case(
        inputs, {"x": truth, "mistakes": q07_mistakes.of_flow(x, mean, c, al_s, si_s, al_t, si_t)}
    )


def run_flow(answer, inputs, network) -> list:
    numbers = (float(inputs[name][0]) for name in ("c", *LEVELS))
    return arrays(answer(torch.tensor(inputs["x"]), torch.tensor(inputs["mean"]), *numbers))


def judge_flow(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("x at level t",), (case.inputs["x"].shape,))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["x"])
    if off < 1e-9:
        return RIGHT
    return wrong(
        f"off by {off:.1e} (relative): "
        f"{recognise(outputs[0], case.truth['mistakes']) or 'a Gaussian stays one: match its mean and its width at both levels'}"
    )


# Q07.5: the best grid for it


def draw_grid(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    first, last, c, n = (
        rng.uniform(-5, -3),
        rng.uniform(2, 4),
        rng.uniform(0.2, 0.7),
        int(rng.integers(6, 12)),
    )
    phi = np.linspace(np.arctan(np.exp(-first) / c), np.arctan(np.exp(-last) / c), n + 1)
    truth = {
        "lam": -np.log(c * np.tan(phi)),
        "mistakes": q07_mistakes.of_grid(first, last, c, n),
        "c": c,
    }
    return Case({"ends": np.array([first, last]), "c": np.array([c]), "n": np.array([n])}, truth)


def run_grid(answer, inputs, network) -> list:
    return arrays(answer(*map(float, inputs["ends"]), float(inputs["c"][0]), int(inputs["n"][0])))


def judge_grid(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("λ",), (case.truth["lam"].shape,))
    if bad:
        return bad
    lam, c = outputs[0], case.truth["c"]
    if np.abs(lam - case.truth["lam"]).max() < 1e-8:
        return RIGHT
    if distance(lam, case.truth["lam"]) < 1e-5:
        return wrong(
            "right up to the rounding of float32: make the grid in float64, like "
            "torch.linspace(…, dtype=torch.float64)",
            0.5,
        )
    why = recognise(lam, case.truth["mistakes"])
    if why is None and np.abs(lam[[0, -1]] - case.inputs["ends"]).max() > 1e-8:
        why = (
            f"the grid runs from {lam[0]:.3g} to {lam[-1]:.3g}, wanted from "
            f"{case.inputs['ends'][0]:.3g} to {case.inputs['ends'][1]:.3g}"
        )
    return wrong(
        f"DDIM keeps {_kept(lam, c):.4f} of the width on it, {_kept(case.truth['lam'], c):.4f} "
        f"on the best grid: {why or 'its steps are equal in φ = arctan(κ/c)'}"
    )


def _kept(lam: np.ndarray, c: float) -> float:
    return float(np.prod(np.cos(np.diff(np.arctan(np.exp(-lam) / c)))))


QUESTIONS = [
    Question("Q07.1", "eps_weights", 4, _draw_weights("eps"), run_weights, _judge_weights("ε")),
    Question("Q07.2", "data_weights", 4, _draw_weights("x0"), run_weights, _judge_weights("x₀")),
    Question("Q07.3", "ddim_sample", 5, draw_sampler, run_sampler, judge_sampler),
    Question("Q07.4", "gaussian_flow", 4, draw_flow, run_flow, judge_flow),
    Question("Q07.5", "best_grid", 3, draw_grid, run_grid, judge_grid),
]
