"""Guided distillation: the analytic x^ω is the perfect student, ω = 0 the conditional teacher,
the target is affine in ω, and a student that is told ω starts as its teacher.
"""

import copy
import inspect

import pytest
import torch
from truth import F64, SCHEDULES, mutant, normals

from dlib import NULL, Batch, Denoiser, Draw, counted, cosine, exact, flow, guided, levels
from dlib import sample, scaled_linear, discrete, vp
from dlib.losses import guided_distillation, guiding, progressive, uniform_times, weights
from dlib.losses import with_omega
from dlib.nets import MLP, DiT, Told, omega_features
from dlib.recipes import guiding as recipes
from dlib.recipes import progressive_with_omega
from toy_data import distil, labelled

LABEL = torch.arange(32) % 2
X0 = labelled().sample(32, Draw(0))[0]
HOW = dict(omega=(0.0, 4.0), null=NULL, times=uniform_times())


def analytic(schedule):
    """The perfect student, written out: a posterior mean for each of both conditions, mixed."""
    model = exact(labelled(), schedule)

    def net(x, t, cond):
        said, empty = (
            Denoiser(model.net, schedule, "v").net(x, t, label)
            for label in (cond["cond"], torch.full_like(cond["cond"], NULL))
        )
        omega = cond["omega"][:, None].to(x)
        return said + omega * (said - empty)

    return Denoiser(net, schedule, "v")


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_analytic_guided_denoiser_has_no_loss(name):
    schedule = SCHEDULES[name]
    model, batch = exact(labelled(), schedule), Batch(X0, LABEL)
    times = uniform_times(max(schedule.t_min, 1e-2))
    how = HOW | {"times": times}
    found = guided_distillation(analytic(schedule), model, batch, Draw(1), **how)
    assert found.value < 1e-16 and found.metrics["loss"] == found.value
    conditional = Denoiser(lambda x, t, c: model.net(x, t, c["cond"]), schedule, "v")
    none = guided_distillation(conditional, model, batch, Draw(1), **how | {"omega": (0.0, 0.0)})
    apart = guided_distillation(conditional, model, batch, Draw(1), **how)
    assert none.value < 1e-16 and apart.value > 1e-2


def test_the_loss_is_the_one_on_x0_with_its_weight():
    """In numbers, row by row: ω first, then the times, then the noise; each sample its own."""
    schedule = vp()
    model, student = (
        exact(labelled(), schedule),
        Denoiser(
            lambda x, t, c: torch.sin(x + c["omega"][:, None] + t[:, None]), schedule, "eps"
        ),
    )
    draw, rows = Draw(7), []
    omega = 1 + 2 * draw.uniform(32).double()
    times = uniform_times(0.1, 0.9)(draw, 32)
    noise = draw.normal(X0)
    for one, label, w, t, eps in zip(X0, LABEL, omega, times.tolist(), noise):
        level = schedule.at(float(torch.tensor(t, dtype=torch.float32)))
        x = (level.alpha * one + level.sigma * eps)[None]
        said, empty = model(x, level, label[None]).x0, model(x, level, torch.tensor([NULL])).x0
        told = {"omega": w[None]}
        error = student(x, level, told).x0 - ((1 + w) * said - w * empty)
        rows.append((level.alpha**2 / level.sigma**2 + 1) * error.square().mean())
    how = dict(omega=(1.0, 3.0), null=NULL, times=uniform_times(0.1, 0.9))
    found = guided_distillation(student, model, Batch(X0, LABEL), Draw(7), **how)
    assert found.value.item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-5)
    given = guided_distillation(student, model, Batch(X0, LABEL, noise), Draw(7), **how)
    assert given.value.item() == pytest.approx(found.value.item(), rel=1e-12)
    for weight in (weights.x0, weights.eps, weights.velocity):
        other = guided_distillation(
            analytic(schedule), model, Batch(X0, LABEL), Draw(7), **how, weight=weight
        )
        assert other.value < 1e-16


