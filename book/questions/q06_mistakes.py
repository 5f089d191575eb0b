"""Plausible wrong answers to assignment 06, computed so that a judge can recognise them:
{explanation: what it returns}.
"""

import math

import numpy as np


def of_kinds(told, empty, w) -> list[dict[str, np.ndarray]]:
    """One dictionary for each of "omega", "scale" and "extra"."""
    scale, omega = empty + w * (told - empty), told + w * (told - empty)
    swapped = "told and empty are exchanged: this runs away from the condition"
    return [
        {
            "this takes ω for a scale: ω = 0 must be no guidance, so the weight of told is 1 + "
            "ω": scale,
            swapped: empty + w * (empty - told),
            "the two weights must sum to 1": (1 + w) * told - (w - 1) * empty,
            "the weights sum to 1 + 2ω: that of empty is −ω": (1 + w) * told + w * empty,
            "the sign of ω is wrong": told - w * (told - empty),
        },
        {
            "this takes the scale for ω: g = 1 must be no guidance": omega,
            swapped: told + w * (empty - told),
            "the scale is ω + 1, so ω = g − 1, not g + 1": told + (w + 1) * (told - empty),
            "ω = g − 1, not 1 − g": told + (1 - w) * (told - empty),
        },
        {
            "this takes w′ for a scale: what stands in front of the difference is told, not "
            "empty": scale,
            swapped: empty + w * (empty - told),
            "w′ is ω itself: nothing is added": told + (w + 1) * (told - empty),
        },
    ]


def of_faces(told, empty, x, omega, alpha, sigma) -> list[dict[str, np.ndarray]]:
    raw, scaled, plain = told + omega * (told - empty), empty + omega * (told - empty), told
    forms = {
        "eps": lambda r: (x - sigma * r) / alpha,
        "v": lambda r: alpha * x - sigma * r,
        "score": lambda r: (x + sigma**2 * r) / alpha,
    }

    def shared(face: str) -> dict[str, np.ndarray]:
        others = {
            f"this is the formula for {other}": form(raw)
            for other, form in forms.items()
            if other != face
        }
        return {
            "this takes ω for a scale: the weights are 1 + ω and −ω": forms[face](scaled),
            "there is no guidance in it": forms[face](plain),
            "told and empty are exchanged": forms[face](empty + omega * (empty - told)),
            "the sign of empty is wrong: the difference of told and empty is amplified": forms[
                face
            ](told + omega * (told + empty)),
            "x enters 1 + 2ω times: guide the outputs, or two x₀, but combine with weights 1 + "
            "ω and −ω": (1 + omega) * forms[face](told) + omega * forms[face](empty),
        } | others

    return [
        shared("eps")
        | {
            "the division by α is missing": x - sigma * raw,
            "the sign is wrong: the noise is taken away": (x + sigma * raw) / alpha,
        },
        shared("v")
        | {
            "the sign is wrong: ε cancels in αx − σv = (α² + σ²)x₀": alpha * x + sigma * raw,
            "this is x₀ of a flow model, x − v": x - raw,
            "this is σx + αv = ε, not x₀": sigma * x + alpha * raw,
        },
        shared("score")
        | {
            "one factor σ is missing: ε = −σ·score, and x₀ = (x − σε)/α brings the second": (
                x + sigma * raw
            )
            / alpha,
            "ε = −σ·score: multiply by σ, do not divide": (x + raw) / alpha,
            "the sign is wrong: the score is −ε/σ": (x - sigma**2 * raw) / alpha,
            "the division by α is missing": x + sigma**2 * raw,
        },
    ]


