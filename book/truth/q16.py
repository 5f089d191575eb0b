"""Assignment 16: a ladder's size, a step's end, the best student's slope, a loss, a tangent."""

import numpy as np

from book.truth import problems
from book.truth.exact import Exact
from book.truth.judging import trainable

ROWS = 24


def growth(rng: np.random.Generator) -> dict:
    """A run, and updates of it at which no spelling of N(k) comes near a whole number."""
    total, s_0, s_1 = (int(rng.integers(*ends)) for ends in ((900, 9000), (2, 6), (30, 200)))
    root = lambda k: np.sqrt(s_0**2 + k / total * ((s_1 + 1) ** 2 - s_0**2))
    inside = rng.permutation(np.arange(1, total))
    inside = inside[np.abs(root(inside) - root(inside).round()) > 1e-6][:12]
    return {"ks": np.array([0, *inside, total]), "total": total, "s_0": s_0, "s_1": s_1}


POINTS = Exact(
    "Q16.1",
    growth,
    returns="N(k)",
    hint="N(k)² goes from s₀² at k = 0 to (s₁ + 1)² at k = K in a straight line, before N is "
    "rounded up",
    mistakes="""
        math.ceil( → math.floor(  # the number is rounded down: it is rounded up
        math.ceil( → round(  # the number is rounded to the nearest one: it is rounded up
        math.ceil(math.sqrt(square)) → math.sqrt(square)  # the number is not rounded
        math.ceil(math.sqrt(square)) → math.ceil(math.sqrt(square)) - 1
        # one point is missing: these are the steps between the points
        math.ceil(math.sqrt(square)) → math.ceil(math.sqrt(square)) + 1
        # one point too much: it has s₀ at k = 0
        ((s_1 + 1) ** 2 → (s_1**2  # the ladder must end with s₁ + 1 points, not with s₁
        ((s_1 + 1) ** 2 - s_0**2) → (s_1 + 1) ** 2
        # it ends with more than s₁ + 1 points: s₀² must be taken off what is added to it
        return → square = (s_0 + k / total * (s_1 + 1 - s_0)) ** 2
            return
        # the number itself grows linearly here: it is its square that does
        math.sqrt(square) → square  # this is N(k)²: the root is missing
        k / total → (1 - k / total)  # it shrinks: it must begin with s₀ points
    """,
)


def step(rng: np.random.Generator) -> dict:
    kappa = np.exp(rng.uniform(np.log(0.01), np.log(12), 20))
    kappa[:3] = [0.02, 2.0, 10.0]
    return {"kappa": kappa, "q": rng.uniform(2, 3), "b": rng.uniform(6, 10)}


ECT = Exact(
    "Q16.2",
    step,
    returns=("κ_r", "the weight"),
    hint=(
        "κ_r = κ_t (1 − share), at least 0; with q = 2, b = 8, κ_t = 2 and stage 0 it is 0.046",
        "the weight is 1/(κ_t − κ_r), where κ_r is what you return",
    ),
    mistakes="""
        1 / (kappa - lower) → 1 / (kappa * share)
        # where the step ends at the clean data it removes κ_t, not the share of it
        .clamp(min=0) →  # κ_r is below 0 somewhere: the step ends at the clean data then
        .clamp(min=0) → .abs()  # a negative κ_r is turned around: it is 0 then
        (stage + 1) → stage
        # the stages begin one too early: at stage 0 the share is divided by q already
        q ** (stage + 1) → (q * (stage + 1))
        # the share is divided by q (j + 1): it is by the power q^(j + 1)
        (1 - share) → share  # this is what the step removes, not where it ends
        b / (1 + kappa.exp()) → b / (1 + (-kappa).exp())
        # the sign in the exponential is wrong: the share is largest for small κ_t
        (1 + b / (1 + kappa.exp())) → (b / (1 + kappa.exp()))
        # the 1 in front of b/(1 + e^κ) is missing
        b / (1 + kappa.exp()) → b / (1 + kappa)  # κ stands where e^κ belongs
        1 / (kappa - lower) → kappa - lower
        # this is what the step removes: the weight is one over it
        1 / (kappa - lower) → 1 / (kappa - lower) ** 2
        # the weight is one over what was removed, not over its square
        1 / (kappa - lower) → 1 / share
        # this is one over the *share* that is removed: it is one over κ_t − κ_r
        1 / (kappa - lower) → 1 / kappa  # this is 1/κ_t: it is one over κ_t − κ_r
    """,
)


def ladder(rng: np.random.Generator) -> dict:
    kappa = rng.uniform(0.05, 0.4) * np.cumprod([1.0, *rng.uniform(1.3, 2.0, 7)])
    return {"kappa": kappa, "c": rng.uniform(0.4, 1.5)}


