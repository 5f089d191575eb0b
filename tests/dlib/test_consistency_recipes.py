"""Recipes of consistency distillation: each is its loss with the published settings; a small
network learns from one.
"""

import inspect

import pytest
import torch
from truth import fit, SCHEDULES, appendix_a, mutant, normals

from dlib import (
    CLEAN,
    NULL,
    SOLVERS,
    Batch,
    Denoiser,
    Draw,
    Ema,
    boundary,
    counted,
    edm,
    edm_boundary,
    exact,
    flow,
    grid,
    guided,
    lcm_scalings,
    levels,
    sample,
    vp,
)
from dlib.grids import pcm_edges
from dlib.losses import consistency, consistency_losses, huber, squared, with_omega
from dlib.metrics import sliced_w2
from dlib.nets import MLP
from dlib.recipes import (
    consistency_distillation,
    ct,
    lcm,
    lcm_with_omega,
    pcm,
    pcm_adversarial,
    pcm_normalcfg,
    scm,
    tcd,
)
from dlib.solvers import stochastic_iterative
from dlib.solvers import ddim, heun

SD, X0, LABELS, EMPTY = (
    SCHEDULES["discrete"],
    normals(8, 2),
    torch.arange(8) % 3,
    torch.tensor(NULL),
)
BATCH = Batch(X0, LABELS)


def roles(schedule, **more):
    student, teacher = (
        Denoiser(lambda x, t, c: torch.sin(x + t[:, None]), schedule, "v"),
        exact(appendix_a(), schedule),
    )
    return {"student": student, "teacher": teacher, "target": student, **more}


def value(recipe, schedule, batch=BATCH, **more):
    assert tuple(recipe.parts)[:3] == ("student", "teacher", "target")
    return recipe.phases[0].loss(roles(schedule, **more), batch, Draw(0)).value.item()


def by_hand(schedule, scalings=None, **arguments):
    model = roles(schedule)
    f = model["student"] if scalings is None else boundary(model["student"], scalings)
    return consistency(f, model["teacher"], f, BATCH, Draw(0), **arguments).value.item()


def straight(seed=0):
    """A small velocity network on straight paths, and its roles with an exact teacher."""
    torch.manual_seed(seed)
    student = Denoiser(MLP(2, classes=3).double(), flow(), "velocity")
    return {"student": student, "teacher": exact(appendix_a(), flow()), "target": student}


@pytest.mark.parametrize("make", [lcm, pcm, lcm_with_omega, tcd], ids=lambda make: make.__name__)
def test_latent_recipes_run_on_straight_paths(make):
    """One step of training from t = 1, where α = 0, and four steps of sampling as the recipe
    says.
    """
    cast = straight()
    student = cast["student"]
    if make is lcm_with_omega:
        plain = student.net
        told = lambda x, t, c: plain(x, t, c["cond"]) + 0 * c["omega"][:, None]
        cast |= {role: Denoiser(told, flow(), "velocity") for role in ("student", "target")}
    recipe, batch = make(flow(), EMPTY), Batch(normals(64, 2), LABELS.repeat(8))
    loss = recipe.phases[0].loss(cast, batch, Draw(0))
    loss.value.backward()
    grads = [p.grad for p in student.net.parameters()]
    assert loss.value.item() > 0 and all(grad.isfinite().all() for grad in grads)
    assert sum(grad.abs().sum() for grad in grads) > 0
    shown = recipe.sampler
    walk, way = shown.levels(flow()), SOLVERS[shown.solver]
    with torch.no_grad():
        x = sample(shown.wrap(student), X0, walk, way, LABELS, Draw(1))
    assert len(walk) == 5 and x.isfinite().all()


def test_as_many_phases_as_steps_ask_a_student_on_straight_paths_for_the_teacher_s_own_step():
    """Then the teacher is a perfect student: the loss is 0. With fewer phases it is not."""
    cast = dict.fromkeys(("student", "teacher", "target"), exact(appendix_a(), flow()))
    found = {
        phases: pcm(flow(), EMPTY, phases=phases, omega=(0, 0))
        .phases[0]
        .loss(cast, Batch(normals(64, 2), LABELS.repeat(8)), Draw(0))
        .value.item()
        for phases in (50, 4)
    }
    assert found[50] < 1e-12 < 1e-4 < found[4]


