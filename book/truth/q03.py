"""Assignment 03: DDPM's posterior, also by weighted samples, a walk back, weights, the bound."""

import numpy as np
import torch
from dlib import CLEAN, Draw, flow, sub_vp, vp

from book.questions.problems import mixture_of, schedule_of
from book.truth import problems
from book.truth.exact import Exact

ROWS, SAMPLES = 12, 2000


def rows(levels: list) -> np.ndarray:
    """Levels as rows (α, σ)."""
    return np.array([[level.alpha, level.sigma] for level in levels])


def pair(rng: np.random.Generator) -> np.ndarray:
    """A noisier and a cleaner level of a schedule that is not variance preserving: a formula that
    needs 1 − α²_{a|b} must fail.
    """
    schedule = (flow(), sub_vp(0.1, rng.uniform(6, 10)))[int(rng.integers(2))]
    return rows(schedule.levels([rng.uniform(0.5, 0.8), rng.uniform(0.25, 0.45)]))


def two(rng: np.random.Generator) -> dict:
    shape = (ROWS, int(rng.integers(2, 4)))
    return {"x_a": rng.normal(size=shape), "x_0": rng.normal(size=shape), "levels": pair(rng)}


POSTERIOR = Exact(
    "Q03.1",
    two,
    returns=("the mean", "the variance"),
    hint=(
        "multiply q(x_a|x_b) and q(x_b|x_0) as functions of x_b: means are weighted by their "
        "precisions",
        "precisions add: 1/v = α²_{a|b}/σ²_{a|b} + 1/σ_b²",
    ),
    mistakes="""
        b.sigma**2 * x_a + b.alpha * added * x_0 → b.sigma**2 * x_0 + b.alpha * added * x_a
        # the two coefficients are exchanged: the shorter the step, the more of x_a must stay
        scale * b.sigma**2 * x_a → b.sigma**2 * x_a  # α_{a|b} is missing in front of x_a
        b.alpha * added → added  # α_b is missing in front of x_0
        scale * b.sigma**2 * x_a → scale * b.sigma * a.sigma * x_a
        # σ_b/σ_a stands where its square belongs
        a.sigma**2 - scale**2 * b.sigma**2 → 1 - scale**2
        # σ²_{a|b} = σ_a² − α²_{a|b} σ_b²: 1 − α²_{a|b} is that on variance-preserving schedules
        # only
        a.alpha / b.alpha → b.alpha / a.alpha  # α_{a|b} is α_a/α_b, not α_b/α_a
        return mean → mean = b.alpha * x_0 + b.sigma * (x_a - a.alpha * x_0) / a.sigma
            return mean
        # this keeps all of the old noise, which is DDIM's mean: the posterior keeps σ_b e^{−h} of
        # it
        return mean → return b.alpha * x_0
        # this is the mean of q(x_b|x_0): x_a says something about x_b too
        return mean → return x_a / scale
        # this is x_a/α_{a|b}, the forward step turned round: x_0 says something about x_b too
        return mean → keep = (scale * b.sigma / a.sigma) ** 2
            return b.alpha * x_0 + b.sigma * keep * (x_a - a.alpha * x_0) / a.sigma
        # e^{−h} is squared: the posterior keeps σ_b e^{−h} of the old noise
        mean, b.sigma**2 * added / a.sigma**2 → mean, added
        # this is σ²_{a|b}, the variance of the forward step (β_n of neighbours): knowing x_0
        # makes it smaller
        mean, b.sigma**2 * added / a.sigma**2 → mean, b.sigma * added**0.5 / a.sigma
        # this is the standard deviation, the question asks for the variance
        mean, b.sigma**2 * added / a.sigma**2 → mean, b.sigma**2
        # this is σ_b², the variance of q(x_b|x_0): knowing x_a makes it smaller
        mean, b.sigma**2 * added / a.sigma**2 → mean, b.sigma**2 * (1 - scale * b.sigma / a.sigma)
        # this is σ_b²(1 − e^{−h}): the exponent is −2h
        mean, b.sigma**2 * added / a.sigma**2 → mean, a.sigma**2 / (b.sigma**2 * added)
        # this is the precision, one over the variance
        mean, b.sigma**2 * added / a.sigma**2 → mean, b.sigma**2 + added / scale**2
        # precisions add, not variances: 1/v = α²_{a|b}/σ²_{a|b} + 1/σ_b²
    """,
)