def of_gaussians(m_c, m_null, v_c, v_null, omega, low, high) -> list[dict[str, np.ndarray]]:
    """One dictionary for each of the mean, the flow's variance and the tilt's."""
    cos = lambda kappa, v=v_c: math.sqrt(v / (v + kappa**2))
    sin = lambda kappa: kappa / math.sqrt(v_c + kappa**2)
    full = omega * (m_c - m_null)
    flow, tilt = v_c ** (1 + omega) * v_null**-omega, 1 / ((1 + omega) / v_c - omega / v_null)
    mean = {
        "this is guidance at all levels: only those between low and high push": m_c + full,
        "the sign of the shift is wrong: guidance pushes away from m_null": m_c
        - full * (cos(low) - cos(high)),
        "this is only the shift: add m_c": full * (cos(low) - cos(high)),
        "low and high are exchanged: cos θ is larger at the low level": m_c
        + full * (cos(high) - cos(low)),
        "sin θ stands where cos θ belongs": m_c + full * (sin(high) - sin(low)),
        "the interval reaches down to κ = 0: its low end is missing": m_c
        + full * (1 - cos(high)),
        "the interval reaches up to pure noise: its high end is missing": m_c + full * cos(low),
        "tan θ = κ/√v, not κ/v": m_c
        + full * (1 / math.sqrt(1 + (low / v_c) ** 2) - 1 / math.sqrt(1 + (high / v_c) ** 2)),
        "cos θ is squared: v/(v + κ²) wants a root": m_c
        + full * (cos(low) ** 2 - cos(high) ** 2),
        "this takes ω for a scale: the shift is ω (m_c − m_null)": m_c
        + (omega - 1) * (m_c - m_null) * (cos(low) - cos(high)),
        "the shift is ω (m_c − m_null), not 1 + ω times: the 1 is the class itself": m_c
        + (1 + omega) * (m_c - m_null) * (cos(low) - cos(high)),
        "the range of θ stands where that of cos θ belongs": m_c
        + full * (math.atan(high / math.sqrt(v_c)) - math.atan(low / math.sqrt(v_c))),
        "the shift is measured from m_null: it starts at m_c": m_null
        + full * (cos(low) - cos(high)),
        "v_null is used: in this part both variances are v_c": m_c
        + full * (cos(low, v_null) - cos(high, v_null)),
    }
    of_flow = {
        "this is the variance of the tilt, which the flow does not sample": tilt,
        "this is the class's variance: guidance changes it when the variances differ": v_c,
        "this is the standard deviation: square it": math.sqrt(flow),
        "the exponents are those of the standard deviation, half of them": v_c ** (1 + omega / 2)
        * v_null ** (-omega / 2),
        "the exponents are interchanged": v_c**-omega * v_null ** (1 + omega),
        "this takes ω for a scale": v_c**omega * v_null ** (1 - omega),
        "the sign of ω is wrong at v_null": v_c ** (1 + omega) * v_null**omega,
        "an arithmetic mean with weights 1 + ω and −ω: the flow's logarithm is linear": (
            1 + omega
        )
        * v_c
        - omega * v_null,
    }
    of_tilt = {
        "this is the variance of the flow: the tilt's precisions add": flow,
        "this is the precision: its inverse is asked for": 1 / tilt,
        "the precisions are 1/v: here the variances were added, and then inverted": 1
        / ((1 + omega) * v_c - omega * v_null),
        "this takes ω for a scale": 1 / (omega / v_c - (omega - 1) / v_null),
        "the sign of ω is wrong at v_null: dividing by p^ω subtracts its precision": 1
        / ((1 + omega) / v_c + omega / v_null),
        "this is the standard deviation: square it": math.sqrt(tilt),
        "an arithmetic mean with weights 1 + ω and −ω: precisions add, not variances": (1 + omega)
        * v_c
        - omega * v_null,
    }
    return [
        {why: np.array(value) for why, value in table.items()}
        for table in (mean, of_flow, of_tilt)
    ]


