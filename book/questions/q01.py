"""The questions of assignment 01: a mixture's score, Tweedie's formula, two losses and a
sampler.
"""

import numpy as np
import torch
from dlib import (
    CLEAN,
    Batch,
    Draw,
    Mixture,
    denoising_score_matching,
    edm,
    energy_score,
    exact,
    langevin,
)
from dlib.losses import implicit

from book.questions import Case, Question, Verdict, q01_mistakes
from book.questions.judging import RIGHT, distance, malformed, recognise, wrong
from book.questions.problems import array, arrays, tensors

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
ROWS, FAR = 24, 8
MIXTURE = ("weights", "means", "stds")


def _mixture(rng: np.random.Generator, d: int) -> dict[str, np.ndarray]:
    """Overlapping modes with unequal weights and widths."""
    k = int(rng.integers(3, 6))
    return {
        "weights": rng.dirichlet(np.full(k, 4.0)),
        "means": rng.normal(size=(k, d)),
        "stds": rng.uniform(0.4, 1.2, k),
    }


def _of(inputs: dict) -> Mixture:
    return Mixture(*tensors(inputs, *MIXTURE))


def _compare(case: Case, outputs: list, name: str, shape: tuple, hint: str) -> Verdict:
    """Right, a known mistake, or the hint."""
    bad = malformed(outputs, (name,), (shape,))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["value"])
    if off < 1e-9:
        return RIGHT
    return wrong(
        f"off by {off:.1e} (relative): {recognise(outputs[0], case.truth['mistakes']) or hint}"
    )


# Q01.1: the score of a mixture


def draw_score(seed: int) -> Case:
    """Points among the modes, and some so far away that every density underflows."""
    rng = np.random.default_rng(seed)
    inputs = _mixture(rng, int(rng.integers(2, 5)))
    x = rng.normal(size=(ROWS, inputs["means"].shape[1]))
    x[-FAR:] = 80 * x[-FAR:] / np.linalg.norm(x[-FAR:], axis=1, keepdims=True)
    inputs["x"] = x
    mixture = _of(inputs)
    # by autograd
    truth = (
        energy_score(lambda x: -mixture.log_prob(x, CLEAN))(torch.from_numpy(x)).detach().numpy()
    )
    return Case(
        inputs,
        {
            "value": truth,
            "mistakes": q01_mistakes.of_score(*(inputs[n] for n in ("x", *MIXTURE))),
        },
    )


def run_score(answer, inputs, network) -> list:
    """The score, and 1 if it is another or none where autograd cannot work. (torch.func works
    there: only people see it.)
    """
    value = arrays(answer(*tensors(inputs, "x", *MIXTURE)))
    try:
        with torch.inference_mode():
            again = arrays(answer(*tensors(inputs, "x", *MIXTURE)))
        same = all(np.allclose(*pair, rtol=1e-6, equal_nan=True) for pair in zip(value, again))
    except Exception:  # without autograd's obstacle it ran
        same = False
    return value and [*value, np.array(float(not same))]


def judge_score(case: Case, outputs: list, calls: float) -> Verdict:
    if len(outputs) == 2 and outputs[1].any():
        return wrong(
            "this needs autograd (it fails under torch.inference_mode). Derive ∇ log p on "
            "paper and code the formula"
        )
    outputs, shape, near = outputs[:1], case.inputs["x"].shape, slice(ROWS - FAR)
    good = len(outputs) == 1 and outputs[0].shape == shape and np.isfinite(outputs[0][near]).all()
    if good and distance(outputs[0][near], case.truth["value"][near]) < 1e-6:
        far = outputs[0][ROWS - FAR :]
        if np.isfinite(far).all() and distance(far, case.truth["value"][ROWS - FAR :]) < 1e-6:
            return RIGHT
        return wrong(
            "right among the modes, wrong (or nan) 80 units away from them: there every "
            "density underflows to 0, and 0/0 is "
            "no responsibility. Take torch.softmax of the logarithms log w_k + log N_k(x)",
            0.5,
        )
    bad = None if good else malformed(outputs, ("the score",), (shape,))
    if bad:
        return bad
    why = recognise(
        outputs[0][near], {why: value[near] for why, value in case.truth["mistakes"].items()}
    )
    return wrong(
        f"among the modes off by {distance(outputs[0][near], case.truth['value'][near]):.1e} "
        "(relative) from autograd: "
        f"{why or 'differentiate log Σ_k w_k N_k on paper first: each mode pulls by (μ_k − x)/S_k², times its share of p(x)'}"
    )


