"""Assignment 29: the contrast, the one line, and closed forms for what they do."""

import numpy as np

from book.truth.exact import Exact

ROWS = 24


def predictions(rng: np.random.Generator) -> dict:
    both = {name: rng.normal(size=(ROWS, 2)) for name in ("eps_pos", "eps_neg")}
    return both | {"guidance_scale": rng.uniform(2, 8)}


CONTRAST = Exact(
    "Q29.1",
    predictions,
    returns="the prediction",
    hint="(1 + ω) times the positive's less ω times the negative's, with ω = guidance_scale − 1",
    mistakes="""
        omega = guidance_scale - 1 → omega = guidance_scale
        # guidance_scale is 1 + ω, not ω: at 1 there is no guidance
        guidance_scale - 1 → guidance_scale + 1  # ω is one less than guidance_scale
        (1 + omega) * eps_pos - omega * eps_neg → (1 + omega) * eps_neg - omega * eps_pos
        # the two networks are exchanged: guidance leads away from the negative
        - omega * eps_neg → + omega * eps_neg  # the weights must have opposite signs
        (1 + omega) * eps_pos - omega * eps_neg → omega * (eps_pos - eps_neg)
        # this is the push alone: add it to the positive's prediction
        (1 + omega) * eps_pos - omega * eps_neg → eps_neg + omega * (eps_pos - eps_neg)
        # from the negative's prediction the way has the length guidance_scale, not ω
        return (1 + omega) * eps_pos - omega * eps_neg → return eps_pos
        # the negative has no effect
    """,
)


def votes(rng: np.random.Generator) -> dict:
    both = {name: rng.normal(size=(ROWS, 2)) for name in ("first", "second")}
    return both | {"votes": rng.permutation([0.0, 0.5, 1.0] * (ROWS // 3))}


LINE = Exact(
    "Q29.2",
    votes,
    returns=("winners", "losers"),
    hint=("what people liked *less* takes the winner's place", "what they liked *more*"),
    mistakes="""
        torch.where(liked, second, first), torch.where(liked, first, second)
        → torch.where(liked, first, second), torch.where(liked, second, first)
        # these are the pairs for the positive model: exchange winners and losers
        return torch.where(liked, second, first), torch.where(liked, first, second)
        → return second, first
        # every pair is reversed, whatever the vote: only the votes say which one was liked
        return torch.where(liked, second, first), torch.where(liked, first, second)
        → return first, second
        # the file's order is kept: only the votes say which one was liked
    """,
)


def tilts(rng: np.random.Generator) -> dict:
    made = {name: rng.normal(size=2) for name in ("mu", "rho")}
    made |= {"S": rng.uniform(0.3, 0.8), "beta": rng.uniform(0.5, 2)}
    return made | {"beta_neg": rng.uniform(0.5, 2), "omega": rng.uniform(0.5, 5)}


MEAN = Exact(
    "Q29.3",
    tilts,
    returns="the mean",
    hint="the means of both tilts are μ + S²ρ/β and μ − S²ρ/β′; guidance mixes them as it "
    "mixes ε",
    mistakes="""
        mu - S**2 * rho / beta_neg → mu + S**2 * rho / beta_neg
        # the negative is the tilt by −r: it lies on the other side of μ
        mu + S**2 * rho / beta, mu - S**2 * rho / beta_neg
        → mu + S * rho / beta, mu - S * rho / beta_neg
        # S is the std: the shift is the variance S² times ρ/β
        mu + S**2 * rho / beta, → mu + S**2 * rho * beta,
        # the shift is divided by the price: a high price keeps the model near the base
        rho / beta_neg → rho / beta
        # the negative has a price of its own, beta_neg
        mu - S**2 * rho / beta_neg → mu
        # this is against the base: the negative lies on the other side of it
        (1 + omega) * up - omega * down → (1 - omega) * up + omega * down
        # the sign of ω: guidance leads away from the negative
        (1 + omega) * up - omega * down → omega * up + (1 - omega) * down
        # this takes ω for guidance_scale: the positive has the weight 1 + ω
        (1 + omega) * up - omega * down → up
        # guidance is missing
    """,
)


def quadratic(rng: np.random.Generator) -> dict:
    S, w = rng.uniform(0.3, 0.6), rng.uniform(0.8, 1.2)
    made = {"S": S, "w": w, "beta": S**2 / w**2 * rng.uniform(1.5, 3)}
    return made | {"omega": np.linspace(0, 4, 9)}


VARIANCE = Exact(
    "Q29.4",
    quadratic,
    returns="the variance",
    hint="precisions add: 1/v = 1/S² ± 1/(β w²); and v₊^{1+ω} v₋^{−ω}",
    mistakes="""
        up ** (1 + omega) * down ** (-omega) → 1 / ((1 + omega) / up - omega / down)
        # this is the variance of the density p₊^{1+ω} p₋^{−ω}: the guided ODE does not sample it
        up ** (1 + omega) * down ** (-omega) → (1 + omega) * up - omega * down
        # variances do not mix like means: chapter 6 has their law
        up ** (1 + omega) * down ** (-omega) → down ** (1 + omega) * up ** (-omega)
        # the two models are exchanged
        up ** (1 + omega) * down ** (-omega) → (up ** (1 + omega) * down ** (-omega)).sqrt()
        # this is the std, not the variance
        1 / (1 / S**2 + 1 / (beta * w**2)), 1 / (1 / S**2 - 1 / (beta * w**2))
        → 1 / (1 / S**2 + 1 / (beta * w)), 1 / (1 / S**2 - 1 / (beta * w))
        # w is not squared
    """,
)


def weights(rng: np.random.Generator) -> dict:
    made = {name: rng.normal(size=9) for name in ("base", "positive", "file")}
    return made | {"m": rng.uniform(0.2, 0.8)}


MERGE = Exact(
    "Q29.5",
    weights,
    returns="the weights",
    hint="η₊ is the positive less the base; η₋ is the file, less the base if it is full",
    mistakes="""
        file - base if is_full else file → file
        # a full file has the base inside: take it off, or the base is there twice
        file - base if is_full else file → file - base
        # the base is taken off from a file that does not hold it
        file - base if is_full else file → file if is_full else file - base
        # the two kinds of files are exchanged
        (1 - m) * (positive - base) → m * (positive - base)
        # with m = 0 the merged negative keeps *all* that the positive has learnt
        (1 - m) * (positive - base) → (1 - m) * positive
        # η₊ is what the positive's training added: take the base off
        base + (1 - m) * (positive - base) + added → base + (1 - m) * (positive - base) - added
        # the negative's η₋ is added: it was trained towards the worse already
        base + (1 - m) * (positive - base) + added → (1 - m) * (positive - base) + added
        # the base is missing
        base + (1 - m) * (positive - base) + added → base + added  # η₊ is missing
    """,
)

QUESTIONS = [CONTRAST, LINE, MEAN, VARIANCE, MERGE]
