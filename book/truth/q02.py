"""Assignment 02: a ladder of noise levels, its loss, Langevin's variance, a sampler, a choice."""

import numpy as np
import torch
from dlib import Draw, Mixture, annealed_langevin, exact, ve

from book.truth import Case, Question, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import RIGHT, malformed, trainable, wrong

ROWS, CHAINS, DELTA = 24, 2000, 0.2
# total variation: 2000 chains have a standard error of 0.011 at most, and 0.011 lie outside of 3
# widths by right
OFF = 0.08
SINGLE = 1e-6  # results in float32 are right here


def ladder(rng: np.random.Generator) -> dict:
    top, low = rng.uniform(5, 50), rng.uniform(0.01, 0.2)
    return {"top": top, "low": low, "n": int(rng.integers(6, 20))}


LADDER = Exact(
    "Q02.1",
    ladder,
    returns="sigmas",
    hint="σ_i/σ_{i+1} must be one number γ, with σ_1 = top and σ_n = low: γ^(n−1) = top/low",
    tolerance=SINGLE,
    mistakes="""
        math.log(top), math.log(low) → math.log(low), math.log(top)
        # the levels go from data to noise: the noisiest comes first
        return torch.linspace(top, low, n, dtype=torch.float64)
        # the levels are evenly spaced: their ratio must be constant, not their difference
        return top * (low / top) ** (torch.arange(n, dtype=torch.float64) / n)
        # the ratio is (top/low)^(1/n): n levels have n − 1 steps between them
        return top * (low / top) ** (torch.arange(1, n + 1, dtype=torch.float64) / (n - 1))
        # the first level is missing, and one too low stands at the end
        torch.exp( → (  # these are the logarithms of the levels
        dtype=torch.float64)) → dtype=torch.float64)) ** 2  # these are the squares, σ²
    """,
)


