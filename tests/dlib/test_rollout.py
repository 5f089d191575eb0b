"""A few-step student as a generator: which calls it makes, with which noise, and where its
gradients go.
"""

import pytest
import torch
from truth import F64, gaussian, normals

from dlib import CLEAN, Denoiser, Draw, cosine, counted, exact, flow, generate, levels, sample, vp
from dlib.nets import MLP
from dlib.rollout import composed
from dlib.solvers import heun
from toy_data import labelled


def test_one_step_is_the_clean_prediction():
    model, z = exact(gaussian(0.7), vp()), normals(5, 2)
    assert torch.equal(generate(model, z, vp().levels([0.9])), model(z, vp().at(0.9)).x0)


def test_each_level_renoises_the_last_answer():
    """By hand: x₀ at t = 1, then α x₀ + σ z' with fresh noise at 0.6 and at 0.3; one call
    each.
    """
    levels, z, draw = vp().levels([1.0, 0.6, 0.3]), normals(4, 2), Draw(3)
    model = counted(exact(gaussian(0.7), vp()))
    x = model(z, levels[0]).x0
    for level in levels[1:]:
        x = model(level.alpha * x + level.sigma * draw.normal(x), level).x0
    model.net.calls = 0
    assert torch.equal(generate(model, z, levels, draw=Draw(3)), x) and model.net.calls == 3


def test_a_perfect_student_of_gaussian_data_has_the_variance_of_its_answers():
    """Data N(0, c²): x₀ = r x with r = αc²/v, v = α²c² + σ²; the variance after each level
    follows by hand.
    """
    c, levels, z = 0.7, vp().levels([1.0, 0.6, 0.3]), normals(20000, 2)
    variance = 1.0
    for i, level in enumerate(levels):
        incoming = variance if i == 0 else level.alpha**2 * variance + level.sigma**2
        variance = (level.alpha * c**2 / (level.alpha**2 * c**2 + level.sigma**2)) ** 2 * incoming
    x = generate(exact(gaussian(c), vp()), z, levels, draw=Draw(0))
    # five standard errors
    assert x.var().item() == pytest.approx(variance, rel=5 * (2 / 40000) ** 0.5)


def test_gradients_flow_through_every_step_and_the_condition_arrives():
    torch.manual_seed(0)
    net, seen = MLP(2, width=8, depth=1, classes=3), []
    torch.nn.init.normal_(net.leave.weight)
    model = Denoiser(
        lambda x, t, c: seen.append((t[0].item(), c)) or net(x, t, c), flow(), "velocity"
    )
    z, label = torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 2, -1])
    generate(model, z, flow().levels([1.0, 0.5]), label, Draw(0)).sum().backward()
    assert z.grad.abs().min() > 0 and all(p.grad is not None for p in net.parameters())
    assert [(t, c is label) for t, c in seen] == [(1.0, True), (0.5, True)]


@pytest.mark.parametrize(
    "levels, message",
    [
        ([], "one or more noise levels"),
        ([1.0], "use schedule.levels"),
        ([CLEAN], "σ > 0"),
        (vp().levels([1.0, 0.5]), "pass draw=Draw"),
    ],
)
def test_bad_input(levels, message):
    with pytest.raises(ValueError, match=message):
        generate(exact(gaussian(1.0), vp()), normals(2, 2), levels)


def test_a_network_that_does_not_know_x0_at_pure_noise_says_so():
    """ε at α = 0 determines nothing; v does."""
    z = normals(3, 2)
    with pytest.raises(ValueError, match="predicts eps does not determine x₀ and ε at t = 1"):
        generate(Denoiser(lambda x, t, c: x, cosine(), "eps"), z, cosine().levels([1.0]))
    assert (
        torch.equal(
            generate(Denoiser(lambda x, t, c: x, cosine(), "v"), z, cosine().levels([1.0])), -z
        )
        and z.dtype == F64
    )


def test_the_composed_student_is_the_walk_from_every_level_and_from_between():
    """Rows at different levels, each with its own label; the last stands on the end, where
    f(x) = x/α.
    """
    schedule, cond = vp(), torch.tensor([0, 1, 1, 0])
    model, levels = exact(labelled(), schedule), schedule.levels([1.0, 0.6, 0.3, 0.1])
    x, t = normals(4, 2), torch.tensor([1.0, 0.6, 0.45, 0.1], dtype=F64)
    found = composed(model, levels, heun)(x, schedule.at(t, like=x), cond).x0
    walks = [levels, levels[1:], [schedule.at(0.45), *levels[2:]], None]
    for row, walk in enumerate(walks):
        one = x[row : row + 1]
        end = one if walk is None else sample(model, one, walk, heun, cond[row : row + 1])
        assert torch.allclose(found[row : row + 1], end / levels[-1].alpha, rtol=0, atol=1e-12), (
            f"row {row}"
        )


def test_the_composed_student_of_a_fine_walk_is_the_flow_map():
    """Data N(0, c²): f(x, t) = x √(v_end/v_t)/α_end; Heun's 200 steps leave 1e-4, and float32
    times find their level.
    """
    c, schedule = 0.7, vp()
    walk = levels(schedule, 200)
    spread = lambda level: (level.alpha**2 * c**2 + level.sigma**2) ** 0.5
    f = composed(exact(gaussian(c), schedule), walk, heun)
    for place in (0, 77, 199):
        x, level = normals(5, 2).float(), walk[place]
        assert torch.allclose(
            f(x, level).x0,
            x * spread(walk[-1]) / spread(level) / walk[-1].alpha,
            rtol=3e-4,
            atol=0,
        )