def test_consistency_distillation_is_cd():
    schedule = edm()
    times = grid(schedule, 39, "karras")
    assert value(consistency_distillation(schedule), schedule) == by_hand(
        schedule, edm_boundary(schedule), times=times, solver=heun, distance=squared
    )
    end, times = edm_boundary(vp(), 1e-3, 1.0), grid(vp(), 9, "time", t_max=0.9)
    recipe = consistency_distillation(
        vp(), points=10, spacing="time", t_max=0.9, solver="ddim", sigma_data=1.0
    )
    assert value(recipe, vp()) == by_hand(vp(), end, times=times, distance=squared)


def test_lcm_on_the_trained_ladder():
    arguments = dict(
        times=grid(SD, 50, "sd_trailing"), omega=(5.0, 15.0), null=EMPTY, distance=huber(1e-3)
    )
    assert value(lcm(SD, EMPTY), SD) == by_hand(SD, lcm_scalings(SD), **arguments)
    assert value(
        lcm(SD, EMPTY, omega=[2.0, 14.0], skip=3, solver="heun", huber_c=0.1), SD
    ) == by_hand(
        SD,
        lcm_scalings(SD),
        **arguments | {"omega": (2.0, 14.0), "skip": 3, "solver": heun, "distance": huber(0.1)},
    )
    assert value(lcm(vp(), EMPTY, steps=9, spacing="time"), vp()) == by_hand(
        vp(), lcm_scalings(vp(), 1e-3), **arguments | {"times": grid(vp(), 9, "time")}
    )


def test_lcm_with_omega_tells_the_student():
    seen = []

    def net(x, t, cond):
        seen.append(cond["omega"])
        return torch.sin(x + cond["cond"][:, None] + cond["omega"][:, None])

    student = Denoiser(net, SD, "eps")
    f = boundary(student, lcm_scalings(SD))
    want = consistency(
        f,
        roles(SD)["teacher"],
        f,
        BATCH,
        Draw(0),
        times=grid(SD, 50, "sd_trailing"),
        omega=(5.0, 15.0),
        null=EMPTY,
        embed=with_omega,
    )
    assert (
        value(lcm_with_omega(SD, EMPTY), SD, student=student, target=student) == want.value.item()
    )
    assert (
        all(5 <= omega.min() and omega.max() <= 15 and omega.shape == (8,) for omega in seen)
        and len(seen) == 4
    )


def test_pcm_on_the_trained_ladder():
    times = grid(SD, 50, "sd_trailing")
    for phases in (1, 4, 8):
        want = by_hand(
            SD, times=times, edges=pcm_edges(times, phases), omega=(4.0, 5.0), null=EMPTY
        )
        assert value(pcm(SD, EMPTY, phases=phases), SD) == want


def test_pcm_normalcfg_is_pcm_whose_student_is_guided_when_it_is_sampled():
    recipe, inside = pcm_normalcfg(SD, EMPTY, phases=8, omega=3.0), pcm(SD, EMPTY, phases=8)
    assert value(recipe, SD) == value(pcm(SD, EMPTY, phases=8, omega=(0.0, 0.0)), SD)
    assert recipe.sampler.omega == 3.0 and recipe.sampler.times == inside.sampler.times
    model = exact(appendix_a(), SD)
    x = recipe.sampler(model, X0, LABELS, null=EMPTY)
    walk = levels(SD, 8, "pcm")
    assert torch.equal(x, sample(guided(model, 3.0, EMPTY), X0, walk, ddim, LABELS))


@pytest.mark.parametrize("recipe", [lcm, pcm])
def test_no_guidance_costs_no_empty_evaluation(recipe):
    guided, plain = counted(roles(SD)["teacher"]), counted(roles(SD)["teacher"])
    (
        value(recipe(SD, EMPTY), SD, teacher=guided),
        value(recipe(SD, EMPTY, omega=(0.0, 0.0)), SD, teacher=plain),
    )
    assert (guided.net.calls, guided.net.samples, plain.net.calls, plain.net.samples) == (
        1,
        16,
        1,
        8,
    )