def test_the_target_is_affine_in_omega_and_the_same_in_every_face():
    model, level = exact(labelled(), cosine()), cosine().at(0.6)
    x = normals(32, 2)
    at = lambda omega: guided(model, omega, NULL)(x, level, LABEL)
    for face in ("x0", "eps", "v", "velocity", "score"):
        said = [getattr(at(omega), face) for omega in (0.0, 2.0, 4.0)]
        assert (said[0] + said[2] - 2 * said[1]).abs().max() < 1e-12
        empty = getattr(model(x, level, torch.full((32,), NULL)), face)
        assert (3 * said[0] - 2 * empty - said[1]).abs().max() < 1e-12
    # so a student that is not told ω is asked for the mean of its range
    mean = torch.stack(
        [at(omega).x0 for omega in torch.linspace(0, 4, 101, dtype=F64).tolist()]
    ).mean(0)
    assert (mean - at(2.0).x0).abs().max() < 1e-12


def test_the_loss_is_finite_at_both_ends_of_the_schedule():
    """The error is taken on what the student predicts: float32 loses nothing near σ = 0, nor
    near α = 0.
    """
    for schedule in (cosine(), flow(), vp()):
        model, student = exact(labelled(), schedule), analytic(schedule)
        for t in (1e-3, 1.0):
            at = lambda draw, n: torch.full((n,), t, dtype=F64)
            batch = Batch(X0.float(), LABEL)
            how = HOW | {"times": at}
            assert guided_distillation(student, model, batch, Draw(0), **how).value < 1e-6


def test_gradients_and_calls():
    """One call of the student, one of the teacher with both conditions."""
    torch.manual_seed(0)
    net = Told(MLP(2, 16, 1, classes=2))
    torch.nn.init.normal_(net.net.leave.weight)
    student, teacher = counted(Denoiser(net, vp(), "v")), counted(exact(labelled(), vp()))
    batch = Batch(X0.float(), LABEL)
    guided_distillation(student, teacher, batch, Draw(0), **HOW).value.backward()
    assert (student.net.calls, student.net.samples) == (1, 32)
    assert (teacher.net.calls, teacher.net.samples) == (1, 64)
    assert net.read.weight.grad.abs().max() > 0
    own = Denoiser(MLP(2, 16, 1, classes=2), vp(), "v")
    guided_distillation(student, own, batch, Draw(0), **HOW).value.backward()
    assert all(p.grad is None for p in own.net.parameters())


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    from full_scale.data.draws import step_draws

    model, student = (
        exact(labelled(), vp()),
        Denoiser(lambda x, t, c: torch.sin(x + c["omega"][:, None]), vp(), "v"),
    )
    value = lambda rows: (
        guided_distillation(
            student, model, Batch(X0[rows], LABEL[rows]), step_draws(0, 3, rows), **HOW
        ).value
    )
    parts = [value(range(k, k + 8)) for k in range(0, 32, 8)]
    assert torch.stack(parts).mean().item() == pytest.approx(value(range(32)).item(), rel=1e-6)


# the network that is told


def networks():
    torch.manual_seed(0)
    mlp = MLP(2, 16, 1, classes=2)
    dit = DiT(side=8, channels=3, words=5, length=4, width=16, depth=1, heads=2)
    for net in (mlp, dit):
        for weight in net.parameters():
            if not weight.any():  # awake: no layer starts at zero
                torch.nn.init.normal_(weight, std=0.2)
    words = torch.tensor([[1, 2, 3, 0]] * 4)
    return [(mlp, normals(4, 2).float(), LABEL[:4]), (dit, normals(4, 3, 8, 8).float(), words)]


@pytest.mark.parametrize("k", [0, 1])
def test_a_network_that_is_told_starts_as_it_was_and_learns_to_listen(k):
    net, x, cond = networks()[k]
    told, t = Told(net), torch.rand(4)
    ask = lambda omega: told(x, t, with_omega(cond, torch.full((4,), omega)))
    assert torch.equal(ask(0.0), net(x, t, cond)) and torch.equal(ask(3.0), net(x, t, cond))
    (grad,) = torch.autograd.grad(ask(3.0).square().sum(), told.read.weight)
    assert grad.abs().max() > 0
    torch.nn.init.normal_(told.read.weight)
    assert not torch.allclose(ask(0.0), ask(3.0))
    rows = told(x, t, with_omega(cond, torch.tensor([3.0, 0.0, 3.0, 0.0])))
    assert torch.allclose(rows[0], ask(3.0)[0], atol=1e-5)
    assert torch.allclose(rows[1], ask(0.0)[1], atol=1e-5)
    twin = copy.deepcopy(told)  # each copy has its own layer
    torch.nn.init.zeros_(twin.read.weight)
    assert torch.equal(twin(x, t, with_omega(cond, torch.ones(4))), net(x, t, cond))
    assert not net.embed_time._forward_pre_hooks and not told.net.embed_time._forward_pre_hooks


