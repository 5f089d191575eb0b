"""The recipes: who moves when, on which samples, with which numbers; and that a student learns
or collapses as it should.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from truth import fit, F64

from dlib import (
    Batch,
    Denoiser,
    Draw,
    Mixture,
    cosine,
    discrete,
    edm,
    exact,
    generate,
    guided,
    recipes,
    scaled_linear,
    vp,
)
from dlib.lora import adapters, twin
from dlib.losses import drop, lognormal_times, weights
from dlib.losses import score_distillation as sd
from dlib.nets import MLP

NULL_LABEL = torch.tensor(-1)
VP = vp()
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
LIKE = torch.empty(8, 2)


def teacher_of(schedule=VP, predicts="eps", classes=3):
    torch.manual_seed(0)
    net = MLP(2, width=16, depth=1, classes=classes)
    nn.init.normal_(net.leave.weight)
    return Denoiser(net, schedule, predicts)


def roles_of(teacher, rank=2):
    """Student and fake as twins of the teacher."""
    roles = {
        "student": twin(teacher.net, rank),
        "teacher": teacher.net,
        "fake": twin(teacher.net, rank),
    }
    return {name: replace(teacher, net=net) for name, net in roles.items()}


def optims_of(roles, recipe, lr=1e-2):
    return {
        name: torch.optim.Adam(adapters(roles[name].net).values(), lr) for name in recipe.trained
    }


BOTH = [recipes.swiftbrush(VP, NULL_LABEL), recipes.diff_instruct(VP, NULL_LABEL)]


@pytest.mark.parametrize("recipe", BOTH, ids=["swiftbrush", "diff_instruct"])
def test_G_is_zero_until_the_fake_has_moved_and_the_teacher_never_does(recipe):
    teacher = teacher_of()
    roles = roles_of(teacher)
    x, t = torch.randn(5, 2), torch.rand(5)
    before = teacher.net(x, t)
    history = fit(
        recipe.phases,
        roles,
        optims_of(roles, recipe),
        lambda step: Batch(LIKE, LABELS),
        2,
        Draw(0),
    )
    assert history["student/gradient"][0] == 0.0 == history["student/gap"][0], (
        "a fresh adapter is the teacher"
    )
    assert history["student/gradient"][1] > 1e-5 < history["student/gap"][1]
    assert torch.equal(teacher.net(x, t), before) and all(
        p.grad is None for p in teacher.net.parameters()
    )
    assert (roles["student"].net(x, t) - before).abs().max() > 0


def test_the_student_moves_first_and_the_fake_learns_on_the_same_samples():
    recipe, roles = recipes.swiftbrush(VP, NULL_LABEL, fake_steps=3), roles_of(teacher_of())
    assert [phase.name for phase in recipe.phases] == ["student", "fake", "fake", "fake"]
    assert tuple(recipe.parts) == ("student", "teacher", "fake") and recipe.trained == (
        "student",
        "fake",
    )
    batch, draw = Batch(LIKE, LABELS), Draw(0)
    recipe.phases[0].loss(roles, batch, draw)
    made = batch.memo["sample"]
    with torch.no_grad():
        want = generate(roles["student"], Draw(0).normal(LIKE), VP.levels([1.0]), LABELS)
    torch.testing.assert_close(made, want, rtol=1e-6, atol=1e-6)
    assert not made.requires_grad
    first, second = (phase.loss(roles, batch, draw).value for phase in recipe.phases[1:3])
    assert batch.memo["sample"] is made and first != second, "the same samples at other times"


def test_swiftbrush_is_the_released_step():
    """By hand, in the same draws: guidance scale 4.5 on both scores, G = σ²(ε_real − ε_lora),
    then (αε_φ − αε)².
    """
    recipe, teacher = recipes.swiftbrush(VP, NULL_LABEL, dropout=1.0), teacher_of()
    roles, scale = roles_of(teacher), 4.5
    for weight in adapters(roles["fake"].net).values():
        nn.init.normal_(weight, std=0.3)
    x_of = lambda: roles["student"](draw.normal(LIKE), VP.at(1.0), LABELS).x0
    draw = Draw(5)
    x = x_of()
    level = VP.at(0.02 + 0.96 * draw.uniform(8), like=x)
    x_t = level.alpha * x + level.sigma * draw.normal(x)
    null = torch.full_like(LABELS, -1)
    with torch.no_grad():
        real, lora = (
            n(x_t, level, null).eps
            + scale * (n(x_t, level, LABELS).eps - n(x_t, level, null).eps)
            for n in (roles["teacher"], roles["fake"])
        )
        gradient = level.sigma**2 * (real - lora)
    draw.uniform(8)  # the coins of the condition's dropout
    other = VP.at(1e-3 + (1 - 1e-3) * draw.uniform(8), like=x)
    noise = draw.normal(x)
    # over values too
    square = (
        (
            other.alpha
            * (
                roles["fake"](other.alpha * x.detach() + other.sigma * noise, other, null).eps
                - noise
            )
        )
        .square()
        .mean()
    )

    batch, again = Batch(LIKE, LABELS), Draw(5)
    loss = recipe.phases[0].loss(roles, batch, again)
    names, values = zip(*adapters(roles["student"].net).items())
    for name, ours, theirs in zip(
        names,
        torch.autograd.grad(loss.value, values),
        torch.autograd.grad((x * gradient).mean(), values),
    ):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item(), msg=name
        )
    assert recipe.phases[1].loss(roles, batch, again).value.item() == pytest.approx(
        square.item(), rel=1e-5
    )


def test_diff_instruct_is_the_released_step():
    """EDM's terms: x = D(σ₀z, σ₀), σ = exp(−1.2 + 1.2 n), G = x₀_fake − x₀_real, fake loss (σ²
    + σ_d²)/(σσ_d)² ‖x₀ − x₀_φ‖².
    """
    schedule = edm()
    recipe, roles = (
        recipes.diff_instruct(schedule, NULL_LABEL, sigma_start=2.5),
        roles_of(teacher_of(schedule, "x0")),
    )
    for weight in adapters(roles["fake"].net).values():
        nn.init.normal_(weight, std=0.3)
    draw, batch, ours = Draw(5), Batch(LIKE, LABELS), Draw(5)
    loss = recipe.phases[0].loss(roles, batch, ours)
    x = roles["student"](
        2.5 * draw.normal(LIKE), schedule.at_lam(-math.log(2.5)), LABELS
    ).x0.detach()
    torch.testing.assert_close(batch.memo["sample"], x)
    sigma = torch.exp(-1.2 + 1.2 * draw.normal((8,)))[:, None]
    level = schedule.at_lam(-sigma.log())
    noisy = x + sigma * draw.normal(x)
    gap = roles["fake"](noisy, level, LABELS).x0 - roles["teacher"](noisy, level, LABELS).x0
    assert loss.metrics["gradient"].item() == pytest.approx(
        gap.norm(dim=1).mean().item(), rel=1e-4
    )
    sigma = torch.exp(-1.2 + 1.2 * draw.normal((8,)))[:, None]
    answer = roles["fake"](x + sigma * draw.normal(x), schedule.at_lam(-sigma.log()), LABELS).x0
    want = ((sigma**2 + 0.25) / (0.5 * sigma) ** 2 * (answer - x).square()).mean().item()
    assert recipe.phases[1].loss(roles, batch, ours).value.item() == pytest.approx(want, rel=1e-4)


def test_guidance_is_of_both_scores_or_of_the_teacher_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "dlib.recipes.score_distillation.guided",
        lambda model, omega, null: calls.append((model, omega)) or guided(model, omega, null),
    )
    roles = roles_of(teacher_of())
    for options in ({}, {"omega": 6.5, "omega_fake": 0.0}):
        recipes.swiftbrush(VP, NULL_LABEL, **options).phases[0].loss(
            roles, Batch(LIKE, LABELS), Draw(0)
        )
    recipes.sds(VP, NULL_LABEL).phases[0].loss(roles, Batch(LIKE, LABELS), Draw(0))
    names = {id(model): name for name, model in roles.items()}
    assert [(names[id(model)], omega) for model, omega in calls] == [
        ("teacher", 3.5),
        ("fake", 3.5),
        ("teacher", 6.5),
        ("teacher", 100.0),
    ]


def test_a_fake_that_is_warmed_up_makes_its_own_samples():
    """A step without the student's phase: the memo is empty, and sampling needs no graph."""
    recipe, roles = BOTH[0], roles_of(teacher_of())
    batch, grads = Batch(LIKE, LABELS), []
    roles["student"].net.register_forward_hook(lambda *a: grads.append(torch.is_grad_enabled()))
    recipe.phases[1].loss(roles, batch, Draw(0)).value.backward()
    assert grads == [False] and all(p.grad is None for p in roles["student"].net.parameters())
    slow = (replace(recipe.phases[0], every=3), recipe.phases[1])
    history = fit(
        slow, roles, optims_of(roles, recipe), lambda step: Batch(LIKE, LABELS), 4, Draw(0)
    )
    assert len(history["student/loss"]) == 2 and len(history["fake/loss"]) == 4