# Q01.2: Tweedie's formula


def draw_denoise(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    inputs = _mixture(rng, int(rng.integers(2, 5)))
    sigma = rng.uniform(0.3, 0.9)
    inputs |= {
        "sigma": np.array(sigma),
        "x": 1.5 * rng.normal(size=(ROWS, inputs["means"].shape[1])),
    }
    truth = exact(_of(inputs), edm())(
        torch.from_numpy(inputs["x"]), edm().at_lam(-np.log(sigma))
    ).x0.numpy()
    mistakes = q01_mistakes.of_denoise(inputs["x"], sigma, *(inputs[n] for n in MIXTURE))
    return Case(inputs, {"value": truth, "mistakes": mistakes})


def run_denoise(answer, inputs, network) -> list:
    x, *mixture = tensors(inputs, "x", *MIXTURE)
    return arrays(answer(x, float(inputs["sigma"]), *mixture))


def judge_denoise(case: Case, outputs: list, calls: float) -> Verdict:
    hint = (
        "the posterior mean is x + σ² ∇ log p_σ(x), and p_σ is again a mixture: which of "
        "its numbers does noise change?"
    )
    return _compare(case, outputs, "E[x₀|x]", case.inputs["x"].shape, hint)


# Q01.3 and Q01.4: the implicit and the denoising loss of an arbitrary score


def _draw_network(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The numbers of a small vector field whose Jacobian is full and not symmetric."""
    d = int(rng.integers(3, 6))
    return {
        "inner": rng.normal(size=(d, 7)) / d**0.5,
        "outer": rng.normal(size=(7, d)),
        "x": rng.normal(size=(ROWS, d)),
    }


def _field(inputs: dict):
    """The vector field as a score function, and its weights: a leaf that the loss may be
    differentiated by.
    """
    inner, outer = tensors(inputs, "inner", "outer")
    outer.requires_grad_()
    return (lambda x: torch.tanh(x @ inner) @ outer), outer


def _rows(loss, *arrays) -> torch.Tensor:
    """A loss of the book, one row of the batch at a time."""
    return torch.stack(
        [loss(*(torch.from_numpy(a[i : i + 1]) for a in arrays)).value for i in range(ROWS)]
    )


def _gradient(value, weights) -> np.ndarray:
    """The gradient of the sum of the values in the weights; 0 where they do not depend on them
    for autograd.
    """
    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        return np.zeros(weights.shape)
    return torch.autograd.grad(value.sum(), weights, materialize_grads=True)[0].numpy()


def draw_implicit(seed: int) -> Case:
    inputs = _draw_network(np.random.default_rng(seed))
    (score, weights), x = _field(inputs), inputs["x"]
    value = _rows(lambda x: implicit(score, Batch(x)), x)
    slope = 1 / np.cosh(x @ inputs["inner"]) ** 2
    jacobian = np.einsum("ik,bk,kj->bij", inputs["inner"], slope, inputs["outer"])
    s = score(torch.from_numpy(x))
    mistakes = q01_mistakes.of_implicit(s.detach().numpy(), jacobian)
    gradient = _gradient(value, weights)
    training = q01_mistakes.of_training(gradient, _gradient(s.square().sum(1) / 2, weights))
    return Case(
        inputs,
        {"value": array(value), "gradient": gradient, "mistakes": mistakes, "training": training},
    )


def run_implicit(answer, inputs, network) -> list:
    score, weights = _field(inputs)
    value = answer(score, *tensors(inputs, "x"))
    return arrays(value, _gradient(value, weights))


def judge_implicit(case: Case, outputs: list, calls: float) -> Verdict:
    hint = (
        "for one sample it is ½ Σ_i s_i² + Σ_i ∂s_i/∂x_i: check it on s(x) = −x, where it "
        "is ½‖x‖² − d"
    )
    return _trainable(case, outputs, _compare(case, outputs[:1], "the loss", (ROWS,), hint), 0.5)


def _trainable(case: Case, outputs: list, verdict: Verdict, share: float) -> Verdict:
    """The verdict on a loss's values; a right one becomes `share` if the gradient in the
    weights is wrong.
    """
    if (
        verdict is not RIGHT
        or len(outputs) == 2
        and distance(outputs[1], case.truth["gradient"]) < 1e-9
    ):
        return verdict
    why = (
        recognise(outputs[1], case.truth["training"])
        or "compute everything in torch, from what score returns"
    )
    return wrong(
        "the values are right, but they cannot train a network: their gradient in its weights "
        f"is not. {why}",
        share,
    )


def draw_dsm(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    inputs = _draw_network(rng)
    sigma = rng.uniform(0.3, 0.8)
    inputs |= {"z": rng.normal(size=inputs["x"].shape), "sigma": np.array(sigma)}
    (score, weights), x0, z = _field(inputs), inputs["x"], inputs["z"]
    value = _rows(
        lambda x0, z: denoising_score_matching(score, Batch(x0, noise=z), Draw(0), sigma), x0, z
    )
    mistakes = q01_mistakes.of_dsm(
        lambda x: score(torch.from_numpy(x)).detach().numpy(), x0, z, sigma
    )
    gradient = _gradient(value, weights)
    return Case(
        inputs,
        {
            "value": array(value),
            "gradient": gradient,
            "mistakes": mistakes,
            "training": q01_mistakes.of_training(gradient),
        },
    )


def run_dsm(answer, inputs, network) -> list:
    (score, weights), (x0, z) = _field(inputs), tensors(inputs, "x", "z")
    value = answer(score, x0, z, float(inputs["sigma"]))
    return arrays(value, _gradient(value, weights))


def judge_dsm(case: Case, outputs: list, calls: float) -> Verdict:
    verdict = _compare(
        case, outputs[:1], "the loss", (ROWS,), "for one sample it is ½ ‖s(x₀ + σz) + z/σ‖²"
    )
    return _trainable(case, outputs, verdict, 2 / 3)


# Q01.5: Langevin dynamics


def draw_langevin(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    d, n, step = 2, int(rng.integers(10, 20)), rng.uniform(0.02, 0.06)
    inputs = _mixture(rng, d) | {"x": 2 * rng.normal(size=(ROWS, d)), "step": np.array(step)}
    x, draw = torch.from_numpy(inputs["x"]), Draw(seed)
    inputs["noise"] = torch.stack([draw.normal(x) for _ in range(n)]).numpy()
    truth = langevin(_score_of(inputs), x, step, n, Draw(seed)).numpy()
    mistakes = q01_mistakes.of_langevin(
        lambda x: _score_of(inputs)(torch.from_numpy(x)).detach().numpy(),
        inputs["x"],
        step,
        inputs["noise"],
    )
    return Case(inputs, {"value": truth, "mistakes": mistakes})


def _score_of(inputs: dict):
    mixture = _of(inputs)
    return energy_score(lambda x: -mixture.log_prob(x, CLEAN))


def run_langevin(answer, inputs, network) -> list:
    x, noise = tensors(inputs, "x", "noise")
    return arrays(answer(_score_of(inputs), x, float(inputs["step"]), noise))


def judge_langevin(case: Case, outputs: list, calls: float) -> Verdict:
    hint = "one step is x ← x + η s(x) + √(2η) z_k, for each k in turn"
    return _compare(case, outputs, "x after the last step", case.inputs["x"].shape, hint)


QUESTIONS = [
    Question("Q01.1", "mixture_score", 6, draw_score, run_score, judge_score),
    Question("Q01.2", "denoise", 4, draw_denoise, run_denoise, judge_denoise),
    Question("Q01.3", "implicit_loss", 4, draw_implicit, run_implicit, judge_implicit),
    Question("Q01.4", "denoising_loss", 3, draw_dsm, run_dsm, judge_dsm),
    Question("Q01.5", "langevin_chain", 3, draw_langevin, run_langevin, judge_langevin),
]