def test_the_features_are_diffusers_own():
    diffusers = pytest.importorskip("diffusers")
    omega = torch.tensor([0.0, 0.5, 6.5])
    theirs = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
    assert torch.allclose(omega_features(omega, 256), theirs(None, omega, 256), atol=1e-4)


# slips

SLIPS = [
    (
        "student, model) loss",
        "getattr(guided(teacher, scale, null)(x, level, batch.cond), student.predicts)",
        "getattr(guided(teacher, scale, null)(x, level, batch.cond), 'x0')",
        lambda: test_the_loss_is_the_one_on_x0_with_its_weight(),
    ),
    ("1 + ω", "(teacher, scale, null)", "(teacher, scale - 1, null)", lambda: check_analytic()),
    (
        "one ω",
        "uniform_omega(omega, draw, x0)",
        "uniform_omega(omega, draw, x0)[:1].expand(n)",
        lambda: test_the_loss_is_the_one_on_x0_with_its_weight(),
    ),
    (
        "width of the range",
        "uniform_omega(omega, draw",
        "uniform_omega((omega[0], sum(omega)), draw",
        lambda: test_the_loss_is_the_one_on_x0_with_its_weight(),
    ),
    (
        "not told",
        "embed(batch.cond, scale)",
        "embed(batch.cond, 0 * scale)",
        lambda: check_analytic(),
    ),
    (
        "sum",
        "flatten(1).mean(1)",
        "flatten(1).sum(1)",
        lambda: test_the_loss_is_the_one_on_x0_with_its_weight(),
    ),
    (
        "face forgotten",
        "schedule) * face",
        "schedule)",
        lambda: test_the_loss_is_the_one_on_x0_with_its_weight(),
    ),
    ("gradient", "torch.no_grad()", "torch.enable_grad()", lambda: test_gradients_and_calls()),
]


def check_analytic():
    test_the_analytic_guided_denoiser_has_no_loss("vp")


@pytest.mark.parametrize("old, new, check", [s[1:] for s in SLIPS], ids=[s[0] for s in SLIPS])
def test_a_slip_is_caught(monkeypatch, old, new, check):
    check()
    wrong = mutant(guided_distillation, old, new)
    monkeypatch.setattr(guiding, "guided_distillation", wrong)
    monkeypatch.setitem(globals(), "guided_distillation", wrong)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: guided_distillation(*PAIR, Batch(X0), Draw(0), **HOW), "has no condition"),
        (
            lambda: guided_distillation(
                *PAIR, Batch(X0, LABEL), Draw(0), **HOW | {"omega": (4.0, 1.0)}
            ),
            r"omega = \(4.0, 1.0\), wanted a range",
        ),
        (
            lambda: guided_distillation(*PAIR, Batch(X0, LABEL, X0[:3]), Draw(0), **HOW),
            r"noise has shape \(3, 2\)",
        ),
        (
            lambda: guided_distillation(
                analytic(flow()), PAIR[1], Batch(X0, LABEL), Draw(0), **HOW
            ),
            "guided_distillation: .* different schedules, flow and vp",
        ),
        (lambda: omega_features(torch.ones(3), 7), "dim = 7, wanted an even number"),
        (lambda: omega_features(torch.ones(3), 2), "dim = 2, wanted .* at least 4"),
        (lambda: omega_features(torch.ones(3, 1), 8), r"ω has shape \(3, 1\), wanted \(B,\)"),
        (lambda: recipes.guided(vp(), NULL, steps=0), "Sampler: steps = 0"),
        (lambda: recipes.guided(vp(), NULL, weight="snr"), "no weight 'snr'; there are"),
    ],
)
def test_bad_input_is_told_what_to_type(call, says):
    with pytest.raises(ValueError, match=says):
        call()


PAIR = analytic(vp()), exact(labelled(), vp())


# the recipe


def test_settings_are_keywords_of_plain_types():
    settings = list(inspect.signature(recipes.guided).parameters.values())[2:]
    assert settings and all(
        p.kind is p.KEYWORD_ONLY and isinstance(p.default, (int, float, str, tuple))
        for p in settings
    )


