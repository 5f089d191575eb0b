"""Plausible wrong answers to assignment 08, computed so that a judge can recognise them:
{explanation: what it returns}.
"""

import math

import numpy as np
import torch
from dlib import solvers
from dlib.solvers import ddim, expand_eps, heun

from book.questions.problems import walk


def phi(k: int, h: np.ndarray) -> np.ndarray:
    return solvers.phi(k, torch.from_numpy(h)).numpy()


def of_ddim(model, x, a, b) -> dict[str, np.ndarray]:
    at_a, at_b = model(x, a), model(x, b)
    found = {
        "the network is asked at level b. It must see the level that x is at: a": at_b.mix(
            b.alpha, b.sigma
        ),
        "x keeps its size: in the variance-preserving schedule the linear part is x·α_b/α_a": x
        + (b.sigma - a.sigma) * at_a.eps,
        "the noise enters with the wrong sign": b.alpha * at_a.x0 - b.sigma * at_a.eps,
        "this is x₀, the data prediction: noise it again to level b": at_a.x0,
        "the coefficients are level a's: they return x itself": x,
        "this is Euler's rule in t, which does not integrate the linear part exactly": x
        + (b.t - a.t) * at_a.velocity,
        "σ_a stands where σ_b belongs": b.alpha * at_a.x0 + a.sigma * at_a.eps,
        "the linear part is right, but ε is multiplied by σ_b − σ_a instead of σ_b − "
        "σ_a·α_b/α_a": b.alpha / a.alpha * x + (b.sigma - a.sigma) * at_a.eps,
    }
    return {why: value.numpy() for why, value in found.items()}


def _middle(model, a, b):
    return model.schedule.at_lam(0.5 * (a.lam + b.lam))


def of_midpoint(model, x, lams) -> dict[str, np.ndarray]:
    def stale_point(model, x, a, b, memory):
        return expand_eps(x, a, b, model(x, _middle(model, a, b)).eps), None

    def two_halves(model, x, a, b, memory):
        mid = _middle(model, a, b)
        return ddim(model, ddim(model, x, a, mid)[0], mid, b)

    def stale_level(model, x, a, b, memory):
        u, _ = ddim(model, x, a, _middle(model, a, b))
        return expand_eps(x, a, b, model(u, a).eps), None

    def wrong_end(model, x, a, b, memory):
        u, _ = ddim(model, x, a, _middle(model, a, b))
        return expand_eps(x, a, b, model(u, b).eps), None

    def average(model, x, a, b, memory):
        mid = _middle(model, a, b)
        u, _ = ddim(model, x, a, mid)
        return expand_eps(x, a, b, 0.5 * (model(x, a).eps + model(u, mid).eps)), None

    def half_weight(model, x, a, b, memory):
        mid = _middle(model, a, b)
        u, _ = ddim(model, x, a, mid)
        return b.alpha / a.alpha * x - b.sigma * math.expm1(0.5 * (b.lam - a.lam)) * model(
            u, mid
        ).eps, None

    steps = {
        "this is DDIM: ε is frozen at the start of the step": ddim,
        "ε is taken at the level of the midpoint but at the old x: move x there first, by a "
        "DDIM step to u": stale_point,
        "these are two DDIM steps of half the length: start the second from x again, with ε of "
        "the midpoint": two_halves,
        "the network is asked about u, but told that u is at level a: it is at the midpoint's "
        "level": stale_level,
        "the network is asked about u, but told that u is at level b: it is at the midpoint's "
        "level": wrong_end,
        "ε of the start and of the midpoint are averaged: the midpoint's alone is second "
        "order": average,
        "e^{h/2} − 1 stands where e^h − 1 belongs: the last line covers the whole "
        "step": half_weight,
    }
    return {why: walk(step, model, x, lams).numpy() for why, step in steps.items()}


def _2m(ratio, kept=lambda prediction, x: prediction.x0, level=lambda a, b: a):
    """2M with its ratio, what it keeps and the λ it keeps replaced."""

    def step(model, x, a, b, memory):
        prediction, h = model(x, a), b.lam - a.lam
        x0 = middle = prediction.x0
        if memory is not None:
            r = ratio(h, a.lam - memory[0])
            middle = (1 + r) * x0 - r * memory[1]
        return b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * middle, (
            level(a, b).lam,
            kept(prediction, x),
        )

    return step


def of_2m(model, x, lams) -> dict[str, np.ndarray]:
    right = lambda h, h0: 0.5 * h / h0
    steps = {
        "this is DDIM: is the memory returned, and used when it is not None?": ddim,
        "the ratio is h₀/h: extrapolating further takes h/h₀": _2m(lambda h, h0: 0.5 * h0 / h),
        "this is right only for equal steps: the difference must be scaled by h/h₀": _2m(
            lambda h, h0: 0.5
        ),
        "the extrapolation goes to the end of the step: half of h/h₀ reaches its middle": _2m(
            lambda h, h0: h / h0
        ),
        "the difference is subtracted: extrapolate away from the former value": _2m(
            lambda h, h0: -0.5 * h / h0
        ),
        "the memory holds x: it should hold the data prediction x₀ of the step before": _2m(
            right, kept=lambda p, x: x
        ),
        "the memory holds ε: the data form extrapolates x₀": _2m(right, kept=lambda p, x: p.eps),
        "this is Heun's rule: second order, but with two calls a step": heun,
    }
    return {why: walk(step, model, x, lams).numpy() for why, step in steps.items()}


def of_newton(lam, f) -> dict[str, dict[str, np.ndarray]]:
    d1, d1_before = (f[0] - f[1]) / (lam[0] - lam[1]), (f[1] - f[2]) / (lam[1] - lam[2])
    h0, h = lam[0] - lam[1], 0.5 * (lam[0] - lam[2])
    d2 = (d1 - d1_before) / (lam[0] - lam[2])
    slopes = {
        "this is d₁, the slope in the middle of the last step: the newest point is h₀/2 "
        "further on": d1,
        "the correction h₀·d₂ has the wrong sign": d1 - h0 * d2,
        "this is the slope at the oldest point: row 0 is the newest": d1_before
        - (lam[1] - lam[2]) * d2,
        "the correction is counted twice: h₀·d₂ with d₂ the divided difference, not the "
        "curvature": d1 + 2 * h0 * d2,
    }
    curvatures = {
        "half of it: the second divided difference is f''/2. The released 3M codes forget this "
        "very factor": d2,
        "the difference of the two slopes is divided by the wrong length: they lie (λ₀ − λ₂)/2 "
        "apart": (d1 - d1_before) / (lam[0] - lam[1]),
        "this formula is for equal steps": (f[0] - 2 * f[1] + f[2]) / h**2,
        "the sign is wrong: which row is the newest?": -2 * d2,
    }
    return {"slope": slopes, "curvature": curvatures}