def on_a_line(rng: np.random.Generator) -> dict:
    levels, x_0 = pair(rng), rng.normal(size=ROWS)
    x_a = levels[0, 0] * x_0 + levels[0, 1] * rng.normal(size=ROWS)
    return {"x_a": x_a, "x_0": x_0, "levels": levels, "z": rng.normal(size=SAMPLES)}


SAMPLING = Exact(
    "Q03.2",
    on_a_line,
    returns=("the mean", "the variance"),
    hint=(
        "x_b = α_b x_0 + σ_b z, weights ∝ exp(−(x_a − α_{a|b} x_b)²/2σ²_{a|b}) that sum to 1",
        "the weighted mean of (x_b − mean)², with the weights of the mean",
    ),
    mistakes="""
        -(gap**2) → 0 * gap  # the weights are missing: this is q(x_b|x_0), which has not seen x_a
        torch.softmax( → torch.exp(
        b.sigma**2)), 1) → b.sigma**2))) / len(z)
        # the weights do not sum to 1: divide by their sum, not by their number
        (a.sigma**2 - scale**2 * b.sigma**2) → a.sigma**2
        # q(x_a|x_b) has the variance σ²_{a|b} of the jump, not σ_a²
        - scale * x_b → - x_b  # q(x_a|x_b) has the mean α_{a|b} x_b, not x_b
        (2 * (a.sigma → (1 * (a.sigma  # the ½ is missing in the exponent of q(x_a|x_b)
        b.sigma**2)) → b.sigma**2) ** 0.5)
        # the exponent is divided by the standard deviation of the jump, not by its variance
        - scale * x_b → - a.alpha * x_b
        # q(x_a|x_b) has the mean α_{a|b} x_b with α_{a|b} = α_a/α_b, not α_a
        (x_b - mean[:, None]) ** 2 → x_b**2
        # this is the weighted mean of x_b²: subtract the square of the mean
        ** 2).sum(1) → ** 2).sum(1) ** 0.5
        # this is the standard deviation, the question asks for the variance
    """,
)


def problem(rng: np.random.Generator) -> dict:
    """A broad mixture in two or three dimensions, and a VP schedule."""
    mixture = problems.mixture(rng, int(rng.integers(2, 4)), stds=(0.5, 0.9))
    return mixture | {"beta": problems.beta(rng)}


def steps(rng: np.random.Generator) -> dict:
    """Six to nine steps of unequal length; the last one ends at σ = 0."""
    inputs, lengths = problem(rng), rng.uniform(0.5, 1.5, int(rng.integers(6, 10)))
    times = 0.95 - 0.85 * np.array([0, *lengths.cumsum()[:-1]]) / lengths.sum()
    x = rng.normal(size=(ROWS, inputs["means"].shape[1]))
    noise = rng.normal(size=(len(times) - 1, *x.shape))
    levels = rows([*schedule_of(inputs).levels(times), CLEAN])
    return inputs | {"x": x, "levels": levels, "noise": noise}


