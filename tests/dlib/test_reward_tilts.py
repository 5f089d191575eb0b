"""The reward tilt against its definition, pointwise and by quadrature."""

import math

import pytest
import torch

from dlib import CLEAN, Draw, Mixture
from dlib.reward_tilts import Linear, Quadratic, mean_reward, reward_tilt

MIX = Mixture(
    torch.tensor([0.2, 0.5, 0.3]),
    torch.tensor([[-1.0, 0.5], [0.3, 0.2], [1.2, -0.7]]),
    torch.tensor([0.2, 0.4, 0.3]),
)
LINE = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [0.8]]), torch.tensor([0.3, 0.5]))
REWARDS = {
    "linear": Linear(torch.tensor([0.7, -0.4]), 0.3),
    "quadratic": Quadratic(torch.tensor([0.5, -0.2]), 0.8),
}


@pytest.mark.parametrize("beta", [0.5, 2.0, -1.5])
@pytest.mark.parametrize("name", REWARDS)
def test_the_density_is_the_definition_at_every_point(name, beta):
    reward, x = REWARDS[name], torch.randn(40, 2, dtype=torch.float64)
    tilt = reward_tilt(MIX, reward, beta)
    wanted = MIX.log_prob(x, CLEAN) + reward(x) / beta - tilt.log_z
    torch.testing.assert_close(tilt.mixture.log_prob(x, CLEAN), wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("beta", [0.5, -1.5])
@pytest.mark.parametrize(
    "reward", [Linear(torch.tensor([0.7]), 0.3), Quadratic(torch.tensor([0.5]), 0.8)]
)
def test_its_reward_and_divergence_are_integrals(reward, beta):
    tilt = reward_tilt(LINE, reward, beta)
    x = torch.linspace(-12, 12, 40001, dtype=torch.float64)[:, None]
    inside = tilt.mixture.log_prob(x, CLEAN)
    mean = lambda value: float(torch.trapezoid(inside.exp() * value, x[:, 0]))
    assert mean(reward(x)) == pytest.approx(tilt.reward, abs=1e-9)
    assert mean(inside - LINE.log_prob(x, CLEAN)) == pytest.approx(tilt.kl, abs=1e-9)
    assert tilt.reward - beta * tilt.kl == pytest.approx(tilt.value, abs=1e-12)


def test_no_other_tilt_does_better():
    """E r − β KL(· ‖ π) of neighbours, tilts with another β, is below the optimum's."""
    reward, beta = REWARDS["linear"], 0.8
    best = reward_tilt(MIX, reward, beta)
    for other in (0.7, 0.9, 3.0):
        near = reward_tilt(MIX, reward, other)
        assert near.reward - beta * near.kl < best.value - 1e-4


def test_the_mean_reward_of_the_data():
    x, _ = MIX.sample(10, Draw(0))
    for reward in REWARDS.values():
        assert reward(x).shape == (10,)
    assert mean_reward(MIX, REWARDS["linear"]) == pytest.approx(
        float(MIX.weights @ MIX.means @ torch.tensor([0.7, -0.4]).double()) + 0.3, abs=1e-7
    )


@pytest.mark.parametrize(
    "reward, beta, said",
    [
        (Linear(torch.ones(2)), 0.0, "β ≠ 0"),
        (Linear(torch.ones(3)), 1.0, r"shape \(3,\), wanted \(2,\)"),
        (Quadratic(torch.ones(3)), 1.0, "centre"),
        (Quadratic(torch.zeros(2), 0.3), -1.0, "grows faster"),
    ],
)
def test_bad_input_says_what_to_type(reward, beta, said):
    with pytest.raises(ValueError, match=said):
        reward_tilt(MIX, reward, beta)


def test_mutant_a_forgotten_half_is_seen():
    """The weight's e^{‖a‖²S²/2β²} without its ½ is no density any more."""
    line = Mixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1))
    assert reward_tilt(line, Linear(torch.tensor([1.0])), 1.0).log_z == pytest.approx(0.5)
    assert math.isclose(reward_tilt(line, Linear(torch.tensor([2.0])), 1.0).log_z, 2.0)
