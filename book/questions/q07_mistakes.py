"""Plausible wrong answers to assignment 07, computed so that a judge can recognise them:
{explanation: what it returns}.
"""

import numpy as np

from book.questions.problems import walk


def of_eps_weights(al_s, si_s, al_t, si_t) -> tuple[dict, dict]:
    ratio, grow = al_t / al_s, al_t * si_s / (si_t * al_s)  # grow = e^h
    of_x0 = "that is the factor in α_t x₀ + σ_t ε: here x stands in the place of x₀"
    return (
        {
            "that is σ_t/σ_s, the factor of the data form": si_t / si_s,
            "upside down: α_s/α_t": 1 / ratio,
            "x does not keep its size: its factor is α_t/α_s": np.ones_like(ratio),
            of_x0: al_t,
        },
        {
            "the sign is wrong: the integral has a minus in front, and e^{−λ} falls": si_s * ratio
            - si_t,
            "σ_t − σ_s: the lower end of the integral, σ_s/α_s, is multiplied by α_t, not by "
            "α_s": si_t - si_s,
            "the factor α_t in front of the integral is missing": si_t / al_t - si_s / al_s,
            "α_s stands where α_t belongs": (si_t / al_t - si_s / al_s) * al_s,
            of_x0: si_t,
            "−σ_t e^h: the lower end of the integral is missing": -grow * si_t,
            "in −σ_t(e^h − 1), h = λ_t − λ_s is positive: this has e^{−h}": si_t * (1 - 1 / grow),
            "α_t stands where σ_t belongs in −σ_t(e^h − 1)": al_t * (1 - grow),
            "σ_s stands where σ_t belongs in −σ_t(e^h − 1)": si_s * (1 - grow),
            "e^{−λ} is not constant over the step: integrate it": -si_t * np.log(grow),
        },
    )


def of_data_weights(al_s, si_s, al_t, si_t) -> tuple[dict, dict]:
    ratio, grow = si_t / si_s, al_t * si_s / (si_t * al_s)  # grow = e^h
    of_eps = "that is the factor in α_t x₀ + σ_t ε: here x stands in the place of ε"
    return (
        {
            "that is α_t/α_s, the factor of the ε form": al_t / al_s,
            "upside down: σ_s/σ_t": 1 / ratio,
            "x does not keep its size: its factor is σ_t/σ_s": np.ones_like(ratio),
            of_eps: si_t,
        },
        {
            "the sign is wrong: e^λ grows towards the data": al_s * ratio - al_t,
            "α_t − α_s: the lower end of the integral, α_s/σ_s, is multiplied by σ_t, not by "
            "σ_s": al_t - al_s,
            "the factor σ_t in front of the integral is missing": al_t / si_t - al_s / si_s,
            "this is 1 − e^{−h}: the factor α_t is missing": 1 - 1 / grow,
            of_eps: al_t,
            "in α_t(1 − e^{−h}), this has e^h": al_t * (grow - 1),
            "σ_t stands where α_t belongs in α_t(1 − e^{−h})": si_t * (1 - 1 / grow),
            "e^λ is not constant over the step: integrate it": al_t * np.log(grow),
        },
    )


def of_ddim(model, x, lams) -> dict[str, np.ndarray]:
    def end(step):
        return walk(
            lambda model, x, a, b, memory: (step(model(x, a), x, a, b), None), model, x, lams
        ).numpy()

    backwards = walk(
        lambda model, x, a, b, memory: (model(x, a).mix(b.alpha, b.sigma), None),
        model,
        x,
        lams[::-1],
    )
    late = walk(
        lambda model, x, a, b, memory: (model(x, b).mix(b.alpha, b.sigma), None), model, x, lams
    )
    return {
        "this is Euler's rule in t, which does not know the linear part": end(
            lambda p, x, a, b: x + (b.t - a.t) * p.velocity
        ),
        "x keeps its size: multiply it by α_b/α_a": end(
            lambda p, x, a, b: x + (b.sigma - a.sigma * b.alpha / a.alpha) * p.eps
        ),
        "the noise enters with the wrong sign": end(
            lambda p, x, a, b: b.alpha * p.x0 - b.sigma * p.eps
        ),
        "the network is asked at the level to come, b. It must see the level that x is "
        "at": late.numpy(),
        "the last step is missing: n + 1 levels make n steps": walk(
            lambda model, x, a, b, memory: (model(x, a).mix(b.alpha, b.sigma), None),
            model,
            x,
            lams[:-1],
        ).numpy(),
        "the levels are walked from the last to the first": backwards.numpy(),
        "the noise keeps its old level: ε is multiplied by σ_b, not by σ_a": end(
            lambda p, x, a, b: b.alpha * p.x0 + a.sigma * p.eps
        ),
        "x₀ lacks its factor α_b": end(lambda p, x, a, b: p.x0 + b.sigma * p.eps),
        "e^{−h} stands where e^h belongs": end(
            lambda p, x, a, b: b.alpha / a.alpha * x - b.sigma * np.expm1(a.lam - b.lam) * p.eps
        ),
        "one step too many: x at the last level is asked for, not its x₀": _denoised(
            model, x, lams
        ),
        "this is the last x₀, without the noise of the last level": end(
            lambda p, x, a, b: p.x0 if b.lam == lams[-1] else p.mix(b.alpha, b.sigma)
        ),
    }


