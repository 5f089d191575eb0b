"""Plausible wrong answers to assignment 03, computed so that a judge can recognise them:
{explanation: what it returns}.
"""

import math

import numpy as np


def of_posterior(x_a, x_0, a, b) -> list[dict[str, np.ndarray]]:
    scale = a.alpha / b.alpha
    added, flat = a.sigma**2 - scale**2 * b.sigma**2, 1 - scale**2
    eps = (x_a - a.alpha * x_0) / a.sigma
    of_x, of_x0 = scale * b.sigma**2 / a.sigma**2, b.alpha * added / a.sigma**2
    v = b.sigma**2 * added / a.sigma**2
    means = {
        "the two coefficients are exchanged: the shorter the step, the more of x_a must "
        "stay": of_x0 * x_a + of_x * x_0,
        "α_{a|b} is missing in front of x_a": of_x / scale * x_a + of_x0 * x_0,
        "α_b is missing in front of x_0": of_x * x_a + of_x0 / b.alpha * x_0,
        "σ_b/σ_a stands where its square belongs": scale * b.sigma / a.sigma * x_a + of_x0 * x_0,
        "σ²_{a|b} = σ_a² − α²_{a|b} σ_b²: 1 − α²_{a|b} is that on variance-preserving "
        "schedules only": of_x * x_a + b.alpha * flat / a.sigma**2 * x_0,
        "α_{a|b} is α_a/α_b, not α_b/α_a": of_x / scale**2 * x_a
        + b.alpha * (a.sigma**2 - b.sigma**2 / scale**2) / a.sigma**2 * x_0,
        "this keeps all of the old noise, which is DDIM's mean: the posterior keeps σ_b e^{−h} "
        "of it": b.alpha * x_0 + b.sigma * eps,
        "this is the mean of q(x_b|x_0): x_a says something about x_b too": b.alpha * x_0
        + 0 * x_a,
        "this is x_a/α_{a|b}, the forward step turned round: x_0 says something about x_b "
        "too": x_a / scale,
        "e^{−h} is squared: the posterior keeps σ_b e^{−h} of the old noise": b.alpha * x_0
        + b.sigma * v**0 * (a.alpha * b.sigma / (b.alpha * a.sigma)) ** 2 * eps,
    }
    spreads = {
        "this is σ²_{a|b}, the variance of the forward step (β_n of neighbours): knowing x_0 "
        "makes it smaller": added,
        "this is the standard deviation, the question asks for the variance": v**0.5,
        "this is σ_b², the variance of q(x_b|x_0): knowing x_a makes it smaller": b.sigma**2,
        "σ²_{a|b} = σ_a² − α²_{a|b} σ_b²: 1 − α²_{a|b} is that on variance-preserving "
        "schedules only": b.sigma**2 * flat / a.sigma**2,
        "this is σ_b²(1 − e^{−h}): the exponent is −2h": b.sigma**2
        * (1 - a.alpha * b.sigma / (b.alpha * a.sigma)),
        "this is the precision, one over the variance": 1 / v,
        "α_{a|b} is α_a/α_b, not α_b/α_a": b.sigma**2
        * (a.sigma**2 - b.sigma**2 / scale**2)
        / a.sigma**2,
        "precisions add, not variances: 1/v = α²_{a|b}/σ²_{a|b} + 1/σ_b²": b.sigma**2
        + added / scale**2,
    }
    return [means, {why: np.array(value) for why, value in spreads.items()}]


def weighted(x_a, x_0, a, b, z, scale=None, spread=None, power=1.0, about=True, normalise=True):
    """Moments of x_b drawn given x_0 and weighted by q(x_a|x_b), whose factor or variance is
    replaced, or whose weights are.
    """
    right = a.alpha / b.alpha
    scale = right if scale is None else scale
    spread = a.sigma**2 - right**2 * b.sigma**2 if spread is None else spread
    x_b = b.alpha * x_0[:, None] + b.sigma * z
    weight = np.exp(-power * (x_a[:, None] - scale * x_b) ** 2 / (2 * spread))
    weight = weight / weight.sum(1, keepdims=True) if normalise else weight / len(z)
    mean = (weight * x_b).sum(1)
    return mean, (weight * (x_b - (mean[:, None] if about else 0)) ** 2).sum(1)