def field(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The numbers of a small vector field, and a noise level for each row."""
    d = int(rng.integers(3, 6))
    return {
        "inner": rng.normal(size=(d, 7)) / d**0.5,
        "outer": rng.normal(size=(7, d)),
        "x": rng.normal(size=(ROWS, d)),
        "z": rng.normal(size=(ROWS, d)),
        "sigma": np.exp(rng.uniform(-2, 2, ROWS)),
    }


LOSS = Exact(
    "Q02.2",
    field,
    returns="the loss",
    hint="for one sample it is ½ σ² ‖s(x₀ + σz, σ) + z/σ‖²",
    verdict=trainable(0.5),
    tolerance=SINGLE,
    mistakes="""
        residual.square() → (residual / s).square()
        # the weight σ² is missing: unweighted, the smallest levels rule
        / 2 →  # the ½ is missing
        / 2 → / 2 / sigma  # the weight is σ: it must be σ², so that every level counts alike
        / 2 → / 2 / sigma**4  # the weight is 1/σ²: it must be σ²
        sigma) + z → sigma) - z
        # the target has the wrong sign: noise z moved x away from the data, the score −z/σ points
        # back
        x0 + s * z → x0  # the score is asked at x₀: it must see the noisy x₀ + σz
        s * z → z  # the noise is added without its σ
        s * score → score  # the score is not multiplied by σ: with s = −ε/σ, ε is −σs
        s * z → s**2 * z  # the noise is added as σ²z: x is x₀ + σz
        sigma) + z → sigma) + s**2 * z  # the target is −z/σ: σz stands where z/σ belongs
        residual.square().sum(1) → sigma * residual.norm(dim=1)  # the norm is not squared
        .sum(1) → .mean(1)  # the average over the coordinates stands where their sum belongs
        residual.square() → residual.detach().square()
        # autograd does not see all of them. No torch.no_grad(), and no .detach(), .item() or
        # .data of what score returns
    """,
)


def spread(rng: np.random.Generator) -> dict:
    v = rng.uniform(0.5, 1.5)
    step, n = v * rng.uniform(0.1, 0.5), int(rng.integers(3, 12))
    return {"start": rng.uniform(2, 9), "v": v, "step": step, "n": n}


VARIANCE = Exact(
    "Q02.3",
    spread,
    returns=("the variance after n steps", "the fixed point"),
    hint="x ← (1 − η/v) x + √(2η) z: the two parts are independent, so their variances add",
    mistakes="""
        (1 - eta / v) ** 2 → (1 - eta / v)
        # the factor is not squared: a variance takes the square of what multiplies x
        + 2 * eta → + math.sqrt(2 * eta)
        # the noise adds its variance 2η, not its standard deviation √(2η)
        + 2 * eta → + eta  # the noise adds 2η, not η
        + 2 * eta → + (2 * eta) ** 2  # the noise adds 2η, not (2η)²
        + 2 * eta →  # the noise is missing
        range(n) → range(1)  # this is one step, not n
        range(n) → range(n - 1)  # this is one step too few
        range(n) → range(n + 1)  # this is one step too many
        return variance, v / (1 - eta / (2 * v))
        → return variance**0.5, (v / (1 - eta / (2 * v))) ** 0.5
        # this is the standard deviation: a variance is asked for
        variance = start → variance = 0
        # the start is missing: it decays, but it has not gone after n steps
        return variance, → return v / (1 - eta / (2 * v)),
        # this is the fixed point: after n steps something of the start is left
        v / (1 - eta / (2 * v)) → v
        # this is v itself: for a finite step Langevin's variance is too large
        (1 - eta / (2 * v)) → (1 + eta / (2 * v))
        # the sign is wrong: the noise that a step adds is not quite taken away, the variance is
        # too large
        v / (1 - eta / (2 * v)) → 2 * v
        # the factor is not squared: a variance takes the square of what multiplies x
        v / (1 - eta / (2 * v)) → v + eta / 2
        # this is right to first order only: solve V = (1 − η/v)² V + 2η exactly
        (2 * v) → v  # the ½ is missing: divide 2η by 1 − (1 − η/v)² = (2η/v)(1 − η/2v)
        v / (1 - eta / (2 * v)) → variance
        # this is the variance after n steps: the fixed point does not depend on n
    """,
)


def descent(rng: np.random.Generator) -> dict:
    n, steps = int(rng.integers(4, 7)), int(rng.integers(3, 6))
    sigmas = np.geomspace(rng.uniform(4, 8), rng.uniform(0.1, 0.3), n)
    mixture = problems.mixture(rng, 2, stds=(0.4, 1.2))
    mixture["means"] *= 2
    return mixture | {
        "x": 5 * rng.normal(size=(ROWS, 2)),
        "sigmas": sigmas,
        "epsilon": DELTA * sigmas[-1] ** 2,
        "noise": rng.normal(size=(n, steps, ROWS, 2)),
    }


ANNEALED = Exact(
    "Q02.4",
    descent,
    returns="x",
    hint="for each σ_i in turn: η_i = ε σ_i²/σ_L², then for each of its noises x ← x + η_i s(x, "
    "σ_i) + √(2η_i) z; at the very end x + σ_L² s(x, σ_L)",
    tolerance=SINGLE,
    mistakes="""
        / sigmas[-1] ** 2 →  # the division by σ_L² is missing in η_i: the chain hardly moves
        sigmas[i] ** 2 / sigmas[-1] ** 2 → sigmas[i] / sigmas[-1]
        # η_i grows with σ_i²/σ_L², not with σ_i/σ_L
        / sigmas[-1] ** 2 → / sigmas[-1]
        # η_i grows with σ_i²/σ_L²: the square of σ_i stands over σ_L itself
        sigmas[i] ** 2 / sigmas[-1] ** 2 → torch.ones_like(x[:1, :1])
        # every level has the same step ε: it must grow with σ_i²
        sigmas[i] ** 2 / sigmas[-1] ** 2 → sigmas[-1] ** 2 / sigmas[i] ** 2
        # the step is upside down: it must be large where the noise is
        / sigmas[-1] ** 2 → / sigmas[0] ** 2
        # the step is normalised by σ_1: it must be ε at the last level
        torch.sqrt(2 * eta) → torch.sqrt(eta)  # the noise has the factor √η, it should be √(2η)
        torch.sqrt(2 * eta) → 2 * eta  # the noise has the factor 2η, the variance: take its root
        epsilon * → epsilon / 2 *
        # this is the paper's α, drift η/2 and noise √η: here they are η and √(2η)
        + torch.sqrt(2 * eta) * noise[i, k] →  # the noise is missing
        torch.sqrt(2 * eta) → math.sqrt(2 * epsilon)
        # the noise has √(2ε) at every level: it grows with η_i as the drift does
        x = x + eta → x = x - eta  # the score is subtracted: it points uphill, the chain climbs
        noise[i, k] → noise[i, k]
                x = x + sigmas[i] ** 2 * score(x, sigmas[i])
        x + sigmas[-1] ** 2 * score(x, sigmas[-1]) → x
        # it denoises after every level: only the last one is asked for
        range(noise.shape[1]) → range(1)  # one step a level: each level has all of its noises
        noise[i, k] → noise[0, k]  # every level uses the noises of the first
        score(x, sigmas[i]) → score(x, sigmas[-1])
        # the score is always asked at σ_L: ask it at the level's own σ
        range(len(sigmas)) → reversed(range(len(sigmas)))
        # the levels are walked from data to noise
        x + sigmas[-1] ** 2 * score(x, sigmas[-1]) → x
        # the last denoising is missing: x + σ_L² s(x, σ_L)
        x + sigmas[-1] ** 2 → x + sigmas[-1]  # the last denoising has σ_L where σ_L² belongs
        x + sigmas[-1] ** 2 → x - sigmas[-1] ** 2  # the last denoising has the wrong sign
        x + sigmas[-1] ** 2 → x + epsilon  # the last denoising has η_L where σ_L² belongs
    """,
)


def modes(rng: np.random.Generator) -> Case:
    inputs = {"apart": rng.uniform(10, 25), "width": rng.uniform(0.6, 1.2)}
    inputs["calls"] = int(rng.integers(480, 600))
    return Case(
        inputs, facts={"heavy": rng.uniform(0.65, 0.85), "seed": int(rng.integers(1 << 30))}
    )


def _passes(q: Question, case: Case, outputs: list, calls: float) -> Verdict:
    length = outputs[0].shape[:1] if outputs else (0,)
    bad = malformed(outputs, ("sigmas", "steps"), (np.zeros(length), np.zeros(())))
    bad = bad or _unusable(case.inputs, *outputs)
    if bad:
        return bad
    sigmas, n, heavy = outputs[0], int(outputs[1]), case.facts["heavy"]
    mass, truth = ledger(case, sigmas, n), np.array([heavy, 1 - heavy])
    if (np.abs(mass - truth).sum() + 1 - mass.sum()) / 2 < OFF:
        return RIGHT
    if sigmas[0] < case.inputs["apart"] / 2:
        why = (
            "the first level is too low: at σ_1 the modes must be one, and the chains must cross "
            "from the wrong one"
        )
    elif len(sigmas) < 2 or (sigmas[:-1] / sigmas[1:]).max() > 3:
        why = (
            "two neighbouring levels are too far apart: the weights are decided on the way down, "
            "and noise is left behind"
        )
    elif len(sigmas) * n < case.inputs["calls"] / 2:
        why = "more than half of the calls are unused"
    else:
        why = (
            "the calls are spent where they do little: geometric levels, from about the distance "
            "of the modes"
        )
    return wrong(
        f"the ledger has {mass[0]:.2f} and {mass[1]:.2f} in the modes and {1 - mass.sum():.2f} "
        f"in none, true are {truth[0]:.2f} and {truth[1]:.2f}: {why}"
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
            f"allowed are {inputs['calls']}"
        )
    if sigmas[-1] > 0.2 * inputs["width"] * (1 + 1e-5):  # room for float32
        return wrong(
            f"the last level is σ = {sigmas[-1]:.2g}, wanted at most a fifth of a mode's width: "
            "you would sample blurred data"
        )
    return None


def ledger(case: Case, sigmas: np.ndarray, n: int) -> np.ndarray:
    """The shares of 2000 chains, all started in the light mode, that end within three widths of
    each of two modes.
    """
    heavy, half = case.facts["heavy"], case.inputs["apart"] / 2
    means = torch.tensor([[-half, 0.0], [half, 0.0]], dtype=torch.float64)
    widths = torch.full((2,), case.inputs["width"])
    mixture = Mixture(torch.tensor([heavy, 1 - heavy]), means, widths)
    schedule = ve(0.9 * float(sigmas.min()), 1.1 * float(sigmas.max()))
    model, start = exact(mixture, schedule), means[1:].repeat(CHAINS, 1)
    levels = [schedule.at_lam(-float(np.log(sigma))) for sigma in sigmas]
    step = DELTA * levels[-1].sigma ** 2
    x = annealed_langevin(model, start, levels, step, n, Draw(case.facts["seed"]))
    mode = mixture.modes_of(model(x, levels[-1]).x0)
    return np.array([(mode == k).double().mean().item() for k in range(2)])


CHOICE = Question("Q02.5", modes, _passes)

QUESTIONS = [LADDER, LOSS, VARIANCE, ANNEALED, CHOICE]
