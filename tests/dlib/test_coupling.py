"""Optimal transport within a batch."""

import pytest
import torch
from truth import normals

from dlib import Batch, Draw, optimal_coupling


def cost(batch):
    return (batch.x0 - batch.noise).square().sum().item()


def test_on_a_line_it_pairs_by_rank():
    batch = optimal_coupling(Batch(normals(50, 1)), Draw(0))
    assert torch.equal(batch.x0.flatten().argsort(), batch.noise.flatten().argsort())


def test_it_is_a_permutation_of_the_draw_and_no_permutation_costs_less():
    x0 = normals(6, 3)
    batch, drawn = optimal_coupling(Batch(x0), Draw(4)), Draw(4).normal(x0)
    assert torch.equal(batch.noise.sort(0).values, drawn.sort(0).values)
    from itertools import permutations

    best = min(cost(Batch(x0, noise=drawn[list(p)])) for p in permutations(range(6)))
    assert cost(batch) == pytest.approx(best)


def test_conditions_stay_with_their_data_and_given_noise_is_refused():
    label = torch.arange(4)
    assert torch.equal(optimal_coupling(Batch(normals(4, 1, 2, 2), label), Draw(0)).cond, label)
    with pytest.raises(ValueError, match="its own noise"):
        optimal_coupling(Batch(normals(2, 2), noise=normals(2, 2)), Draw(0))
