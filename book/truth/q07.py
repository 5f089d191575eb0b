"""Assignment 07: the exact solution, its first term, and what it costs on a Gaussian."""

import numpy as np

from book.truth import Case, problems
from book.truth.exact import Exact
from book.truth.problems import LAM


def levels(rng: np.random.Generator, n: int = 24) -> dict[str, np.ndarray]:
    """Pairs of levels, noisier first, on no particular schedule: α and σ each have a scale of
    their own.
    """
    lam = np.sort(rng.uniform(-3, 3, (n, 2)), axis=1) + np.array([0.0, 0.3])
    size = rng.uniform(0.4, 2.5, (n, 2))
    alpha, sigma = size / np.sqrt(1 + np.exp(-2 * lam)), size / np.sqrt(1 + np.exp(2 * lam))
    names = ("alpha_s", "sigma_s", "alpha_t", "sigma_t")
    return dict(zip(names, (alpha[:, 0], sigma[:, 0], alpha[:, 1], sigma[:, 1])))


HINTS = (
    "it stands in front of x_s in the exact solution",
    "with the network constant, only the exponential is left to integrate, from λ_s to λ_t",
)
EPS = Exact(
    "Q07.1",
    levels,
    returns=("the factor of x", "the factor of ε"),
    hint=HINTS,
    mistakes="""
        return ratio, → return sigma_t / sigma_s,  # that is σ_t/σ_s, the factor of the data form
        return ratio, → return 1 / ratio,  # upside down: α_s/α_t
        return ratio, → return torch.ones_like(ratio),
        # x does not keep its size: its factor is α_t/α_s
        return ratio, sigma_t - ratio * sigma_s → return alpha_t, sigma_t
        # that is the factor in α_t x₀ + σ_t ε: here x stands in the place of x₀
        sigma_t - ratio * sigma_s → ratio * sigma_s - sigma_t
        # the sign is wrong: the integral has a minus in front, and e^{−λ} falls
        ratio * sigma_s → sigma_s
        # σ_t − σ_s: the lower end of the integral, σ_s/α_s, is multiplied by α_t, not by α_s
        sigma_t - ratio * sigma_s → sigma_t / alpha_t - sigma_s / alpha_s
        # the factor α_t in front of the integral is missing
        sigma_t - ratio * sigma_s → (sigma_t / alpha_t - sigma_s / alpha_s) * alpha_s
        # α_s stands where α_t belongs
        sigma_t - ratio → -ratio  # −σ_t e^h: the lower end of the integral is missing
        sigma_t - ratio * sigma_s → sigma_t * (1 - sigma_t / (ratio * sigma_s))
        # in −σ_t(e^h − 1), h = λ_t − λ_s is positive: this has e^{−h}
        sigma_t - ratio * sigma_s → alpha_t * (1 - ratio * sigma_s / sigma_t)
        # α_t stands where σ_t belongs in −σ_t(e^h − 1)
        sigma_t - ratio * sigma_s → sigma_s * (1 - ratio * sigma_s / sigma_t)
        # σ_s stands where σ_t belongs in −σ_t(e^h − 1)
        sigma_t - ratio * sigma_s → -sigma_t * (ratio * sigma_s / sigma_t).log()
        # e^{−λ} is not constant over the step: integrate it
    """,
)
DATA = Exact(
    "Q07.2",
    levels,
    returns=("the factor of x", "the factor of x₀"),
    hint=HINTS,
    mistakes="""
        return ratio, → return alpha_t / alpha_s,  # that is α_t/α_s, the factor of the ε form
        return ratio, → return 1 / ratio,  # upside down: σ_s/σ_t
        return ratio, → return torch.ones_like(ratio),
        # x does not keep its size: its factor is σ_t/σ_s
        return ratio, alpha_t - ratio * alpha_s → return sigma_t, alpha_t
        # that is the factor in α_t x₀ + σ_t ε: here x stands in the place of ε
        alpha_t - ratio * alpha_s → ratio * alpha_s - alpha_t
        # the sign is wrong: e^λ grows towards the data
        ratio * alpha_s → alpha_s
        # α_t − α_s: the lower end of the integral, α_s/σ_s, is multiplied by σ_t, not by σ_s
        alpha_t - ratio * alpha_s → alpha_t / sigma_t - alpha_s / sigma_s
        # the factor σ_t in front of the integral is missing
        alpha_t - ratio * alpha_s → 1 - ratio * alpha_s / alpha_t
        # this is 1 − e^{−h}: the factor α_t is missing
        alpha_t - ratio * alpha_s → alpha_t * (alpha_t / (ratio * alpha_s) - 1)
        # in α_t(1 − e^{−h}), this has e^h
        alpha_t - ratio * alpha_s → sigma_t * (1 - ratio * alpha_s / alpha_t)
        # σ_t stands where α_t belongs in α_t(1 − e^{−h})
        alpha_t - ratio * alpha_s → alpha_t * (alpha_t / (ratio * alpha_s)).log()
        # e^λ is not constant over the step: integrate it
    """,
)


def sampler(rng: np.random.Generator) -> Case:
    inputs, model = problems.problem(rng)
    inputs["lams"] = np.linspace(*LAM, 8) + [0.0, *rng.uniform(-0.2, 0.2, 6), 0.0]
    return Case(inputs, problems.network_of(model))


