"""What dlib is measured against: exact mixtures, closed forms, quadrature; and how a test
shows that it can fail.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable

import torch
from torch import Tensor

from dlib import (
    Cast,
    Mixture,
    Part,
    Recipe,
    Roles,
    perform,
    NoiseLevel,
    cosine,
    discrete,
    edm,
    flow,
    levels,
    metrics,
    reference,
    sample,
    scaled_linear,
    sub_vp,
    ve,
    vp,
)
from toy_data.mixtures import gmm5

F64 = torch.float64
SCHEDULES = {
    "vp": vp(),
    "cosine": cosine(),
    "flow": flow(),
    "edm": edm(),
    "discrete": discrete(scaled_linear()),
    "sub_vp": sub_vp(),
    "ve": ve(),
}


def appendix_a() -> Mixture:
    """A fixture: three modes of unequal weight and width in the plane."""
    means = torch.tensor([[1.0, 0.5], [-1.2, 0.3], [0.2, -1.0]], dtype=F64)
    return Mixture(
        torch.tensor([0.5, 0.3, 0.2], dtype=F64), means, torch.tensor([0.35, 0.5, 0.4], dtype=F64)
    )


def line() -> Mixture:
    """Three modes in one dimension, where integrals are sums; labels 0, 1, 1."""
    means, stds = (
        torch.tensor([[-1.0], [0.4], [1.6]], dtype=F64),
        torch.tensor([0.3, 0.2, 0.5], dtype=F64),
    )
    return Mixture(torch.tensor([0.5, 0.2, 0.3], dtype=F64), means, stds, torch.tensor([0, 1, 1]))


def gaussian(c: float, d: int = 2) -> Mixture:
    """Data N(0, c² I): every sampler has a closed form."""
    return Mixture(
        torch.ones(1, dtype=F64), torch.zeros(1, d, dtype=F64), torch.tensor([c], dtype=F64)
    )


MIXTURES = {"gmm5": gmm5, "appendix_a": appendix_a}


def normals(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal in float64, from a generator of its own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def per_row(level: NoiseLevel, like: Tensor) -> NoiseLevel:
    """A level of floats as tensors (B, 1, …) of the dtype of `like`."""
    shape = (len(like),) + (1,) * (like.ndim - 1)
    return NoiseLevel(*(torch.full(shape, field, dtype=like.dtype) for field in level))


def errors(
    model, x: Tensor, truth: Tensor, solver, steps=(160, 320, 640), spacing: str = "lam", **ends
) -> dict[int, float]:
    """{steps: typical error} of a solver."""
    run = lambda n: sample(model, x, levels(model.schedule, n, spacing, **ends), solver)
    return {n: metrics.typical(run(n), truth) for n in steps}


def exact_flow(model, x: Tensor, t_max: float, t_min: float) -> Tensor:
    """The PF-ODE from t_max to t_min."""
    return reference(model, x, model.schedule.at(t_max), model.schedule.at(t_min))


def by_quadrature(
    mixture: Mixture, x: float, alpha: float, sigma: float
) -> tuple[float, float, float]:
    """(p_t(x), E[x₀|x], E[ε|x]) of a 1-D mixture by the trapezoid rule over ε, where x₀ = (x −
    σε)/α; no formula of dlib.
    """
    eps = torch.linspace(-12, 12, 40001, dtype=F64)
    x0 = (x - sigma * eps) / alpha
    density = sum(
        w * torch.exp(-0.5 * ((x0 - m) / s) ** 2) / s
        for w, m, s in zip(mixture.weights, mixture.means[:, 0], mixture.stds)
    )
    joint = density * torch.exp(-0.5 * eps**2) / (2 * torch.pi) / alpha
    step = (eps[1] - eps[0]).item()
    total = joint.sum().item() * step
    return (
        total,
        (joint * x0).sum().item() * step / total,
        (joint * eps).sum().item() * step / total,
    )


def mutant(function: Callable, old: str, new: str) -> Callable:
    """A copy of `function` whose source says `new` where it said `old`: a test of it must
    fail.
    """
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, (
        f"{function.__name__} holds {old!r} {source.count(old)} times: update the mutation"
    )
    scope = dict(vars(inspect.getmodule(function)))
    exec(compile(source.replace(old, new), f"<mutant of {function.__name__}>", "exec"), scope)
    return scope[function.__name__]


def fit(phases, roles, optims, data, steps, draw, ema=None, each=None):
    """`perform` for a test's own phases and roles: what they train are copies, the rest is given."""
    moved = dict.fromkeys(role for phase in phases for role in phase.roles)
    parts = {role: Part("copy" if role in moved else "given") for role in {**moved, **roles}}
    means = {"ema": (next(iter(moved)), ema)} if ema else {}
    recipe, cast = Recipe(tuple(phases), parts), Cast(Roles(roles), means)
    return perform(recipe, cast, optims, data, steps, draw, each)
