"""The questions of assignment 03: DDPM's posterior, the same by weighted samples, a walk back,
weights of losses, the bound.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from dlib import CLEAN, Draw, Mixture, NoiseSchedule, exact, flow, solvers, sub_vp, vp

from book.questions import Case, Question, Verdict, q03_mistakes
from book.questions.judging import faults
from book.questions.problems import arrays, schedule_of

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
ROWS, SAMPLES = 12, 2000


class Level(NamedTuple):
    """What an answer knows of a noise level."""

    alpha: float
    sigma: float


def _pair(schedule: NoiseSchedule, rng: np.random.Generator) -> np.ndarray:
    """A noisier and a cleaner level, as rows (α, σ)."""
    noisy, clean = rng.uniform(0.5, 0.8), rng.uniform(0.25, 0.45)
    return np.array([[level.alpha, level.sigma] for level in schedule.levels([noisy, clean])])


def _levels(rows: np.ndarray) -> list[Level]:
    return [Level(*map(float, row)) for row in rows]


def _problem(seed: int) -> tuple[np.random.Generator, dict]:
    """A broad mixture and a VP schedule, as arrays."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 4))
    inputs = {
        "weights": rng.dirichlet(np.full(3, 4.0)),
        "means": rng.normal(size=(3, d)),
        "stds": rng.uniform(0.5, 0.9, 3),
    }
    return rng, inputs | {"beta": np.array([rng.uniform(0.05, 0.2), rng.uniform(15, 25)])}


def _model(inputs: dict):
    mixture = Mixture(*(torch.tensor(inputs[name]) for name in ("weights", "means", "stds")))
    return mixture, exact(mixture, schedule_of(inputs))


def _face(inputs: dict, name: str):
    """(x, level) ↦ a face of the perfect network; the level is found by its α/σ, whatever
    object it is.
    """
    _, model = _model(inputs)
    return lambda x, level: getattr(
        model(x, model.schedule.at_lam(math.log(level.alpha / level.sigma))), name
    )


def _several(returned, count: int) -> list:
    """What an answer returned, as arrays: several of them if it kept to its docstring."""
    if returned is None:
        return arrays(None)
    return arrays(*returned) if isinstance(returned, (tuple, list)) else arrays(returned)


# Q03.1: the posterior


def draw_posterior(seed: int) -> Case:
    """On schedules that are not variance preserving: a formula that needs 1 − α²_{a|b} must
    fail.
    """
    rng = np.random.default_rng(seed)
    d, schedule = (
        int(rng.integers(2, 4)),
        (flow(), sub_vp(0.1, rng.uniform(6, 10)))[int(rng.integers(2))],
    )
    inputs = {
        "x_a": rng.normal(size=(ROWS, d)),
        "x_0": rng.normal(size=(ROWS, d)),
        "levels": _pair(schedule, rng),
    }
    (a, b), x_a, x_0 = _levels(inputs["levels"]), inputs["x_a"], inputs["x_0"]
    scale = a.alpha / b.alpha
    added = a.sigma**2 - scale**2 * b.sigma**2
    precision = scale**2 / added + 1 / b.sigma**2  # Bayes' rule, not its simplified form
    mean = (scale * x_a / added + b.alpha * x_0 / b.sigma**2) / precision
    return Case(
        inputs,
        {
            "values": [mean, np.array(1 / precision)],
            "mistakes": q03_mistakes.of_posterior(x_a, x_0, a, b),
        },
    )


def run_posterior(answer, inputs, network) -> list:
    return _several(
        answer(
            torch.tensor(inputs["x_a"]), torch.tensor(inputs["x_0"]), *_levels(inputs["levels"])
        ),
        2,
    )


def judge_posterior(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "multiply q(x_a|x_b) and q(x_b|x_0) as functions of x_b: means are weighted by their "
        "precisions",
        "precisions add: 1/v = α²_{a|b}/σ²_{a|b} + 1/σ_b²",
    )
    return faults(case, outputs, ("the mean", "the variance"), hints)


# Q03.2: the same by weighted samples


