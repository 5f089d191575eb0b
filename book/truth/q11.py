"""Assignment 11: two steps in one as x̃ and as ṽ, weights, a round's levels, naive pairs."""

import numpy as np

from book.truth import Case, problems
from book.truth.exact import Exact
from book.truth.judging import distance, trainable

ROWS, STEPS = 24, 16
PLACES = ("between two noisy levels", "from pure noise on", "where c is clean")


def path(rng: np.random.Generator) -> dict:
    """A schedule with three levels of unequal steps."""
    lams = np.cumsum([rng.uniform(-1.5, -0.5), *rng.uniform(0.4, 1.2, 2)])
    return {"beta": problems.beta(rng), "lams": lams, "z": rng.normal(size=(ROWS, 2))}


def _where(case: Case, values: list, truths: list) -> str:
    fails = [w for w, v, t in zip(PLACES, values, truths) if distance(v, t) > 1e-9]
    return f"wrong {', '.join(fails)}"


GUESS = Exact(
    "Q11.1",
    lambda rng: path(rng) | {"mix": rng.normal(size=(2, 2)), "heard": rng.normal(size=2)},
    returns="x̃",
    off=_where,
    hint="make both steps with a pencil, then solve z_c = α_c x̃ + σ_c (z − α_a x̃)/σ_a for x̃",
    mistakes="""
        guess(middle, b) → guess(middle, a)
        # the second guess is told that its point is at level a: it is at level b
        guess(middle, b) → guess(z, b)
        # the second guess is asked at the old z: ask it at the point where the first step ends
        ddim(guess(middle, b), middle, b, c) → ddim(guess(middle, b), z, a, c)
        # this is the teacher's second guess alone: right only where c is clean, for the second
        # step starts where the first one ended
        ddim(guess(middle, b), middle, b, c) → ddim(guess(z, a), z, a, c)
        # this is the teacher's first guess: the second step is missing
        return (end - rho * z) / (c.alpha - rho * a.alpha) → return end
        # this is z_c, where two steps end: x̃ is the guess that leads there
        return (end - rho * z) / (c.alpha - rho * a.alpha)
        → return 0.5 * (guess(z, a) + guess(middle, b))
        # the two guesses count alike: their shares depend on the levels
        return (end - rho * z) / (c.alpha - rho * a.alpha)
        → w = (1 - math.exp(b.lam - c.lam)) / (1 - math.exp(a.lam - c.lam))
            return w * guess(z, a) + (1 - w) * guess(middle, b)
        # the shares are interchanged: the *second* guess has
        # (1 − e^{λ_b − λ_c})/(1 − e^{λ_a − λ_c})
        c.sigma / a.sigma → c.sigma / b.sigma
        # ρ is σ_c/σ_b: the one step starts at a, so σ_c/σ_a
        (c.alpha - rho * a.alpha) → c.alpha
        # the divisor is α_c: x̃ also enters through the noise that it leaves, so α_c − ρ α_a
        (end - rho * z) → end  # ρ z is missing: the step takes noise of z along
        (c.alpha - rho * a.alpha) → (c.alpha - rho)
        # ρ stands alone in the divisor: it is α_c − ρ α_a
        (c.alpha - rho * a.alpha) → (c.alpha + rho * a.alpha)
        # the divisor has the wrong sign: it is α_c − ρ α_a
        (end - rho * z) → (end - rho * middle)
        # ρ times the middle point is taken away: the one step starts at z
    """,
)

