"""Recipes of consistency training and of continuous time: each is its loss with the published
settings at the step that the trainer tells.
"""

import math

import pytest
import torch
from truth import SCHEDULES, appendix_a, gaussian, mutant, normals

from dlib import Batch, Denoiser, Draw, Roles, boundary, cast, edm, edm_boundary, exact, flow
from dlib import grid, guided, perform
from dlib.losses import (
    bootstrapping,
    by_norm,
    consistency_training,
    continuous_consistency,
    ect_times,
    inverse_step,
    ladder_times,
    lognormal_times,
    norm_huber,
    taught,
)
from dlib.nets import MLP
from dlib.recipes import ct, ct_reduced, ect, ict, imm, knowledge, lcm, lcm_with_omega, pcm
from dlib.recipes import guided as guided_recipe
from dlib.recipes import pcm_adversarial, pcm_normalcfg, progressive_with_omega, scm
from dlib.recipes import scm_training, sct, tcd
from toy_data import distil, shape_batches, shapes_teacher
from toy_data.shape_captions import say, tokens
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet

SKIPPING = (lcm, lcm_with_omega, pcm, pcm_adversarial, tcd)
X0, LABELS, NULL = normals(8, 2), torch.arange(8) % 3, torch.tensor(-1)
EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))


def roles(schedule):
    net = lambda x, t, cond: torch.sin(x + t[:, None]) + 0.1 * (cond[:, None] >= 0)
    student = Denoiser(net, schedule, "v")
    return Roles(student=student, target=student, teacher=exact(gaussian(0.6), schedule))


def value(recipe, schedule, step):
    batch = Batch(X0, LABELS, step=step)
    return recipe.phases[0].loss(roles(schedule), batch, Draw(0)).value.item()


@pytest.mark.parametrize(("step", "points"), [(0, 2), (50, 72), (400, 201), (900, 201)])
def test_ct_is_its_loss_on_the_ladder_of_the_step(step, points):
    schedule = edm()
    recipe = ct(schedule, points=(2, 200), growth=400)
    times = grid(schedule, points - 1, "karras")
    f = boundary(roles(schedule)["student"], edm_boundary(schedule, times[-1].item()))
    aim = consistency_training(f, f, Batch(X0, LABELS), Draw(0), times=ladder_times(times))
    assert value(recipe, schedule, step) == pytest.approx(aim.value.item(), rel=1e-12)


@EVERY
@pytest.mark.parametrize(("step", "stage"), [(0, 0), (99, 0), (100, 1), (1000, 3)])
def test_ect_is_its_loss_at_the_stage_of_the_step(schedule, step, stage):
    student = roles(schedule)["student"]
    aim = consistency_training(
        student,
        student,
        Batch(X0, LABELS),
        Draw(0),
        times=ect_times(schedule, stage=stage),
        weight=inverse_step,
        distance=norm_huber(0.1),
    )
    recipe = ect(schedule, every=100, stages=4, huber_c=0.1)
    assert value(recipe, schedule, step) == pytest.approx(aim.value.item(), rel=1e-12)


@pytest.mark.parametrize(("step", "rho", "omega"), [(0, 0.0, 0.0), (50, 0.5, 2.0), (400, 1, 2.0)])
def test_scm_is_its_loss_with_a_warm_up_and_a_guided_teacher(step, rho, omega):
    schedule = flow()
    players = roles(schedule)
    teacher = Denoiser(lambda x, t, cond: x * (0.2 + cond[:, None]), schedule, "v")
    players["teacher"] = teacher
    aim = continuous_consistency(
        players["student"],
        players["student"],
        Batch(X0, LABELS),
        Draw(0),
        times=lognormal_times(schedule, -1.0, 1.4),
        estimate=taught(guided(teacher, omega, NULL)),
        rho=rho,
        normalise=by_norm(0.1),
        sigma_data=0.7,
    )
    recipe = scm(schedule, NULL, omega=omega, rise=100, normalise="norm", sigma_data=0.7)
    batch = Batch(X0, LABELS, step=step)
    found = recipe.phases[0].loss(players, batch, Draw(0)).value.item()
    assert found == pytest.approx(aim.value.item(), rel=1e-12)
    assert recipe.slopes == ("target",)