def test_latents_in_half_precision_do_not_make_half_precision_samples():
    schedule = discrete(scaled_linear())
    recipe, roles = recipes.swiftbrush(schedule, NULL_LABEL), roles_of(teacher_of(schedule))
    batch = Batch(LIKE.half(), LABELS)
    loss = recipe.phases[0].loss(roles, batch, Draw(0))
    assert batch.memo["sample"].dtype == torch.float32 == loss.value.dtype


def test_dropping_conditions():
    words, null = (
        {"text": torch.arange(24.0).view(4, 3, 2), "size": torch.arange(4)},
        {"text": torch.full((3, 2), -1.0), "size": torch.tensor(9)},
    )
    kept = Draw(0).uniform(4) >= 0.3
    found = drop(words, null, 0.3, Draw(0))
    assert 0 < kept.sum() < 4
    for i in range(4):
        assert torch.equal(
            found["text"][i], words["text"][i] if kept[i] else null["text"]
        ) and found["size"][i] == (words["size"][i] if kept[i] else 9)
    assert (
        torch.equal(drop(LABELS, NULL_LABEL, 0.0, Draw(0)), LABELS)
        and (drop(LABELS, NULL_LABEL, 1.0, Draw(0)) == -1).all()
    )
    assert drop(None, None, 0.5, Draw(0)) is None
    rate = (
        (drop(torch.zeros(20000, dtype=torch.long), NULL_LABEL, 0.1, Draw(1)) == -1)
        .double()
        .mean()
        .item()
    )
    assert rate == pytest.approx(0.1, abs=5 * (0.09 / 20000) ** 0.5)
    with pytest.raises(ValueError, match="drop: p = 1.5"):
        drop(LABELS, NULL_LABEL, 1.5, Draw(0))
    with pytest.raises(ValueError, match="null has shape"):
        drop(LABELS, torch.tensor([-1]), 0.5, Draw(0))