VELOCITY = Exact(
    "Q11.2",
    lambda rng: path(rng) | {"z_c": rng.normal(size=(ROWS, 2))},
    returns="ṽ",
    off=_where,
    hint="solve z_c = cos δ z − sin δ ṽ for ṽ, with δ = φ_a − φ_c",
    mistakes="""
        (cos * z - z_c) → (z_c - cos * z)
        # the sign is wrong: a step turns z towards −v, since v points to the noise. (δ =
        # φ_a − φ_c is positive, for the noisier level has the larger angle)
        + a.sigma * c.sigma → - a.sigma * c.sigma
        # this is the cosine of the sum φ_a + φ_c: the step turns by the difference
        - a.alpha * c.sigma → + a.alpha * c.sigma
        # this is the sine of the sum φ_a + φ_c: the step turns by the difference
        / sin →  # the division by sin δ is missing
        cos * z → z  # z is not turned: it enters as cos δ z
        / sin → / cos  # cos δ stands where sin δ belongs: ṽ has the factor sin δ
        return (cos * z - z_c) / sin → return (c.alpha * z - a.alpha * z_c) / sin
        # this is the noise ε̃ of the step: v = αε − σx₀ at level a
        return (cos * z - z_c) / sin → return (a.sigma * z_c - c.sigma * z) / sin
        # this is x̃, the guess of the data: v = αε − σx₀ at level a
        return (cos * z - z_c) / sin
        → x0, eps = (a.sigma * z_c - c.sigma * z) / sin, (c.alpha * z - a.alpha * z_c) / sin
            return c.alpha * eps - c.sigma * x0
        # this is ṽ at level c, where the step ends: the student is asked at a, with α_a and σ_a
        return (cos * z - z_c) / sin
        → return ((c.alpha + c.sigma) * z - (a.alpha + a.sigma) * z_c) / sin
        # this is ε̃ − x̃, the velocity of flow matching: v = αε − σx₀
    """,
)


def noise_levels(rng: np.random.Generator) -> dict:
    """Pure noise, and levels on both sides of α = σ."""
    angle = np.concatenate([rng.uniform(0.1, 0.7, 6), rng.uniform(0.9, 1.5, 6)])
    return {"alpha": np.append(np.cos(angle), 0.0), "sigma": np.append(np.sin(angle), 1.0)}


WEIGHTS = Exact(
    "Q11.3",
    noise_levels,
    returns=("ε's weight", "v's weight", "the paper's weight"),
    hint=(
        "z = αx₀ + σε is fixed: an error u of x₀ is balanced by an error −αu/σ of ε",
        "with an error u of x₀ and −αu/σ of ε, what error has v = αε − σx₀?",
        "x₀'s own weight is 1: compare ε's with it, at every level",
    ),
    mistakes="""
        alpha**2 / sigma**2 → sigma**2 / alpha.clamp(min=1e-9) ** 2
        # α and σ are interchanged
        alpha**2 / sigma**2 → alpha / sigma
        # this is not squared: the loss is, so the weight is (α/σ)²
        return snr, → return snr / (snr + 1),  # this is α²: divide by σ²
        return snr, → return 1 / sigma**2,  # this is 1/σ², v's weight
        return snr, → return snr * 0 + 1,  # this is x₀'s weight
        snr + 1 → snr  # this is ε's weight: v also holds σx₀
        snr + 1 → snr * 0 + 1  # this is x₀'s weight, right for v at pure noise only
        snr + 1 → (alpha**2 / sigma - sigma) ** 2
        # the errors of ε and x₀ have opposite signs, so in αε − σx₀ they add up
        snr + 1 → alpha**4 / sigma**2 + sigma**2
        # the two parts of v's error are squared one by one: add them first, they are one error
        snr + 1 → 1 / sigma  # this is not squared: v's error is u/σ
        snr + 1 → snr.clamp(min=1)
        # this is the paper's weight, the larger one: v's is the sum
        snr.clamp(min=1) → snr.clamp(max=1)
        # this is the smaller one: it is zero at pure noise, where a one-step student lives
        snr.clamp(min=1) → snr + 1
        # this is v's weight, the sum: the paper's is the larger one
        snr.clamp(min=1) → snr  # this is ε's weight, which is 0 at pure noise
    """,
)


def uneven_times(rng: np.random.Generator) -> dict:
    cuts = np.cumsum(rng.uniform(0.3, 1.7, STEPS))
    return {"t": 1 - np.concatenate([[0.0], cuts / cuts[-1]])}