@pytest.mark.parametrize(
    "recipe",
    [consistency_distillation, lcm, lcm_with_omega, pcm, pcm_adversarial, pcm_normalcfg, tcd],
)
def test_settings_are_keywords_of_plain_types(recipe):
    """So that a TOML file can give them."""
    settings = [
        p
        for p in inspect.signature(recipe).parameters.values()
        if p.name not in ("schedule", "null")
    ]
    assert (
        all(
            p.kind is p.KEYWORD_ONLY and isinstance(p.default, (int, float, str, tuple))
            for p in settings
        )
        and settings
    )


class Judge(torch.nn.Module):
    """Two opinions a sample."""

    def __init__(self):
        super().__init__()
        self.net, self.clock = torch.nn.Linear(3, 2).double(), lambda t: t

    def forward(self, x, t, cond):
        return self.net(torch.cat([x, t[:, None]], 1))


def adversaries():
    torch.manual_seed(0)
    net, judge = MLP(2, width=16, depth=1, classes=3).double(), Judge()
    torch.nn.init.normal_(net.leave.weight, std=0.1)
    student = counted(Denoiser(net, vp(), "v"))
    model = {
        "student": student,
        "teacher": counted(exact(appendix_a(), vp())),
        "target": student,
        "discriminator": judge,
    }
    return net, judge, model


TOY = dict(spacing="time", steps=12, phases=3)


def test_the_adversarial_student_s_loss_is_pcm_s_plus_the_hinge():
    """By parts: the same value without the discriminator's term, a gradient in its absence
    only from PCM's, none for the discriminator.
    """
    net, judge, model = adversaries()
    grads = []
    for recipe in (
        pcm(vp(), EMPTY, **TOY),
        pcm_adversarial(vp(), EMPTY, adversarial=0.0, **TOY),
        pcm_adversarial(vp(), EMPTY, **TOY),
    ):
        net.zero_grad()
        loss, metrics = recipe.phases[0].loss(model, Batch(X0, LABELS), Draw(0))
        loss.backward()
        grads.append((loss.item(), metrics["loss"].item(), net.leave.weight.grad.clone()))
    assert grads[0][0] == grads[1][0] == grads[2][1] and torch.equal(grads[0][2], grads[1][2])
    assert grads[2][0] == pytest.approx(
        grads[0][0] + 0.1 * metrics["generator"].item(), rel=1e-12
    ) and not torch.equal(grads[2][2], grads[0][2])
    assert all(weight.grad is None for weight in judge.parameters())


def test_the_discriminator_learns_from_the_points_that_are_there():
    """Its phase calls neither student nor teacher, and moves only itself; in a few steps of
    `fit` both have moved.
    """
    net, judge, model = adversaries()
    recipe = pcm_adversarial(vp(), EMPTY, **TOY)
    assert recipe.trained == ("student", "discriminator") and tuple(recipe.parts) == (
        "student",
        "teacher",
        "target",
        "discriminator",
    )
    batch, draw = Batch(X0, LABELS), Draw(0)
    recipe.phases[0].loss(model, batch, draw).value.backward()
    calls, grad = (
        model["student"].net.calls + model["teacher"].net.calls,
        net.leave.weight.grad.clone(),
    )
    assert not batch.memo["fake"].requires_grad and not batch.memo["real"].requires_grad
    recipe.phases[1].loss(model, batch, draw).value.backward()
    assert model["student"].net.calls + model["teacher"].net.calls == calls == 3 and torch.equal(
        net.leave.weight.grad, grad
    )
    assert judge.net.weight.grad.abs().max() > 0
    before = [weight.clone() for weight in (net.leave.weight, judge.net.weight)]
    optims = {
        "student": torch.optim.SGD(net.parameters(), 0.1),
        "discriminator": torch.optim.SGD(judge.parameters(), 0.1),
    }
    history = fit(recipe.phases, model, optims, lambda step: Batch(X0, LABELS), 3, Draw(0))
    assert set(history) == {
        "student/loss",
        "student/generator",
        "discriminator/loss",
        "discriminator/real",
        "discriminator/fake",
    }
    assert all(
        not torch.equal(a, b) for a, b in zip(before, (net.leave.weight, judge.net.weight))
    )


