"""The questions of assignment 05: a converter, a change of schedule, the test of converters,
the loss, and a walk with the right sign.
"""

import numpy as np
import torch
from dlib import Mixture, edm, exact, flow, sub_vp, vp

from book.questions import Case, Question, Verdict, q05_mistakes
from book.questions.judging import (
    RIGHT,
    distance,
    faults,
    malformed,
    pair,
    recognise,
    single,
    wrong,
)
from book.questions.problems import arrays, schedule_of
from book.questions.q04 import Level

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
ROWS = 12


def _levels(rng: np.random.Generator, each: int) -> np.ndarray:
    """(4·each, 4): noisy and clean levels of four schedules, one of them variance preserving,
    in random order.
    """
    beta = (rng.uniform(0.05, 0.2), rng.uniform(15, 25))
    rows = []
    for schedule in (vp(*beta), sub_vp(*beta), flow(), edm()):
        for lam in np.linspace(-1.2, 1.2, each) + rng.uniform(-0.2, 0.2, each):
            level = schedule.at_lam(float(lam))
            rows.append([level.alpha, level.sigma, *schedule.rates(level.t)])
    return rng.permutation(np.array(rows))


def _problem(seed: int) -> tuple[np.random.Generator, dict]:
    """A mixture and points, as arrays."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 4))
    inputs = {
        "weights": rng.dirichlet(np.full(3, 4.0)),
        "means": rng.normal(size=(3, d)),
        "stds": rng.uniform(0.4, 0.8, 3),
    }
    return rng, inputs | {
        "beta": np.array([rng.uniform(0.05, 0.2), rng.uniform(15, 25)]),
        "x": rng.normal(size=(ROWS, d)),
    }


def _exact(inputs: dict, schedule):
    return exact(
        Mixture(*(torch.tensor(inputs[name]) for name in ("weights", "means", "stds"))), schedule
    )


# Q05.1: x₀ and ε from any face


def draw_both(seed: int) -> Case:
    """Four levels; values of every face at each."""
    rng, inputs = _problem(seed)
    inputs = {
        "levels": _levels(rng, 1),
        "x0": inputs["x"],
        "eps": rng.normal(size=inputs["x"].shape),
    }
    x0, eps = (
        np.broadcast_to(inputs[name], (len(inputs["levels"]), *inputs[name].shape))
        for name in ("x0", "eps")
    )
    mistakes = {face: {} for face in q05_mistakes.FACES}
    for face in mistakes:
        found = [
            q05_mistakes.of_both(face, inputs["x0"], inputs["eps"], Level(*row))
            for row in inputs["levels"]
        ]
        mistakes[face] = {why: np.stack([each[why] for each in found], 1) for why in found[0]}
    return Case(inputs, {"value": np.stack([x0, eps]), "mistakes": mistakes})


def run_both(answer, inputs, network) -> list:
    """(2, faces, levels, B, d): x₀ and ε."""
    x0, eps = torch.tensor(inputs["x0"]), torch.tensor(inputs["eps"])
    found = []
    for face in q05_mistakes.FACES:
        for level in (Level(*map(float, row)) for row in inputs["levels"]):
            x, w = (
                level.alpha * x0 + level.sigma * eps,
                q05_mistakes.face_of(face, x0, eps, level),
            )
            both = pair(answer(face, w, x, level), "(x0, eps)")
            if both is None:
                return []
            found.append(np.stack([*arrays(*both)]))
    shape = (len(q05_mistakes.FACES), len(inputs["levels"]))
    return [np.stack(found, 1).reshape(2, *shape, *found[0].shape[1:])]


def judge_both(case: Case, outputs: list, calls: float) -> Verdict:
    """A fifth of the points for each face."""
    truth = case.truth["value"]
    bad = malformed(outputs, ("(x0, eps)",), ((2, len(q05_mistakes.FACES), *truth.shape[1:]),))
    if bad:
        return bad
    said = []
    for i, face in enumerate(q05_mistakes.FACES):
        value = outputs[0][:, i]
        off = distance(value, truth)
        if off > 1e-8:
            why = (
                recognise(value, case.truth["mistakes"][face])
                or "solve x = α x₀ + σ ε together with the definition of the face"
            )
            said.append(f"from {face}: off by {off:.1e} (relative): {why}")
    return wrong(" · ".join(said), 1 - len(said) / len(q05_mistakes.FACES)) if said else RIGHT


# Q05.2: an ε-model as a velocity model


def _judge_one(case: Case, outputs: list, name: str, hint: str) -> Verdict:
    """One array; half of the points if it is right to single precision."""
    verdict = faults(case, outputs, (name,), (hint,), 1e-8)
    near = (
        len(outputs) == 1
        and outputs[0].shape == case.truth["values"][0].shape
        and verdict != RIGHT
    )
    return (near and single(distance(outputs[0], case.truth["values"][0]))) or verdict


def draw_velocity(seed: int) -> Case:
    rng, inputs = _problem(seed)
    inputs["t"] = np.array(rng.choice([rng.uniform(0.25, 0.4), rng.uniform(0.6, 0.75)]))
    t = float(inputs["t"])
    truth = _exact(inputs, flow())(torch.tensor(inputs["x"]), flow().at(t)).velocity.numpy()
    eps_model, at_lam = _eps_model(inputs)
    return Case(
        inputs,
        {
            "values": [truth],
            "mistakes": [
                q05_mistakes.of_velocity(eps_model, at_lam, torch.tensor(inputs["x"]), t)
            ],
        },
    )


def _eps_model(inputs: dict):
    """(ε-model on a variance-preserving schedule, λ ↦ its level)."""
    model = _exact(inputs, schedule_of(inputs))
    return (lambda x, level: model(x, level).eps), lambda lam: model.schedule.at_lam(float(lam))


def run_velocity(answer, inputs, network) -> list:
    return arrays(answer(*_eps_model(inputs), torch.tensor(inputs["x"]), float(inputs["t"])))


def judge_velocity(case: Case, outputs: list, calls: float) -> Verdict:
    hint = (
        "at the model's level of equal λ, x is α'/α times as large; from its ε there "
        "follows x₀, and u = ε − x₀"
    )
    return _judge_one(case, outputs, "the velocity", hint)


# Q05.3: the test of converters


def draw_test(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    inputs = {
        "levels": _levels(rng, 3),
        "order": rng.permutation(len(q05_mistakes.CONVERTERS)).astype(float),
    }
    return Case(
        inputs, {"names": [list(q05_mistakes.CONVERTERS)[int(i)] for i in inputs["order"]]}
    )


def run_test(answer, inputs, network) -> list:
    levels, converters = (
        [Level(*map(float, row)) for row in inputs["levels"]],
        list(q05_mistakes.CONVERTERS.values()),
    )
    try:
        said = [answer(converters[int(i)][0], levels) for i in inputs["order"]]
    except AssertionError:
        raise ValueError(
            "the answer stopped at an assert: return False where the converter is wrong"
        ) from None
    return (
        []
        if any(value is None for value in said)
        else [np.array([float(bool(value)) for value in said])]
    )


def judge_test(case: Case, outputs: list, calls: float) -> Verdict:
    names = case.truth["names"]
    bad = malformed(outputs, ("the test's answers",), ((len(names),),))
    if bad:
        return bad
    accepted = {name for name, said in zip(names, outputs[0]) if said}
    broken = [name for name, (_, right) in q05_mistakes.CONVERTERS.items() if not right]
    sound = [name for name, (_, right) in q05_mistakes.CONVERTERS.items() if right]
    refused = [name for name in sound if name not in accepted]
    missed = [name for name in broken if name in accepted]
    if refused:
        return wrong(
            f"your test rejects {len(refused)} of {len(sound)} right converters, for instance "
            f"one that {refused[0]}: draw in float64 (torch.randn makes float32 unless "
            "told), compare with the definitions, and allow for rounding, which conversion "
            "magnifies (1e-6 is enough)"
        )
    if missed:
        return wrong(
            f"your test accepts {len(missed)} of {len(broken)} wrong converters, for instance "
            f"one that {missed[0]}: draw x₀ and ε, compute every face by its "
            "definition, and compare, for every pair of faces at every level",
            0.8 * (1 - len(missed) / len(broken)),
        )
    return RIGHT


# Q05.4: the loss


def draw_loss(seed: int) -> Case:
    rng, inputs = _problem(seed)
    d = inputs["x"].shape[1]
    inputs = {
        "x0": inputs["x"],
        "eps": rng.normal(size=(ROWS, d)),
        "t": rng.uniform(0.1, 0.9, ROWS),
        "w": rng.normal(size=(d + 1, d)),
    }
    return Case(
        inputs,
        {
            "values": _with_slope(q05_mistakes.cfm, inputs),
            "mistakes": q05_mistakes.of_loss(lambda loss: _with_slope(loss, inputs)),
        },
    )


def _with_slope(loss, inputs: dict) -> list:
    """[value, gradient in the network's weights] of a loss; a gradient of zeros where there is
    none.
    """
    x0, eps, t, w = (torch.tensor(inputs[name]) for name in ("x0", "eps", "t", "w"))
    w.requires_grad_()
    value = loss(lambda x, t: torch.tanh(torch.cat([x, t[:, None]], 1) @ w), x0, eps, t)
    if value is None:
        return []
    trains = isinstance(value, torch.Tensor) and value.requires_grad and value.numel() == 1
    slope = torch.autograd.grad(value.reshape(()), w, allow_unused=True)[0] if trains else None
    return arrays(value, torch.zeros_like(w) if slope is None else slope)


def run_loss(answer, inputs, network) -> list:
    return _with_slope(answer, inputs)


def judge_loss(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "the mean over samples of ‖net(x_t, t) − (ε − x₀)‖², with x_t = (1−t) x₀ + t ε and one "
        "t a sample",
        "it follows from the loss, if nothing on the way is detached",
    )
    return faults(case, outputs, ("the loss", "its gradient"), hints, 1e-8)


# Q05.5: a walk with somebody else's network


def draw_walk(seed: int) -> Case:
    """Falling times with unequal steps, from 0.95 to 0.05."""
    rng, inputs = _problem(seed)
    lengths = rng.uniform(0.5, 1.5, int(rng.integers(8, 13)))
    inputs["times"] = 0.95 - 0.9 * np.concatenate([[0.0], lengths.cumsum() / lengths.sum()])
    theirs, x, times = _theirs(inputs), torch.tensor(inputs["x"]), inputs["times"].tolist()
    return Case(
        inputs,
        {
            "values": [q05_mistakes.walk(theirs, x, times).numpy()],
            "mistakes": [q05_mistakes.of_walk(theirs, x, times)],
        },
    )


def _theirs(inputs: dict):
    """A network of the other convention: time s is 1 at data, and it predicts x₀ − ε."""
    model = _exact(inputs, flow())
    return lambda x, s: -model(x, flow().at(min(max(1 - float(s), 0.0), 1.0))).velocity


def run_walk(answer, inputs, network) -> list:
    return arrays(answer(_theirs(inputs), torch.tensor(inputs["x"]), inputs["times"].tolist()))


def judge_walk(case: Case, outputs: list, calls: float) -> Verdict:
    return _judge_one(
        case,
        outputs,
        "x at the last time",
        "in our time dx/dt = ε − x₀; a step is x + (t_b − t_a)·dx/dt at (x, t_a)",
    )


QUESTIONS = [
    Question("Q05.1", "both", 4, draw_both, run_both, judge_both),
    Question("Q05.2", "velocity_of", 4, draw_velocity, run_velocity, judge_velocity),
    Question("Q05.3", "converts", 5, draw_test, run_test, judge_test),
    Question("Q05.4", "cfm_loss", 3, draw_loss, run_loss, judge_loss),
    Question("Q05.5", "follow", 4, draw_walk, run_walk, judge_walk),
]
