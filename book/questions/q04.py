"""The questions of assignment 04: the SDE of a schedule, its reverse with the right sign, a
walk, a change of schedule, a likelihood.
"""

from typing import NamedTuple

import numpy as np
import torch
from dlib import Draw, Mixture, exact, flow, sub_vp, ve, vp
from dlib.schedule import NoiseSchedule
from dlib.solvers import euler_maruyama

from book.questions import Case, Question, Verdict, q04_mistakes
from book.questions.judging import RIGHT, distance, malformed, recognise, wrong
from book.questions.problems import arrays, schedule_of

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
ROWS = 16
ENOUGH, COARSE = 2e-3, 0.06
"""In nats, over 12 seeds with 80 steps: Heun's rule was off by 1e-4 to 4e-4, Euler's by 0.009
to 0.03, the known mistakes by 0.13 or more.
"""


class Level(NamedTuple):
    """What question 4.4 knows of a schedule at one time."""

    alpha: float
    sigma: float
    d_alpha: float
    d_sigma: float


def _schedules(rng: np.random.Generator) -> list[NoiseSchedule]:
    beta = (rng.uniform(0.05, 0.2), rng.uniform(15, 25))
    return [vp(*beta), sub_vp(*beta), ve(rng.uniform(0.01, 0.05), rng.uniform(10, 50)), flow()]


def _level(schedule: NoiseSchedule, t: float) -> Level:
    here = schedule.at(t)
    return Level(here.alpha, here.sigma, *schedule.rates(t))


