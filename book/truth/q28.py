"""Assignment 28: the tilt, DPO's loss and its translation to diffusion, and what they ask for."""

import math

import numpy as np

from book.questions.q28 import SCRIPTS
from book.truth import Case
from book.truth.exact import Exact
from book.truth.judging import distance, trainable

ROWS = 24


def table(rng: np.random.Generator) -> dict:
    pi = rng.uniform(0.5, 2, size=7)
    return {"pi": pi / pi.sum(), "r": rng.normal(size=7), "beta": rng.uniform(0.3, 0.8)}


TILT = Exact(
    "Q28.1",
    table,
    returns="p*",
    hint="the best p is π e^{r/β}, divided by its sum",
    mistakes="""
        pi.log() + r / beta → pi.log() + r * beta
        # the reward is multiplied by β: the smaller the price, the further it goes
        pi.log() + r / beta → r / beta  # π is missing
        pi.log() + r / beta → pi + r / beta  # inside the exponential stands log π, not π
        pi.log() + r / beta → pi.log() - r / beta  # this is the tilt by −r
        return torch.softmax(pi.log() + r / beta, 0) → return pi * torch.exp(r / beta)
        # it is not normalised: divide it by its sum
        return torch.softmax(pi.log() + r / beta, 0) → return pi.log() + r / beta
        # this is log p* up to a constant, not p*
        r / beta → r  # β is missing
    """,
)


def choices(rng: np.random.Generator) -> dict:
    names = ("log_win", "log_lose", "ref_win", "ref_lose")
    made = {name: rng.normal(size=ROWS) - 3 for name in names}
    return made | {"beta": rng.uniform(0.2, 0.6)}


LOSS = Exact(
    "Q28.2",
    choices,
    returns="the loss",
    hint="β log(p/π) of the winner, less that of the loser, is the argument of the sigmoid",
    mistakes="""
        -torch.nn.functional.logsigmoid(margin) → torch.nn.functional.logsigmoid(margin)
        # the sign: this is the logarithm of the probability, the loss is minus that
        logsigmoid(margin) → logsigmoid(-margin)
        # winner and loser are exchanged: this trains towards what people dislike
        (log_win - ref_win) - (log_lose - ref_lose) → log_win - log_lose
        # the reference is missing: the reward is β log(p/π)
        (log_win - ref_win) - (log_lose - ref_lose) → (log_win + ref_win) - (log_lose + ref_lose)
        # the reference's logarithms are added: it is the logarithm of a ratio
        beta * (( → ((  # β is missing
        beta * (( → 1 / beta * ((  # it is divided by β: the reward is β log(p/π)
        -torch.nn.functional.logsigmoid(margin) → -torch.sigmoid(margin)
        # the logarithm is missing
    """,
)


def diffusion(rng: np.random.Generator) -> dict:
    angle = rng.uniform(0.4, 1.2)
    made = {name: rng.normal(size=(ROWS, 3)) for name in ("winner", "loser", "eps")}
    made |= {"alpha": math.cos(angle), "sigma": math.sin(angle), "B": rng.uniform(2, 6)}
    made["inner"] = rng.normal(size=(4, 7))
    return made | {name: 0.4 * rng.normal(size=(7, 3)) for name in ("student", "reference")}


DIFFUSION = Exact(
    "Q28.3",
    diffusion,
    returns="the loss",
    verdict=trainable(0.4),
    hint="errors of both networks on both samples; the student's less the reference's; the "
    "winner's less the loser's; times −½B; minus logsigmoid of that",
    mistakes="""
        inside = -0.5 * B → inside = 0.5 * B
        # the sign inside the sigmoid: it must be positive where the student's error on the winner
        # has fallen more than that on the loser
        -0.5 * B → -B  # the ½ is missing
        return new - old → return new
        # the reference is missing: subtract its error on the same noisy sample
        -0.5 * B → -0.5 * B * winner.shape[1]
        # the errors are summed over a sample's values, not averaged
        gap(winner) - gap(loser) → gap(winner) + gap(loser)
        # the loser's term is added: it must be subtracted
        alpha * x_0 + sigma * eps → x_0
        # the networks are asked at clean samples: noise them first
        logsigmoid(inside) → logsigmoid(inside.detach())
        # no gradient reaches the student's weights
    """,
)


def levels(rng: np.random.Generator) -> dict:
    angle = np.sort(rng.uniform(0.05, 1.5, size=9))
    made = {"alpha": np.cos(angle), "sigma": np.sin(angle), "S": rng.uniform(0.2, 0.6)}
    return made | {"B": rng.uniform(20, 200), "D": int(rng.integers(3, 9))}


SHIFT = Exact(
    "Q28.4",
    levels,
    returns="δ",
    hint="the argument of the sigmoid is (B/D) γ δ times the difference of the first "
    "coordinates, the judge's is that difference; γ = (ασ/(α²S² + σ²))²",
    mistakes="""
        D / (B * gamma) → 1 / (B * gamma)
        # D is missing: the errors are averaged over D values, and one of them changes
        D / (B * gamma) → D * D / (B * gamma)  # D stands there twice
        D / (B * gamma) → B * gamma / D  # this is one over δ
        D / (B * gamma) → D / (2 * B * gamma)
        # a factor of 2: the ½ of the loss and the 2 of the mixed term cancel
        D / (B * gamma) → 2 * D / (B * gamma)
        # a factor of 2: the ½ of the loss and the 2 of the mixed term cancel
        sigma**2)) ** 2 → sigma**2))
        # γ is not squared: the shift enters ε once, and the clean sample once more
        alpha**2 * S**2 + sigma**2 → alpha**2 * S + sigma**2  # S is the std: S² is the variance
        alpha**2 * S**2 + sigma**2 → alpha**2 + sigma**2
        # the variance of the noisy data is α²S² + σ²
        return D / (B * gamma) → return S**2 + 0 * alpha
        # this is the tilt's shift: no single level asks for it
    """,
)


def script(rng: np.random.Generator) -> dict:
    return {"b": rng.uniform(100, 900), "values": int(rng.integers(3, 50))}


def _which(case: Case, values: list, truths: list) -> str:
    names = [f"half = {half}, summed = {summed}" for half, summed in SCRIPTS]
    fails = [n for n, v, t in zip(names, values, truths) if distance(v, t) > 1e-9]
    return f"wrong for {'; '.join(fails)}"


BETA = Exact(
    "Q28.5",
    script,
    returns="B",
    hint=_which,
    mistakes="""
        2 * b → b / 2  # the ½ goes the wrong way: without it b acts twice as much
        B = b if half else 2 * b → B = 2 * b if half else b
        # the cases with and without the ½ are exchanged
        B = b if half else 2 * b → B = b  # `half` has no effect
        B * values if summed else B → B / values if summed else B
        # a sum is larger than a mean: the same b acts more there, not less
        B * values if summed else B → B if summed else B * values
        # the cases of sums and means are exchanged
        B * values if summed else B → B  # `summed` has no effect
    """,
)

QUESTIONS = [TILT, LOSS, DIFFUSION, SHIFT, BETA]