def of_sampling(x_a, x_0, a, b, z) -> list[dict[str, np.ndarray]]:
    def found(**changed):
        return weighted(x_a, x_0, a, b, z, **changed)

    right = a.alpha / b.alpha
    both = {
        "the weights are missing: this is q(x_b|x_0), which has not seen x_a": found(power=0.0),
        "the weights do not sum to 1: divide by their sum, not by their number": found(
            normalise=False
        ),
        "q(x_a|x_b) has the variance σ²_{a|b} of the jump, not σ_a²": found(spread=a.sigma**2),
        "q(x_a|x_b) has the mean α_{a|b} x_b, not x_b": found(scale=1.0),
        "the ½ is missing in the exponent of q(x_a|x_b)": found(power=2.0),
        "the exponent is divided by the standard deviation of the jump, not by its "
        "variance": found(spread=(a.sigma**2 - right**2 * b.sigma**2) ** 0.5),
        "q(x_a|x_b) has the mean α_{a|b} x_b with α_{a|b} = α_a/α_b, not α_a": found(
            scale=a.alpha
        ),
    }
    spread = {
        "this is the weighted mean of x_b²: subtract the square of the mean": found(about=False)[
            1
        ],
        "this is the standard deviation, the question asks for the variance": found()[1] ** 0.5,
    }
    return [
        {why: mean for why, (mean, _) in both.items()},
        {why: var for why, (_, var) in both.items()} | spread,
    ]


def chain(
    eps,
    x,
    levels,
    noise,
    keep=lambda left: left,
    fresh=lambda share, a, b: share**0.5,
    last=True,
    at=lambda a, b: a,
    until=None,
):
    """The walk of question 3 with the share of old noise, the fresh noise, the last step or
    the level asked replaced.
    """
    for k, (a, b) in enumerate(zip(levels, levels[1:])):
        if k == until or (b.sigma == 0 and not last):
            break
        guess = eps(x, at(a, b) if b.sigma > 0 else a)
        # e^{−h}
        x_0, left = (x - a.sigma * guess) / a.alpha, a.alpha * b.sigma / (b.alpha * a.sigma)
        x = b.alpha * x_0 + b.sigma * keep(left) * guess
        if b.sigma > 0:
            x = x + b.sigma * fresh(1 - left**2, a, b) * noise[k]
    return x.numpy()


def of_chain(eps, x, levels, noise) -> dict[str, np.ndarray]:
    def walk(**changed):
        return chain(eps, x, levels, noise, **changed)

    final = levels[-2]
    return {
        "the fresh noise is missing: this is the mean alone, whose samples all end in one "
        "place": walk(fresh=lambda share, a, b: 0.0),
        "this is DDIM: all of the old noise is kept and none is drawn": walk(
            keep=lambda left: 1.0, fresh=lambda share, a, b: 0.0
        ),
        "all of the old noise is kept and fresh noise comes on top: keep σ_b e^{−h} of it": walk(
            keep=lambda left: 1.0
        ),
        "none of the old noise is kept, and σ_b is drawn afresh: that is noising the guess": walk(
            keep=lambda left: 0.0, fresh=lambda share, a, b: 1.0
        ),
        "the fresh noise has the variance β_n of the forward step; asked is the "
        "posterior's": walk(fresh=lambda share, a, b: share**0.5 * a.sigma / b.sigma),
        "the fresh noise is multiplied by the variance: its standard deviation belongs "
        "there": walk(fresh=lambda share, a, b: share * b.sigma),
        "the fresh noise is √(1 − e^{−h}): the exponent under the root is −2h": walk(
            fresh=lambda share, a, b: (1 - (1 - share) ** 0.5) ** 0.5
        ),
        "the share of old noise is e^{−2h} of its variance, so e^{−h} of the noise itself": walk(
            keep=lambda left: left**2
        ),
        "the network is asked at the level the step goes to: x is at level a": walk(
            at=lambda a, b: b
        ),
        "the last step is missing: at σ = 0 it returns x_0, without noise": walk(last=False),
        "the last step adds noise": walk() + final.sigma * noise[-1].numpy(),
        "this is x after one step: the return stands inside the loop": walk(until=1),
    }


