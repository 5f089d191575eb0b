"""Plausible wrong answers to assignment 02, computed so that a judge can recognise them:
{explanation: what it returns}.
"""

import numpy as np


def of_ladder(top, low, n) -> dict[str, np.ndarray]:
    right = np.geomspace(top, low, n)
    return {
        "the levels go from data to noise: the noisiest comes first": right[::-1],
        "the levels are evenly spaced: their ratio must be constant, not their "
        "difference": np.linspace(top, low, n),
        "the ratio is (top/low)^(1/n): n levels have n − 1 steps between them": top
        * (low / top) ** (np.arange(n) / n),
        "the first level is missing, and one too low stands at the end": top
        * (low / top) ** (np.arange(1, n + 1) / (n - 1)),
        "these are the logarithms of the levels": np.log(right),
        "these are the squares, σ²": right**2,
    }


def of_loss(score, x0, z, sigma) -> dict[str, np.ndarray]:
    s = sigma[:, None]
    at = score(x0 + s * z, sigma)

    def half(v):
        return 0.5 * (v**2).sum(1)

    return {
        "the weight σ² is missing: unweighted, the smallest levels rule": half(at + z / s),
        "the ½ is missing": 2 * half(s * at + z),
        "the weight is σ: it must be σ², so that every level counts alike": sigma
        * half(at + z / s),
        "the weight is 1/σ²: it must be σ²": half(at + z / s) / sigma**2,
        "the target has the wrong sign: noise z moved x away from the data, the score −z/σ "
        "points back": half(s * at - z),
        "the score is asked at x₀: it must see the noisy x₀ + σz": half(s * score(x0, sigma) + z),
        "the noise is added without its σ": half(s * score(x0 + z, sigma) + z),
        "the score is not multiplied by σ: with s = −ε/σ, ε is −σs": half(at + z),
        "the noise is added as σ²z: x is x₀ + σz": half(s * score(x0 + s**2 * z, sigma) + z),
        "the target is −z/σ: σz stands where z/σ belongs": half(s * at + s**2 * z),
        "the norm is not squared": 0.5 * sigma**2 * np.linalg.norm(at + z / s, axis=1),
        "the average over the coordinates stands where their sum belongs": half(s * at + z)
        / x0.shape[1],
    }


def of_variance(start, v, step, n) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    def after(shrink, add, n=n):
        now = start
        for _ in range(n):
            now = shrink * now + add
        return np.array([now])

    r = 1 - step / v
    return (
        {
            "the factor is not squared: a variance takes the square of what multiplies x": after(
                r, 2 * step
            ),
            "the noise adds its variance 2η, not its standard deviation √(2η)": after(
                r**2, np.sqrt(2 * step)
            ),
            "the noise adds 2η, not η": after(r**2, step),
            "the noise adds 2η, not (2η)²": after(r**2, (2 * step) ** 2),
            "the noise is missing": after(r**2, 0.0),
            "this is one step, not n": np.array([r**2 * start + 2 * step]),
            "this is one step too few": after(r**2, 2 * step, n - 1),
            "this is one step too many": after(r**2, 2 * step, n + 1),
            "this is the standard deviation: a variance is asked for": after(r**2, 2 * step)
            ** 0.5,
            "the start is missing: it decays, but it has not gone after n steps": after(
                r**2, 2 * step
            )
            - r ** (2 * n) * start,
            "this is the fixed point: after n steps something of the start is left": np.array(
                [v / (1 - step / (2 * v))]
            ),
        },
        {
            "this is v itself: for a finite step Langevin's variance is too large": np.array([v]),
            "the sign is wrong: the noise that a step adds is not quite taken away, the "
            "variance is too large": np.array([v / (1 + step / (2 * v))]),
            "this is the standard deviation: a variance is asked for": np.array(
                [v / (1 - step / (2 * v))]
            )
            ** 0.5,
            "the factor is not squared: a variance takes the square of what multiplies "
            "x": np.array([2 * v]),
            "this is right to first order only: solve V = (1 − η/v)² V + 2η exactly": np.array(
                [v + step / 2]
            ),
            "the ½ is missing: divide 2η by 1 − (1 − η/v)² = (2η/v)(1 − η/2v)": np.array(
                [v / (1 - step / v)]
            ),
            "this is the variance after n steps: the fixed point does not depend on n": after(
                r**2, 2 * step
            ),
        },
    )


def of_annealed(score, x, sigmas, epsilon, noise) -> dict[str, np.ndarray]:
    last = sigmas[-1]

    def chain(
        step=lambda s: epsilon * s**2 / last**2,
        spread=lambda eta: np.sqrt(2 * eta),
        order=1,
        pick=lambda i, k: (i, k),
        steps=None,
        level=lambda s: s,
        end=True,
        pull=1,
        every=False,
    ):
        y = x
        for i, s in list(enumerate(sigmas))[::order]:
            eta = step(s)
            for k in range(steps or noise.shape[1]):
                y = y + pull * eta * score(y, level(s)) + spread(eta) * noise[pick(i, k)]
            y = y + s**2 * score(y, s) if every else y
        return y + last**2 * score(y, last) if end else y

    right = chain(end=False)
    return {
        "the division by σ_L² is missing in η_i: the chain hardly moves": chain(
            lambda s: epsilon * s**2
        ),
        "η_i grows with σ_i²/σ_L², not with σ_i/σ_L": chain(lambda s: epsilon * s / last),
        "η_i grows with σ_i²/σ_L²: the square of σ_i stands over σ_L itself": chain(
            lambda s: epsilon * s**2 / last
        ),
        "every level has the same step ε: it must grow with σ_i²": chain(lambda s: epsilon),
        "the step is upside down: it must be large where the noise is": chain(
            lambda s: epsilon * last**2 / s**2
        ),
        "the step is normalised by σ_1: it must be ε at the last level": chain(
            lambda s: epsilon * s**2 / sigmas[0] ** 2
        ),
        "the noise has the factor √η, it should be √(2η)": chain(spread=np.sqrt),
        "the noise has the factor 2η, the variance: take its root": chain(
            spread=lambda eta: 2 * eta
        ),
        "this is the paper's α, drift η/2 and noise √η: here they are η and √(2η)": chain(
            lambda s: epsilon * s**2 / last**2 / 2
        ),
        "the noise is missing": chain(spread=lambda eta: 0 * eta),
        "the noise has √(2ε) at every level: it grows with η_i as the drift does": chain(
            spread=lambda eta: np.sqrt(2 * epsilon)
        ),
        "the score is subtracted: it points uphill, the chain climbs": chain(pull=-1),
        "it denoises after every level: only the last one is asked for": chain(
            every=True, end=False
        ),
        "one step a level: each level has all of its noises": chain(steps=1),
        "every level uses the noises of the first": chain(pick=lambda i, k: (0, k)),
        "the score is always asked at σ_L: ask it at the level's own σ": chain(
            level=lambda s: last
        ),
        "the levels are walked from data to noise": chain(order=-1),
        "the last denoising is missing: x + σ_L² s(x, σ_L)": right,
        "the last denoising has σ_L where σ_L² belongs": right + last * score(right, last),
        "the last denoising has the wrong sign": right - last**2 * score(right, last),
        "the last denoising has η_L where σ_L² belongs": right + epsilon * score(right, last),
    }
