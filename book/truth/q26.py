"""Assignment 26: votes, the tilt, truncated back-propagation, ReFL and DRaFT-LV."""

import numpy as np

from book.truth import Case, problems
from book.truth.exact import Exact
from book.truth.judging import trainable

ROWS, STEPS = 24, 7
FAR = 1e6  # beyond every reward


def votes(rng: np.random.Generator) -> dict:
    first, second = rng.normal(size=(2, ROWS))
    first[:2] += np.array([1000.0, -1000.0])
    share = rng.choice([0.0, 0.5, 1.0], size=ROWS)
    share[:4] = [0.5, 0.5, 1.0, 0.25]
    return {"first": first, "second": second, "share": share}


def votes_hint(case: Case, values: list, truths: list) -> str:
    """What is wrong with the losses, also where it is only the pairs whose rewards are far apart,
    the first two.
    """
    if np.abs(values[0] - truths[0])[2:].max() < 1e-3:
        return (
            "only pairs whose rewards are ±1000 apart are wrong. Is P clamped, or a small number "
            "added in the logarithm? Then the size of the difference is lost: logsigmoid of the "
            "difference needs neither"
        )
    return "s times −log sigmoid of the difference, and 1 − s times −log sigmoid of minus it"


VOTES = Exact(
    "Q26.1",
    votes,
    returns="the loss",
    hint=votes_hint,
    mistakes="""
        first - second → second - first
        # the sign is turned around: the first wins with the sigmoid of first − second, and share
        # is the *first* one's part of the vote
        return -( → return (  # the sign is missing: a loss is minus the log-likelihood
        return -(share * log_p + (1 - share) * log_not) → return -log_p
        # the shares are not used: this takes the first for the winner of every pair
        share * log_p + (1 - share) * log_not → share * log_p
        # the votes for the second picture, (1 − s) log(1 − P), are missing
        share * log_p + (1 - share) * log_not → torch.where(share > 0.5, log_p, log_not)
        # a tie is a vote of ½ for both, not a vote for the second
    """,
)


def mixture(rng: np.random.Generator) -> dict:
    weights = rng.uniform(0.2, 1, 4)
    return {
        "weights": weights / weights.sum(),
        "means": rng.normal(size=(4, 2)),
        "stds": rng.uniform(0.2, 0.8, 4),
        "a": rng.normal(size=2),
        "beta": rng.uniform(0.5, 2),
    }


TILT = Exact(
    "Q26.2",
    mixture,
    returns=("weights", "means"),
    hint=("see the factor above", "μ + S² a/β, for each component with its own S"),
    mistakes="""
        (a @ a) * stds**2 / (2 * beta**2) → (a @ a) * stds**2 / beta**2
        # the 2 is missing below ‖a‖²S²
        + (a @ a) * stds**2 / (2 * beta**2) →
        # the second part of the exponent, which makes wide components gain, is missing
        (2 * beta**2) → (2 * beta)  # ‖a‖²S²/2 is divided by β²
        means @ a / beta → means @ a  # β is missing below a·μ
        (a @ a) * stds**2 → (a @ a) * stds
        # S is not squared in the exponent
        / (weights * factor).sum(), →,  # the weights do not add up to 1
        return weights * factor / (weights * factor).sum(), → return factor / factor.sum(),
        # the old weights are lost: each is multiplied by its factor
        stds[:, None] ** 2 * a → stds[:, None] * a
        # a mean moves by the *variance* times a/β
        means + stds → means - stds  # the means move the wrong way
        stds[:, None] ** 2 * a / beta → stds[:, None] ** 2 * a * beta
        # β multiplies: a small β means a strong tilt, so it divides
        stds[:, None] ** 2 * a / beta → a / beta
        # the means move by S²a/β: a narrow component cannot go far
    """,
)


def path(rng: np.random.Generator) -> dict:
    """A schedule, its levels, a batch of points, a network's weights and a reward."""
    lams = np.cumsum([rng.uniform(-1.5, -1), *rng.uniform(0.2, 0.6, STEPS)])
    weights = {"inner": rng.normal(size=(3, 6)), "outer": rng.normal(size=(6, 2))}
    there = {"beta": problems.beta(rng), "lams": lams, "x": rng.normal(size=(ROWS, 2))}
    return there | weights | {"pull": rng.uniform(0.5, 1.5, 2)}


