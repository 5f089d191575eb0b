"""The frontier and the student that starts as the exact model."""

import pytest
import torch

from dlib import Denoiser, Draw, exact, levels, sample, solvers, vp
from dlib.reward_tilts import Linear, reward_tilt
from toy_data.finetuned import Frontier, adapted
from toy_data.preferences import two_sides

REWARD = Linear(torch.tensor([1.0, 0.0], dtype=torch.float64))
BETAS = torch.logspace(1, -0.5, 60).tolist()


def test_the_tilt_itself_lies_on_the_frontier_and_the_start_at_its_foot():
    line = Frontier(two_sides(), REWARD, BETAS)
    i = 40
    tilt = line.tilts[i]
    assert line.at(float(line.kl[i])) == i
    share, above = line.place(tilt.kl, 0.1, torch.tensor(tilt.reward), torch.tensor(0.1))
    assert float(share) == pytest.approx(1, abs=1e-6) and abs(float(above)) < 1e-4
    share, _ = line.place(tilt.kl, 0.1, torch.tensor(line.start), torch.tensor(0.1))
    assert float(share) == pytest.approx(0, abs=1e-6)
    assert line.highest(tilt.kl) == pytest.approx(tilt.reward, abs=1e-6)
    between = float(line.kl[i : i + 2].mean())  # the frontier bends down: the line lies below
    assert 0 <= reward_at(between) - line.highest(between) < 1e-3
    # the slope that turns an error of the divergence into one of the reward
    rise = (line.reward[i + 1] - line.reward[i - 1]) / (line.kl[i + 1] - line.kl[i - 1])
    assert float(rise) == pytest.approx(float(line.beta[i]), rel=0.02)


def reward_at(kl):
    """The reward of the tilt with this divergence, by bisection in β."""
    low, high = 0.1, 100.0
    for _ in range(60):
        beta = (low * high) ** 0.5
        far = reward_tilt(two_sides(), REWARD, beta).kl > kl
        low, high = (beta, high) if far else (low, beta)
    return reward_tilt(two_sides(), REWARD, low).reward


def test_a_student_that_is_the_tilt_is_measured_there():
    """Its reward and divergence within four standard errors, and 0.05 for 40 steps. That reward
    is the exact flow's from the same starts: 40 steps of DDIM would be .009 above it.
    """
    line = Frontier(two_sides(), REWARD, BETAS)
    tilt = line.tilts[30]
    model = exact(tilt.mixture, vp())

    class Net(torch.nn.Module):
        def forward(self, x, t, cond=None):
            return model.net(x, t, cond)

    kl, kl_off, reward, off = line.measured(Denoiser(Net(), vp(), "v"), levels(vp(), 40), n=100)
    assert abs(kl - tilt.kl) < 4 * kl_off + 0.05
    assert abs(float(reward) - tilt.reward) < 4 * float(off)
    starts = Draw(0).normal((500, 2), torch.float64)
    flown = sample(model, starts, levels(vp(), 200), solvers.dpm_solver_pp_2m)
    assert abs(float(reward - REWARD(flown).mean())) < 0.004


def test_students_are_measured_together_as_each_by_itself():
    """The second of two: equal, but for the tolerance of a solver that takes other steps."""
    students = {k: adapted(exact(two_sides(), vp()), 8) for k in (1, 2)}
    for k, student in students.items():
        torch.nn.init.constant_(student.net.adapter.leave.bias, 0.1 * k)
        student.net.scale = 0.4 * k
    line, walk = Frontier(two_sides(), REWARD, [1.0]), levels(vp(), 10)
    together = line.measured_together(students, walk, n=20)
    alone = line.measured(students[2], walk, n=20)
    assert list(map(float, together[2])) == pytest.approx(list(map(float, alone)), rel=1e-3)
    again = line.measured_together(students, walk, n=20, seed=1)
    assert again[2][0] != together[2][0] and again[2][2] != together[2][2]
    assert together[1][2] - together[2][2] > 0.1  # each has its own adapter and scale


def test_only_the_adapter_is_trained():
    student = adapted(exact(two_sides(), vp()), 16, 2)
    names = {name.split(".")[0] for name, _ in student.net.named_parameters()}
    assert names == {"adapter"}
    student.net.scale = 0.0
    with torch.no_grad():
        for weight in student.net.parameters():
            weight.add_(1.0)
    x, level = torch.ones(2, 2), vp().at(0.3)
    assert torch.equal(student(x, level).raw, exact(two_sides(), vp())(x, level).raw)
