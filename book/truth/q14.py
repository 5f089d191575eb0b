"""Assignment 14: skipped indices, the guided step, LCM's boundary and grid, and TCD's step."""

from math import gcd

import numpy as np

from book.truth.exact import Exact
from book.truth.judging import distance

ROWS = 24


def ladder(rng: np.random.Generator) -> dict:
    """A number of indices that the number of steps does not divide: the quotient lies nearer to
    the next whole number.
    """
    steps, skip = int(rng.integers(8, 20)), int(rng.integers(7, 15))
    return {"count": steps * skip + int(rng.integers(steps // 2 + 1, steps)), "steps": steps}


SKIPS = Exact(
    "Q14.1",
    ladder,
    returns=("starts", "ends"),
    hint="write down by hand the steps of 1000 indices in 50 steps: from 19 to 0, from 39 to 19, "
    "…, from 999 to 979",
    mistakes="""
        * k - 1 → * k
        # they lie one index too high: the first start is k − 1, since indices begin at 0
        return starts, (starts - k).clamp(min=0) → return starts, starts - k
        # the first end lies below the ladder: it must be 0, not −1
        return starts, (starts - k).clamp(min=0) → return starts, (starts - k) % count
        # the first end, −1, has become the last index: it must be 0
        return starts, (starts - k).clamp(min=0) → return starts, (starts - 1).clamp(min=0)
        # this is one index lower: a step goes k of them
        return starts, (starts - k).clamp(min=0) → return (starts - k).clamp(min=0), starts
        # the two are in the wrong order: a step starts at the higher index
        return starts, (starts - k).clamp(min=0) → starts = starts.flip(0)
            return starts, (starts - k).clamp(min=0)
        # the order is turned round: from the cleanest step to the noisiest
        (1, steps + 1) → (steps)
        return starts, (starts - k).clamp(min=0) → starts = starts.clamp(min=0)
            return starts, (starts - k).clamp(min=0)
        # the steps are one too low: the j-th start, from 1, is j k − 1
        k = count // steps → k = count / steps
        return starts, (starts - k).clamp(min=0) → starts = starts.round().long()
            return starts, (starts - round(k)).clamp(min=0)
        # k is not rounded down: it is a whole number, ⌊N/S⌋
        count // steps → round(count / steps)
        # k is rounded to the nearest: it is rounded down, ⌊N/S⌋
    """,
)


def table(rng: np.random.Generator, count: int) -> dict:
    """α and σ of a ladder of so many indices, with σ > 0 at index 0."""
    angle = 0.03 + 1.45 * np.cumsum(rng.uniform(0.5, 1.5, count)) / (1.6 * count)
    return {"alpha": np.cos(angle), "sigma": np.sin(angle)}


def guidance(rng: np.random.Generator) -> dict:
    k, steps = int(rng.integers(3, 9)), 12
    place = np.concatenate([[1, 1, steps], rng.integers(1, steps + 1, ROWS - 3)])
    draws = {name: rng.normal(size=(ROWS, 2)) for name in ("x", "v_cond", "v_null")}
    return draws | {
        "n": rng.permutation(place) * k - 1,
        "k": k,
        "omega": rng.uniform(1, 8, ROWS),
        **table(rng, steps * k),
    }


STEP = Exact(
    "Q14.2",
    guidance,
    returns="x̂",
    hint="guide v (or ε), then x₀ = α x − σ v and ε = σ x + α v at index n, and α x₀ + σ ε at "
    "max(n − k, 0); a sample's numbers need a second axis to multiply its values",
    mistakes="""
        m = (n - k).clamp(min=0) → m = n - k
        # a step from below k must end at index 0: a negative index takes the noisy end of the
        # table
        m = (n - k).clamp(min=0) → m = (n - 1).clamp(min=0)
        # this is a step of one index: skip k of them
        m = (n - k).clamp(min=0) → m = (n + k).clamp(max=len(alpha) - 1)
        # the step goes towards the noise: a lower index is cleaner
        (1 + w) * v_cond - w * v_null → w * v_cond + (1 - w) * v_null
        # this is guidance_scale, not ω: the weights are 1 + ω and −ω
        (1 + w) * v_cond - w * v_null → (1 + w) * v_null - w * v_cond
        # c and ∅ are swapped: guidance leads away from the answer without the caption
        (1 + w) * v_cond - w * v_null → (1 + w) * v_cond + w * v_null
        # the weights 1 + ω and ω must have opposite signs
        (1 + w) * v_cond - w * v_null → v_cond  # there is no guidance in it
        w = omega[:, None] → w = omega.mean()
        # all samples have the mean ω: each has its own
        - sigma[n, None] * v → - sigma[n, None] * v_cond
        # the noise is guided, x₀ is not: both belong to the guided v
        + alpha[n, None] * v → + alpha[n, None] * v_cond
        # x₀ is guided, the noise is not: both belong to the guided v
        x0 = alpha[n, None] * x - sigma[n, None] * v → eps = v
            x0 = (x - sigma[n, None] * eps) / alpha[n, None]
        eps = sigma[n, None] * x + alpha[n, None] * v →
        # v is taken for ε: x₀ = α x − σ v, ε = σ x + α v
        - sigma[n, None] * v → + sigma[n, None] * v
        + alpha[n, None] * v → - alpha[n, None] * v
        # v has the other sign: x₀ = α x − σ v, ε = σ x + α v
        alpha[m, None] * x0 + sigma[m, None] * eps → x0
        # this is x₀: noise it again, to the level where the step ends
    """,
)


def boundary(rng: np.random.Generator) -> dict:
    count = 60
    n = np.concatenate([[0, 0, 1, 1, 2, 3, count - 1], rng.integers(4, count, ROWS - 7)])
    draws = {name: rng.normal(size=(ROWS, 2)) for name in ("x", "eps")}
    levels = {name: values[n] for name, values in table(rng, count).items()}
    return draws | {"n": n.astype(float), **levels}


def _at_zero(case, values: list, truths: list) -> str:
    zero = case.inputs["n"] == 0
    if distance(values[0][zero], truths[0][zero]) > 1e-9:
        return "at index 0 it must be x itself"
    return "right at index 0, not above: check c_skip = 0.25/(τ² + 0.25) at index 1, where τ = 10"


BOUNDARY = Exact(
    "Q14.3",
    boundary,
    returns="f",
    hint=_at_zero,
    mistakes="""
        tau = 10.0 * n[:, None] → tau = 1.0 * n[:, None]  # τ is n: it must be 10 n
        tau = 10.0 * n[:, None] → tau = 10.0 * (n[:, None] + 1)
        # τ is 10 (n + 1): at index 0 it must be 0
        tau = 10.0 * n[:, None] → tau = sigma[:, None] / alpha[:, None]
        # this is the noise level κ in the place of τ = 10 n
        skip = 0.25 / (tau**2 + 0.25) → skip = 0.5 / (tau**2 + 0.25)
        # c_skip is 2 at index 0: above its fraction stands σ_d², 0.25
        skip = 0.25 / (tau**2 + 0.25) → skip = 0.25 / (tau**2 + 0.25).sqrt()
        # there is a root in c_skip, where none belongs
        out = tau / (tau**2 + 0.25).sqrt() → out = tau / (tau**2 + 0.25)
        # the root in c_out is missing
        out = tau / (tau**2 + 0.25).sqrt() → out = 0.5 * tau / (tau**2 + 0.25).sqrt()
        # a factor σ_d is too much in c_out: that is EDM's, for a raw network; here x_θ is a guess
        # of the data, and far from the end c_out is 1
        out = tau / (tau**2 + 0.25).sqrt() → out = 1 - skip
        # 1 − c_skip is not c_out
        skip * x + out * x0 → out * x + skip * x0
        # c_skip and c_out are swapped: c_skip multiplies x
        / alpha[:, None] →  # x_θ is not divided by α: x_θ = (x − σ ε)/α
        skip * x + out * x0 → x0
        # this is the network's own guess x_θ: without c_skip, f is not x at index 0
        skip * x + out * x0 → skip * x + out * eps
        # ε stands where the guess of the data belongs
    """,
)


def ladders(rng: np.random.Generator) -> dict:
    """(indices, steps, calls). The calls divide the steps, or have no factor in common with them:
    so no rounding of ⌊S i/calls⌋ in floating point matters."""
    rows = [(1000, 50, 4), (1000, 50, 1), (1000, 50, 27)]
    while len(rows) < 6:
        steps, k = (int(n) for n in rng.integers((20, 8), (60, 20)))
        calls = int(rng.integers(3, steps - 1))
        if gcd(steps, calls) == 1:
            rows.append((steps * k + int(rng.integers(1, 6)), steps, calls))
    return {"ladders": np.array(rows)}


def _which(case, values: list, truths: list) -> str:
    fails = [
        f"N = {row[0]}, S = {row[1]}, calls = {row[2]}"
        for row, value, truth in zip(case.inputs["ladders"], values, truths)
        if distance(value, truth) > 1e-9
    ]
    return f"wrong for {fails[0]}" + (f" and {len(fails) - 1} more" if fails[1:] else "")


GRID = Exact(
    "Q14.4",
    ladders,
    returns="the indices",
    off=_which,
    hint="four calls of 1000 indices in 50 steps are at 999, 759, 499 and 259: number the starts "
    "from the noisiest, as 0, and take the places ⌊50 i/4⌋ = 0, 12, 25, 37",
    mistakes="""
        steps * i // calls → steps // calls * i
        # the distance ⌊S/calls⌋ is rounded, not each place: with 27 calls of 50 steps this takes
        # the first 27 starts, and stops among the noise (diffusers #5815)
        steps * i // calls → round(steps * i / calls)
        # places are rounded to the nearest: ⌊S i/calls⌋ is rounded down
        steps * i // calls → -(-steps * i // calls)
        # places are rounded up: ⌊S i/calls⌋ is rounded down
        (steps - steps * i // calls) * k - 1 → (steps - steps * i // calls) * k
        # all lie one index too high: the starts are k − 1, 2k − 1, …
        (steps - steps * i // calls) * k - 1 → (steps * i // calls + 1) * k - 1
        # places are counted from the clean end: the first call is at the noisiest start
        (steps - steps * i // calls) * k - 1 → (count - 1) - (count * i // calls)
        # these are spread evenly over all indices: only the S starts were trained
        steps * i // calls → (steps - 1) * i // max(calls - 1, 1)
        # the last call is at the cleanest start: places are ⌊S i/calls⌋, and the end is no call
        return torch.tensor([ → return torch.tensor(sorted([
        for i in range(calls)] → for i in range(calls)])
        # the order is turned round: from the noisiest call to the cleanest
    """,
)


def jump(rng: np.random.Generator) -> dict:
    count = 200
    draws = {name: rng.normal(size=(ROWS, 2)) for name in ("x", "eps", "noise")}
    m = 4 * int(rng.integers(15, 30)) + 1  # with γ = ¼ and ½ something is rounded away
    return draws | {
        "n": int(rng.integers(130, count)),
        "m": m,
        "gammas": np.array([0.25, 0.5, 0.75, 1.0]),  # exact, in whatever way (1 − γ) m is written
        **table(rng, count),
    }


def _gammas(case, values: list, truths: list) -> str:
    fails = [
        f"{gamma:g}"
        for gamma, value, truth in zip(case.inputs["gammas"], values, truths)
        if distance(value, truth) > 1e-9
    ]
    return f"wrong at γ = {', '.join(fails)}"


TCD = Exact(
    "Q14.5",
    jump,
    returns="x",
    off=_gammas,
    hint="jump to index s with x₀ and ε, as DDIM does; then multiply by α_m/α_s and add so much "
    "noise that the variance of the noise in it is σ_m²",
    mistakes="""
        s = math.floor((1 - gamma) * m) → s = math.floor(gamma * m)
        # γ and 1 − γ are swapped: with γ = 1 the jump goes to index 0
        s = math.floor((1 - gamma) * m) → s = math.ceil((1 - gamma) * m)
        # s is rounded up: it is ⌊(1 − γ) m⌋
        s = math.floor((1 - gamma) * m) → s = 0
        # this jumps to index 0 whatever γ is: only with γ = 1 is that right
        s = math.floor((1 - gamma) * m) → s = m
        # this is DDIM, the case γ = 0: stop at s and add the noise that is missing
        ratio * x_s + → x_s +
        # what is at s is not multiplied by α_m/α_s on its way to m
        (sigma[m] ** 2 - (ratio * sigma[s]) ** 2).sqrt() → sigma[m]
        # too much noise: at s there is some left, and only what is missing is added
        (sigma[m] ** 2 - (ratio * sigma[s]) ** 2).sqrt() → (sigma[m] ** 2 - sigma[s] ** 2).sqrt()
        # the noise at s shrinks by α_m/α_s, too, on its way to m
        (sigma[m] ** 2 - (ratio * sigma[s]) ** 2).sqrt() → (sigma[m] - ratio * sigma[s])
        # standard deviations are subtracted: variances add
        (ratio * sigma[s]) ** 2).sqrt() → (ratio * sigma[s]) ** 2)
        # this is the variance of the new noise: take its root
        ratio = alpha[m] / alpha[s] → ratio = alpha[s] / alpha[m]
        ratio * sigma[s]) ** 2). → ratio * sigma[s]) ** 2).abs().
        # the ratio is upside down: α_m/α_s
        x0 + sigma[s] * eps → x0
        # ε is left out at s: the jump is α_s x₀ + σ_s ε
        / alpha[n] →  # x₀ is not divided by α: x₀ = (x − σ ε)/α
    """,
)

QUESTIONS = [SKIPS, STEP, BOUNDARY, GRID, TCD]
