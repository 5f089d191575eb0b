"""Assignment 06: conventions, faces, Gaussians under guidance, masses, a mixture's guided ε."""

import numpy as np

from book.questions.q06 import FACES, KINDS
from book.truth import otherwise, problems
from book.truth.exact import Exact

ROWS = 24


def outputs(rng: np.random.Generator) -> dict:
    told, empty, x = rng.normal(size=(3, ROWS, int(rng.integers(2, 5))))
    return {"told": told, "empty": empty, "x": x}


def weighted(rng: np.random.Generator) -> dict:
    both = outputs(rng)
    return {"told": both["told"], "empty": both["empty"], "w": rng.uniform(2.0, 7.0)}


GUIDE = Exact(
    "Q06.1",
    weighted,
    returns=tuple(f'kind="{kind}"' for kind in KINDS),
    hint=("(1+ω)·told − ω·empty", "empty + g·(told − empty)", "told + w′·(told − empty)"),
    mistakes="""
        kind == "scale" → kind != "extra"
        # this takes ω for a scale: ω = 0 must be no guidance, so the weight of told is 1 + ω
        kind == "scale" → kind != "omega"
        # this takes w′ for a scale: what stands in front of the difference is told, not empty
        (1 + omega) * told - omega * empty → (1 + omega) * empty - omega * told
        # told and empty are exchanged: this runs away from the condition
        - omega * empty → - (omega - 1) * empty  # the two weights must sum to 1
        told - omega → told + omega  # the weights sum to 1 + 2ω: that of empty is −ω
        else w → else -w  # the sign of ω is wrong
        w - 1 → w  # this takes the scale for ω: g = 1 must be no guidance
        w - 1 → w + 1  # the scale is ω + 1, so ω = g − 1, not g + 1
        w - 1 → 1 - w  # ω = g − 1, not 1 − g
        else w → else w + (kind == "extra")  # w′ is ω itself: nothing is added
    """,
)

X0 = Exact(
    "Q06.2",
    lambda rng: outputs(rng) | problems.level(rng) | {"omega": rng.uniform(1.0, 7.0)},
    returns=tuple(f'x₀ for predicts="{face}"' for face in FACES),
    hint=(
        "x₀ = (x − σε)/α",
        "x = αx₀ + σε and v = αε − σx₀ are two equations for x₀",
        "the score is −ε/σ",
    ),
    tolerance=1e-7,
    mistakes="""
        out = (1 + omega) * told - omega * empty → out = omega * told + (1 - omega) * empty
        # this takes ω for a scale: the weights are 1 + ω and −ω
        out = (1 + omega) * told - omega * empty → out = told  # there is no guidance in it
        out = (1 + omega) * told - omega * empty → out = (1 + omega) * empty - omega * told
        # told and empty are exchanged
        told - omega → told + omega
        # the sign of empty is wrong: the difference of told and empty is amplified
        told - omega → told + omega
        if predicts == "v" → x = (1 + 2 * omega) * x
            if predicts == "v"
        # x enters 1 + 2ω times: guide the outputs, or two x₀, but combine with weights 1 + ω and
        # −ω
        if predicts == "v" → predicts = "eps"
            if predicts == "v"
        # this is the formula for eps
        if predicts == "v" → predicts = "v"
            if predicts == "v"
        # this is the formula for v
        if predicts == "v" → predicts = "score"
            if predicts == "v"
        # this is the formula for score
        ) / alpha → )  # the division by α is missing
        eps = out → eps = -out  # the sign is wrong: the noise is taken away
        alpha * x - sigma → alpha * x + sigma
        # the sign is wrong: ε cancels in αx − σv = (α² + σ²)x₀
        alpha * x - sigma * out → x - out  # this is x₀ of a flow model, x − v
        alpha * x - sigma * out → sigma * x + alpha * out  # this is σx + αv = ε, not x₀
        else -sigma * out → else -out
        # one factor σ is missing: ε = −σ·score, and x₀ = (x − σε)/α brings the second
        else -sigma * out → else -out / sigma  # ε = −σ·score: multiply by σ, do not divide
        else -sigma → else sigma  # the sign is wrong: the score is −ε/σ
    """,
)