SAMPLER = Exact(
    "Q07.3",
    sampler,
    returns="x at the last level",
    hint="each step is x_b = α_b x₀ + σ_b ε, with both faces from one call at level a",
    mistakes="""
        b.alpha * prediction.x0 + b.sigma * prediction.eps → x + (b.t - a.t) * prediction.velocity
        # this is Euler's rule in t, which does not know the linear part
        b.alpha * prediction.x0 + b.sigma → x + (b.sigma - a.sigma * b.alpha / a.alpha)
        # x keeps its size: multiply it by α_b/α_a
        + b.sigma → - b.sigma  # the noise enters with the wrong sign
        model(x, a) → model(x, b)
        # the network is asked at the level to come, b. It must see the level that x is at
        levels, levels[1:] → levels[:-1], levels[1:-1]
        # the last step is missing: n + 1 levels make n steps
        levels, levels[1:] → levels[::-1], levels[-2::-1]
        # the levels are walked from the last to the first
        b.sigma → a.sigma  # the noise keeps its old level: ε is multiplied by σ_b, not by σ_a
        b.alpha * →  # x₀ lacks its factor α_b
        b.alpha * prediction.x0 + b.sigma
        → b.alpha / a.alpha * x - b.sigma * math.expm1(a.lam - b.lam)
        # e^{−h} stands where e^h belongs
        return x → return model(x, levels[-1]).x0
        # one step too many: x at the last level is asked for, not its x₀
        return x → return prediction.x0
        # this is the last x₀, without the noise of the last level
    """,
)


def gaussian(rng: np.random.Generator) -> dict:
    inputs = {"x": rng.normal(size=(16, 2)), "mean": rng.normal(size=2) + 1.0}
    pair = {name: value.item() for name, value in levels(rng, 1).items()}
    return inputs | {"c": rng.uniform(0.3, 0.8)} | pair


FLOW = Exact(
    "Q07.4",
    gaussian,
    returns="x at level t",
    hint="a Gaussian stays one: match its mean and its width at both levels",
    mistakes="""
        )) ** 0.5 → ))  # the cloud is scaled by V_t/V_s: the width goes with the root
        alpha_t * mean + widen * (x - alpha_s * mean) → widen * x
        # the mean is left behind: subtract α_s m before scaling, add α_t m after
        (x - alpha_s * mean) → x  # x is not centred before it is scaled
        alpha_t * mean + widen * (x - alpha_s * mean) → mean + widen * (x - mean)
        # the mean does not move with α: it is α_t m at level t
        alpha_s * mean → mean  # the mean is subtracted without its factor α_s
        (alpha * c) ** 2 + →  # c is missing: the width of a level is √(α²c² + σ²), not σ
        (alpha * c) ** 2 + sigma**2 → (alpha * c + sigma) ** 2
        # αc and σ add as squares: the width is √(α²c² + σ²)
        alpha_t * mean + widen * (x - alpha_s * mean) → alpha_t / alpha_s * x
        # this only rescales x by α_t/α_s, as if there were no noise
        )) ** 0.5 → )) ** -0.5  # upside down: V_s/V_t
        (alpha * c) ** 2 → alpha**2 * c  # V = α²c + σ² has c where c² belongs
        (variance(alpha_t, sigma_t) → (alpha_s * alpha_t * c**2 + sigma_s * sigma_t)
        / variance(alpha_s, sigma_s)) ** 0.5 → / variance(alpha_s, sigma_s)
        # this is one DDIM step, not the exact flow
    """,
)


def ends(rng: np.random.Generator) -> Case:
    lams = {"lam_start": rng.uniform(-5, -3), "lam_end": rng.uniform(2, 4)}
    return Case(lams | {"c": rng.uniform(0.2, 0.7), "n": int(rng.integers(6, 12))})


def _kept(case: Case, values: list, truths: list) -> str:
    angles = [np.arctan(np.exp(-lam) / case.inputs["c"]) for lam in (*values, *truths)]
    mine, best = (np.prod(np.cos(np.diff(angle))) for angle in angles)
    return f"DDIM keeps {mine:.4f} of the width on it, {best:.4f} on the best grid"


def _ends(case: Case, values: list, truths: list) -> str:
    (lam,), (best,) = values, truths
    if np.abs(lam[[0, -1]] - best[[0, -1]]).max() > 1e-8:
        return (
            f"the grid runs from {lam[0]:.3g} to {lam[-1]:.3g}, wanted from {best[0]:.3g} to "
            f"{best[-1]:.3g}"
        )
    return "its steps are equal in φ = arctan(κ/c)"


GRID = Exact(
    "Q07.5",
    ends,
    returns="λ",
    hint=_ends,
    off=_kept,
    mistakes="""
        return torch.linspace(lam_start, lam_end, n + 1, dtype=torch.float64)
        # uniform in λ, which is not the best for DDIM
        math.atan(math.exp(-lam) / c) → math.exp(-lam)
        -(c * torch → -(torch
        .tan()) → )
        # uniform in κ
        / c) → )
        -(c * torch → -(torch
        # uniform in arctan κ: κ is measured against c
        / c) → * c)
        -(c * torch → -(1 / c * torch
        # uniform in arctan(cκ): divide κ = e^{−λ} by c
        math.exp(-lam) / c → (math.exp(-lam) / c) ** 0.5
        .tan() → .tan() ** 2
        # uniform in arctan √(κ/c): the angle has no root
        -(c * torch → -(torch  # c is forgotten on the way back: κ = c·tan φ
        -(c * torch → (torch
        .tan()).log() → )
        # these are φ, not λ = −log(c·tan φ)
        -(c * torch → (c * torch
        .tan()).log() → .tan())
        # these are κ, not λ = −log κ
        (lam_start, lam_end) → (lam_end, lam_start)
        # from data to noise: the first λ is the noisiest
    """,
)

QUESTIONS = [EPS, DATA, SAMPLER, FLOW, GRID]