def _denoised(model, x, lams) -> np.ndarray:
    last = model.schedule.at_lam(float(lams[-1]))
    return model(
        walk(
            lambda model, x, a, b, memory: (model(x, a).mix(b.alpha, b.sigma), None),
            model,
            x,
            lams,
        ),
        last,
    ).x0.numpy()


def of_flow(x, mean, c, al_s, si_s, al_t, si_t) -> dict[str, np.ndarray]:
    v_s, v_t = (al_s * c) ** 2 + si_s**2, (al_t * c) ** 2 + si_t**2
    return {
        "the cloud is scaled by V_t/V_s: the width goes with the root": al_t * mean
        + v_t / v_s * (x - al_s * mean),
        "the mean is left behind: subtract α_s m before scaling, add α_t m after": (v_t / v_s)
        ** 0.5
        * x,
        "x is not centred before it is scaled": al_t * mean + (v_t / v_s) ** 0.5 * x,
        "the mean does not move with α: it is α_t m at level t": mean
        + (v_t / v_s) ** 0.5 * (x - mean),
        "the mean is subtracted without its factor α_s": al_t * mean
        + (v_t / v_s) ** 0.5 * (x - mean),
        "c is missing: the width of a level is √(α²c² + σ²), not σ": al_t * mean
        + si_t / si_s * (x - al_s * mean),
        "αc and σ add as squares: the width is √(α²c² + σ²)": al_t * mean
        + (al_t * c + si_t) / (al_s * c + si_s) * (x - al_s * mean),
        "this only rescales x by α_t/α_s, as if there were no noise": al_t / al_s * x,
        "upside down: V_s/V_t": al_t * mean + (v_s / v_t) ** 0.5 * (x - al_s * mean),
        "V = α²c + σ² has c where c² belongs": al_t * mean
        + ((al_t**2 * c + si_t**2) / (al_s**2 * c + si_s**2)) ** 0.5 * (x - al_s * mean),
        "this is one DDIM step, not the exact flow": al_t * mean
        + (al_s * al_t * c**2 + si_s * si_t) / v_s * (x - al_s * mean),
    }


def of_grid(first, last, c, n) -> dict[str, np.ndarray]:
    def uniform(forth, back):
        return back(np.linspace(forth(first), forth(last), n + 1))

    best = uniform(lambda lam: np.arctan(np.exp(-lam) / c), lambda phi: -np.log(c * np.tan(phi)))
    return {
        "uniform in λ, which is not the best for DDIM": np.linspace(first, last, n + 1),
        "uniform in κ": uniform(lambda lam: np.exp(-lam), lambda k: -np.log(k)),
        "uniform in arctan κ: κ is measured against c": uniform(
            lambda lam: np.arctan(np.exp(-lam)), lambda phi: -np.log(np.tan(phi))
        ),
        "uniform in arctan(cκ): divide κ = e^{−λ} by c": uniform(
            lambda lam: np.arctan(np.exp(-lam) * c), lambda phi: -np.log(np.tan(phi) / c)
        ),
        "uniform in arctan √(κ/c): the angle has no root": uniform(
            lambda lam: np.arctan(np.exp(-lam / 2) / c**0.5),
            lambda phi: -np.log(c * np.tan(phi) ** 2),
        ),
        "c is forgotten on the way back: κ = c·tan φ": best + np.log(c),
        "these are φ, not λ = −log(c·tan φ)": np.arctan(np.exp(-best) / c),
        "these are κ, not λ = −log κ": np.exp(-best),
        "from data to noise: the first λ is the noisiest": best[::-1],
    }
