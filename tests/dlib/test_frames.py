"""A time for each frame of a video: a network sees it, every face and step uses it, and nobody
gets it who has not asked.
"""

import pytest
import torch
from truth import F64, SCHEDULES, gaussian, normals

from dlib import Batch, Denoiser, Draw, converted, denoising, exact, flow, guided, vp
from dlib.losses import frame_times, uniform_times, weights
from dlib.solvers import SOLVERS

B, F = 3, 4
VIDEO = normals(B, F, 2, 5)  # frames of (2, 5)
TIMES = torch.rand(B, F, generator=torch.Generator().manual_seed(1), dtype=F64) * 0.8 + 0.1
FACES = ("eps", "x0", "v", "velocity", "score")


def wave(x, t, cond=None):
    """A network that looks at each value and its time, whatever the axes are."""
    t = t.reshape(*t.shape, *(1,) * (x.ndim - t.ndim))
    label = 0 if cond is None else cond.reshape(-1, *(1,) * (x.ndim - 1)).to(x)
    return torch.sin(x + 3 * t) + label


def flat(x):
    """The frames as samples of their own."""
    return x.flatten(0, 1)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
def test_a_level_of_frames_holds_each_frame_s_own_level(schedule):
    level = schedule.at(TIMES, like=VIDEO, per="frame")
    assert all(field.shape == (B, F, 1, 1) for field in level)
    for b, f in ((0, 0), (2, 1), (1, 3)):
        alone = schedule.at(TIMES[b, f].item())
        assert [field[b, f].item() for field in level] == pytest.approx(list(alone), rel=1e-12)


@pytest.mark.parametrize("predicts", FACES)
def test_frames_are_denoised_as_if_they_were_samples(predicts):
    seen = []

    def net(x, t, cond):
        seen.append(t.shape)
        return wave(x, t, cond)

    model, cond = Denoiser(net, vp(), predicts, clock=lambda t: 10 * t), torch.tensor([0, 1, 2])
    frames = vp().at(TIMES, like=VIDEO, per="frame")
    samples = vp().at(flat(TIMES), like=flat(VIDEO))
    for one in (model, guided(model, 2.0, torch.tensor(-1)), converted(model, flow(), predicts)):
        at, each = (
            (frames, samples)
            if one.schedule is model.schedule
            else (flow().at_lam(frames.lam), flow().at_lam(samples.lam))
        )
        together = one(VIDEO, at, cond)
        apart = one(flat(VIDEO), each, cond.repeat_interleave(F))
        for face in FACES:
            assert (flat(getattr(together, face)) - getattr(apart, face)).abs().max() < 1e-12
    assert seen[0] == (B, F) and seen[1] == (B * F,)


@pytest.mark.parametrize("name", ["euler", "ddim", "heun", "dpm_solver_3", "ancestral", "tcd"])
def test_a_step_carries_each_frame_from_its_own_level_to_its_own(name):
    model, noise, later = Denoiser(wave, vp(), "v"), normals(B, F, 2, 5, seed=2), 0.6 * TIMES
    noise = noise if SOLVERS[name].noisy else None
    a, b = (vp().at(t, like=VIDEO, per="frame") for t in (TIMES, later))
    c, d = (vp().at(flat(t), like=flat(VIDEO)) for t in (TIMES, later))
    together, _ = SOLVERS[name](model, VIDEO, a, b, noise=noise)
    apart, _ = SOLVERS[name](
        model, flat(VIDEO), c, d, noise=noise if noise is None else flat(noise)
    )
    assert (flat(together) - apart).abs().max() < 1e-12


def test_the_loss_of_frames_is_the_sum_over_frames_with_a_time_each():
    """By hand: times, then noise; ε at every frame's own level; a sum over frames and values."""
    model, times = Denoiser(wave, vp(), "eps"), frame_times(uniform_times(), F)
    found = denoising(model, Batch(VIDEO), Draw(0), weights.eps, times, per="frame").value
    draw = Draw(0)
    t = torch.stack([1e-3 + 0.999 * draw.uniform(B) for _ in range(F)], 1).double()
    eps, total = draw.normal(VIDEO), 0.0
    for b in range(B):
        for f in range(F):
            level = vp().at(t[b, f].item())
            x = level.alpha * VIDEO[b, f] + level.sigma * eps[b, f]
            total += (torch.sin(x + 3 * t[b, f]) - eps[b, f]).square().sum().item() / B
    assert found.item() == pytest.approx(total, rel=1e-6)  # the loss's times are made in float32