WALK = Exact(
    "Q03.3",
    steps,
    returns="x at the last level",
    hint="a step is α_b x_0 + σ_b e^{−h} ε + σ_b √(1 − e^{−2h}) z with x_0 = (x − σ_a ε)/α_a and "
    "e^{−h} = α_a σ_b/(α_b σ_a)",
    tolerance=1e-8,
    mistakes="""
        if b.sigma > 0 → if False
        # the fresh noise is missing: this is the mean alone, whose samples all end in one place
        b.sigma * keep * e → b.sigma * e
        if b.sigma > 0 → if False
        # this is DDIM: all of the old noise is kept and none is drawn
        b.sigma * keep * e → b.sigma * e
        # all of the old noise is kept and fresh noise comes on top: keep σ_b e^{−h} of it
        + b.sigma * keep * e →
        math.sqrt(1 - keep**2) * →
        # none of the old noise is kept, and σ_b is drawn afresh: that is noising the guess
        x + b.sigma → x + a.sigma
        # the fresh noise has the variance β_n of the forward step; asked is the posterior's
        b.sigma * math.sqrt(1 - keep**2) → b.sigma**2 * (1 - keep**2)
        # the fresh noise is multiplied by the variance: its standard deviation belongs there
        1 - keep**2 → 1 - keep
        # the fresh noise is √(1 − e^{−h}): the exponent under the root is −2h
        b.sigma * keep * e → b.sigma * keep**2 * e
        # the share of old noise is e^{−2h} of its variance, so e^{−h} of the noise itself
        eps(x, a) → eps(x, b if b.sigma > 0 else a)
        # the network is asked at the level the step goes to: x is at level a
        levels[1:] → levels[1:-1]
        # the last step is missing: at σ = 0 it returns x_0, without noise
        return x → return x + levels[-2].sigma * noise[-1]  # the last step adds noise
        noise[k] → noise[k]
                return x
        # this is x after one step: the return stands inside the loop
    """,
)


def weights(rng: np.random.Generator) -> dict:
    """Levels of a VP schedule, noise first, whose SNR passes through 1 and γ."""
    n = int(rng.integers(8, 13))
    lam = np.linspace(-2, 2, n) + rng.uniform(-0.1, 0.1, n)
    level = vp(*problems.beta(rng)).at_lam(torch.tensor(lam))
    numbers = {"alpha": level.alpha.numpy(), "sigma": level.sigma.numpy()}
    return numbers | {"gamma": rng.uniform(3, 7)}


WEIGHTS = Exact(
    "Q03.4",
    weights,
    returns=(
        "the factor of ε",
        "the factor of v",
        "the factor of min-SNR",
        "the factor of a step",
    ),
    hint=(
        "at the same x, σ·error(ε) = −α·error(x_0)",
        "v errs by α·error(ε) − σ·error(x_0); α² + σ² = 1",
        "min-SNR is the loss on ε times min(SNR, γ)/SNR",
        "½(SNR_b − SNR_a)",
    ),
    mistakes="""
        return snr, → return 1 / snr,
        # this is 1/SNR: an error of x_0 is multiplied by α/σ to be one of ε
        return snr, → return snr**0.5,  # this is α/σ: errors are squared
        return snr, → return torch.ones_like(snr),
        # this is 1: in units of ‖ε − ε_θ‖². Asked is the factor of ‖x_0 − x_θ‖²
        snr + 1 → 1 + 1 / snr
        # this is 1 + 1/SNR, in units of ‖ε − ε_θ‖². Asked is the factor of ‖x_0 − x_θ‖²
        snr + 1 → snr  # this is the factor of ε: v has a part of x_0, too
        snr + 1 → (alpha**2 - sigma**2) ** 2 / sigma**2
        # ε and x_0 err in opposite directions, so α·error(ε) and −σ·error(x_0) add up
        snr + 1 → alpha**2 * snr + sigma**2
        # this adds the squares of two errors that are one: take the error of αε − σx_0, then its
        # square
        snr + 1 → (snr + 1) ** 0.5  # this is √(SNR + 1): errors are squared
        snr.clamp(max=gamma) → (gamma / snr).clamp(max=1)
        # this is min(1, γ/SNR), in units of ‖ε − ε_θ‖². Asked is the factor of ‖x_0 − x_θ‖²
        clamp(max=gamma) → clamp(min=gamma)  # this is the larger of SNR and γ
        snr.clamp(max=gamma) → (alpha / sigma).clamp(max=gamma) ** 2
        # γ bounds SNR = α²/σ², not α/σ
        snr.clamp(max=gamma) → snr.clamp(max=gamma) / snr**2  # this is min(SNR, γ)/SNR twice over
        snr[1:] - snr[:-1] → snr[:-1] - snr[1:]
        # the sign is wrong: a KL is positive, and SNR grows from a to b
        / 2 →  # the ½ is missing
        snr[1:] - snr[:-1] → snr[1:] / snr[:-1] - 1
        # this is ½(SNR_b/SNR_a − 1), the factor of ‖ε − ε_θ‖²
        snr[1:] - snr[:-1] → (alpha / sigma).log().diff()
        # this is half the difference of λ: the difference of SNR is asked
        snr[1:] - snr[:-1] → snr[1:]
        # this is half the SNR of the cleaner level: subtract that of the noisier one
        snr[1:] - snr[:-1] → (alpha / sigma).diff()
        # this is half the difference of α/σ: SNR is its square
    """,
)


