"""The questions of assignment 02: a ladder of noise levels, its loss, Langevin's variance, the
sampler, and a choice that must pass.
"""

import numpy as np
import torch
from dlib import Batch, Denoiser, Draw, Mixture, annealed_langevin, denoising, exact, ve
from dlib.losses import weights

from book.questions import Case, Question, Verdict, q02_mistakes
from book.questions.judging import RIGHT, distance, malformed, recognise, wrong
from book.questions.problems import array, arrays, tensors

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
ROWS, CHAINS, DELTA = 24, 2000, 0.2
# total variation: 2000 chains have a standard error of 0.011 at most, and 0.011 lie outside of 3
# widths by right
OFF = 0.08


def _compare(case: Case, outputs: list, name: str, shape: tuple, hint: str) -> Verdict:
    """Right, also in float32 steps, a known mistake, or the hint."""
    bad = malformed(outputs, (name,), (shape,))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["value"])
    if off < 1e-6:
        return RIGHT
    return wrong(
        f"off by {off:.1e} (relative): "
        f"{recognise(outputs[0], case.truth['mistakes'], 1e-5) or hint}"
    )


# Q02.1: geometric levels


def draw_ladder(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    low, top, n = rng.uniform(0.01, 0.2), rng.uniform(5, 50), int(rng.integers(6, 20))
    schedule = ve(low, top)
    truth = np.array(
        [level.sigma for level in schedule.levels(torch.linspace(1, 0, n, dtype=torch.float64))]
    )
    return Case(
        {"top": np.array(top), "low": np.array(low), "n": np.array(float(n))},
        {"value": truth, "mistakes": q02_mistakes.of_ladder(top, low, n)},
    )


def run_ladder(answer, inputs, network) -> list:
    return arrays(answer(float(inputs["top"]), float(inputs["low"]), int(inputs["n"])))


def judge_ladder(case: Case, outputs: list, calls: float) -> Verdict:
    return _compare(
        case,
        outputs,
        "sigmas",
        case.truth["value"].shape,
        "σ_i/σ_{i+1} must be one number γ, with σ_1 = top and σ_n = low: γ^(n−1) = top/low",
    )


# Q02.2: the noise-conditional loss


def _field(inputs: dict):
    """A score that depends on σ, one number or one a row, and its weights: a leaf that the
    loss may be differentiated by.
    """
    inner, outer = tensors(inputs, "inner", "outer")
    outer.requires_grad_()
    return (
        lambda x, sigma: torch.tanh(x @ inner + _rows(x, sigma)) @ outer / _rows(x, sigma)
    ), outer


def _rows(x, sigma) -> torch.Tensor:
    """σ as (1, 1) or (B, 1): the answer may give a number, (B,) or (B, 1)."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype)
    if sigma.numel() not in (1, len(x)) or sigma.ndim > 2:
        raise ValueError(
            f"score: sigma has shape {tuple(sigma.shape)}, wanted one number, or one for each "
            f"of the {len(x)} rows of x"
        )
    return sigma.reshape(-1, 1)


def draw_loss(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 6))
    inputs = {
        "inner": rng.normal(size=(d, 7)) / d**0.5,
        "outer": rng.normal(size=(7, d)),
        "x": rng.normal(size=(ROWS, d)),
        "z": rng.normal(size=(ROWS, d)),
        "sigma": np.exp(rng.uniform(-2, 2, ROWS)),
    }
    (score, leaf), x, z, sigma = _field(inputs), *tensors(inputs, "x", "z", "sigma")
    schedule = ve(0.05, 20)
    model = Denoiser(lambda x, t, cond: score(x, schedule.at(t).sigma), schedule, "score")

    def row(i: int) -> torch.Tensor:
        time = schedule.at_lam(-sigma[i : i + 1].log()).t
        return (
            denoising(
                model,
                Batch(x[i : i + 1], noise=z[i : i + 1]),
                Draw(0),
                weights.eps,
                lambda draw, n: time,
            ).value
            / 2
        )

    value = torch.stack([row(i) for i in range(ROWS)])
    mistakes = q02_mistakes.of_loss(
        lambda x, s: score(*map(torch.from_numpy, (x, s))).detach().numpy(),
        *(inputs[n] for n in ("x", "z", "sigma")),
    )
    return Case(
        inputs, {"value": array(value), "gradient": _gradient(value, leaf), "mistakes": mistakes}
    )


def _gradient(value, leaf) -> np.ndarray:
    """The gradient of the sum of the values in the weights; 0 where autograd sees none."""
    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        return np.zeros(leaf.shape)
    return torch.autograd.grad(value.sum(), leaf, materialize_grads=True)[0].numpy()


def run_loss(answer, inputs, network) -> list:
    score, leaf = _field(inputs)
    value = answer(score, *tensors(inputs, "x", "z", "sigma"))
    return arrays(value, _gradient(value, leaf))


def judge_loss(case: Case, outputs: list, calls: float) -> Verdict:
    verdict = _compare(
        case, outputs[:1], "the loss", (ROWS,), "for one sample it is ½ σ² ‖s(x₀ + σz, σ) + z/σ‖²"
    )
    if (
        verdict is not RIGHT
        or len(outputs) == 2
        and distance(outputs[1], case.truth["gradient"]) < 1e-8
    ):
        return verdict
    return wrong(
        "the values are right, but they cannot train a network: autograd does not see all of "
        "them. No torch.no_grad(), and no "
        ".detach(), .item() or .data of what score returns",
        0.5,
    )


# Q02.3: Langevin's variance


def draw_variance(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    start, v, n = rng.uniform(2, 9), rng.uniform(0.5, 1.5), int(rng.integers(3, 12))
    step = v * rng.uniform(0.1, 0.5)
    now = start
    for _ in range(n):
        now = (1 - step / v) ** 2 * now + 2 * step
    inputs = {
        "start": np.array(start),
        "v": np.array(v),
        "step": np.array(step),
        "n": np.array(float(n)),
    }
    return Case(
        inputs,
        {
            "value": np.array([now, v / (1 - step / (2 * v))]),
            "mistakes": q02_mistakes.of_variance(start, v, step, n),
        },
    )


def run_variance(answer, inputs, network) -> list:
    both = answer(*(float(inputs[name]) for name in ("start", "v", "step")), int(inputs["n"]))
    if both is None or isinstance(both, (int, float)):
        return arrays(both)
    return (
        []
        if any(value is None for value in both)
        else [np.array([float(value) for value in both])]
    )


def judge_variance(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("(after n steps, fixed point)",), ((2,),))
    if bad:
        return bad
    good = [abs(mine / true - 1) < 1e-9 for mine, true in zip(outputs[0], case.truth["value"])]
    if all(good):
        return RIGHT
    why = []
    for fine, name, mine, known in zip(
        good, ("after n steps", "fixed point"), outputs[0], case.truth["mistakes"]
    ):
        if not fine:
            hint = (
                "x ← (1 − η/v) x + √(2η) z: the two parts are independent, so their variances add"
            )
            why.append(f"{name}: {recognise(np.array([mine]), known) or hint}")
    return wrong("; ".join(why), 0.5 * any(good))


# Q02.4: annealed Langevin dynamics


def draw_annealed(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    k, levels, n = 3, int(rng.integers(4, 7)), int(rng.integers(3, 6))
    sigmas = np.geomspace(rng.uniform(4, 8), rng.uniform(0.1, 0.3), levels)
    inputs = {
        "weights": rng.dirichlet(np.full(k, 4.0)),
        "means": 2 * rng.normal(size=(k, 2)),
        "stds": rng.uniform(0.4, 1.2, k),
        "sigmas": sigmas,
        "epsilon": np.array(DELTA * sigmas[-1] ** 2),
        "x": 5 * rng.normal(size=(ROWS, 2)),
    }
    x, draw = torch.from_numpy(inputs["x"]), Draw(seed)
    inputs["noise"] = torch.stack(
        [torch.stack([draw.normal(x) for _ in range(n)]) for _ in range(levels)]
    ).numpy()
    model, schedule = _model(inputs)
    truth = annealed_langevin(
        model,
        x,
        [schedule.at_lam(-np.log(s)) for s in sigmas],
        DELTA * sigmas[-1] ** 2,
        n,
        Draw(seed),
    )
    truth = model(truth, schedule.at_lam(-np.log(sigmas[-1]))).x0.numpy()
    score = _score(inputs)
    mistakes = q02_mistakes.of_annealed(
        lambda x, s: score(torch.from_numpy(x), s).numpy(),
        inputs["x"],
        sigmas,
        float(inputs["epsilon"]),
        inputs["noise"],
    )
    return Case(inputs, {"value": truth, "mistakes": mistakes})


def _model(inputs: dict):
    schedule = ve(inputs["sigmas"].min(), inputs["sigmas"].max())
    return exact(Mixture(*tensors(inputs, "weights", "means", "stds")), schedule), schedule


def _score(inputs: dict):
    model, schedule = _model(inputs)
    return lambda x, sigma: (
        model(x, schedule.at_lam(-_rows(x, sigma).log().expand(len(x), 1))).score
    )


def run_annealed(answer, inputs, network) -> list:
    x, sigmas, noise = tensors(inputs, "x", "sigmas", "noise")
    return arrays(answer(_score(inputs), x, sigmas, float(inputs["epsilon"]), noise))


def judge_annealed(case: Case, outputs: list, calls: float) -> Verdict:
    hint = (
        "for each σ_i in turn: η_i = ε σ_i²/σ_L², then for each of its noises x ← x + η_i "
        "s(x, σ_i) + √(2η_i) z; at the very end x + σ_L² s(x, σ_L)"
    )
    return _compare(case, outputs, "x", case.inputs["x"].shape, hint)


# Q02.5: a ladder that passes the mode ledger


def draw_choice(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    return Case(
        {
            "apart": np.array(rng.uniform(10, 25)),
            "width": np.array(rng.uniform(0.6, 1.2)),
            "calls": np.array(float(rng.integers(480, 600))),
            "heavy": np.array(rng.uniform(0.65, 0.85)),
            "seed": np.array(float(seed)),
        }
    )


def run_choice(answer, inputs, network) -> list:
    returned = answer(*(float(inputs[name]) for name in ("apart", "width")), int(inputs["calls"]))
    return [] if returned is None else arrays(*returned)


def judge_choice(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(
        outputs,
        ("sigmas", "steps"),
        (outputs[0].shape[:1], ()) if len(outputs) == 2 else ((0,), ()),
    ) or _unusable(case.inputs, *outputs)
    if bad:
        return bad
    sigmas, n = outputs[0], int(outputs[1])
    mass = ledger_of(case.inputs, sigmas, n)
    truth = np.array([case.inputs["heavy"], 1 - case.inputs["heavy"]])
    off = (np.abs(mass - truth).sum() + 1 - mass.sum()) / 2
    if off < OFF:
        return RIGHT
    told = (
        f"the ledger has {mass[0]:.2f} and {mass[1]:.2f} in the modes and "
        f"{1 - mass.sum():.2f} in none, true are {truth[0]:.2f} and {truth[1]:.2f}: "
    )
    if sigmas[0] < case.inputs["apart"] / 2:
        return wrong(
            told
            + "the first level is too low: at σ_1 the modes must be one, and the chains must "
            "cross from the wrong one"
        )
    if len(sigmas) < 2 or (sigmas[:-1] / sigmas[1:]).max() > 3:
        return wrong(
            told
            + "two neighbouring levels are too far apart: the weights are decided on the way "
            "down, and noise is left behind"
        )
    if len(sigmas) * n < case.inputs["calls"] / 2:
        return wrong(told + "more than half of the calls are unused")
    return wrong(
        told
        + "the calls are spent where they do little: geometric levels, from about the distance "
        "of the modes"
    )


def _unusable(inputs: dict, sigmas: np.ndarray, steps: np.ndarray) -> Verdict | None:
    if sigmas.size == 0 or sigmas.min() <= 0 or (np.diff(sigmas) >= 0).any():
        return wrong("sigmas must fall, noisiest first, and be positive")
    if steps < 1 or steps != int(steps):
        return wrong(
            f"steps is {steps:g}: a whole number of Langevin steps for each level, at least 1"
        )
    if len(sigmas) * steps > inputs["calls"]:
        return wrong(
            f"{len(sigmas)} levels of {steps:g} steps make {len(sigmas) * steps:g} calls, "
            f"allowed are {inputs['calls']:g}"
        )
    if sigmas[-1] > 0.2 * inputs["width"] * (1 + 1e-5):  # room for float32
        return wrong(
            f"the last level is σ = {sigmas[-1]:.2g}, wanted at most a fifth of a mode's "
            "width: you would sample blurred data"
        )
    return None


def ledger_of(inputs: dict, sigmas: np.ndarray, n: int) -> np.ndarray:
    """The shares of 2000 chains, all started in the light mode, that end within three widths
    of each of two modes.
    """
    heavy, half = float(inputs["heavy"]), float(inputs["apart"]) / 2
    means = torch.tensor([[-half, 0.0], [half, 0.0]], dtype=torch.float64)
    mixture = Mixture(
        torch.tensor([heavy, 1 - heavy]), means, torch.full((2,), float(inputs["width"]))
    )
    schedule = ve(0.9 * float(sigmas.min()), 1.1 * float(sigmas.max()))
    model, levels = (
        exact(mixture, schedule),
        [schedule.at_lam(-float(np.log(sigma))) for sigma in sigmas],
    )
    x = annealed_langevin(
        model,
        means[1:].repeat(CHAINS, 1),
        levels,
        DELTA * levels[-1].sigma ** 2,
        n,
        Draw(int(inputs["seed"])),
    )
    mode = mixture.modes_of(model(x, levels[-1]).x0)
    return np.array([(mode == k).double().mean().item() for k in range(2)])


QUESTIONS = [
    Question("Q02.1", "geometric", 3, draw_ladder, run_ladder, judge_ladder),
    Question("Q02.2", "level_loss", 4, draw_loss, run_loss, judge_loss),
    Question("Q02.3", "langevin_variance", 4, draw_variance, run_variance, judge_variance),
    Question("Q02.4", "annealed", 5, draw_annealed, run_annealed, judge_annealed),
    Question("Q02.5", "choose_ladder", 4, draw_choice, run_choice, judge_choice),
]
