"""A network together with what it means: one call, one `Prediction`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from dlib._util import per_sample, require, tensors
from dlib.mixtures import Mixture
from dlib.prediction import FACES, Prediction
from dlib.schedule import NoiseLevel, NoiseSchedule

Net = Callable[[Tensor, Tensor, Any], Tensor]


def identity(t: Any) -> Any:
    """The clock of a network that was trained on t ∈ [0, 1] itself."""
    return t


@dataclass(frozen=True)
class Denoiser:
    """A network together with what it means. Calling it makes exactly one network call.

    net: (x, time (B,), cond) ↦ raw (B, *shape); any callable. At a level with a time for each
    frame (`schedule.at(t, like=x, per="frame")`) time is (B, F). predicts: which face `raw`
    is. clock: t ∈ [0, 1] ↦ the time the network was trained with (Stable Diffusion: `lambda t:
    1000 * t - 1`). The prediction's dtype is x's, promoted to at least float32; autocast is
    the caller's. cond: None, a tensor or a mapping of tensors, batch first.

    >>> from dlib.schedule import vp
    >>> model = Denoiser(lambda x, t, cond: torch.zeros_like(x), vp(), predicts="eps")
    >>> level = model.schedule.at(0.5)
    >>> x0 = model(torch.ones(3, 2), level).x0
    >>> bool(torch.allclose(x0, torch.full((3, 2), 1 / level.alpha)))
    True
    """

    net: Net
    schedule: NoiseSchedule
    predicts: str
    clock: Callable[[Any], Any] = identity

    def __post_init__(self):
        require(
            self.predicts in FACES,
            f"Denoiser: predicts={self.predicts!r}; choose one of {', '.join(FACES)}",
        )

    def __call__(self, x: Tensor, level: NoiseLevel, cond: Any = None) -> Prediction:
        time, dtype = (
            self.clock(level.t),
            torch.float64 if x.dtype == torch.float64 else torch.float32,
        )
        if isinstance(time, Tensor):
            time = _times(time, x).to(dtype)
        else:
            time = x.new_full((len(x),), time, dtype=dtype)
        if cond is not None:
            _check_cond(cond, x)
        raw = self.net(x, time, cond)
        if raw.shape != x.shape:
            raise ValueError(
                f"Denoiser: the network returned {tuple(raw.shape)} for x {tuple(x.shape)}: "
                "a network must return its input's shape (drop a learnt-variance half first)"
            )
        if raw.dtype != x.dtype or x.dtype in (torch.bfloat16, torch.float16):
            dtype = torch.promote_types(x.dtype, torch.float32)
            x, raw = x.to(dtype), raw.to(dtype)
        return Prediction(x, level, raw, self)

    def rewired(self, wire: Callable[[Net], Net]) -> Denoiser:
        """The same denoiser with `wire(net)` in place of its network; one made of several
        denoisers rewires each.
        """
        return replace(self, net=wire(self.net))


def _times(time: Tensor, x: Tensor) -> Tensor:
    """(B,), or (B, F) at a level with a time for each of several frames."""
    if time.numel() == len(x):
        return time.reshape(-1)
    frames = x.shape[:2]
    require(
        x.ndim > 2 and time.shape == (*frames, *(1,) * (x.ndim - 2)),
        f"Denoiser: {time.numel()} noise levels of shape {tuple(time.shape)} for x "
        f"{tuple(x.shape)}: draw one t a sample and pass schedule.at(t, like=x), or one a frame "
        "and schedule.at(t, like=x, per='frame')",
    )
    return time.reshape(frames)


def _check_cond(cond: Any, x: Tensor) -> None:
    for name, value in tensors(cond).items():
        require(
            value.shape[:1] == x.shape[:1],
            f"Denoiser: {name} has batch {tuple(value.shape[:1])}, x has batch {len(x)}: "
            f"repeat_interleave {name} or pass x[:{value.shape[0] if value.ndim else 1}]",
        )
        require(
            value.device == x.device,
            f"Denoiser: {name} is on {value.device}, x on {x.device}: move one with "
            ".to(x.device)",
        )


def one_network(model: Denoiser, verb: str) -> None:
    """ValueError for a denoiser of several networks, made by `between`: a new `net` would not
    be asked.
    """
    require(
        type(model).rewired is Denoiser.rewired,
        f"{verb}: this denoiser chooses between two networks: make each of them {verb} first, "
        "then choose",
    )


def one_schedule(verb: str, model: Denoiser, other: Denoiser) -> None:
    """ValueError, in the name of `verb`, for denoisers on different schedules. Two that were
    made apart are one if α and σ agree, to single precision, at three times.
    """
    ours, theirs = model.schedule, other.schedule
    require(
        ours is theirs or _alike(ours, theirs),
        f"{verb}: the denoisers are on different schedules, {ours.name} and {theirs.name}: pass "
        "dlib.converted(model, schedule, predicts) in place of one",
    )


@lru_cache(maxsize=64)
def _alike(ours: NoiseSchedule, theirs: NoiseSchedule) -> bool:
    near = partial(math.isclose, rel_tol=1e-5, abs_tol=1e-6)
    times = [max(t, ours.t_min, theirs.t_min) for t in (0.2, 0.5, 1.0)]
    pairs = [(ours.at(t), theirs.at(t)) for t in times]
    return all(near(a.alpha, b.alpha) and near(a.sigma, b.sigma) for a, b in pairs)


def bare(model: Denoiser, verb: str) -> None:
    """ValueError unless `model` is a network and its meaning, nothing more: `verb` acts on
    what that network says.
    """
    require(
        type(model) is Denoiser,
        f"{verb}: this denoiser is already {type(model).__name__.lower()}: start from the "
        "network's own Denoiser",
    )


def exact(mixture: Mixture, schedule: NoiseSchedule) -> Denoiser:
    """The perfect denoiser of a Gaussian mixture. It predicts v*, the face that is
    well-conditioned at both ends.
    """
    return Denoiser(mixture.net(schedule), schedule, "v")


def guided(model: Denoiser, omega: float | Tensor, null: Any) -> Denoiser:
    """Classifier-free guidance, ε^ω = (1+ω) ε(x, c) − ω ε(x, ∅), in one batched call (Ho &
    Salimans 2022, eq. 6).

    omega: 0 is no guidance; diffusers' `guidance_scale` is 1 + ω; a tensor (B,) is one ω a
    sample. null: the empty condition ∅, shaped like one sample's condition (a tensor without
    batch axis, or a mapping of such). All faces are affine in the network's output with the
    same x, so combining the raw outputs combines every face alike.
    """
    one_network(model, "guided")

    def net(x: Tensor, time: Tensor, cond: Any) -> Tensor:
        conditional, empty = both_sides(model, x, time, cond, null)
        scale = per_sample(1 + omega.to(x), x) if isinstance(omega, Tensor) else 1.0 + omega
        return torch.lerp(empty, conditional, scale)

    net.inner = model.net
    return replace(model, net=net)


def both_sides(
    model: Denoiser, x: Tensor, time: Tensor, cond: Any, null: Any
) -> tuple[Tensor, ...]:
    """The network's outputs for the condition and for the empty one, in one call, in float32
    at least.
    """
    require(
        cond is not None,
        "guided: no condition given: pass cond=… to sample, or use the unguided model",
    )
    both = model.net(torch.cat([x, x]), torch.cat([time, time]), with_null(cond, null))
    # 1 + ω would magnify half precision's rounding
    return both.to(torch.promote_types(both.dtype, torch.float32)).chunk(2)


def with_null(cond: Any, null: Any) -> Any:
    """The condition of 2B samples: those of `cond`, then B times the empty condition.

    An entry of `null` that is None is no part of what is emptied, such as a picture's size: if
    `cond` has one of that name, each sample keeps its own.

    >>> cond = {"text": torch.tensor([3, 5]), "size": torch.tensor([64, 80])}
    >>> with_null(cond, {"text": torch.tensor(-1), "size": None})["size"].tolist()
    [64, 80, 64, 80]
    """
    require(
        null is not None,
        "condition: no empty condition, null = None: pass null=…, what the network was trained "
        "with for no caption, shaped like one sample's condition",
    )
    if isinstance(cond, Mapping):
        kept = kept_by(null)
        require(
            isinstance(null, Mapping) and set(null) - kept == set(cond) - kept,
            f"condition: cond has keys {sorted(cond)}, null has "
            f"{sorted(null) if isinstance(null, Mapping) else type(null).__name__}",
        )
        return {
            key: with_both(cond[key]) if key in kept else with_null(cond[key], null[key])
            for key in cond
        }
    null = torch.as_tensor(null, dtype=cond.dtype, device=cond.device)
    require(
        null.shape == cond.shape[1:],
        f"condition: null has shape {tuple(null.shape)}, one sample's condition has "
        f"{tuple(cond.shape[1:])}: pass null without a batch axis",
    )
    return torch.cat([cond, null.expand_as(cond)])


def kept_by(null: Any) -> set[str]:
    """The names of the conditions that the empty one leaves as they are."""
    mapped = isinstance(null, Mapping)
    return {name for name, value in null.items() if value is None} if mapped else set()


def with_both(cond: Any) -> Any:
    """The condition of 2B samples, each of `cond` twice: first all, then all again."""
    if isinstance(cond, Mapping):
        return {key: with_both(value) for key, value in cond.items()}
    return None if cond is None else torch.cat([cond, cond])


def frozen(model: Denoiser) -> Denoiser:
    """The same denoiser with a constant network: no gradient flows through it or into its
    parameters.

    The faces still depend on x by the linear part of p·x + q·raw; detach x too where that is
    not wanted.
    """

    def wire(inner: Net) -> Net:
        def net(x: Tensor, time: Tensor, cond: Any) -> Tensor:
            with torch.no_grad():
                return inner(x, time, cond)

        net.inner = inner
        return net

    return model.rewired(wire)


class Counter:
    """A network that counts: `calls` made, and `samples` evaluated (a guided call is one call
    of two samples each).
    """

    def __init__(self, net: Net):
        self.inner, self.calls, self.samples = net, 0, 0

    def __call__(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        return self.counting(self.inner)(x, time, cond)

    def counting(self, net: Net) -> Net:
        """`net`, whose calls are counted here."""

        def counted(x: Tensor, time: Tensor, cond: Any) -> Tensor:
            self.calls, self.samples = self.calls + 1, self.samples + len(x)
            return net(x, time, cond)

        return counted


def counted(model: Denoiser) -> Denoiser:
    """The same denoiser with `model.net.calls` and `model.net.samples` counting from zero,
    whatever networks it is made of.
    """
    counter = Counter(model.net)
    return replace(model.rewired(counter.counting), net=counter)


def parameters(net: Net) -> list[nn.Parameter]:
    """The parameters of a network, also inside `guided`, `frozen` and `counted`; none for a
    plain function.
    """
    while not isinstance(net, nn.Module) and hasattr(net, "inner"):
        net = net.inner
    return list(net.parameters()) if isinstance(net, nn.Module) else []