TIMES = Exact(
    "Q11.4",
    uneven_times,
    returns="the times",
    off=lambda case, values, truths: (
        "wrong in round "
        + ", ".join(
            str(k)
            for k, (v, t) in enumerate(zip(values, truths), start=1)
            if distance(v, t) > 1e-9
        )
    ),
    hint="first find the levels of the round's teacher, of which there are 2N + 1",
    mistakes="""
        [walk[:-2:2], walk[1:-1:2], walk[2::2]] → [walk[2::2], walk[1:-1:2], walk[:-2:2]]
        # the rows run from data to noise: the student's step starts at the noisier end
        walk[1:-1:2] → (walk[:-2:2] + walk[2::2]) / 2
        # this is the middle of the step in time: the teacher is asked at a level of its own grid,
        # which is uneven
        walk[1:-1:2] → t[1 :: 2**k]
        # the middle is the first teacher's next level: in round k the teacher is the student of
        # round k − 1, whose steps are longer
        walk[2::2] → walk[1:-1:2]
        # the step ends where it should be half done: its end is two of the teacher's steps on
        walk[2::2] → t[2 :: 2**k]
        # the end is two steps of the *first* teacher on: take two of the round's own
        # teacher
        walk[:-2:2], walk[1:-1:2] → walk[1:-1:2], walk[:-2:2]
        # start and middle are interchanged
        return torch.stack([walk[:-2:2], walk[1:-1:2], walk[2::2]], 1)
        → return torch.stack([walk[:-2:2], walk[1:-1:2], walk[2::2]], 1).flip(0)
        # the last step comes first: begin with the noise
    """,
)


def walk(rng: np.random.Generator) -> Case:
    inputs, model = problems.problem(rng)
    inputs["lams"] = np.cumsum([rng.uniform(-2.5, -2), *rng.uniform(0.5, 1.5, 3)])
    inputs |= {"inner": rng.normal(size=(3, 7)), "outer": rng.normal(size=(7, 2))}
    return Case(inputs, problems.network_of(model))


PAIRS = Exact(
    "Q11.5",
    walk,
    returns="the loss",
    hint="DDIM from z through every level gives the end; the student is asked once, about z",
    verdict=trainable(0.4),
    mistakes="""
        student(z, levels[0]) → student(x, levels[0])
        # the student is asked about the end of the walk: it must be shown the start, z (was it
        # overwritten?)
        student(z, levels[0]) → student(x, levels[-1])
        # the student is asked about the end of the walk: it must be shown the start, at levels[0]
        student(z, levels[0]) → student(z, levels[-1])
        # the student is told that z is at the last level: it is at the first one
        zip(levels, levels[1:]) → zip(levels[:1], levels[-1:])
        # this is one DDIM step, the teacher's first guess: the walk goes through every level
        zip(levels, levels[1:]) → zip(levels[:-1], levels[1:-1])
        # the walk stops before its last step, at a level with noise: go on to levels[-1]
        model(x, a) → model(z, a)
        # the teacher is asked at the start in every step: ask it at the point that was reached
        model(x, a) → model(x, levels[0])
        # the teacher is told the first level in every step: tell it where x is
        said.eps → z
        # the start's noise is put back in every step: DDIM keeps the noise that the teacher sees
        b.alpha * said.x0 → said.x0  # x₀ is not scaled by α of the next level
        b.sigma * said.eps → a.sigma * said.eps
        # the noise has the size of the level that was left: σ of the next one
        .mean(1) → .sum(1)  # the sum over a sample's values stands where their mean belongs
        .square() → .abs()  # the difference is not squared
        .square().mean(1) → .norm(dim=1)  # this is the norm, not the mean of the squares
        student(z, levels[0]) → student(z, levels[0]).detach()
        # no gradient reaches the student's weights: only the walk is a constant
    """,
)

QUESTIONS = [GUESS, VELOCITY, WEIGHTS, TIMES, PAIRS]
