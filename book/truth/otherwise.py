"""The truth of some questions by other means than their solutions: quadrature, sums over a grid,
autograd, finite differences.
"""

import math

import numpy as np
import torch
from dlib import Mixture, vp

from book.questions.q20 import line
from book.truth import Case, problems


def guided_ends(case: Case) -> list:
    """By Gauss–Legendre quadrature of the guided flow's linear ODE in s = log κ, not by the
    closed forms. From κ = e^{−9} to e^9 the unequal flow's width changes; beyond, it is constant
    or ∝ κ.
    """
    m_c, m_null, v_c, v_null, omega, low, high = case.inputs.values()
    node, weight = np.polynomial.legendre.leggauss(200)

    def integral(f, edges) -> float:
        pieces = zip(edges, edges[1:])
        return sum(
            (b - a) / 2 * (weight * f((b - a) / 2 * node + (a + b) / 2)).sum() for a, b in pieces
        )

    share = lambda s, v: np.exp(2 * s) / (v + np.exp(2 * s))
    rate = lambda s: (1 + omega) * share(s, v_c) - omega * share(s, v_null)
    push = lambda s: omega * (m_c - m_null) * share(s, v_c) * np.sqrt(1 - share(s, v_c))
    shift = integral(push, np.linspace(math.log(low), math.log(high), 9))
    width = math.exp(9.0 - integral(rate, np.arange(-9.0, 10.0)))
    return [
        np.array(m_c + shift),
        np.array(width**2),
        np.array(1 / ((1 + omega) / v_c - omega / v_null)),
    ]


def tilted_masses(case: Case) -> list:
    """By summing the tilted density of far modes on a grid."""
    of_class, of_all, omega = case.inputs.values()
    x, centre = np.arange(-50.0, 100.0 * len(of_class), 0.05), 100.0 * np.arange(len(of_class))
    log_each = -0.5 * (x[:, None] - centre) ** 2
    log_p, log_q = (np.logaddexp.reduce(log_each + np.log(w), axis=1) for w in (of_class, of_all))
    density = np.exp((1 + omega) * log_p - omega * log_q)
    mass = np.array([density[np.abs(x - c) < 50].sum() for c in centre])
    return [mass / mass.sum()]


def tilted_noise(case: Case) -> list:
    """By autograd of the tilted log density."""
    x, weights, means, stds, labels = map(torch.tensor, list(case.inputs.values())[:5])
    omega, alpha, sigma = list(case.inputs.values())[6:]
    mixture, x = Mixture(weights, means, stds, labels), x.requires_grad_()
    here, asked = vp().at_lam(math.log(alpha / sigma)), torch.zeros(len(x), dtype=torch.int64)
    log_p = mixture.log_guidance_tilt(x, here, asked, omega)
    return [(-sigma * torch.autograd.grad(log_p.sum(), x)[0]).numpy()]


def atoms(rng: np.random.Generator) -> Case:
    """A student that makes a few points of one dimension, and a teacher of two modes."""
    z, nodes = np.linspace(-1.5, 1.5, int(rng.integers(5, 9))), np.arange(-8, 8.01, 0.1)
    mass, theta = (
        np.exp(-(nodes**2) / 2),
        rng.normal(size=4) * [0.5, 0.3, 0.3, 0.3] + [0, 0.6, 0, 0],
    )
    jacobian = np.stack([z**0, z, z**2, np.sin(2 * z)], 1)
    inputs = {
        "x": jacobian @ theta,
        "jacobian": jacobian,
        "nodes": nodes,
        "mass": mass / mass.sum(),
        "weights": rng.dirichlet([4.0, 4.0]),
        "means": np.array([-1.2, 1.2]) + 0.3 * rng.normal(size=2),
        "stds": rng.uniform(0.3, 0.6, 2),
    } | problems.level(rng)
    return Case(inputs, facts={"theta": theta})


def slope_of_kl(case: Case) -> list:
    """Finite differences of KL(p_t ‖ q_t), a sum over a grid, in the numbers θ of a student that
    makes the points jacobian @ θ.
    """
    inputs, (mixture, level), h = case.inputs, line(case.inputs), 1e-4
    grid = torch.arange(-12, 12, 0.01, dtype=torch.float64)[:, None]
    log_q = mixture.log_prob(grid, level)

    def divergence(theta: np.ndarray) -> float:
        x = torch.from_numpy(inputs["jacobian"] @ theta)[:, None]
        share, width = torch.full((len(x),), 1 / len(x)), torch.full((len(x),), 1e-7)
        log_p = Mixture(share, x, width).log_prob(grid, level)
        return 0.01 * (log_p.exp() * (log_p - log_q)).sum().item()

    theta, steps = case.facts["theta"], h * np.eye(len(case.facts["theta"]))
    return [np.array([divergence(theta + e) - divergence(theta - e) for e in steps]) / (2 * h)]