@pytest.mark.parametrize(
    "schedule", [edm(), VP, discrete(scaled_linear())], ids=lambda schedule: schedule.name
)
def test_lognormal_times(schedule):
    """log(σ/α) ~ N(−1.2, 1.2²) inside the schedule: quantiles within five standard errors."""
    level = schedule.at(lognormal_times(schedule)(Draw(0), 20000).double())
    value = -level.lam
    assert value.median().item() == pytest.approx(
        -1.2, abs=5 * 1.2 * math.sqrt(math.pi / 2 / 20000)
    )
    assert ((value < 0).double().mean()).item() == pytest.approx(
        0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=5 * 0.0026
    )


def test_edm_s_weight():
    """The best linear denoiser of N(0, σ_d²) has error κ²σ_d²/(κ² + σ_d²): the weighted loss
    is 1 at each level.
    """
    level = VP.at(torch.linspace(0.1, 0.9, 9, dtype=F64))
    kappa = level.sigma / level.alpha
    assert (
        weights.edm(0.7)(level, VP) * kappa**2 * 0.49 / (kappa**2 + 0.49) - 1
    ).abs().max() < 1e-12


@pytest.mark.parametrize("make", [recipes.swiftbrush, recipes.sds])
def test_the_start_s_noise_is_as_large_as_x_t_is_there(make):
    """√(α² + σ²): 1 on variance preserving schedules, about σ on EDM's."""
    for schedule, size in ((edm(), math.hypot(1, 80)), (VP, 1.0)):
        seen = []
        student = Denoiser(lambda x, t, c: seen.append(x) or torch.zeros_like(x), schedule, "v")
        roles = roles_of(teacher_of(schedule)) | {"student": student}
        make(schedule, NULL_LABEL).phases[0].loss(roles, Batch(LIKE, LABELS), Draw(4))
        torch.testing.assert_close(seen[0], size * Draw(4).normal(LIKE))