SLOPE = Exact(
    "Q16.3",
    ladder,
    returns=("a_N", "the flow's slope"),
    hint=(
        "the regression's slope is a_n · cov(y_n, y_{n+1})/var(y_{n+1}); multiply up the ladder",
        "on Gaussian data the flow keeps y/√(c² + κ²)",
    ),
    mistakes="""
        c**2 + low * high) → c**2)
        # the two levels have noises of their own here: they share ε, and cov(y_n, y_{n+1}) is
        # more than c²
        c**2 + low * high) → c**2 + low**2)
        # var(y_n) stands where the covariance of y_n and y_{n+1} belongs
        low * high) / (c**2 + high**2) → low * high) / (c**2 + low**2)
        # this regresses on y_n: the variance below is that of y_{n+1}, which the student sees
        .prod() → [-1]
        # this is one level's factor: a_n is in the next level's target, so they multiply
        .prod() → .sum()  # the factors are added: a_n is in the next target, so they multiply
        (c**2 + low * high) / (c**2 + high**2) → ((c**2 + low**2) / (c**2 + high**2)).sqrt()
        # this is the flow's slope: the student's steps are Euler steps, and fall short of it
        c**2 + low * high) / (c**2 + high**2) → c + low * high) / (c + high**2)
        # c is not squared: the data's variance is c²
        student = ((c**2 → student = (c**2 / (c**2 + kappa[0] ** 2)) * ((c**2
        # a_1 is 1: the boundary fixes it, nothing is learnt on the lowest level
        ).sqrt() → )  # the root is missing: this is the ratio of the variances
        (c**2 + kappa[0] ** 2) → (c**2)
        # this goes on to κ = 0: the flow stops at κ_1, where the variance is c² + κ_1²
        (c**2 + kappa[0] ** 2) / (c**2 + kappa[-1] ** 2)
        → (c**2 + kappa[-1] ** 2) / (c**2 + kappa[0] ** 2)
        # it is upside down: from κ_N to κ_1 the flow shrinks
        return student, (( → return student, 0 * student + (c**2) / (c**2 + kappa[-1] ** 2) #((
        # this is the denoiser's slope, one Euler step to κ = 0, not the flow's
    """,
)


def network(rng: np.random.Generator) -> dict:
    return {"inner": rng.normal(size=(3, 7)), "outer": rng.normal(size=(7, 2))}


def bootstrap(rng: np.random.Generator) -> dict:
    lams = np.cumsum([rng.uniform(-2, 0), rng.uniform(0.4, 1)])
    x, x0_bar = rng.normal(size=(2, ROWS, 2))
    points = {"x": x, "x0_bar": x0_bar}
    return {"beta": problems.beta(rng), "lams": lams} | points | network(rng)


LOSS = Exact(
    "Q16.4",
    bootstrap,
    returns="the loss",
    hint="ε̄ from x_t and x̄₀; R = (κ_t − κ_r) ε̄; y_r = y_t − R; and the network sees x_r = α_r "
    "y_r",
    verdict=trainable(0.4),
    mistakes="""
        with torch.no_grad() → if True
        # the gradient also flows through the target. Stop it: .detach() of R + h(x_r), or
        # torch.no_grad() around it
        with torch.no_grad() → if True
        h(x_t, a) - target → h(x_t, a).detach() - target
        # the stop-gradient is on the wrong side: the target is the constant
        h(x_t, a) - target → h(x_t, a).detach() - target
        # no gradient reaches the weights at all: only the target is a constant
        target = reward + → target =  # the reward is missing: it is R + h⁻(x_r)
        target = reward + → target = -reward +
        # the reward has the wrong sign: R and what is left add up to the drift
        h(x_r, b) → 0  # this is the reward alone: the drift that is left at x_r is missing
        h(x_r, b) → h(x_r, a)  # the network is told that x_r is at level a: it is at level b
        h(x_r, b) → h(x_t, b)  # the rest is asked at the old x_t: ask it at x_r
        reward + h(x_r, b) → x_r / b.alpha - h(x_r, b)
        # this is f(x_r), the clean end: the target of a drift is R + h⁻(x_r)
        b.alpha * (x_t / a.alpha - reward) → x_t / a.alpha - reward
        # the network is asked at y_r: it sees x_r = α_r y_r
        x_t / a.alpha - reward → x_t - reward
        # the reward is taken off x_t: it is in units of the data, so take it off y_t = x_t/α_t
        x_t / a.alpha - reward → x_t / a.alpha + reward
        # the step goes away from the data: y_r = y_t − R
        (a.sigma / a.alpha - b.sigma / b.alpha) → (b.sigma / b.alpha - a.sigma / a.alpha)
        # R has the wrong sign: κ_t − κ_r is positive
        (a.sigma / a.alpha - b.sigma / b.alpha) → (a.sigma - b.sigma)
        # the difference is that of the σ: a drift is in units of the data, so κ = σ/α
        (a.sigma / a.alpha - b.sigma / b.alpha) * eps → a.sigma / a.alpha * eps
        # this is the whole way to x̄₀: the reward is the part from κ_t to κ_r
        (a.sigma / a.alpha - b.sigma / b.alpha) * eps → eps
        # the reward is ε̄ itself: it is ε̄ times the difference of κ
        a.alpha * x0_bar) / a.sigma → a.alpha * x0_bar)
        # ε̄ is not divided by σ_t
        x_t - a.alpha * x0_bar → x_t - x0_bar
        # x̄₀ is not multiplied by α_t: x_t = α_t x̄₀ + σ_t ε̄
        .mean(1) → .sum(1)  # the sum over a sample's values stands where their mean belongs
        .square() → .abs()  # the difference is not squared
        return → return 0.5 *  # a ½ too much: the mean of the squares, nothing else
    """,
)


