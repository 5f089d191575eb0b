"""Many clean samples instead of one: the variance-reduced target of stable consistency
tuning.

A noisy x_t may hide many clean samples. Consistency training takes for its target the one that
x_t was made of; Wang et al. (2024a), as Xu et al. (2023b) for the score, take the mean of a
batch of them, each weighted by how well it explains x_t. It is the posterior mean under the
batch's own distribution, so it needs no teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import require, tensors
from dlib.denoiser import kept_by, with_null
from dlib.losses.diffusion import Batch
from dlib.schedule import NoiseLevel


class Reduced(NamedTuple):
    """x0 (B, *shape), the weighted mean of the references; weights (B, n), which sum to 1 over
    the references of a row.
    """

    x0: Tensor
    weights: Tensor

    @property
    def size(self) -> Tensor:
        """The effective number of references, 1/Σw²: (B,), between 1 and n."""
        return 1 / self.weights.square().sum(1)


def variance_reduced_target(
    x: Tensor, level: NoiseLevel, references: Tensor, shared: Tensor | None = None
) -> Reduced:
    """x̄₀ = Σ_i w_i x₀⁽ⁱ⁾ with w = softmax_i(−‖x_t − α x₀⁽ⁱ⁾‖²/2σ²), without any further 1/n
    (Wang et al. 2024a).

    x: (B, *shape), at a level of floats or of (B, 1, …) tensors. references: (n, *shape) clean
    samples. shared: (B, n) bool, which of them count for a row: those that share its
    condition; None is all. The references of a row must hold the x₀ that its x was made of,
    once. Then, if the others are independent draws of the same condition, x̄₀ = E[x₀ | x_t,
    references]: its mean given x_t is E[x₀|x_t] for every n, and its variance at most that of
    x₀ itself. Without it the mean is off by O(1/n).

    Computed in float64, whatever x is: squared distances over 2σ² reach 1e8 near the clean
    end. One reference is returned as it is, bit for bit.

    >>> from dlib import Draw, vp
    >>> x0, level = Draw(0).normal((64, 2)), vp().at(0.5)
    >>> x = level.alpha * x0 + level.sigma * Draw(1).normal(x0)
    >>> variance_reduced_target(x, level, x0).x0.shape
    torch.Size([64, 2])
    """
    _check(x, level, references, shared)
    clean, noisy = references.detach().flatten(1).double(), x.detach().flatten(1).double()
    alpha, sigma = (
        torch.as_tensor(f, dtype=torch.float64, device=x.device).reshape(-1, 1)
        for f in (level.alpha, level.sigma)
    )
    # −‖x − αx₀‖²/2σ² but for ‖x‖², which all the references of a row have in common
    inner = noisy @ clean.T
    fit = (alpha * inner - alpha**2 * clean.square().sum(1) / 2) / sigma**2
    if shared is not None:
        fit = fit.masked_fill(~shared, -torch.inf)
    weights = torch.softmax(fit, 1)
    return Reduced((weights @ clean).view(x.shape).to(x.dtype), weights)


def weighed(x: Tensor, level: NoiseLevel, batch: Batch) -> Reduced:
    """`variance_reduced_target` with the references of the batch's memo: "references" (n,
    *shape) and "shared" (B, n).
    """
    memo = batch.memo
    require(
        {"references", "shared"} <= set(memo),
        f"reduced: the batch's memo has {sorted(memo)}, wanted references and shared: let the "
        "recipe sct fill it, or Batch(x0, cond, memo=dict(references=x0, shared=among(marks)))",
    )
    return variance_reduced_target(x, level, memo["references"], memo["shared"])


def reduced(x: Tensor, level: NoiseLevel, batch: Batch) -> Tensor:
    """x̄₀ (B, *shape) of `weighed`: the `estimate` that makes `consistency_training` stable
    consistency tuning.
    """
    return weighed(x, level, batch).x0


def marks(cond: Any, null: Any = None) -> Tensor:
    """(B,) int64, a mark for each row's condition: equal for equal conditions, bit for bit,
    and different for two others but for one chance in 2⁶³. `null`, shaped like one sample's
    condition, has the mark 0.

    cond: a tensor or a mapping of tensors, batch first. Marks are compared where B × n
    conditions would be too large to hold. A mark is the row's bits, as whole numbers, times
    fixed odd numbers, summed modulo 2⁶⁴: exact in any order, on any device.

    >>> marks(torch.tensor([3, -1, 3]), null=torch.tensor(-1)).sign().abs().tolist()
    [1, 0, 1]
    """
    found = _sums(cond)
    if null is None:
        return found
    require(
        not kept_by(null),
        f"marks: the empty condition leaves {sorted(kept_by(null))} as they are and does not "
        "stand for all the data, so that rows without a caption have references that are not "
        "their own: use a recipe that shares none, such as ect",
    )
    first = {k: v[:1] for k, v in cond.items()} if isinstance(cond, Mapping) else cond[:1]
    empty = _sums(with_null(first, null))[1:]
    return found.where(found != empty, 0)


def among(own: Tensor, others: Tensor | None = None) -> Tensor:
    """Which references are draws of a row's condition, by their `marks` (B,) and (n,): (B, n)
    bool. Without others the rows are each other's references.

    Those with the same mark; and all of them for the mark 0, because the empty condition
    stands for all the data.

    >>> among(torch.tensor([3, 5, 3, 0])).int().tolist()
    [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]
    """
    others = own if others is None else others
    require(
        own.ndim == others.ndim == 1,
        f"among: marks have shapes {tuple(own.shape)} and {tuple(others.shape)}, wanted (B,) "
        "and (n,): one mark a row, marks(cond, null)",
    )
    return (own[:, None] == others) | (own == 0)[:, None]


class Bank(NamedTuple):
    """The last m clean samples of each class, as a value: `add` returns a new one.

    x0: (K, m, *shape). count: (K,) int64, how many samples of a class have come. Ask it before
    a batch is added, and leave out pictures that come again while it still holds them: one
    that is there twice counts twice.

    >>> bank = Bank.empty(classes=2, size=3, like=torch.zeros(1, 2))
    >>> bank = bank.add(torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.tensor([1, 1]))
    >>> bank.shared(torch.tensor([0, 1])).int().tolist()
    [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]]
    """

    x0: Tensor
    count: Tensor

    @classmethod
    def empty(cls, classes: int, size: int, like: Tensor) -> Bank:
        """A bank of `size` places for each class, for samples like the rows of `like`."""
        require(
            size >= 1 and classes >= 1,
            f"Bank: size = {size} and classes = {classes}, wanted at least 1 place a class and "
            "1 class",
        )
        count = torch.zeros(classes, dtype=torch.int64, device=like.device)
        return cls(like.new_zeros(classes, size, *like.shape[1:]), count)

    def add(self, x0: Tensor, label: Tensor) -> Bank:
        """With the rows x0 (B, *shape) of these classes (B,), each in the place of its class's
        oldest.
        """
        require(
            x0.shape == (len(label), *self.x0.shape[2:]) and label.ndim == 1,
            f"Bank: x0 has shape {tuple(x0.shape)} and labels {tuple(label.shape)}, wanted "
            f"(B, {', '.join(map(str, self.x0.shape[2:]))}) and (B,): a class for each sample",
        )
        _known(label, len(self.count))
        size, hot = self.x0.shape[1], torch.nn.functional.one_hot(label, len(self.count))
        before, total = hot.cumsum(0).gather(1, label[:, None])[:, 0] - 1, hot.sum(0)
        kept = before >= total[label] - size  # of more than m rows of a class, the last m
        place = (self.count[label] + before) % size
        clean = self.x0.clone()
        clean[label[kept], place[kept]] = x0[kept].detach()
        return Bank(clean, self.count + total)

    def shared(self, label: Tensor) -> Tensor:
        """Which of `x0.flatten(0, 1)` are samples of a row's class (B,): (B, K·m) bool."""
        require(label.ndim == 1, f"Bank: labels have shape {tuple(label.shape)}, wanted (B,)")
        _known(label, len(self.count))
        full = torch.arange(self.x0.shape[1], device=label.device) < self.count[:, None]
        mine = torch.nn.functional.one_hot(label, len(self.count)).bool()
        return (mine[:, :, None] & full).flatten(1)


