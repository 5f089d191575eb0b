"""The named mixtures of the book. Each is an exact truth: density, score and posterior in
closed form (`dlib.Mixture`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlib import Mixture


def _circle(n: int, radius: float, start: float = 90.0) -> Tensor:
    angle = torch.deg2rad(start + 360.0 / n * torch.arange(n, dtype=torch.float64))
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def gaussian(mean: float, std: float) -> Mixture:
    """N(mean, std²) in one dimension, where most formulas can be checked by hand."""
    return Mixture(
        torch.ones(1),
        torch.tensor([[mean]], dtype=torch.float64),
        torch.tensor([std], dtype=torch.float64),
    )


def gmm5() -> Mixture:
    """GMM5, the book's five modes on a circle of radius 1.5, with unequal weights and widths;
    a label for each mode.
    """
    weights = torch.tensor([0.30, 0.25, 0.20, 0.15, 0.10], dtype=torch.float64)
    return Mixture(
        weights,
        _circle(5, 1.5),
        torch.tensor([0.20, 0.25, 0.30, 0.25, 0.20], dtype=torch.float64),
    )


def three_far() -> Mixture:
    """Three narrow modes far apart, with almost nothing between them: where vanilla score
    matching fails.
    """
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[-4.0, -2.0], [4.0, -2.0], [0.0, 4.5]], dtype=torch.float64)
    return Mixture(weights, means, torch.tensor([0.4, 0.4, 0.4], dtype=torch.float64))


def labelled() -> Mixture:
    """Two overlapping classes of two modes each: label 0 on the left, label 1 on the right,
    for guidance.
    """
    weights = torch.tensor([0.3, 0.2, 0.2, 0.3], dtype=torch.float64)
    means = torch.tensor(
        [[-1.2, 0.8], [-0.6, -0.9], [0.6, 0.9], [1.2, -0.8]], dtype=torch.float64
    )
    stds = torch.tensor([0.45, 0.35, 0.35, 0.45], dtype=torch.float64)
    return Mixture(weights, means, stds, labels=torch.tensor([0, 0, 1, 1]))


def ring8() -> Mixture:
    """Eight equal modes on a circle of radius 2, standard deviation 0.15: the usual test for
    lost modes.
    """
    return Mixture(
        torch.full((8,), 0.125, dtype=torch.float64),
        _circle(8, 2.0, start=0.0),
        torch.full((8,), 0.15, dtype=torch.float64),
    )