@pytest.mark.parametrize(
    "make, options, message",
    [
        (recipes.swiftbrush, {"fake_steps": 0}, "fake_steps = 0, wanted at least 1"),
        (recipes.diff_instruct, {"fake_steps": 0}, "fake_steps"),
        (recipes.swiftbrush, {"t_min": 0.9, "t_max": 0.1}, "not an interval"),
        (recipes.sds, {"start": 1.5}, "time 1.5 is outside"),
    ],
)
def test_bad_settings(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(VP, NULL_LABEL, **options)


TWO = Mixture(torch.tensor([0.6, 0.4]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.3, 0.3]))


def students(recipe, steps):
    """4000 samples of an MLP student after `steps` with the exact teacher: starting from zero
    networks.
    """
    torch.manual_seed(0)
    nets = {role: MLP(1, width=32, depth=1) for role in recipe.trained}
    roles = {"teacher": exact(TWO, cosine())} | {
        role: Denoiser(net, cosine(), "v") for role, net in nets.items()
    }
    optims = {
        role: torch.optim.Adam(
            net.parameters(), 2e-3 if role == "student" else 5e-3, betas=(0.0, 0.999)
        )
        for role, net in nets.items()
    }
    history = fit(
        recipe.phases, roles, optims, lambda step: Batch(torch.empty(128, 1)), steps, Draw(0)
    )
    with torch.no_grad():
        return generate(
            roles["student"], Draw(99).normal((4000, 1)), cosine().levels([1.0])
        ), history


def test_vsd_recovers_both_modes_and_sds_collapses():
    """Data ±1 with weights 0.4 and 0.6, standard deviation 1.02 in all. The bounds hold for
    other seeds too.
    """
    x, history = students(
        recipes.swiftbrush(cosine(), None, omega=0.0, omega_fake=0.0, fake_steps=2), 400
    )
    assert 0.45 < (x < 0).double().mean() < 0.75 and 0.8 < x.std() < 1.25
    assert ((x.abs() - 1).abs() < 0.9).double().mean() > 0.9 and history["student/spread"][
        -1
    ] > 0.7
    x, history = students(recipes.sds(cosine(), None, omega=0.0), 200)
    assert x.std() < 0.15 and history["student/spread"][-1] < 0.15


def test_the_wrong_sign_runs_away(monkeypatch):
    """Descending towards the student instead of the data: it leaves, and the metrics say so."""
    monkeypatch.setattr(sd, "variance", lambda level: -(level.sigma**2))
    x, _ = students(
        recipes.swiftbrush(cosine(), None, omega=0.0, omega_fake=0.0, fake_steps=2), 150
    )
    assert ((x.abs() - 1).abs() < 0.9).double().mean() < 0.5