def data(rng: np.random.Generator) -> dict:
    inputs = problem(rng)
    times = np.sort(rng.uniform(0.1, 0.85, int(rng.integers(3, 6))))[::-1]
    levels = rows(schedule_of(inputs).levels([0.9, *times, rng.uniform(0.03, 0.08)]))
    x0 = mixture_of(inputs).sample(ROWS, Draw(int(rng.integers(1 << 30))))[0].numpy()
    noise = rng.normal(size=(len(levels), *x0.shape))
    return inputs | {"levels": levels, "x0": x0, "noise": noise}


BOUND = Exact(
    "Q03.5",
    data,
    returns=("L_N", "the list of steps", "L_0"),
    hint=(
        "KL(N(α x_0, σ²I) ‖ N(0, I)) = ½(α²‖x_0‖² + d(σ² − 1 − log σ²)), the mean over the batch",
        "½(SNR_b − SNR_a)‖x_0 − x_θ(x_a)‖², the mean over the batch",
        "−log N(x_0; x_b/α_b, κ_b² I) = ½‖ε‖² + ½d·log(2πκ_b²), the mean over the batch",
    ),
    tolerance=1e-8,
    mistakes="""
        - 1 - math.log(first.sigma**2) → - 1  # the logarithm of the variance is missing
        + d * (first.sigma**2 - 1 - math.log(first.sigma**2)) →
        # the variance and its logarithm are missing: this is the part of the means
        - math.log(first → + math.log(first  # the logarithm has the wrong sign
        d * (first.sigma → (first.sigma
        # σ² + α²‖x_0‖² − d − d log σ²: the variance counts once for each of the d coordinates
        return prior → return prior / d  # it is averaged over the coordinates: a KL adds them
        prior = 0.5 * → prior =  # the ½ is missing
        size + d * (first.sigma**2 - 1 - math.log(first.sigma**2)) →
        size / first.sigma**2 + d * (1 / first.sigma**2 - 1 + math.log(first.sigma**2))
        # the two densities are exchanged: q comes first
        off.square().sum(1) → off.square().mean(1)
        # the squares are averaged over the coordinates: ‖·‖² adds them
        0.5 * gain → gain  # the ½ is missing
        0.5 * gain → -0.5 * gain  # the sign is wrong: SNR_b − SNR_a
        x0_of(a.alpha * x0 + a.sigma * z, a) → x0_of(b.alpha * x0 + b.sigma * z, b)
        # the network is asked at level b: a step begins at a
        0.5 * gain → 0.5 * gain * (a.sigma / a.alpha) ** 2
        # the factor is that of ‖ε − ε_θ‖², ½(SNR_b/SNR_a − 1)
        0.5 * gain * →  # the factor is missing: this is the loss on x_0
        - (a.alpha / a.sigma) ** 2 →  # the factor is half the SNR of b: subtract that of a
        off.square().sum(1).mean() → off.square().sum()
        # the squares are summed over the batch: the mean is asked
        + d * math.log(2 * math.pi * kappa**2) →  # the normaliser ½d·log(2πκ²) is missing
        noise[-1].square().sum(1).mean() → d
        # this is its mean over the noise, ½d·log(2πeκ²): use the noise you were given
        , decoder → , -decoder  # the sign is wrong: L_0 is −log p
        kappa**2 → kappa  # κ stands where κ² belongs
        last.sigma / last.alpha → last.sigma  # κ is σ/α: the decoder's mean is x/α
        , decoder → , decoder / d  # it is averaged over the coordinates: their logarithms add
        d * math.log(2 → math.log(2  # the normaliser counts once for each of the d coordinates
    """,
)

QUESTIONS = [POSTERIOR, SAMPLING, WALK, WEIGHTS, BOUND]
