"""Assignment 27: advantages, the clipped ratio, an SDE step, NFT, and a test of unbiasedness."""

import numpy as np

from book.truth import Case, Question
from book.truth.exact import Exact
from book.truth.judging import tells_apart, trainable

ROWS, ACTIONS = 24, 4

ADVANTAGES = Exact(
    "Q27.1",
    lambda rng: {"rewards": rng.normal(size=(5, 4)) * rng.uniform(0.5, 3, (5, 1)) + 2},
    returns=("leave-one-out", "GRPO's"),
    hint=("the mean of the G − 1 others", "centred, over the root of the mean square"),
    mistakes="""
        others = (rewards.sum(1, keepdim=True) - rewards) / (size - 1) → others = rewards.mean(1, keepdim=True)
        # the sample itself is in the mean: that shrinks the gradient by 1 − 1/G
        / (size - 1) → / size  # there are G − 1 others
        return rewards - others → return others - rewards
        # the sign is turned around: better than the others is positive
        rewards.sum(1, keepdim=True) - rewards → rewards.sum() - rewards
        # the prompts are mixed: the others are those of the same row
        rewards - rewards.mean(1, keepdim=True) → rewards - rewards.mean()
        # the prompts are mixed: the mean is that of the row
        .square().mean(1, keepdim=True).sqrt() → .std(1, keepdim=True)
        # the deviation has G − 1 in the denominator: take G, as the text says
        .square().mean(1, keepdim=True).sqrt() → .square().mean().sqrt()
        # the deviation is that of all prompts: take that of the row
        .square().mean(1, keepdim=True).sqrt() → .square().mean(1, keepdim=True)
        # this divides by the variance, not by the standard deviation
        (deviation + 1e-4) → deviation  # the 1e-4 is missing
        centred / (deviation → (rewards - others) / (deviation
        # GRPO's takes the mean of all samples of the prompt, the sample itself included
        return rewards - others, centred / (deviation + 1e-4) → return centred / (deviation + 1e-4), rewards - others
        # the two are in the wrong order: leave-one-out comes first
    """,  # noqa: E501
)


def field(rng: np.random.Generator, name: str) -> dict:
    shapes = {f"inner_{name}": (3, 6), f"outer_{name}": (6, 2)}
    return {key: rng.normal(size=shape) for key, shape in shapes.items()}


def step(rng: np.random.Generator) -> dict:
    old, std = rng.normal(size=(ROWS, 2)), rng.uniform(0.3, 0.6)
    numbers = {"std": std, "chi": 0.2, "advantage": rng.normal(size=ROWS)}
    y = old + std * rng.normal(size=(ROWS, 2))
    return field(rng, "new") | numbers | {"old": old, "y": y}


RATIO = Exact(
    "Q27.2",
    step,
    returns="the losses",
    hint="log ρ = (‖y − old‖² − ‖y − mean‖²)/2s², and the larger of the two negative products",
    verdict=trainable(0.4),
    mistakes="""
        (y - old).square() - (y - mean).square() → (y - mean).square() - (y - old).square()
        # this is 1/ρ: the present density stands above
        square.sum(1) → square.mean(1)
        # the mean over the values stands where their sum belongs
        (2 * std**2) → std**2  # the 2 is missing below the square
        (2 * std**2) → (2 * std)  # the square is divided by the variance, std²
        .exp() →  # this is log ρ, not ρ
        torch.maximum(-ratio → torch.minimum(-ratio
        # the smaller of the two stands where the larger belongs
        torch.maximum(-ratio * advantage, -clipped * advantage) → -clipped * advantage
        # only the clipped one is used: a step that became too probable could not be pulled back
        torch.maximum(-ratio * advantage, -clipped * advantage) → -ratio * advantage
        # nothing is clipped
        -ratio * advantage, -clipped * advantage → ratio * advantage, clipped * advantage
        # the signs are turned around: the loss is minus the gain
        ratio.clamp(1 - chi, 1 + chi) → ratio.clamp(max=1 + chi)
        # the lower end, 1 − χ, is missing
        ratio.clamp(1 - chi, 1 + chi) → ratio + (ratio.clamp(1 - chi, 1 + chi) - ratio).detach()
        # the clip lets the gradient through ("straight-through"): beyond 1 ± χ it is a constant,
        # so that nothing pulls where it is the larger one
        -clipped * advantage) → -clipped * advantage).detach()
        # nothing can be learnt from a constant
        return torch.maximum(-ratio → ratio = ratio.detach()
            return torch.maximum(-ratio
        # the unclipped ratio must have its gradient
    """,
)


