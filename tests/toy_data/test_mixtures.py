import math

import pytest
import torch

from dlib import Draw
from toy_data import gmm5, labelled, ring8, three_far

ALL = [gmm5, three_far, labelled, ring8]


@pytest.mark.parametrize("named", ALL)
def test_is_a_mixture_of_weights_that_sum_to_one_in_the_plane(named):
    mixture = named()
    assert mixture.dim == 2 and mixture.means.dtype == torch.float64
    assert abs(float(mixture.weights.sum()) - 1) < 1e-12
    x0, label = mixture.sample(50, Draw(0))
    assert x0.shape == (50, 2) and set(label.tolist()) <= set(mixture.labels.tolist())


def test_gmm5_is_the_book_s():
    mixture = gmm5()
    angles = [math.radians(90 + 72 * k) for k in range(5)]
    wanted = torch.tensor(
        [[1.5 * math.cos(a), 1.5 * math.sin(a)] for a in angles], dtype=torch.float64
    )
    assert torch.allclose(mixture.means, wanted, atol=1e-12)
    assert mixture.weights.tolist() == [0.30, 0.25, 0.20, 0.15, 0.10]
    assert mixture.stds.tolist() == [0.20, 0.25, 0.30, 0.25, 0.20]
    assert mixture.labels.tolist() == [0, 1, 2, 3, 4]


def test_one_gaussian_with_gmm5_s_mean_and_covariance_has_43_of_100_samples_in_modes():
    """Chapter 20's bound is half of the way from there to the data's own 1 − e^{−9/2}. (10⁵
    samples: a standard error of .0016.)
    """
    mixture = gmm5()
    mean = mixture.weights @ mixture.means
    apart = mixture.means - mean
    covariance = apart.T @ (mixture.weights[:, None] * apart) + (
        mixture.weights @ mixture.stds**2
    ) * torch.eye(2, dtype=torch.float64)
    cloud = (
        mean + Draw(1).normal((100_000, 2), torch.float64) @ torch.linalg.cholesky(covariance).T
    )
    lost, kept = (
        mixture.shares(cloud).sum().item(),
        mixture.shares(mixture.sample(100_000, Draw(2))[0]).sum().item(),
    )
    assert lost == pytest.approx(0.43, abs=0.01) and kept == pytest.approx(
        1 - math.exp(-4.5), abs=0.002
    )
    assert (lost + kept) / 2 == pytest.approx(0.71, abs=0.005)


def test_three_far_modes_have_nothing_between_them():
    mixture = three_far()
    gaps = torch.pdist(mixture.means)
    # halfway is more than 7 standard deviations out
    assert len(gaps) == 3 and float(gaps.min() / mixture.stds.max()) > 15


def test_labelled_has_two_equal_classes_left_and_right_that_overlap():
    mixture = labelled()
    assert mixture.labels.tolist() == [0, 0, 1, 1]
    for label, side in ((0, -1), (1, 1)):
        inside = mixture.labels == label
        assert float(mixture.weights[inside].sum()) == pytest.approx(0.5)
        assert bool((side * mixture.means[inside, 0] > 0).all())
        # both classes reach the border x = 0
        assert bool((mixture.means[inside, 0].abs() < 3 * mixture.stds[inside]).all())


def test_ring8_is_eight_gaussians_on_a_circle():
    mixture = ring8()
    assert torch.allclose(mixture.means.norm(dim=1), torch.full((8,), 2.0, dtype=torch.float64))
    assert torch.allclose(
        (mixture.means - mixture.means.roll(1, 0)).norm(dim=1),
        torch.full((8,), 4 * math.sin(math.pi / 8), dtype=torch.float64),
    )
    assert mixture.weights.tolist() == [0.125] * 8 and mixture.stds.tolist() == [0.15] * 8