def widths(rng: np.random.Generator) -> dict:
    v_c = rng.uniform(0.1, 0.6)
    return {
        "m_c": rng.normal(),
        "m_null": rng.normal(),
        "v_c": v_c,
        "v_null": v_c * rng.uniform(1.5, 3.0),
        "omega": rng.uniform(0.5, 4.0),
        "low": rng.uniform(0.05, 0.3),
        "high": rng.uniform(0.8, 3.0),
    }


GAUSSIAN = Exact(
    "Q06.3",
    widths,
    returns=("the mean", "the flow's variance", "the tilt's variance"),
    hint=(
        "only the levels between low and high push, each by its cos θ; v_null has no part in it",
        "integrate d log y along the flow with equal means",
        "the tilt is a Gaussian: collect the x² in its exponent",
    ),
    truth=otherwise.guided_ends,
    tolerance=1e-6,
    mistakes="""
        * (cos(low) - cos(high)) →
        # this is guidance at all levels: only those between low and high push
        m_c + omega → m_c - omega
        # the sign of the shift is wrong: guidance pushes away from m_null. (So are low and high
        # exchanged: cos θ is larger at the low level)
        m_c + omega → omega  # this is only the shift: add m_c
        cos(low) - cos(high) → math.sqrt(1 - cos(high) ** 2) - math.sqrt(1 - cos(low) ** 2)
        # sin θ stands where cos θ belongs
        cos(low) - → 1 -  # the interval reaches down to κ = 0: its low end is missing
        - cos(high) →  # the interval reaches up to pure noise: its high end is missing
        v_c / (v_c + kappa**2) → 1 / (1 + (kappa / v_c) ** 2)  # tan θ = κ/√v, not κ/v
        math.sqrt( → (  # cos θ is squared: v/(v + κ²) wants a root
        omega * (m_c → (omega - 1) * (m_c
        # this takes ω for a scale: the shift is ω (m_c − m_null)
        omega * (m_c → (1 + omega) * (m_c
        # the shift is ω (m_c − m_null), not 1 + ω times: the 1 is the class itself
        cos(low) - cos(high) → math.acos(cos(high)) - math.acos(cos(low))
        # the range of θ stands where that of cos θ belongs
        m_c + omega → m_null + omega  # the shift is measured from m_null: it starts at m_c
        v_c / (v_c + kappa**2) → v_null / (v_null + kappa**2)
        # v_null is used: in this part both variances are v_c
        return mean, flow → return mean, 1 / ((1 + omega) / v_c - omega / v_null)
        # this is the variance of the tilt, which the flow does not sample
        return mean, flow → return mean, v_c
        # this is the class's variance: guidance changes it when the variances differ
        return mean, flow → return mean, flow**0.5  # this is the standard deviation: square it
        v_c ** (1 + omega) * v_null**-omega → v_c ** (1 + omega / 2) * v_null ** (-omega / 2)
        # the exponents are those of the standard deviation, half of them
        v_c ** (1 + omega) * v_null**-omega → v_c**-omega * v_null ** (1 + omega)
        # the exponents are interchanged
        v_c ** (1 + omega) * v_null**-omega → v_c**omega * v_null ** (1 - omega)
        # this takes ω for a scale
        v_null**-omega → v_null**omega  # the sign of ω is wrong at v_null
        v_c ** (1 + omega) * v_null**-omega → (1 + omega) * v_c - omega * v_null
        # an arithmetic mean with weights 1 + ω and −ω: the flow's logarithm is linear
        flow, 1 / ((1 + omega) / v_c - omega / v_null) → flow, flow
        # this is the variance of the flow: the tilt's precisions add
        flow, 1 / → flow,  # this is the precision: its inverse is asked for
        (1 + omega) / v_c - omega / v_null → (1 + omega) * v_c - omega * v_null
        # the precisions are 1/v: here the variances were added, and then inverted
        (1 + omega) / v_c - omega / v_null → omega / v_c - (omega - 1) / v_null
        # this takes ω for a scale
        / v_c - omega → / v_c + omega
        # the sign of ω is wrong at v_null: dividing by p^ω subtracts its precision
        1 / ((1 + omega) / v_c - omega / v_null) → ((1 + omega) / v_c - omega / v_null) ** -0.5
        # this is the standard deviation: square it
        1 / ((1 + omega) / v_c - omega / v_null) → (1 + omega) * v_c - omega * v_null
        # an arithmetic mean with weights 1 + ω and −ω: precisions add, not variances
    """,
)