def _known(label: Tensor, classes: int) -> None:
    """ValueError for a label that is no class. On the CPU: looking at values would stall an
    accelerator.
    """
    odd = label[(label < 0) | (label >= classes)][:4].tolist() if label.is_cpu else []
    require(
        not odd,
        f"Bank: labels {odd} are none of the {classes} classes 0 … {classes - 1}, and a dropped "
        "caption's, NULL = −1, belongs to none: leave such rows out, known = label >= 0, "
        "x0[known], label[known]",
    )


def _sums(cond: Any) -> Tensor:
    """(B,) int64, of each row's bits."""
    found = tensors(cond)
    require(bool(found), f"marks: no tensors in the condition {type(cond).__name__}")
    rows = {name: tuple(value.shape[:1]) for name, value in found.items()}
    require(
        len(set(rows.values())) == 1 and () not in rows.values(),
        f"marks: the condition's tensors have batches {rows}, wanted one batch axis for all",
    )
    total = 1  # so that a condition of zeros has not the mark of the empty one
    for place, name in enumerate(sorted(found)):
        bits = _bits(found[name].flatten(1) if found[name].ndim > 1 else found[name][:, None])
        factors = _factors(bits.shape[1], place).to(bits.device, non_blocking=True)
        total = total + (bits * factors).sum(1)
    return total


def _bits(values: Tensor) -> Tensor:
    """The values' bits as int64."""
    if not values.is_floating_point():
        return values.long()
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    return values.contiguous().view(whole).long()


@lru_cache(maxsize=16)
def _factors(n: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**63), 2**63 - 1, (n,), generator=random) | 1


def _check(x: Tensor, level: NoiseLevel, references: Tensor, shared: Tensor | None) -> None:
    require(
        references.shape[1:] == x.shape[1:] and len(references) > 0,
        f"variance_reduced_target: references have shape {tuple(references.shape)} and x "
        f"{tuple(x.shape)}: wanted (n, …) clean samples with the shape of x's rows",
    )
    # looking at values would stall an accelerator
    known = not isinstance(level.sigma, Tensor) or level.sigma.device.type == "cpu"
    require(
        not known or bool((torch.as_tensor(level.sigma) > 0).all()),
        "variance_reduced_target: at σ = 0 nothing is hidden: x is its own x₀; ask at a level "
        "with noise",
    )
    if shared is None:
        return
    require(
        shared.dtype == torch.bool and shared.shape == (len(x), len(references)),
        f"variance_reduced_target: shared is {tuple(shared.shape)} of {shared.dtype}, wanted "
        f"({len(x)}, {len(references)}) of bool: which references count for which row",
    )
    require(
        shared.device.type != "cpu" or bool(shared.any(1).all()),
        "variance_reduced_target: a row has no reference at all: its own x0 must be among them",
    )