def sde(rng: np.random.Generator) -> dict:
    t = rng.uniform(0.3, 0.8)
    points = {name: rng.normal(size=(ROWS, 2)) for name in ("x", "u")}
    return points | {"t": t, "r": t - rng.uniform(0.05, 0.2), "a_F": rng.uniform(0.5, 1)}


STEP = Exact(
    "Q27.3",
    sde,
    returns=("the mean", "the standard deviation"),
    hint=("x plus the bracket times dt, which is negative", "s times the root of −dt"),
    mistakes="""
        dt = r - t → dt = t - r
        return x + drift * dt, s * (-dt) ** 0.5 → return x + drift * dt, s * dt**0.5
        # time runs down: dt = r − t is negative
        (t / (1 - t)) ** 0.5 → (t / (1 - t))  # the root is missing in s
        (t / (1 - t)) ** 0.5 → ((1 - t) / t) ** 0.5
        # the fraction is upside down: s is large near the noise
        s**2 / (2 * t) → s**2 / t  # the 2 is missing: the bracket has s²/2t
        s**2 / (2 * t) → s / (2 * t)  # s is not squared in the bracket
        (x + (1 - t) * u) → (x - (1 - t) * u)  # the score is −(x + (1 − t)u)/t
        (1 - t) * u) → t * u)  # it is (1 − t) u that is added to x, the network's ε
        drift = u + → drift = u -
        # the sign is turned around: this is the SDE of the other direction
        drift = u + → drift =  # the velocity itself is missing
        s * (-dt) ** 0.5 → s * -dt  # the noise of a step grows with the root of its length
        s * (-dt) ** 0.5 → s  # the noise lacks the root of the step's length
        s * (-dt) ** 0.5 → s**2 * -dt  # this is the variance: its root is wanted
    """,
)


def nft(rng: np.random.Generator) -> dict:
    there = field(rng, "new") | field(rng, "old")
    points = {name: rng.normal(size=(ROWS, 2)) for name in ("x0", "noise")}
    numbers = {"t": rng.uniform(0.2, 0.4), "zeta": rng.uniform(0.3, 0.8)}
    return there | points | numbers | {"share": rng.uniform(0, 1, ROWS)}


NFT = Exact(
    "Q27.4",
    nft,
    returns="the losses",
    hint="noise x₀, ask both networks there; from the old velocity go ±ζ times their gap",
    verdict=trainable(0.4),
    mistakes="""
        (1 - t) * x0 + t * noise → t * x0 + (1 - t) * noise
        # x₀ and ε are swapped: at t = 0 there is no noise
        noise - x0 → x0 - noise  # the sign of u: in this book it is ε − x₀
        minus = (told - move → minus = (told + move
        # both branches move the same way: u⁻ goes away from the student
        zeta * (new(x, t) - told) → new(x, t) - told  # ζ is missing
        zeta * (new(x, t) - told) → zeta * new(x, t)
        # u± move by ζ times the *difference* of the two velocities
        zeta * (new(x, t) - told) → (new(x, t) - told) / zeta  # ζ multiplies
        share * plus + (1 - share) * minus → (1 - share) * plus + share * minus
        # the shares are swapped: a good sample pulls u⁺
        share * plus + (1 - share) * minus → share * plus - (1 - share) * minus
        # the second part is added: it pulls u⁻ towards bad samples, and so the student away
        share * plus + (1 - share) * minus → share * plus
        # the second branch is missing
        plus = (told + move - u).square().sum(1) → plus = (told + move - u).square().mean(1)
        minus = (told - move - u).square().sum(1) → minus = (told - move - u).square().mean(1)
        # the mean over a sample's values stands where their sum belongs
        new(x, t) - told → new(x, t).detach() - told
        # nothing reaches the weights of the new network
        minus = (told - move → minus = (told - move.detach()
        # u⁻ is a constant here: it moves with the new network too, and needs its gradient
        plus = (told + move → plus = (told + move.detach()
        # u⁺ is a constant here: it moves with the new network, and needs its gradient
        new(x, t) - told → new(x0, t) - told
        old(x, t) → old(x0, t)
        # the networks are asked at the clean samples: noise them to time t first
    """,
)

