"""Which noise goes with which data: independent draws, or the pairing that moves
least.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from dlib._util import Draw, require
from dlib.losses.diffusion import Batch


def optimal_coupling(batch: Batch, draw: Draw) -> Batch:
    """The batch with noise paired to data by optimal transport: the permutation that minimises
    Σ‖x₀ − ε‖² (Tong et al. 2024; Pooladian et al. 2023).

    Each noise is used once, so x₀ and ε keep their laws; only their coupling changes. Exact
    for the batch, O(B³), by `scipy.optimize.linear_sum_assignment`; biased for the
    distributions, less so in larger batches. With labels, couple each label's rows by
    themselves: otherwise the noise of a class is no longer normal. Draws: one normal like x0.
    """
    from scipy.optimize import linear_sum_assignment

    require(
        batch.noise is None, "optimal_coupling: the batch has its own noise already: leave it out"
    )
    noise = draw.normal(batch.x0)
    _, chosen = linear_sum_assignment(_squared_distances(batch.x0, noise).numpy())
    return replace(batch, noise=noise[chosen])


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖² up to terms of i and of j alone, which no pairing changes: −2 x·y. (B, B),
    float64, on the CPU.
    """
    return -2 * x.detach().flatten(1).double().cpu() @ y.flatten(1).double().cpu().T