def test_the_recipe_is_the_loss():
    schedule = discrete(scaled_linear())
    roles = {"student": analytic(schedule), "teacher": exact(labelled(), schedule)}
    recipe = recipes.guided(schedule, NULL)
    assert recipe.told and recipe.sampler.omega == 8.0
    perfect = recipe.phases[0].loss(roles, Batch(X0, LABEL), Draw(0)).value
    assert perfect < 1e-16
    deaf = Denoiser(lambda x, t, c: roles["teacher"].net(x, t, c["cond"]), schedule, "v")
    found = recipe.phases[0].loss(roles | {"student": deaf}, Batch(X0, LABEL), Draw(0)).value
    how = HOW | {"omega": (2.0, 14.0), "times": uniform_times(schedule.t_min)}
    assert (
        found
        == guided_distillation(deaf, roles["teacher"], Batch(X0, LABEL), Draw(0), **how).value
    )


def test_the_second_stage_tells_teacher_and_student_the_same_omega():
    """ω first, uniform on the range, then the draws of the loss; nothing is guided again, so the
    analytic student halves itself without the empty condition.
    """
    schedule = discrete(scaled_linear())
    teacher, walk = analytic(schedule), levels(schedule, 8, "sd_trailing", end="clean")
    recipe = progressive_with_omega(schedule, steps=4)
    assert recipe.told and recipe.told_teacher and recipe.sampler.omega == 8.0
    assert recipe.sampler.levels(schedule) == walk[::2]
    given = Batch(X0, LABEL)
    dull = Denoiser(lambda x, t, cond: 0.5 * teacher.net(x, t, cond), schedule, teacher.predicts)
    asked = {"student": dull, "teacher": teacher}
    for name in ("truncated_snr", "v"):
        made = progressive_with_omega(schedule, steps=4, weight=name)
        found = made.phases[0].loss(asked, given, Draw(3)).value
        draw, how = Draw(3), dict(levels=walk, weight=recipes.WEIGHTS[name])
        told = Batch(X0, with_omega(LABEL, (2 + 12 * draw.uniform(32)).double()))
        assert found == progressive(dull, teacher, told, draw, **how).value > 0
    with pytest.raises(ValueError, match="progressive_with_omega: no weight 'snr'"):
        progressive_with_omega(schedule, weight="snr")


def test_a_small_network_learns_the_dial_and_is_halved():
    """300 updates: at ω = 0, 1 and 2 it is much nearer to x^ω than the conditional answer; then
    two steps in one, of a teacher that is told the same ω.
    """
    schedule = cosine()
    model = exact(labelled(), schedule)

    def data(step):
        x0, label = labelled().sample(128, Draw(step))
        return Batch(x0.float(), label)

    torch.manual_seed(0)
    start = Denoiser(Told(MLP(2, 48, 2, classes=2)), schedule, "v")
    recipe = recipes.guided(schedule, NULL, omega=(0.0, 2.0))
    student = distil(recipe, start, model, data, 300)
    batch = data(10_000)
    level = schedule.at(0.6)
    x = level.alpha * batch.x0 + level.sigma * Draw(1).normal(batch.x0)
    ask = lambda omega: student(x, level, with_omega(batch.cond, torch.full((128,), omega))).x0
    off = lambda a, b: (a - b).square().mean().sqrt()
    plain = model(x, level, batch.cond).x0
    for omega in (0.0, 1.0, 2.0):
        want = guided(model, omega, NULL)(x, level, batch.cond).x0
        moved = off(guided(model, 2.0, NULL)(x, level, batch.cond).x0, plain)
        assert off(ask(omega), want) < 0.25 * moved

    walk = levels(schedule, 4, "time", end="clean")
    recipe = progressive_with_omega(schedule, steps=2, spacing="time", omega=(0.0, 2.0))
    half = distil(recipe, student, student, data, 100, lr=2e-3)
    cond = with_omega(torch.arange(200) % 2, torch.full((200,), 1.0))
    z = Draw(3).normal((200, 2))
    ours, theirs = (sample(m, z, w, cond=cond) for m, w in ((half, walk[::2]), (student, walk)))
    two = sample(student, z, walk[::2], cond=cond)
    assert off(ours, theirs) < 0.5 * off(two, theirs)