RIGHT = {
    "has no baseline": lambda i, j, p, r: _mean(i, j, p, r),
    "subtracts the other's reward": lambda i, j, p, r: (r[i] - r[j]) * (_s(i, p) - _s(j, p)) / 2,
    "subtracts a constant": lambda i, j, p, r: _mean(i, j, p, r - 3),
    "uses the first action alone": lambda i, j, p, r: r[i] * _s(i, p),
    "takes the second for the first's baseline": lambda i, j, p, r: (r[i] - r[j]) * _s(i, p),
}
WRONG = {
    "subtracts the group's own mean": lambda i, j, p, r: _mean(i, j, p, r - (r[i] + r[j]) / 2),
    "adds both instead of averaging": lambda i, j, p, r: 2 * _mean(i, j, p, r),
    "divides by the group's deviation": lambda i, j, p, r: (
        _mean(i, j, p, r - (r[i] + r[j]) / 2) / (abs(r[i] - r[j]) / 2 + 1e-4)
    ),
    "subtracts the larger reward": lambda i, j, p, r: _mean(i, j, p, r - max(r[i], r[j])),
    "leaves −p out of ∇log p": lambda i, j, p, r: (r[i] * _e(i, p) + r[j] * _e(j, p)) / 2,
    "goes downhill": lambda i, j, p, r: -_mean(i, j, p, r),
    "weighs by 1/(n p)": lambda i, j, p, r: r[i] * _s(i, p) / (len(p) * p[i]),
} | {
    f"is right but for entry {k}": lambda i, j, p, r, k=k: _mean(i, j, p, r) + 0.01 * _e(k, p)
    for k in range(ACTIONS)
}
WRONG["is off by 4·10⁻⁹ in one entry"] = lambda i, j, p, r: (
    _mean(i, j, p, r) + 4e-9 * _e(np.abs(_slope(p, r)).argmax(), p)
)


def _e(i: int, p: np.ndarray) -> np.ndarray:
    return np.eye(len(p))[i]


def _slope(p: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The true gradient."""
    return p * (r - p @ r)


def _s(i: int, p: np.ndarray) -> np.ndarray:
    """∇ log p of an action, in the logits."""
    return _e(i, p) - p


def _mean(i: int, j: int, p: np.ndarray, r: np.ndarray) -> np.ndarray:
    return (r[i] * _s(i, p) + r[j] * _s(j, p)) / 2


def estimators(rng: np.random.Generator) -> Case:
    """The largest entry of the true gradient is ±¼, so that what a test with a tolerance of its
    own accepts does not hang on the draw.
    """
    n, every = ACTIONS, RIGHT | WRONG
    logits, r = rng.normal(size=(2, n))
    p = np.exp(logits) / np.exp(logits).sum()
    r /= 4 * np.abs(_slope(p, r)).max()
    order = rng.permutation(len(every))
    told = [list(every.values())[k] for k in order]
    tables = np.array([[[f(i, j, p, r) for j in range(n)] for i in range(n)] for f in told])
    facts = {"order": order, "right": {name: name in RIGHT for name in every}}
    return Case({"p": p, "r": r, "tables": tables}, None, facts)


TEST = Question(
    "Q27.5",
    estimators,
    verdict=tells_apart(
        "estimators",
        "weigh each of the n² groups with the probabilities of both its actions, and compare "
        "with p (r − p·r)",
        "add up the estimates of *all* groups with their probabilities, and compare every entry "
        "with the true gradient, to 10⁻⁹ and no more (torch.allclose adds 10⁻⁵ of an entry; "
        "rtol=0 forbids it)",
    ),
)

QUESTIONS = [ADVANTAGES, RATIO, STEP, NFT, TEST]