TRUNCATED = Exact(
    "Q26.3",
    lambda rng: path(rng) | {"last": int(rng.integers(3, 5))},
    returns="the rewards",
    hint="DDIM: α_b (x − σ_a ε)/α_a + σ_b ε, from the first level to the last",
    verdict=trainable(0.4),
    mistakes="""
        if k < first: → if True:
        # nothing of the gradient is left, because x is a constant after the last step: only the
        # *first* N − K steps are constants
        if k < first: → if False:
        eps = net(x, a) → eps = net(x, a) if k < last else net(x, a).detach()
        # the network has its gradient in the first K steps: it belongs to the last K, where the
        # gradient also goes through what the network is shown
        if k < first: → if False:
        # the gradient goes through all steps: make x a constant where the last K begin
        if k < first: → if k <= first:
        # one step too few has a gradient: with K = N nothing may be cut
        if k < first: → if k < first - 1:
        # one step too many has a gradient
        eps = net(x, a) → eps = net(x.detach(), a)
        # how the network's answer depends on x is cut: in the last K steps the gradient also goes
        # through what the network is shown
        eps = net(x, a) → x = x.detach(); eps = net(x, a)
        # x is detached at each step, so that only the last one is connected to the reward
        / a.alpha →  # x₀ is not divided by α of the start: x₀ = (x − σ ε)/α
        a.sigma * eps) → b.sigma * eps)
        # the noise is taken out with σ of the step's end: x is at level a
        + b.sigma * eps → + a.sigma * eps
        # the noise is put back with σ of the step's start: the step ends at b
        + b.sigma * eps →  # the noise is not put back: this is α_b x₀, not x at level b
        net(x, a) → net(x, b)  # the network is told the level where the step ends: x is at a
        return reward(x) → return -reward(x)  # rewards are wanted, not the loss −r
    """,
)


def stopped(rng: np.random.Generator) -> dict:
    """A path, a place to stop that is another one when counted from the end, and not beside it,
    and an `enough` with as many rewards above as below.
    """
    inputs = path(rng) | {"stop": int(rng.choice([2, STEPS - 2])), "enough": FAR}
    (losses, _), _ = REFL.made(REFL.cell, Case(inputs))
    return inputs | {"enough": float(np.median(FAR - losses))}


REFL = Exact(
    "Q26.4",
    stopped,
    returns="the losses",
    hint="DDIM up to levels[stop], one guess there, and the positive part of enough − r",
    verdict=trainable(0.4),
    mistakes="""
        (enough - reward(guess)).clamp(min=0) → 0 * reward(guess)
        # all losses are 0, but half of the rewards are below `enough`: there it is enough − r
        with torch.no_grad(): → if True:
        # the gradient also goes through the walk: it belongs to the one guess alone
        (x - a.sigma * net(x, a)) → (x - a.sigma * net(x, a).detach())
        # the guess has no gradient: the last call must have one
        .clamp(min=0) →  # above `enough` nothing may pull: the positive part is missing
        (enough - reward(guess)).clamp(min=0) → (reward(guess) - enough).clamp(min=0)
        # the sign is turned around: the loss is positive where the reward is too small
        enough - reward(guess) → -reward(guess)
        # `enough` is missing
        levels[:stop] → levels[: stop + 1]
        a = levels[stop] → a = levels[stop + 1]
        # one step too many: you stand at levels[stop] when the guess is made
        levels[:stop] → levels[: stop - 1]
        a = levels[stop] → a = levels[stop - 1]
        # one step too few: you stand at levels[stop] when the guess is made
        with torch.no_grad(): → stop = len(levels) - 1 - stop
            with torch.no_grad():
        # `stop` is counted from the end: it counts from the noise, and you stand at levels[stop]
        with torch.no_grad(): → stop = len(levels) - stop
            with torch.no_grad():
        # `stop` is counted from the end: it counts from the noise, and you stand at levels[stop]
        (x - a.sigma * net(x, a)) / a.alpha → x
        # the noisy x is rewarded: reward the guess (x − σ ε)/α
        net(x, a)) / a.alpha → net(x, a))  # the guess is not divided by α
    """,
)

LV = Exact(
    "Q26.5",
    lambda rng: path(rng) | {"noise": rng.normal(size=(3, ROWS, 2))},
    returns="the mean rewards",
    hint="α x₀ + σ ε for each noise, the guess (x − σ ε_θ)/α there, and the mean of its rewards",
    verdict=trainable(0.4),
    mistakes="""
        .mean(0) → .sum(0)  # the sum over the copies stands where their mean belongs
        for eps in noise → for eps in noise[:1]  # only the first noise is used
        x = a.alpha * x0 → x = x0  # x₀ is not scaled by α of the level
        x = a.alpha * x0 + a.sigma * eps → x = a.alpha * x0 + eps  # the noise is not scaled by σ
        net(x, a)) / a.alpha)) → eps) / a.alpha))
        # the noise that you added is taken out again, which gives x₀ back: take the network's ε
        a.sigma * net(x, a)) → a.sigma * net(x, a).detach())
        # the network's answer must have its gradient
        reward((x - a.sigma * net(x, a)) / a.alpha) → reward(x)
        # the noisy x is rewarded: reward the guess
        return torch.stack(found).mean(0) → mean = noise.mean(0)
            x = a.alpha * x0 + a.sigma * mean
            return reward((x - a.sigma * net(x, a)) / a.alpha)
        # the noises are averaged before the call: then there is less noise than level a has.
        # Average the rewards
    """,
)

QUESTIONS = [VOTES, TILT, TRUNCATED, REFL, LV]