def _problem(seed: int) -> tuple[np.random.Generator, dict]:
    """A broad mixture, a VP schedule and points, as arrays."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 4))
    inputs = {
        "weights": rng.dirichlet(np.full(3, 4.0)),
        "means": rng.normal(size=(3, d)),
        "stds": rng.uniform(0.5, 0.9, 3),
    }
    return rng, inputs | {
        "beta": np.array([rng.uniform(0.05, 0.2), rng.uniform(15, 25)]),
        "x": rng.normal(size=(ROWS, d)),
    }


def _model(inputs: dict):
    mixture = Mixture(*(torch.tensor(inputs[name]) for name in ("weights", "means", "stds")))
    return mixture, exact(mixture, schedule_of(inputs))


def _score(inputs: dict):
    _, model = _model(inputs)
    return lambda x, t: model(x, model.schedule.at(float(t))).score


def _pair(returned) -> list:
    """What was returned as two arrays; a lone tensor as one, which judges know as the wrong
    number.
    """
    lone = returned is None or isinstance(returned, torch.Tensor) and len(returned) != 2
    return arrays(returned) if lone else arrays(*returned)


def _real(score):
    """The score, which wants real points: Python's root of a negative number is complex, and
    spreads without a word.
    """

    def asked(x, t):
        if x.is_complex():
            raise ValueError(
                "score: x has become complex. t falls, so t_b − t_a is negative: take the root "
                "of g²·(t_a − t_b)"
            )
        return score(x, t)

    return asked


def _judge_pair(case: Case, outputs: list, names: tuple, shapes: tuple, hints: tuple) -> Verdict:
    """Half of the points for each array."""
    bad = malformed(outputs, names, shapes)
    if bad:
        return bad
    faults = []
    for value, name, hint in zip(outputs, names, hints):
        off = distance(value, case.truth[name])
        if off > 1e-8:
            faults.append(
                f"{name}: off by {off:.1e} (relative): "
                f"{recognise(value, case.truth['mistakes'][name]) or hint}"
            )
    return wrong(" · ".join(faults), 0.5 * (2 - len(faults))) if faults else RIGHT


# Q04.1: f and g² of a schedule


def draw_sde(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    rows = np.array(
        [
            _level(schedule, rng.uniform(0.2, 0.8))
            for schedule in _schedules(rng)
            for _ in range(3)
        ]
    )
    inputs = dict(zip(Level._fields, rows.T.copy()))
    f = inputs["d_alpha"] / inputs["alpha"]
    g2 = 2 * inputs["sigma"] * (inputs["d_sigma"] - f * inputs["sigma"])
    return Case(inputs, {"f": f, "g²": g2, "mistakes": q04_mistakes.of_sde(**inputs)})


def run_sde(answer, inputs, network) -> list:
    return _pair(answer(*(torch.tensor(inputs[name]) for name in Level._fields)))


def judge_sde(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "a step multiplies the mean by 1 + f dt, and the mean is α x₀",
        "the variance given x₀, σ², obeys dσ²/dt = 2fσ² + g²",
    )
    return _judge_pair(case, outputs, ("f", "g²"), ((12,), (12,)), hints)


# Q04.2: the reverse drift


def draw_drift(seed: int) -> Case:
    rng, inputs = _problem(seed)
    inputs |= {"t": np.array(rng.uniform(0.2, 0.5)), "eta": np.array(rng.uniform(0.4, 0.8))}
    schedule, t, eta, x = (
        schedule_of(inputs),
        float(inputs["t"]),
        float(inputs["eta"]),
        inputs["x"],
    )
    f, g2, s = (
        schedule.drift(t),
        schedule.diffusion(t),
        _score(inputs)(torch.tensor(x), t).numpy(),
    )
    return Case(
        inputs,
        {
            "value": f * x - 0.5 * (1 + eta**2) * g2 * s,
            "mistakes": q04_mistakes.of_drift(x, f, g2, s, eta),
        },
    )


def run_drift(answer, inputs, network) -> list:
    schedule, t, score = schedule_of(inputs), float(inputs["t"]), _score(inputs)
    return arrays(
        answer(
            lambda x: score(x, t),
            torch.tensor(inputs["x"]),
            schedule.drift(t),
            schedule.diffusion(t),
            float(inputs["eta"]),
        )
    )


def _compare(case: Case, outputs: list, name: str, hint: str) -> Verdict:
    bad = malformed(outputs, (name,), (case.inputs["x"].shape,))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["value"])
    return (
        RIGHT
        if off < 1e-8
        else wrong(
            f"off by {off:.1e} (relative): "
            f"{recognise(outputs[0], case.truth['mistakes']) or hint}"
        )
    )


def judge_drift(case: Case, outputs: list, calls: float) -> Verdict:
    return _compare(
        case,
        outputs,
        "the drift",
        "in dx = [f x − c g² s] dt + η g dw, which c keeps the marginals?",
    )


# Q04.3: a walk


def draw_walk(seed: int) -> Case:
    """Falling times with unequal steps, from 0.9 to about 0.2."""
    rng, inputs = _problem(seed)
    n = int(rng.integers(10, 15))
    lengths = rng.uniform(0.5, 1.5, n)
    times = 0.9 - 0.7 * np.concatenate([[0.0], lengths.cumsum() / lengths.sum()])
    inputs |= {
        "times": times,
        "eta": np.array(rng.uniform(0.4, 0.8)),
        "noise": rng.normal(size=(n, *inputs["x"].shape)),
    }
    (_, model), x, step = (
        _model(inputs),
        torch.tensor(inputs["x"]),
        euler_maruyama(float(inputs["eta"])),
    )
    levels = model.schedule.levels(times)
    for a, b, z in zip(levels, levels[1:], torch.tensor(inputs["noise"])):
        x, _ = step(model, x, a, b, noise=z)
    return Case(
        inputs,
        {
            "value": x.numpy(),
            "mistakes": q04_mistakes.of_walk(_score(inputs), model.schedule, inputs),
        },
    )


def run_walk(answer, inputs, network) -> list:
    schedule = schedule_of(inputs)
    x, noise, times = (
        torch.tensor(inputs["x"]),
        torch.tensor(inputs["noise"]),
        [float(t) for t in inputs["times"]],
    )
    return arrays(
        answer(
            _real(_score(inputs)),
            x,
            times,
            lambda t: schedule.drift(float(t)),
            lambda t: schedule.diffusion(float(t)),
            float(inputs["eta"]),
            noise,
        )
    )


def judge_walk(case: Case, outputs: list, calls: float) -> Verdict:
    return _compare(
        case,
        outputs,
        "x at the last time",
        "one step is x + (t_b − t_a)·drift + η √(g² (t_a − t_b)) z, drift and g² at x and t_a",
    )


# Q04.4: the same curve on another schedule


def draw_move(seed: int) -> Case:
    rng, inputs = _problem(seed)
    i, j = rng.permutation(3)[:2]
    # where α = 1, x and y are the same
    schedules = [schedule for schedule in _schedules(rng) if schedule.name != "ve"]
    t = rng.uniform(0.3, 0.7)
    t_b = schedules[j].at_lam(schedules[i].at(t).lam).t
    inputs |= {"a": np.array(_level(schedules[i], t)), "b": np.array(_level(schedules[j], t_b))}
    mixture, _ = _model(inputs)
    at_a = exact(mixture, schedules[i])(torch.tensor(inputs["x"]), schedules[i].at(t))
    inputs["u"] = at_a.velocity.numpy()
    x_b = schedules[j].at(t_b).alpha / schedules[i].at(t).alpha * torch.tensor(inputs["x"])
    u_b = exact(mixture, schedules[j])(x_b, schedules[j].at(t_b)).velocity.numpy()
    return Case(
        inputs,
        {
            "x_b": x_b.numpy(),
            "u_b": u_b,
            "mistakes": q04_mistakes.of_move(
                inputs["x"], inputs["u"], Level(*inputs["a"]), Level(*inputs["b"])
            ),
        },
    )


def run_move(answer, inputs, network) -> list:
    a, b = (Level(*map(float, inputs[name])) for name in "ab")
    return _pair(answer(torch.tensor(inputs["x"]), torch.tensor(inputs["u"]), a, b))


def judge_move(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "y = x/α is the same on both",
        "solve x = α x₀ + σ ε and u = α̇ x₀ + σ̇ ε for x₀ and ε: both schedules share them",
    )
    return _judge_pair(case, outputs, ("x_b", "u_b"), (case.inputs["x"].shape,) * 2, hints)


# Q04.5: a likelihood


def draw_likelihood(seed: int) -> Case:
    rng, inputs = _problem(seed)
    inputs["times"] = np.linspace(0.1, 0.7, 81)
    mixture, model = _model(inputs)
    a, b = model.schedule.at(0.1), model.schedule.at(0.7)
    x = a.alpha * mixture.sample(ROWS, Draw(seed))[0] + a.sigma * torch.tensor(
        rng.normal(size=inputs["x"].shape)
    )
    inputs["x"] = x.numpy()
    truth = mixture.log_prob(x, a).numpy()
    return Case(
        inputs,
        {
            "value": truth,
            "mistakes": q04_mistakes.of_likelihood(
                model, x, inputs["times"], lambda x: mixture.log_prob(x, b)
            ),
        },
    )


def run_likelihood(answer, inputs, network) -> list:
    (mixture, model), times = _model(inputs), [float(t) for t in inputs["times"]]
    velocity = lambda x, t: model(x, model.schedule.at(float(t))).velocity
    return arrays(
        answer(
            velocity,
            lambda x: mixture.log_prob(x, model.schedule.at(times[-1])),
            torch.tensor(inputs["x"]),
            times,
        )
    )


def judge_likelihood(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("log p",), ((ROWS,),))
    if bad:
        return bad
    off = float(np.abs(outputs[0] - case.truth["value"]).max())
    if off < ENOUGH:
        return RIGHT
    if off < COARSE:
        return wrong(
            f"off by {off:.1e} nats: close, but not accurate enough. Euler's rule is off by so "
            "much with these steps: take the midpoint, "
            "Heun's rule or Runge–Kutta, for x and for the integral",
            0.5,
        )
    why = next(
        (
            why
            for why, value in case.truth["mistakes"].items()
            if np.abs(outputs[0] - value).max() < COARSE
        ),
        None,
    )
    return wrong(
        f"off by {off:.2g} nats: "
        f"{why or 'log p_a(x_a) = log p_b(x_b) + ∫ ∇·u dt along the path from x_a to x_b'}"
    )


QUESTIONS = [
    Question("Q04.1", "forward_sde", 4, draw_sde, run_sde, judge_sde),
    Question("Q04.2", "reverse_drift", 5, draw_drift, run_drift, judge_drift),
    Question("Q04.3", "reverse_walk", 4, draw_walk, run_walk, judge_walk),
    Question("Q04.4", "same_curve", 3, draw_move, run_move, judge_move),
    Question("Q04.5", "log_density", 4, draw_likelihood, run_likelihood, judge_likelihood),
]