def of_masses(of_class, of_all, omega) -> dict[str, np.ndarray]:
    share = lambda mass: mass / mass.sum()
    raw = of_class ** (1 + omega) * of_all**-omega
    return {
        "they do not sum to 1: divide by their sum": raw,
        "these are the class's own masses": of_class,
        "this takes ω for a scale": share(of_class**omega * of_all ** (1 - omega)),
        "the sign of ω is wrong": share(of_class ** (1 + omega) * of_all**omega),
        "the power of the class's weight is 1 + ω: one for p(x|c) itself": share(
            (of_class / of_all) ** omega
        ),
        "there is no ω in it": share(of_class * of_class / of_all),
        "p(x) is missing: divide by its weights to the power ω": share(of_class ** (1 + omega)),
        "class and all are exchanged": share(of_all ** (1 + omega) * of_class**-omega),
        "weights are extrapolated linearly: densities are multiplied, so logarithms are": share(
            (1 + omega) * of_class - omega * of_all
        ),
    }


def of_mixture(x, weights, means, stds, inside, omega, alpha, sigma) -> dict[str, np.ndarray]:
    def eps(
        rows, variance=None, centre=alpha * means, shares=weights, half=0.5, among=None, pull=1.0
    ) -> np.ndarray:
        v = (alpha * stds) ** 2 + sigma**2 if variance is None else variance
        apart = x[:, None] - centre
        logit = np.log(shares) - np.log(v) - half * (apart**2).sum(2) / v
        r = np.exp(logit - logit.max(1, keepdims=True))
        r = r * rows / (r * (rows if among is None else among)).sum(1, keepdims=True)
        return sigma * ((r / v**pull)[:, :, None] * apart).sum(1)

    every = np.ones_like(inside)
    told, empty = eps(inside), eps(every)
    mix = lambda told, empty: told + omega * (told - empty)
    return {
        "this is ε(x, c): there is no guidance in it": told,
        "this takes ω for a scale": empty + omega * (told - empty),
        "told and empty are exchanged": mix(empty, told),
        "this is the guided score: ε = −σ · score": -mix(told, empty) / sigma,
        "the sign is wrong: ε = −σ ∇ log p": -mix(told, empty),
        "∅ is the other classes, not all of them": mix(told, eps(~inside)),
        "this is σ² times the gradient: ε = −σ ∇ log p": sigma * mix(told, empty),
        "the class's responsibilities do not sum to 1: divide by the sum over the class": mix(
            eps(inside, among=every), empty
        ),
        "the ½ is missing in the exponent": mix(eps(inside, half=1.0), eps(every, half=1.0)),
        "the gradient of a component is (x − αμ)/v: its 1/v is missing": mix(
            eps(inside, pull=0.0), eps(every, pull=0.0)
        ),
        "the standard deviation stands where v belongs": mix(
            eps(inside, np.sqrt((alpha * stds) ** 2 + sigma**2)),
            eps(every, np.sqrt((alpha * stds) ** 2 + sigma**2)),
        ),
        "α is not squared in the variances": mix(
            eps(inside, alpha * stds**2 + sigma**2), eps(every, alpha * stds**2 + sigma**2)
        ),
        "the variances are those of clean data: at this level they are α²·std² + σ²": mix(
            eps(inside, stds**2), eps(every, stds**2)
        ),
        "the variances lack their factor α²": mix(
            eps(inside, stds**2 + sigma**2), eps(every, stds**2 + sigma**2)
        ),
        "the means are those of clean data: at this level they are α·mean": mix(
            eps(inside, centre=means), eps(every, centre=means)
        ),
        "the weights are missing in the responsibilities": mix(
            eps(inside, shares=np.ones_like(weights)), eps(every, shares=np.ones_like(weights))
        ),
        "log v is missing in the responsibilities: in two dimensions a component's density has "
        "1/(2πv) in front": mix(
            eps(inside, shares=weights * ((alpha * stds) ** 2 + sigma**2)),
            eps(every, shares=weights * ((alpha * stds) ** 2 + sigma**2)),
        ),
        "½ log v stands in the responsibilities: in two dimensions it is log v": mix(
            eps(inside, shares=weights * np.sqrt((alpha * stds) ** 2 + sigma**2)),
            eps(every, shares=weights * np.sqrt((alpha * stds) ** 2 + sigma**2)),
        ),
    }