def masses(rng: np.random.Generator) -> dict:
    k = int(rng.integers(3, 6))
    of_class, of_all = (rng.dirichlet(np.full(k, 3.0)) * 0.9 + 0.1 / k for _ in range(2))
    return {"of_class": of_class, "of_all": of_all, "omega": rng.uniform(0.5, 4.0)}


MASSES = Exact(
    "Q06.4",
    masses,
    returns="the vector of masses",
    hint="near mode k, p(x|c)/p(x) is the ratio of its two weights",
    truth=otherwise.tilted_masses,
    tolerance=1e-7,
    mistakes="""
        mass / mass.sum() → mass  # they do not sum to 1: divide by their sum
        * (of_class / of_all) ** omega →  # these are the class's own masses
        ** omega → ** (omega - 1)  # this takes ω for a scale
        of_class / of_all → of_class * of_all  # the sign of ω is wrong
        of_class * ( → (  # the power of the class's weight is 1 + ω: one for p(x|c) itself
        ** omega →  # there is no ω in it
        / of_all →  # p(x) is missing: divide by its weights to the power ω
        of_class * (of_class / of_all) → of_all * (of_all / of_class)
        # class and all are exchanged
        of_class * (of_class / of_all) ** omega → (1 + omega) * of_class - omega * of_all
        # weights are extrapolated linearly: densities are multiplied, so logarithms are
    """,
)


def labelled(rng: np.random.Generator) -> dict:
    k = int(rng.integers(4, 7))
    return {
        "x": rng.normal(size=(ROWS, 2)),
        **problems.mixture(rng, 2, k, (0.3, 0.8)),
        "labels": np.array([0, 0, 1, *rng.integers(0, 3, k - 3)]),
        "c": 0,
        "omega": rng.uniform(1.0, 7.0),
    } | problems.level(rng)


MIXTURE = Exact(
    "Q06.5",
    labelled,
    returns="the guided ε",
    hint="it is −σ times the gradient of (1+ω) log p_t(x|c) − ω log p_t(x)",
    truth=otherwise.tilted_noise,
    tolerance=1e-7,
    mistakes="""
        return (1 + omega) * told - omega * empty → return told
        # this is ε(x, c): there is no guidance in it
        (1 + omega) * told - omega * empty → omega * told + (1 - omega) * empty
        # this takes ω for a scale
        (1 + omega) * told - omega * empty → (1 + omega) * empty - omega * told
        # told and empty are exchanged
        sigma * torch → -torch  # this is the guided score: ε = −σ · score
        sigma * torch → -sigma * torch  # the sign is wrong: ε = −σ ∇ log p
        labels == labels → labels != c  # ∅ is the other classes, not all of them
        sigma * torch → sigma**2 * torch  # this is σ² times the gradient: ε = −σ ∇ log p
        log_share.masked_fill(~inside, -math.inf), 1) → log_share, 1) * inside
        # the class's responsibilities do not sum to 1: divide by the sum over the class
        (2 * v) → v  # the ½ is missing in the exponent
        share / v → share  # the gradient of a component is (x − αμ)/v: its 1/v is missing
        (alpha * stds) ** 2 + sigma**2 → ((alpha * stds) ** 2 + sigma**2) ** 0.5
        # the standard deviation stands where v belongs
        (alpha * stds) ** 2 → alpha * stds**2  # α is not squared in the variances
        (alpha * stds) ** 2 + sigma**2 → stds**2
        # the variances are those of clean data: at this level they are α²·std² + σ²
        (alpha * stds) ** 2 → stds**2  # the variances lack their factor α²
        alpha * means → means  # the means are those of clean data: at this level they are α·mean
        weights.log() →  # the weights are missing in the responsibilities
        - v.log() →
        # log v is missing in the responsibilities: in two dimensions a component's density has
        # 1/(2πv) in front
        v.log() → v.log() / 2
        # ½ log v stands in the responsibilities: in two dimensions it is log v
    """,
)

QUESTIONS = [GUIDE, X0, GAUSSIAN, MASSES, MIXTURE]