def of_weights(alpha, sigma, gamma) -> list[dict[str, np.ndarray]]:
    snr = (alpha / sigma) ** 2
    step = 0.5 * np.diff(snr)
    on_eps = {
        "this is 1/SNR: an error of x_0 is multiplied by α/σ to be one of ε": 1 / snr,
        "this is α/σ: errors are squared": snr**0.5,
        "this is 1: in units of ‖ε − ε_θ‖². Asked is the factor of ‖x_0 − x_θ‖²": np.ones_like(
            snr
        ),
    }
    on_v = {
        "this is 1 + 1/SNR, in units of ‖ε − ε_θ‖². Asked is the factor of ‖x_0 − x_θ‖²": 1
        + 1 / snr,
        "this is the factor of ε: v has a part of x_0, too": snr,
        "ε and x_0 err in opposite directions, so α·error(ε) and −σ·error(x_0) add up": (
            alpha**2 - sigma**2
        )
        ** 2
        / sigma**2,
        "this adds the squares of two errors that are one: take the error of αε − σx_0, then "
        "its square": alpha**2 * snr + sigma**2,
        "this is √(SNR + 1): errors are squared": (snr + 1) ** 0.5,
    }
    least = {
        "this is min(1, γ/SNR), in units of ‖ε − ε_θ‖². Asked is the factor of ‖x_0 − "
        "x_θ‖²": np.minimum(1, gamma / snr),
        "this is the larger of SNR and γ": np.maximum(snr, gamma),
        "γ bounds SNR = α²/σ², not α/σ": np.minimum(snr**0.5, gamma) ** 2,
        "this is min(SNR, γ)/SNR twice over": np.minimum(snr, gamma) / snr**2,
    }
    steps = {
        "the sign is wrong: a KL is positive, and SNR grows from a to b": -step,
        "the ½ is missing": 2 * step,
        "this is ½(SNR_b/SNR_a − 1), the factor of ‖ε − ε_θ‖²": step / snr[:-1],
        "this is half the difference of λ: the difference of SNR is asked": 0.25
        * np.diff(np.log(snr)),
        "this is half the SNR of the cleaner level: subtract that of the noisier one": 0.5
        * snr[1:],
        "this is half the difference of α/σ: SNR is its square": 0.5 * np.diff(snr**0.5),
    }
    return [on_eps, on_v, least, steps]


def of_bound(x0_of, x0, levels, noise, prior, steps, decoder) -> list[dict[str, np.ndarray]]:
    first, last, d = levels[0], levels[-1], x0.shape[1]

    def snr(level):
        return (level.alpha / level.sigma) ** 2

    def each(at=lambda a, b: a):
        found = []
        for k, (a, b) in enumerate(zip(levels, levels[1:])):
            level = at(a, b)
            off = x0 - x0_of(level.alpha * x0 + level.sigma * noise[k], level)
            found.append((0.5 * (snr(b) - snr(a)) * off.square().sum(1).mean()).item())
        return np.array(found)

    size, log_var = x0.square().sum(1).mean().item(), math.log(first.sigma**2)
    in_eps = np.array([1 / snr(a) for a in levels[:-1]])
    gains = np.array([snr(b) - snr(a) for a, b in zip(levels, levels[1:])])
    kappa, square = last.sigma / last.alpha, noise[-1].square().sum(1).mean().item()
    priors = {
        "the logarithm of the variance is missing": 0.5
        * (first.alpha**2 * size + d * (first.sigma**2 - 1)),
        "the variance and its logarithm are missing: this is the part of the means": 0.5
        * first.alpha**2
        * size,
        "the logarithm has the wrong sign": 0.5
        * (first.alpha**2 * size + d * (first.sigma**2 - 1 + log_var)),
        "σ² + α²‖x_0‖² − d − d log σ²: the variance counts once for each of the d "
        "coordinates": 0.5 * (first.alpha**2 * size + first.sigma**2 - 1 - log_var),
        "it is averaged over the coordinates: a KL adds them": prior / d,
        "the ½ is missing": 2 * prior,
        "the two densities are exchanged: q comes first": 0.5
        * ((first.alpha**2 * size + d) / first.sigma**2 - d + d * log_var),
    }
    walks = {
        "the squares are averaged over the coordinates: ‖·‖² adds them": steps / d,
        "the ½ is missing": 2 * steps,
        "the sign is wrong: SNR_b − SNR_a": -steps,
        "the network is asked at level b: a step begins at a": each(at=lambda a, b: b),
        "the factor is that of ‖ε − ε_θ‖², ½(SNR_b/SNR_a − 1)": steps * in_eps,
        "the factor is missing: this is the loss on x_0": 2 * steps / gains,
        "the factor is half the SNR of b: subtract that of a": steps
        * np.array([snr(b) for b in levels[1:]])
        / gains,
        "the squares are summed over the batch: the mean is asked": steps * len(x0),
    }
    decoders = {
        "the normaliser ½d·log(2πκ²) is missing": 0.5 * square,
        "this is its mean over the noise, ½d·log(2πeκ²): use the noise you were given": 0.5
        * d
        * (math.log(2 * math.pi * kappa**2) + 1),
        "the sign is wrong: L_0 is −log p": -decoder,
        "κ stands where κ² belongs": 0.5 * (square + d * math.log(2 * math.pi * kappa)),
        "κ is σ/α: the decoder's mean is x/α": 0.5
        * (square * 1 + d * math.log(2 * math.pi * last.sigma**2)),
        "it is averaged over the coordinates: their logarithms add": decoder / d,
        "the normaliser counts once for each of the d coordinates": 0.5
        * (square + math.log(2 * math.pi * kappa**2)),
    }
    return [
        {why: np.array(value) for why, value in found.items()}
        for found in (priors, walks, decoders)
    ]