def one_step_distance(steps=300):
    """Distil the exact denoiser of three modes into a small network; sliced W2 of its one-step
    samples, and of the teacher's.
    """
    torch.manual_seed(0)
    schedule, mixture, net = vp(), appendix_a(), MLP(2, width=48, depth=1)
    teacher, ema = exact(mixture, schedule), Ema(net, 0.95)
    models = {
        "student": Denoiser(net, schedule, "v"),
        "teacher": teacher,
        "target": Denoiser(ema.net, schedule, "v"),
    }
    recipe = consistency_distillation(schedule, points=10, solver="ddim")
    fit(
        recipe.phases,
        models,
        {"student": torch.optim.Adam(net.parameters(), 5e-3)},
        lambda step: Batch(mixture.sample(128, Draw(1000 + step))[0].float()),
        steps,
        Draw(0),
        ema=ema,
    )
    f, x, real = (
        boundary(models["student"], edm_boundary(schedule, 1e-3)),
        normals(4000, 2),
        mixture.sample(4000, Draw(7))[0],
    )
    jump = [schedule.at(1.0), CLEAN]
    with torch.no_grad():
        one = sample(f, x.float(), jump, stochastic_iterative, draw=Draw(1))
    return sliced_w2(one, real), sliced_w2(sample(teacher, x, jump), real)


def test_a_small_network_learns_to_jump():
    """The teacher's one step is the mean of the data; the student's are its modes: less than
    two fifths of the distance.
    """
    student, teacher = one_step_distance()
    assert teacher > 0.8 and student < 0.4 * teacher


def test_a_target_at_the_wrong_level_teaches_nothing(monkeypatch):
    honest = consistency_losses.compared
    wrong = mutant(honest, "target(there, end, told)", "target(there, start, told)")
    monkeypatch.setattr(consistency_losses, "compared", wrong)
    student, teacher = one_step_distance()
    assert student > 0.5 * teacher


WITH_A_SOLVER = (
    consistency_distillation,
    lcm,
    lcm_with_omega,
    pcm,
    pcm_adversarial,
    pcm_normalcfg,
    tcd,
)


@pytest.mark.parametrize("recipe", WITH_A_SOLVER)
@pytest.mark.parametrize("name", ["x", "dpm_solver_pp_2m", "lcm"])
def test_a_solver_that_is_none_or_none_for_a_single_step_is_named(recipe, name):
    known = "no solver '" + name + "' for a step of the teacher; there are euler, ddim, heun"
    with pytest.raises(ValueError, match=known):
        recipe(vp(), EMPTY, solver=name)


@pytest.mark.parametrize(
    ("recipe", "asked", "said"),
    [
        (pcm_adversarial, {"adversarial": -1.0}, "adversarial = -1"),
        (pcm, {"phases": 2.5}, "2.5 phases of a grid with 50 steps: wanted a whole number"),
        (pcm_adversarial, {"phases": 2.5}, "2.5 phases"),
        (pcm_normalcfg, {"phases": 51}, "51 phases"),
        (lcm, {"omega": (15.0, 5.0)}, "wanted a range"),
        (tcd, {"omega": (0.0,)}, "wanted a range"),
        (lcm, {"huber_c": -1.0}, "huber: c = -1"),
        (consistency_distillation, {"sigma_data": -0.5}, "sigma_data = -0.5"),
        (ct, {"sigma_data": 0.0}, "sigma_data = 0"),
        (scm, {"std": -1.0}, "std = -1"),
        (scm, {"c": -1.0}, "by_rms: c = -1"),
    ],
)
def test_bad_input(recipe, asked, said):
    with pytest.raises(ValueError, match=said):
        recipe(vp(), EMPTY, **asked)