@pytest.mark.parametrize(
    ("make", "asked", "says"),
    [
        (scm, {"normalise": "l2"}, "no normalise 'l2'; there are norm, rms"),
        (scm, {"rise": 0}, "scm: rise = 0, wanted at least 1"),
        (scm_training, {"rise": 0}, "scm_training: rise = 0"),
        (ect, {"stages": 0}, "ect: stages = 0, wanted at least 1"),
        (ect, {"every": 0}, "ect: every = 0"),
        (ect, {"every": 1.5}, "ect: every = 1.5, wanted a whole number"),
        (ect, {"std": 0}, "ect_times: std = 0"),
        (ect, {"mean": math.nan}, "ect_times: mean = nan"),
        (ect, {"q": 1}, "ect_end: q = 1, wanted more than 1"),
        (ct, {"growth": 0}, "ct: growth = 0, wanted at least 1"),
        (ct, {"growth": 1.5}, "ct: growth = 1.5, wanted a whole number"),
        (sct, {"every": 1.5}, "sct: every = 1.5, wanted a whole number"),
        (sct, {"std": -1.0}, "ect_times: std = -1"),
        (ict, {"growth": 0}, "ict: growth = 0"),
        (ct_reduced, {"growth": -1}, "ct_reduced: growth = -1"),
        (ct_reduced, {"group": 0}, "ct_reduced: group = 0, wanted at least 1"),
        (ct, {"points": (1, 150)}, r"ct: points = \(1, 150\), wanted .* 2 ≤ s₀ ≤ s₁"),
        (ict, {"points": (20, 10)}, r"ict: points = \(20, 10\)"),
        (scm, {"sigma_data": 0.0}, "scm: sigma_data = 0"),
        (scm, {"sigma_data": math.inf}, "scm: sigma_data = inf"),
        (scm, {"omega": math.nan}, "scm: omega = nan, wanted a number"),
        (scm, {"mean": math.nan}, "lognormal_times: mean = nan"),
        (scm_training, {"std": math.inf}, "lognormal_times: std = inf"),
        (pcm_adversarial, {"adversarial": math.inf}, "pcm_adversarial: adversarial = inf"),
        (pcm_normalcfg, {"omega": math.nan}, r"pcm_normalcfg: omega = \(nan, nan\)"),
        (imm, {"group": 0}, "imm: group = 0, wanted at least 1"),
        (imm, {"halvings": 2000}, "imm_triples: halvings = 2000, wanted 0 to 45"),
        (knowledge, {"start": 0.0}, r"Sampler: times = \(0.0, "),
        (knowledge, {"start": 5.0}, r"time 5 is outside \[0, 1\]"),
        (guided_recipe, {"omega": (3.0, 1.0)}, r"guided: omega = \(3.0, 1.0\), wanted a range"),
        (guided_recipe, {"omega": 2.0}, "guided: omega = 2.0, wanted a range"),
        (progressive_with_omega, {"omega": (14.0, 2.0)}, r"progressive_with_omega: omega = \(14"),
        *((make, {"skip": 0}, f"^{make.__name__}: skip = 0 steps") for make in SKIPPING),
        *((make, {"omega": (2.0,)}, f"^{make.__name__}: omega = ") for make in SKIPPING),
    ],
)
def test_what_would_fail_at_the_first_step_is_named_when_the_recipe_is_made(make, asked, says):
    with pytest.raises(ValueError, match=says):
        make(edm(), None, **asked)


def test_the_trainer_tells_the_step():
    """Three steps of a ladder that grows: the losses are those of steps 0, 1 and 2."""
    told = []
    torch.manual_seed(0)
    start = Denoiser(MLP(2, 8, 1), edm(), "v")
    recipe = ct(edm(), points=(2, 8), growth=2)
    phase = recipe.phases[0]

    def watched(roles, batch, draw):
        told.append(batch.step)
        return phase.loss(roles, batch, draw)

    recipe = type(recipe)((type(phase)("student", watched),), recipe.parts)
    players = cast(recipe, starts={"student": start})
    optim = torch.optim.SGD(start.net.parameters(), 1e-3)
    data = lambda step: Batch(appendix_a().sample(8, Draw(step))[0].float())
    perform(recipe, players, {"student": optim}, data, 3, Draw(0))
    assert told == [0, 1, 2]


def test_ect_learns_to_draw_shapes_in_one_call(monkeypatch):
    """Captioned shapes, 60 updates from the diffusion model: nearer to real pictures than
    before, in one call; and not if the target is asked about x_t, or about other noise.
    """
    world, codes = shapes_teacher(), asked()
    text, top = tokens([say(tuple(code)) for code in codes.tolist()]), world.schedule.at(1.0)
    grey = Draw(11).normal((len(codes), 3, 16, 16))
    recipe = ect(world.schedule, every=30, stages=2, mean=-0.4, std=1.6, huber_c=0.015)

    def far(net):
        return shapes_frechet(net(grey, top, text).x0, codes) - shapes_floor(codes)[0]

    def learnt():
        data = shape_batches(32, seed=0, drop=0)
        return distil(recipe, world, world, data, 60, lr=3e-4, decay=0.0)

    start, healthy, whole = far(world), far(learnt()), bootstrapping.both_ends
    assert 0 < healthy < 0.9 * start
    for new in ("target(x, asked", "target(end.alpha * x0 + end.sigma * draw.normal(x0), asked"):
        broken = mutant(whole, "target(there, asked", new)
        monkeypatch.setattr(bootstrapping, "both_ends", broken)
        assert far(learnt()) > 1.2 * healthy