def trig(rng: np.random.Generator) -> dict:
    x0, eps = rng.normal(size=(2, ROWS, 2))
    numbers = {"sigma_d": rng.uniform(0.3, 0.8), "rho": rng.uniform(0.3, 0.7)}
    return (
        network(rng) | {"x0": x0, "eps": eps, "tau": rng.uniform(0.2, 1.4, (ROWS, 1))} | numbers
    )


TANGENT = Exact(
    "Q16.5",
    trig,
    returns="g",
    hint="df/dτ has four parts: −sin τ x, cos τ dx/dτ, −cos τ σ_d F and −sin τ σ_d dF/dτ; the "
    "first and the last get ρ",
    tolerance=1e-7,
    mistakes="""
        (dx, torch.ones_like(tau)) → (torch.zeros_like(x), torch.ones_like(tau))
        # this derivative of F is the partial one, at a fixed x: x moves along the path, by dx/dτ
        (dx, torch.ones_like(tau)) → (dx, torch.zeros_like(tau))
        # the derivative of F by its second argument is missing: τ moves as well, by 1
        (dx, torch.ones_like(tau)) → (torch.ones_like(x), torch.ones_like(tau))
        # x moves by dx/dτ when τ moves by 1, not by 1
        - rho * cos → - cos  # the warm-up ρ is missing
        g = -(cos**2) → g = -rho * (cos**2)
        # ρ multiplies everything: the part without a factor sin τ has none
        g = -(cos**2) → g = -rho * (cos**2)
        - rho * cos → - cos
        # ρ is at the wrong part: it belongs to the parts with the factor sin τ
        g = -(cos**2) → g = -cos
        rho * cos * sin → rho * sin
        # this is df/dτ: the factor cos τ is missing
        - rho * cos → + rho * cos  # the sign of the part with ρ is wrong
        g = -(cos**2) → g = (cos**2)
        # the sign of −cos τ σ_d F + cos τ dx/dτ is wrong
        g = -(cos**2) → g = (cos**2)
        - rho * cos → + rho * cos
        # the sign of everything is wrong
        (sigma_d * said - dx) → (said - dx)  # F stands where σ_d F belongs
        sigma_d * change → change  # dF/dτ stands where σ_d dF/dτ belongs
        (sigma_d * said - dx) → sigma_d * said
        # the path's own derivative is missing: cos τ dx/dτ is a part of df/dτ
        (x + sigma_d * change) → (sigma_d * change)
        # the derivative of cos τ, in front of x, is missing
        (x + sigma_d * change) → (x0 + sigma_d * change)
        # x₀ stands where x_τ belongs: it is x_τ that cos τ multiplies in f
        (sigma_d * said - dx) → (0 * said - dx)
        # the derivative of sin τ, in front of σ_d F, is missing
        (x + sigma_d * change) → x  # the derivative of F is missing
        x = cos * x0 + sin * sigma_d * eps → x = cos * x0 + sin * eps
        dx = cos * sigma_d * eps → dx = cos * eps
        # the path's noise has no σ_d: it is σ_d ε
        dx = cos * sigma_d * eps - → dx = cos * sigma_d * eps +
        # the sign in dx/dτ is wrong: the derivative of cos τ is −sin τ
    """,
)

QUESTIONS = [POINTS, ECT, SLOPE, LOSS, TANGENT]
