"""Assignment 17: weights, a step, the mean over all batches, conditions, how many count."""

import numpy as np

from book.truth import Case, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import RIGHT, exactly, wrong

ROWS = 8


def references(rng: np.random.Generator) -> dict:
    """Half of the rows have their own sample among the references; near the clean end nothing
    explains the others, and all their exponentials are 0.
    """
    d = int(rng.integers(2, 5))
    clean = rng.normal(size=(20, d))
    return {
        "beta": problems.beta(rng),
        "lams": np.array([rng.uniform(-1, 0), 9.0]),
        "clean": np.concatenate([clean[: ROWS // 2], rng.normal(size=(ROWS // 2, d))]),
        "noise": rng.normal(size=(ROWS, d)),
        "references": clean,
    }


def _underflows(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """As usual, but near the clean end the weights may be nan."""
    if len(outputs) == 2 and not np.isfinite(outputs[1]).all():
        first = Case(case.inputs, values=case.values[:1], mistakes=case.mistakes)
        said = exactly(q, first, outputs[:1], 0.0)
        if said is RIGHT:
            return wrong(
                "right in the middle of the schedule. Near the clean end all exponentials are "
                "0, and 0/0 is not a number: torch.softmax takes the largest exponent off first",
                0.5,
            )
        return said
    return exactly(q, case, outputs, calls)


WEIGHTS = Exact(
    "Q17.1",
    references,
    returns="the weights",
    hint="the softmax over the references of −‖x_t − α x₀‖²/2σ²",
    verdict=_underflows,
    mistakes="""
        - a.alpha * references → - references
        # the references are not multiplied by α: x_t = α x₀ + σ ε
        (2 * a.sigma**2) → a.sigma**2  # the 2 in 2σ² is missing
        (2 * a.sigma**2) → (2 * a.sigma)  # σ is not squared: it is 2σ²
        .square().sum(2) → .square().sum(2).sqrt()
        # this is the distance, not its square
        -far → far  # the sign is wrong: the farthest reference weighs most
        -far / (2 * a.sigma**2), 1) → -far / (2 * a.sigma**2), 0)
        # the weights sum to 1 over the rows of x: they must do so over the references
        far / (2 * a.sigma**2), 1) → far / (2 * a.sigma**2), 1) / len(references)
        # the spare 1/n: the weights of a row sum to 1 already
        -far / (2 * a.sigma**2) → -far  # the division by 2σ² is missing
        .square().sum(2) → .square().mean(2)
        # the squares are averaged over the values of a sample: ‖·‖² is their sum
        torch.softmax(-far / (2 * a.sigma**2), 1) → torch.exp(-far / (2 * a.sigma**2))
        # the weights do not sum to 1: divide by their sum over the references
        torch.softmax(-far / (2 * a.sigma**2), 1) → torch.full_like(far, 1 / len(references))
        # all references count alike: each counts by how well it explains x_t
        torch.softmax(-far / (2 * a.sigma**2), 1) → (far == far.amin(1, True)).double()
        # only the nearest reference counts: all do, each by how well it explains x_t
    """,
)


def pictures(rng: np.random.Generator) -> dict:
    shape, n = (int(rng.integers(1, 4)), 2, 3), 12
    return {
        "beta": problems.beta(rng),
        "lams": np.cumsum([rng.uniform(-2, 0), rng.uniform(0.4, 1)]),
        "x": rng.normal(size=(ROWS, *shape)),
        "weights": rng.dirichlet(np.ones(n), size=ROWS),
        "references": rng.normal(size=(n, *shape)),
    }


STEP = Exact(
    "Q17.2",
    pictures,
    returns=("x̄₀", "x_r"),
    hint=(
        "x̄₀ = Σ w_i x₀⁽ⁱ⁾, a sum over the references for each row",
        "x_r = α_r x̄₀ + σ_r ε̄ with ε̄ = (x_t − α_t x̄₀)/σ_t",
    ),
    mistakes="""
        , weights, references) → , weights, references) / len(references)
        # the spare 1/n: the weights sum to 1 already
        torch.einsum("bn,nchw->bchw", weights, references) → references[weights.argmax(1)]
        # this is the reference with the largest weight: take the mean of all
        torch.einsum("bn,nchw->bchw", weights, references)
        → references.mean(0).expand_as(x)  # the weights are not in it
        (x - a.alpha * x0) / a.sigma → (x - a.alpha * x0)  # ε̄ is not divided by σ_t
        x - a.alpha * x0 → x - x0  # x̄₀ is not multiplied by α_t: x_t = α_t x̄₀ + σ_t ε̄
        b.sigma * eps → a.sigma * eps  # the noise keeps the size that it had at t: it gets σ_r
        return x0, b.alpha * → return x0, a.alpha *  # x̄₀ keeps the α of t: it gets α_r
        return x0, b.alpha * x0 → return x0, x0  # x̄₀ is not multiplied by α_r
        + b.sigma * eps → - b.sigma * eps  # the noise is subtracted: it is added, σ_r ε̄
        + b.sigma * eps → + eps  # the noise is not multiplied by σ_r
        + b.sigma * eps →  # the noise is missing: at r there is some left, σ_r ε̄
        b.alpha * x0 + b.sigma * eps → x * b.alpha / a.alpha  # this is x_t, scaled to α_r
        b.alpha * x0 + b.sigma * eps → b.alpha * (x0 + b.sigma * eps)
        # the noise is multiplied by α_r as well
    """,
)


def atoms(rng: np.random.Generator) -> dict:
    angle = rng.uniform(0.6, 1.0)
    return {
        "atoms": np.array([-1.0, 0.2, 1.1]) + 0.1 * rng.normal(size=3),
        "prior": rng.dirichlet([6.0, 4.0, 3.0]),
        "x_t": rng.uniform(0.2, 1.0),
        "alpha": float(np.cos(angle)),
        "sigma": float(np.sin(angle)),
    }


BATCHES = Exact(
    "Q17.3",
    atoms,
    returns=("the mean with x₀", "the variance with x₀", "the mean without x₀"),
    hint=(
        "it is the posterior mean, for every n: E[x₀ | x_t]",
        "a batch's chance is posterior · prior · … · prior; for n = 1 the variance is the "
        "posterior's",
        "a batch's chance is prior · prior · …; for n = 1 this is the mean of the data",
    ),
    mistakes="""
        chance = posterior[batches[:, 0]] * others → chance = prior[batches[:, 0]] * others
        # the first reference is drawn from the data here: given x_t, the x₀ that made it has the
        # posterior's law
        chance = posterior[batches[:, 0]] * others → chance = posterior[batches].prod(1)
        # all references are drawn from the posterior here: only the first one has made x_t
        torch.softmax(prior.log() + fit, 0) → torch.softmax(fit, 0)
        # the posterior lacks the prior: Bayes' rule multiplies the likelihoods by it
        torch.softmax(fit[batches], 1) → torch.softmax(prior.log()[batches] + fit[batches], 1)
        # the weights contain the prior here: the references are drawn from it, so it is counted
        # twice
        (prior[batches[:, 0]] * others) @ found → prior @ atoms
        # this is the mean of the data: the weights pull x̄₀ towards what explains x_t
        (torch.softmax(fit[batches], 1) * atoms[batches]).sum(1) → atoms[batches].mean(1)
        # the references count alike here: x̄₀ weighs them by how well they explain x_t
        * atoms[batches]).sum(1) → * atoms[batches]).mean(1)
        # the spare 1/n: the weights of a batch sum to 1 already
        softmax(fit[batches] → softmax(2 * fit[batches]
        # the exponents are twice too large: they are −(x_t − α x₀)²/2σ²
        chance @ (found - mean) ** 2 → chance @ found**2
        # this is the mean square: subtract the square of the mean
        chance @ (found - mean) ** 2 → (chance @ (found - mean) ** 2).sqrt()
        # this is the standard deviation: the variance is its square
        chance @ (found - mean) ** 2 → ((found - mean) ** 2).mean()
        # the batches count alike: each counts by its chance
        chance @ (found - mean) ** 2 → (posterior @ (atoms - mean) ** 2) / n
        # this is the posterior's variance over n, as if the references were draws of the
        # posterior
        chance @ (found - mean) ** 2 → posterior @ (atoms - posterior @ atoms) ** 2
        # this is the posterior's variance, that of one sample: with n references it is smaller
        (prior[batches[:, 0]] * others) @ found → mean
        # this is the mean with x₀: without it the estimate is biased
        (prior[batches[:, 0]] * others) @ found → found.mean()
        # the batches count alike: each counts by its chance
        (prior[batches[:, 0]] * others) @ found → others @ found
        # the first reference's chance is missing
    """,
)


def captions(rng: np.random.Generator) -> dict:
    """Captions that repeat, that share tokens with others, and that were dropped."""
    null = rng.integers(1, 9, 3)
    kinds = np.stack([null + [0, 0, 1], null + [1, 0, 0], null[[1, 2, 0]] + 9, 0 * null])
    rows = np.concatenate([kinds, kinds[[0, 2]], [null, null]])
    return {"cond": rows[rng.permutation(len(rows))], "null": null}


def _pairs(case: Case, values: list, truths: list) -> str:
    missing, extra = (int((a > b).sum()) for a, b in (truths + values, values + truths))
    return f"{missing} references are missing and {extra} are too much"


SPEAK = Exact(
    "Q17.4",
    captions,
    returns="the mask",
    off=_pairs,
    hint="row i of the mask: all samples whose whole caption is that of i; or all, if i has none",
    mistakes="""
        (cond == null).all(1)[:, None] → (cond == null).all(1)
        # the mask is turned: a sample without caption speaks to all, but it is a *row* without
        # caption that must hear all
        return same | (cond == null).all(1)[:, None] → return same
        # a row without caption hears only others without: it stands for all the data
        (cond == null).all(1)[:, None] → (cond == null).all(1)[:, None] | (cond == null).all(1)
        # a row with a caption hears samples without: their condition is not its own
        same = (cond[:, None] == cond).all(2) → same = (cond[:, None] == cond).any(2)
        # one token in common is taken for the same caption: all of them must agree
        (cond == null).all(1) → (cond == null).any(1)
        # one token of the empty caption is taken for a dropped one: all of them must agree
        (cond == null).all(1) → (cond == 0).all(1)
        # the caption of zeros is taken for the empty one: that is `null`
        same | → same & ~torch.eye(len(cond), dtype=torch.bool) |
        # a row's own sample is left out: it must be among its references
        same | → torch.eye(len(cond), dtype=torch.bool) |
        # other samples of the same caption are missing
        return same | (cond == null).all(1)[:, None] → return torch.ones_like(same)
        # every row hears all: its references must share its condition
        (cond[:, None] == cond).all(2) → (cond.sum(1)[:, None] == cond.sum(1))
        # captions of the same sum are taken for the same: compare token by token
    """,
)


def exponents(rng: np.random.Generator) -> dict:
    """Some rows near the clean end; every row has a reference that may speak, and one that fits
    better and may not.
    """
    fit = -rng.uniform(0, 4, size=(ROWS, 10)) - np.array([[0.0, 3.0], [1e5, 9e7]] * 2).reshape(
        ROWS, 1
    )
    shared = rng.random(size=fit.shape) < 0.6
    shared[:, 0], shared[:, 1] = True, False
    fit[:, 1] += 3
    return {"exponents": fit, "shared": shared}


EFFECTIVE = Exact(
    "Q17.5",
    exponents,
    returns="n_eff",
    hint="weights that sum to 1 over those who may speak; then one over the sum of their squares",
    tolerance=1e-7,
    mistakes="""
        exponents.masked_fill(~shared, -torch.inf) → exponents
        # everybody speaks: who may not must weigh nothing
        exponents.masked_fill(~shared, -torch.inf) → exponents.masked_fill(shared, -torch.inf)
        # the mask is turned around: shared says who may speak
        exponents.masked_fill(~shared, -torch.inf) → exponents * shared
        # who may not speak has the exponent 0, which is the largest of all: it must be −∞
        exponents.masked_fill(~shared, -torch.inf) → exponents
        weights = torch.softmax(fit, 1) → weights = torch.softmax(fit, 1) * shared
        # the weights are masked after the softmax, and no longer sum to 1: mask the exponents
        1 / (weights**2).sum(1) → (weights**2).sum(1)  # this is Σw²: n_eff is one over it
        1 / (weights**2).sum(1) → 1 / (weights**2).sum(1).sqrt()
        # the root is too much: n_eff is one over Σw²
        1 / (weights**2).sum(1) → 1 / weights.amax(1)
        # this is one over the largest weight: n_eff is one over Σw²
        1 / (weights**2).sum(1) → torch.special.entr(weights).sum(1).exp()
        # this is the exponential of the entropy, another count: n_eff is one over Σw²
        1 / (weights**2).sum(1) → shared.double().sum(1)
        # this is how many may speak, not how many count
        1 / (weights**2).sum(1) → 1 / (weights**2).mean(1)
        # this is 1/mean(w²), n times too large: it is the sum of the squares
        return 1 / (weights**2) → weights = torch.softmax(-fit.masked_fill(~shared, torch.inf), 1)
            return 1 / (weights**2)
        # the sign of the exponents is wrong: the minus is in them already
    """,
)

QUESTIONS = [WEIGHTS, STEP, BATCHES, SPEAK, EFFECTIVE]
