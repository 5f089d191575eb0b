"""Assignment 12: features of ω, the guided guess, the loss, told conditions, the exact guess."""

import numpy as np

from book.questions.q12 import NULL
from book.truth import Case, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import SINGLE, apart, exactly, fitted, relative, wrong

ROWS = 24


def dial(rng: np.random.Generator) -> dict:
    return {"omega": rng.uniform(0, 14, ROWS), "dim": 2 * int(rng.integers(4, 17))}


def _features(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """As usual, but in float32 angles of 14 000 are off by a thousandth."""
    said = exactly(q, case, outputs, calls)
    if said.share < 0.5 and apart(fitted(outputs, case.values), case.values) < 0.01:
        return wrong(SINGLE, 0.5)
    return said


FEATURES = Exact(
    "Q12.1",
    dial,
    returns="the features",
    hint="the k-th rate is 10000 to the power −k/(dim/2 − 1), for k = 0 … dim/2 − 1",
    verdict=_features,
    mistakes="""
        [angle.sin(), angle.cos()] → [angle.cos(), angle.sin()]
        # the cosines come first: all sines, then all cosines
        torch.cat([angle.sin(), angle.cos()], 1)
        → torch.stack([angle.sin(), angle.cos()], 2).flatten(1)
        # sines and cosines alternate: all sines, then all cosines
        (half - 1) → half
        # the last rate is too large: half as many rates as features, and the last is 1/10 000,
        # so divide k by dim/2 − 1
        (half - 1) → (dim - 1)  # there are dim/2 rates, not dim: the last one is 1/10 000
        1000 * omega → omega  # the factor 1000 is missing
        1000 * omega → 1000 * (1 + omega)  # this is told g = 1 + ω: the student is told ω
        (-k / → (k /  # the rates rise: they fall from 1 to 1/10 000
        10_000 ** (-k / (half - 1)) → 1 - k / (half - 1) * (1 - 1 / 10_000)
        # the rates fall by equal differences: they fall by equal factors
        1000 * omega[:, None] → 2 * math.pi * 1000 * omega[:, None]
        # the angle has a factor 2π too much
        10_000 ** → 1_000 **  # the last rate is 1/1000: it is 1/10 000
        1000 * omega[:, None] * rates → 1000 * omega[:, None] * rates.flip(0)
        # the slowest rate comes first: begin with the rate 1
    """,
)


def labelled(rng: np.random.Generator) -> dict:
    return {
        "z": rng.normal(size=(ROWS, 2)),
        "c": rng.integers(NULL, size=ROWS),
        "mix": rng.normal(size=(2, 2)),
        "places": rng.normal(size=(NULL + 1, 2)),
        "omega": rng.uniform(0, 4, ROWS),
    }


TARGET = Exact(
    "Q12.2",
    labelled,
    returns="x^ω",
    hint="go on from the guess with c, by ω times the way that led there from the guess without",
    mistakes="""
        full + omega → empty + omega
        # this is guidance_scale, not ω: without guidance, at ω = 0, the guess is the one with c
        full + omega[:, None] * (full - empty) → empty + omega[:, None] * (empty - full)
        # c and ∅ are swapped: guidance leads away from the guess without c
        (full - empty) → (empty - full)  # the direction is wrong: away from the guess without c
        return full + omega[:, None] * (full - empty)
        → return (1 + omega)[:, None] * full + omega[:, None] * empty
        # the weights 1 + ω and ω must have opposite signs
        return full + → return  # this is the direction alone: it is added to the guess with c
        full + omega[:, None] * (full - empty) → full  # there is no guidance in it
        full + omega[:, None] → full + omega.mean()
        # all samples get the mean ω: each has its own. (This is what a student learns that is not
        # told)
        full + omega[:, None] → full + omega[0]
        # all samples get the ω of the first: each has its own
        full_like(c, null) → full_like(c, 0)
        # the empty condition is taken for the label 0: it is null
    """,
)


def said(rng: np.random.Generator) -> dict:
    angle = rng.uniform(0.3, 1.2, (ROWS, 1))
    points = {name: rng.normal(size=(ROWS, 2)) for name in ("said", "z", "eps_cond", "eps_null")}
    level = {"alpha": np.cos(angle), "sigma": np.sin(angle)}
    return points | level | {"omega": rng.uniform(0, 4, (ROWS, 1))}


LOSS = Exact(
    "Q12.3",
    said,
    returns="the loss",
    hint="guide ε first, then find the v that belongs to this ε at z",
    mistakes="""
        (said - v) → (said - eps)
        # v is compared with ε: translate the guided ε into v at the same point
        (said - v) → (said - x0)
        # v is compared with x₀: translate the guided ε into v at the same point
        said - v → (sigma * z + alpha * said) - eps
        # this is the error of ε: compare the v
        said - v → (alpha * z - sigma * said) - x0
        # this is the error of x₀: compare the v
        eps_cond + omega * (eps_cond - eps_null) → eps_null + omega * (eps_cond - eps_null)
        # this is guidance_scale, not ω: ε^ω = ε(z, c) + ω (ε(z, c) − ε(z, ∅))
        eps_cond + omega * (eps_cond - eps_null) → eps_cond + omega * (eps_null - eps_cond)
        # c and ∅ are swapped in the direction: guidance leads away from ε(z, ∅)
        eps_cond + omega * (eps_cond - eps_null) → eps_cond
        # there is no guidance in it: the teacher's answers with and without c are both needed
        z - sigma * eps → z - sigma * eps_cond
        # the noise is guided, x₀ is not: both belong to the guided ε
        alpha * eps - sigma * x0 → alpha * eps_cond - sigma * x0
        # x₀ is guided, the noise is not: both belong to the guided ε
        ) / alpha → )  # x₀ is not divided by α
        alpha * eps - sigma * x0 → alpha * eps + sigma * x0
        # v has the wrong sign of x₀: it is αε − σx₀
        alpha * eps - sigma * x0 → eps - x0
        # this is flow matching's velocity, ε − x₀: here v = αε − σx₀
        alpha * eps - sigma * x0 → sigma * eps - alpha * x0
        # α and σ are interchanged in v = αε − σx₀
        .mean(1) → .sum(1)  # the sum over a sample's values stands where their mean belongs
        .square() → .abs()  # the difference is not squared
        .square().mean(1) → .norm(dim=1)  # this is the norm, not the mean of the squares
        (said - v) → ((said - v) / alpha)
        # the error of v is weighted on top: its square is the loss, at every level
    """,
)


def condition(rng: np.random.Generator) -> dict:
    low, width = rng.uniform(1.5, 3), rng.uniform(3, 6)
    both = {"text": rng.normal(size=(ROWS, 3)), "mask": rng.normal(size=(ROWS, 4))}
    return both | {"u": rng.uniform(size=ROWS), "low": low, "high": low + width}


def _yes_or_no(case: Case, values: list, truths: list) -> str:
    return relative(case, values, truths) if np.ndim(truths[0]) else "not so"


TOLD = Exact(
    "Q12.4",
    condition,
    returns=(
        "ω with a tensor",
        "ω with a dictionary",
        "a tensor goes under the name 'cond' and nothing else",
        "a dictionary's entries stay under their names and nothing else",
        "the given dictionary stays as it was",
    ),
    off=_yes_or_no,
    hint=(
        "u = 0 is the low end of the range and u = 1 the high end: then take ω from g",
        "u = 0 is the low end of the range and u = 1 the high end: then take ω from g",
        'the new dictionary is {"cond": cond, "omega": …}',
        "the new dictionary has the entries of cond, and omega",
        "make a new dictionary, {**cond, …}: what is written into cond the teacher sees as well",
    ),
    mistakes="""
        * u - 1 → * u  # this is g: the student is told ω = g − 1
        * u - 1 → * u + 1  # the 1 has the wrong sign: g = 1 + ω, so ω = g − 1
        low + (high - low) * u → low + high * u
        # the draw reaches g = low + high: its width is high − low
        low + (high - low) * u → high * u
        # the range begins at g = 0: it begins at low
        low + (high - low) * u → (high - low) * u
        # the range begins at g = 0: add low
        low + (high - low) * u → high - (high - low) * u
        # the range is turned round: u = 0 is its low end
        low + (high - low) * u → (low + high) / 2 + 0 * u
        # everybody gets the middle of the range: each sample draws its own
        cond if isinstance(cond, dict) else {"cond": cond} → {"cond": cond}
        # the dictionary is packed into another one: its entries keep their names
        return {**entries, "omega": omega} → entries["omega"] = omega
            return entries
        # omega was written into the dictionary that you were given, which the teacher gets too
        {**entries, "omega": omega} → {"omega": omega}
        # the teacher's condition is not in it: a dictionary's entries under their names, a tensor
        # under the name "cond"
    """,
)


def gaussians(rng: np.random.Generator) -> dict:
    """Two labels near each other, so that both count at most points."""
    means = rng.uniform(-1, 1, (2, 2))
    means[1] += [1.0, -1.0]
    return {
        "z": 1.2 * rng.normal(size=(ROWS, 2)),
        "c": rng.permutation(ROWS) % 2,
        "means": means,
        "stds": np.array([rng.uniform(0.3, 0.6), rng.uniform(0.8, 1.2)]),
        "shares": rng.dirichlet([6.0, 3.0]),
        **problems.level(rng),
        "omega": rng.uniform(1, 4),
    }


GAUSSIANS = Exact(
    "Q12.5",
    gaussians,
    returns="x^ω",
    hint="check the labels' probabilities at z: proportional to p_k times the density at z of "
    "N(αm_k, (α²s_k² + σ²)I)",
    mistakes="""
        shares.log() - → -  # the shares p_k are missing in the labels' probabilities
        - var.log() - → - 0.5 * var.log() -
        # a density's factor is 1/√variance for one dimension: here there are two
        - var.log() - → -
        # the densities are not normalised: the wider label's is lower, by its variance in two
        # dimensions
        - var.log() - → - 2 * var.log() -
        # a density's factor is 1/variance in two dimensions, not its square
        / (2 * var) → / var  # the ½ in the exponent is missing
        / (2 * var) → / 2
        # the exponent is not divided by the noisy points' variance
        / (2 * var) → / (2 * stds**2)
        # the exponent has the variance of clean data: with noise it is α²s² + σ²
        log_p.softmax(1) → shares.expand(len(z), 2)
        # the labels count by their shares everywhere: at z by their probabilities there
        log_p.softmax(1) → log_p.softmax(0)
        # the probabilities add up to 1 over the batch: at each point they do so over the labels
        log_p.softmax(1)[:, :, None] * each).sum(1) → torch.eye(2).double()[log_p.argmax(1)][:, :,
                None] * each).sum(1)
        # only the more probable label speaks: without a label both guesses are averaged
        full + omega → empty + omega
        # this is guidance_scale, not ω: at ω = 0 the guess is the one with the label
        (full - empty) → (empty - full)
        # the direction is wrong: guidance leads away from the guess without a label
        full + omega * (full - empty) → full  # there is no guidance in it
        return full + omega * (full - empty) → return empty
        # this is the guess without a label
        z[:, None] - alpha * means → z[:, None] - means
        # the noisy points' means are taken for m_k: they are α m_k
        (alpha * stds**2 / var) → (stds**2 / var)  # the factor α of the guess is missing
        , c] → , 1 - c]  # the labels are interchanged
    """,
)

QUESTIONS = [FEATURES, TARGET, LOSS, TOLD, GAUSSIANS]