def test_the_loss_of_frames_has_the_bound_of_its_data():
    """A perfect denoiser of N(0, c²) leaves Var(ε | x) = α²c²/(α²c² + σ²) a value; 5 standard
    errors.
    """
    c, n, schedule = 0.7, 4000, vp()

    def net(x, t, cond):
        level = schedule.at(t, like=x, per="frame")
        return level.sigma * x / (level.alpha**2 * c**2 + level.sigma**2)

    x0 = c * normals(n, F, 1)
    times = lambda draw, n: torch.tensor([0.2, 0.4, 0.6, 0.9]).expand(n, F)
    loss = denoising(
        Denoiser(net, schedule, "eps"), Batch(x0), Draw(0), weights.eps, times, per="frame"
    )
    levels = [schedule.at(t) for t in (0.2, 0.4, 0.6, 0.9)]
    left = [(a * c) ** 2 / ((a * c) ** 2 + s**2) for _, a, s, _ in levels]
    error = sum(2 * v**2 for v in left) ** 0.5 / n**0.5  # a square of N(0, v) has variance 2v²
    assert abs(loss.value.item() - sum(left)) < 5 * error


def test_a_video_of_one_frame_has_one_time_a_sample():
    seen, x = [], normals(B, 1, 2)
    model = Denoiser(lambda x, t, c: seen.append(t.shape) or x, vp(), "eps")
    model(x, vp().at(TIMES[:, :1], like=x, per="frame"))
    assert seen == [(B,)]


SQUARE = normals(3, 3, 3)  # every axis alike: where a broadcast would pass without a word
AGAIN = Denoiser(wave, vp(), "eps")
WIDE = torch.rand(3, 3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: vp().at(WIDE, like=SQUARE), r"one a frame is \(3, 3\) and wants per='frame'"),
        (lambda: vp().at(TIMES, like=VIDEO), r"e.g. schedule.at\(t, like=x, per='frame'\)"),
        (lambda: vp().at(TIMES[:2], like=VIDEO, per="frame"), r"one a frame is \(3, 4\)"),
        (lambda: vp().at(TIMES.T, like=VIDEO, per="frame"), r"times of shape \(4, 3\)"),
        (lambda: vp().at(TIMES[:, 0], like=VIDEO, per="frame"), r"times of shape \(3,\)"),
        (lambda: vp().at(torch.rand(2), like=VIDEO), r"one a sample is \(3,\)"),
        (lambda: vp().at(WIDE, like=SQUARE[0], per="frame"), r"for one value a frame, x\[:, :, "),
        (lambda: vp().at(WIDE, like=SQUARE, per="token"), "wanted 'sample' or 'frame'"),
        (lambda: vp().at(WIDE, per="frame"), "is about a tensor of times for x"),
        (lambda: vp().at(0.5, like=SQUARE, per="frame"), "is about a tensor of times for x"),
        (lambda: AGAIN(SQUARE, vp().at(WIDE)), "one a frame and schedule.at"),
        (lambda: AGAIN(SQUARE[0], vp().at(WIDE)), "one a frame and schedule.at"),
        (lambda: exact(gaussian(1), vp()).net(SQUARE[0], WIDE, None), "wants per='frame'"),
        (lambda: loss_on(frame_times(uniform_times(), F)), "wants per='frame'"),
        (lambda: loss_on(uniform_times(), per="frame"), r"one a frame is \(3, 4\)"),
        (lambda: frame_times(uniform_times(), 0), "0 frames, wanted at least 1"),
    ],
)
def test_nothing_is_guessed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def loss_on(times, **per):
    return denoising(
        Denoiser(wave, vp(), "eps"), Batch(VIDEO), Draw(0), weights.eps, times, **per
    )