def draw_sampling(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    schedule = (flow(), sub_vp(0.1, rng.uniform(6, 10)))[int(rng.integers(2))]
    inputs = {
        "x_0": rng.normal(size=ROWS),
        "levels": _pair(schedule, rng),
        "z": rng.normal(size=SAMPLES),
    }
    a, b = _levels(inputs["levels"])
    inputs["x_a"] = a.alpha * inputs["x_0"] + a.sigma * rng.normal(size=ROWS)
    known = (inputs["x_a"], inputs["x_0"], a, b, inputs["z"])
    return Case(
        inputs,
        {
            "values": list(q03_mistakes.weighted(*known)),
            "mistakes": q03_mistakes.of_sampling(*known),
        },
    )


def run_sampling(answer, inputs, network) -> list:
    x_a, x_0, z = (torch.tensor(inputs[name]) for name in ("x_a", "x_0", "z"))
    return _several(answer(x_a, x_0, *_levels(inputs["levels"]), z), 2)


def judge_sampling(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "x_b = α_b x_0 + σ_b z, weights ∝ exp(−(x_a − α_{a|b} x_b)²/2σ²_{a|b}) that sum to 1",
        "the weighted mean of (x_b − mean)², with the weights of the mean",
    )
    return faults(case, outputs, ("the mean", "the variance"), hints)


# Q03.3: a walk back


def draw_chain(seed: int) -> Case:
    """Six to nine steps of unequal length; the last one ends at σ = 0."""
    rng, inputs = _problem(seed)
    n, schedule = int(rng.integers(6, 10)), schedule_of(inputs)
    lengths = rng.uniform(0.5, 1.5, n)
    times = 0.95 - 0.85 * np.concatenate([[0.0], lengths.cumsum()[:-1] / lengths.sum()])
    inputs["levels"] = np.array(
        [[level.alpha, level.sigma] for level in [*schedule.levels(times), CLEAN]]
    )
    inputs["x"] = rng.normal(size=(ROWS, inputs["means"].shape[1]))
    inputs["noise"] = rng.normal(size=(n - 1, *inputs["x"].shape))
    (_, model), x = _model(inputs), torch.tensor(inputs["x"])
    walk = schedule.levels(times)
    for a, b, z in zip(walk, walk[1:], torch.tensor(inputs["noise"])):
        x, _ = solvers.ancestral(model, x, a, b, noise=z)
    wrong = q03_mistakes.of_chain(
        _face(inputs, "eps"),
        torch.tensor(inputs["x"]),
        _levels(inputs["levels"]),
        torch.tensor(inputs["noise"]),
    )
    return Case(inputs, {"values": [model(x, walk[-1]).x0.numpy()], "mistakes": [wrong]})


def run_chain(answer, inputs, network) -> list:
    eps = _face(inputs, "eps")

    def network_eps(x, level):
        if level.sigma == 0:
            raise ValueError(
                "eps was asked at the last level, where σ = 0 and there is no noise to name: "
                "in a step from a to b, x is at level a"
            )
        return eps(x, level)

    return arrays(
        answer(
            network_eps,
            torch.tensor(inputs["x"]),
            _levels(inputs["levels"]),
            torch.tensor(inputs["noise"]),
        )
    )


def judge_chain(case: Case, outputs: list, calls: float) -> Verdict:
    hint = (
        "a step is α_b x_0 + σ_b e^{−h} ε + σ_b √(1 − e^{−2h}) z with x_0 = (x − σ_a ε)/α_a "
        "and e^{−h} = α_a σ_b/(α_b σ_a)"
    )
    return faults(case, outputs, ("x at the last level",), (hint,), tolerance=1e-8)


# Q03.4: weights


def draw_weights(seed: int) -> Case:
    """Levels of a VP schedule, noise first, whose SNR passes through 1 and γ."""
    rng = np.random.default_rng(seed)
    schedule, n = vp(rng.uniform(0.05, 0.2), rng.uniform(15, 25)), int(rng.integers(8, 13))
    level = schedule.at_lam(
        torch.linspace(-2, 2, n, dtype=torch.float64) + torch.tensor(rng.uniform(-0.1, 0.1, n))
    )
    alpha, sigma, gamma = level.alpha.numpy(), level.sigma.numpy(), rng.uniform(3, 7)
    snr = (alpha / sigma) ** 2
    values = [snr, snr + 1, np.minimum(snr, gamma), 0.5 * np.diff(snr)]
    return Case(
        {"alpha": alpha, "sigma": sigma, "gamma": np.array(gamma)},
        {"values": values, "mistakes": q03_mistakes.of_weights(alpha, sigma, gamma)},
    )


def run_weights(answer, inputs, network) -> list:
    return _several(
        answer(
            torch.tensor(inputs["alpha"]), torch.tensor(inputs["sigma"]), float(inputs["gamma"])
        ),
        4,
    )


def judge_weights(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "at the same x, σ·error(ε) = −α·error(x_0)",
        "v errs by α·error(ε) − σ·error(x_0); α² + σ² = 1",
        "min-SNR is the loss on ε times min(SNR, γ)/SNR",
        "½(SNR_b − SNR_a)",
    )
    return faults(
        case,
        outputs,
        ("the factor of ε", "the factor of v", "the factor of min-SNR", "the factor of a step"),
        hints,
    )


# Q03.5: the bound


def draw_bound(seed: int) -> Case:
    rng, inputs = _problem(seed)
    mixture, model = _model(inputs)
    times = np.sort(rng.uniform(0.1, 0.9, int(rng.integers(5, 8))))[::-1].copy()
    times[0], times[-1] = 0.9, rng.uniform(0.03, 0.08)
    inputs["levels"] = np.array(
        [[level.alpha, level.sigma] for level in model.schedule.levels(times)]
    )
    x0 = mixture.sample(ROWS, Draw(seed))[0]
    inputs |= {"x0": x0.numpy(), "noise": rng.normal(size=(len(times), *x0.shape))}
    levels, noise, x0_of, d = (
        _levels(inputs["levels"]),
        torch.tensor(inputs["noise"]),
        _face(inputs, "x0"),
        x0.shape[1],
    )
    # not the formulas that are asked for
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    first, last, steps = levels[0], levels[-1], []
    prior = kl(normal(first.alpha * x0, first.sigma), normal(0.0, 1.0)).sum(1).mean().item()
    for a, b, z in zip(levels, levels[1:], noise):
        scale = a.alpha / b.alpha
        added, guess = a.sigma**2 - scale**2 * b.sigma**2, x0_of(a.alpha * x0 + a.sigma * z, a)
        std, share = b.sigma * added**0.5 / a.sigma, b.alpha * added / a.sigma**2
        steps.append(kl(normal(share * x0, std), normal(share * guess, std)).sum(1).mean().item())
    decoder = (
        -normal((last.alpha * x0 + last.sigma * noise[-1]) / last.alpha, last.sigma / last.alpha)
        .log_prob(x0)
        .sum(1)
        .mean()
        .item()
    )
    values = [np.array(prior), np.array(steps), np.array(decoder)]
    assert d > 1  # sums and means over coordinates must differ
    return Case(
        inputs,
        {"values": values, "mistakes": q03_mistakes.of_bound(x0_of, x0, levels, noise, *values)},
    )


def run_bound(answer, inputs, network) -> list:
    return _several(
        answer(
            _face(inputs, "x0"),
            torch.tensor(inputs["x0"]),
            _levels(inputs["levels"]),
            torch.tensor(inputs["noise"]),
        ),
        3,
    )


def judge_bound(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "KL(N(α x_0, σ²I) ‖ N(0, I)) = ½(α²‖x_0‖² + d(σ² − 1 − log σ²)), the mean over the batch",
        "½(SNR_b − SNR_a)‖x_0 − x_θ(x_a)‖², the mean over the batch",
        "−log N(x_0; x_b/α_b, κ_b² I) = ½‖ε‖² + ½d·log(2πκ_b²), the mean over the batch",
    )
    return faults(case, outputs, ("L_N", "the list of steps", "L_0"), hints, tolerance=1e-8)


QUESTIONS = [
    Question("Q03.1", "posterior", 4, draw_posterior, run_posterior, judge_posterior),
    Question("Q03.2", "posterior_by_sampling", 4, draw_sampling, run_sampling, judge_sampling),
    Question("Q03.3", "walk_back", 4, draw_chain, run_chain, judge_chain),
    Question("Q03.4", "loss_weights", 4, draw_weights, run_weights, judge_weights),
    Question("Q03.5", "bound_terms", 4, draw_bound, run_bound, judge_bound),
]
