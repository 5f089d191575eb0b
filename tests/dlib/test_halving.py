"""Naive and progressive distillation: two steps in one exactly, what a Gaussian's students are,
which weights teach a one-step student, and what is refused.
"""

import inspect
import math
import re

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, gaussian, mutant, normals

from dlib import CLEAN, Batch, Denoiser, Draw, Mixture, counted, cosine, discrete, edm, exact
from dlib import grid, guided, levels, sample, scaled_linear, vp
from dlib.losses import halving, knowledge, progressive, weights
from dlib.losses.halving import halved, shares, two_step_target
from dlib.nets import MLP
from dlib.recipes import halving as recipes
from toy_data import distil, gmm5

WALKS = {
    name: levels(schedule, 8, "time", end="clean", t_min=max(schedule.t_min, 1e-3))
    for name, schedule in SCHEDULES.items()
} | {"grid's end": levels(vp(), 8, "karras")}
X = normals(64, 2)


def teacher_on(name):
    return exact(appendix_a(), SCHEDULES.get(name, vp()))


def ddim(model, x, a, b):
    said = model(x, a)
    return b.alpha * said.x0 + b.sigma * said.eps


@pytest.mark.parametrize("name", WALKS)
def test_one_step_with_the_target_lands_where_two_steps_land(name):
    """And the target is the paper's (z − ρx)/(α_c − ρα_a), which divides by the step's length."""
    walk, model = WALKS[name], teacher_on(name)
    for k, (a, b, c) in enumerate(zip(walk[:-2:2], walk[1:-1:2], walk[2::2])):
        x = a.sigma * X
        aim = two_step_target(model, x, a, b, shares(walk)[k])
        there, rho = ddim(model, ddim(model, x, a, b), b, c), c.sigma / a.sigma
        eps = (x - a.alpha * aim) / a.sigma
        assert (c.alpha * aim + c.sigma * eps - there).abs().max() < 1e-10
        assert (aim - (there - rho * x) / (c.alpha - rho * a.alpha)).abs().max() < 1e-9


def test_the_target_in_numbers():
    """Data N(1, 1): the posterior mean at x is 1 + α(x − α). From noise, z = 1, by (α, σ) =
    (.6, .8) to (.8, .6): guesses 1 and 1.48, the point 1.568, and x̃ = 1.21.
    """
    data = Mixture(torch.ones(1), torch.ones(1, 1, dtype=F64), torch.ones(1))
    schedule = cosine()
    a = schedule.at(1.0)
    b, c = (schedule.at_lam(math.log(ratio)) for ratio in (0.6 / 0.8, 0.8 / 0.6))
    model, z = exact(data, schedule), torch.ones(1, 1, dtype=F64)
    assert shares([a, b, c]) == pytest.approx([0.4375])
    assert two_step_target(model, z, a, b, 0.4375).item() == pytest.approx(1.21, abs=1e-12)
    assert ddim(model, ddim(model, z, a, b), b, c).item() == pytest.approx(1.568, abs=1e-12)


def test_a_perfect_student_s_steps_are_twice_as_many_of_its_teacher():
    """Whatever the data, with labels and in float32; and the loss of it is 0."""
    for name in ("vp", "cosine", "flow", "discrete"):
        walk, model = WALKS[name], teacher_on(name)
        ours, theirs = sample(halved(model, walk), X, walk[::2]), sample(model, X, walk)
        assert (ours - theirs).abs().max() < 1e-12
        loss = progressive(halved(model, walk), model, Batch(X), Draw(0), levels=walk)
        assert loss.value < 1e-24
    label = torch.arange(64) % 3
    mixture = appendix_a()
    labelled = Mixture(mixture.weights, mixture.means, mixture.stds, torch.arange(3))
    model, x, walk = exact(labelled, vp()), X.float(), levels(vp(), 8, end="clean")
    ours = sample(halved(model, walk), x, walk[::2], cond=label)
    assert (ours - sample(model, x, walk, cond=label)).abs().max() < 1e-5
    apart = progressive(model, model, Batch(X, label), Draw(0), levels=walk).value
    assert apart > 1e-4, "a teacher is not its own student"
    assert (
        progressive(halved(model, walk), model, Batch(X, label), Draw(0), levels=walk).value
        < 1e-24
    )


def straight_line_student(teacher, walk):
    """At each of its levels the best x̃ ≈ p + q·x of a batch, by least squares."""
    fits, x0, eps = {}, 0.7 + 0.5 * normals(40, 1, seed=1), normals(40, 1, seed=2)
    for k, (a, b) in enumerate(zip(walk[:-2:2], walk[1:-1:2])):
        x = a.alpha * x0 + a.sigma * eps
        aim = two_step_target(teacher, x, a, b, shares(walk)[k])
        fits[a.t] = torch.linalg.lstsq(torch.cat([torch.ones_like(x), x], 1), aim).solution

    def net(x, t, cond):
        p, q = fits[t[0].item()]
        return p + q * x

    return Denoiser(net, teacher.schedule, "x0")


def test_on_gaussian_data_straight_lines_halve_to_one_step_without_error():
    """N(m, c²): at every stage the N-step student is the 2N-step teacher, so that the last is
    the first teacher's walk, which is a product of known factors.
    """
    m, c, schedule = 0.7, 0.5, cosine()
    data = Mixture(torch.ones(1), torch.tensor([[m]], dtype=F64), torch.tensor([c], dtype=F64))
    model, z = exact(data, schedule), normals(50, 1)
    walk = levels(schedule, 64, "time", end="clean")
    centre, factor = z * 0, torch.ones(1, dtype=F64)
    for a, b in zip(walk, walk[1:]):  # x − αm shrinks by a number: DDIM is linear here
        size = a.alpha**2 * c**2 + a.sigma**2
        factor = factor * (b.alpha * a.alpha * c**2 + b.sigma * a.sigma) / size
        centre = centre * 0 + b.alpha * m
    while len(walk) > 2:
        student = straight_line_student(model, walk)
        apart = sample(student, z, walk[::2]) - sample(model, z, walk)
        assert apart.abs().max() < 1e-12
        model, walk = student, walk[::2]
    assert (sample(model, z, walk) - (centre + factor * z)).abs().max() < 1e-12
    flow_map = m + c * z  # what infinitely many steps would make
    assert 1e-3 < (sample(model, z, walk) - flow_map).abs().max() < 0.1


def test_the_loss_is_the_paper_s_in_v():
    """Row by row: ‖ṽ − v_θ‖² with ṽ = (z'' − (σ''σ + α''α) z)/(σ''α − α''σ), on a variance
    preserving schedule, the step drawn before the noise.
    """
    schedule, walk = vp(), levels(vp(), 8, "time", end="clean")
    teacher, student = exact(appendix_a(), schedule), exact(gaussian(0.4, 2), schedule)
    x0 = appendix_a().sample(32, Draw(5))[0]
    draw, rows = Draw(7), []
    steps, noise = draw.integers(4, 32), draw.normal(x0)
    for i, one, eps in zip(steps.tolist(), x0, noise):
        a, b, c = walk[2 * i : 2 * i + 3]
        z = (a.alpha * one + a.sigma * eps)[None]
        there = ddim(teacher, ddim(teacher, z, a, b), b, c)
        v = (there - (c.sigma * a.sigma + c.alpha * a.alpha) * z) / (
            c.sigma * a.alpha - c.alpha * a.sigma
        )
        rows.append((student(z, a).v - v).square().mean())
    found = progressive(student, teacher, Batch(x0), Draw(7), levels=walk, weight=weights.v)
    assert found.value.item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-10)
    assert found.metrics["loss"] == found.value
    given = Batch(x0, noise=noise)
    again = progressive(student, teacher, given, Draw(7), levels=walk, weight=weights.v)
    assert again.value.item() == pytest.approx(found.value.item(), rel=1e-12)


def trainable(schedule, seed=0, dim=2):
    torch.manual_seed(seed)
    net = MLP(dim, width=16, depth=1)
    torch.nn.init.normal_(net.leave.weight, std=0.3)
    return Denoiser(net, schedule, "v")


@pytest.mark.parametrize("steps", [1, 2])
def test_the_noise_loss_teaches_nothing_where_there_is_no_data(steps):
    """At α = 0 its weight is 0: at one step there is no gradient at all. Of two steps the
    first, from noise, has none.
    """
    schedule = cosine()
    walk, model = levels(schedule, 2 * steps, "time", end="clean"), exact(gmm5(), schedule)
    batch = Batch(gmm5().sample(128, Draw(0))[0].float())
    at_top = Draw(0).integers(steps, 128) == 0
    for weight, learns in (("eps", False), ("truncated_snr", True), ("v", True), ("x0", True)):
        student = trainable(schedule)
        seen = []
        net = student.net
        asks = Denoiser(lambda x, t, cond: seen.append(net(x, t)) or seen[-1], schedule, "v")
        value = progressive(
            asks, model, batch, Draw(0), levels=walk, weight=getattr(weights, weight)
        ).value
        (grad,) = torch.autograd.grad(value, seen[0])
        assert bool(grad[at_top].abs().max() > 1e-4) == learns
        assert learns or not grad[at_top].any()
        assert steps == 1 or grad[~at_top].abs().max() > 0


def test_the_target_keeps_its_digits_in_short_steps():
    """With 8192 steps, the paper's first teacher, float32 is as good as its inputs."""
    schedule = vp()
    walk, model = levels(schedule, 8192, "time", end="clean"), exact(appendix_a(), schedule)
    batch = lambda dtype: Batch(appendix_a().sample(64, Draw(3))[0].to(dtype))
    student = exact(gaussian(0.4, 2), schedule)
    one, two = (
        progressive(student, model, batch(dtype), Draw(0), levels=walk, weight=weights.x0).value
        for dtype in (torch.float32, F64)
    )
    assert one.dtype == torch.float32 and one.item() == pytest.approx(two.item(), rel=1e-4)
    for k, (a, b) in enumerate(zip(walk[:-2:2], walk[1:-1:2])):
        if k % 500 == 0:
            x = a.alpha * batch(F64).x0 + a.sigma * X
            wide = two_step_target(model, x, a, b, shares(walk)[k])
            narrow = two_step_target(model, x.float(), a, b, shares(walk)[k])
            assert (wide - narrow).abs().max() < 1e-4


def test_gradients_and_calls_are_the_student_s_alone():
    schedule, walk = vp(), levels(vp(), 8, end="clean")
    student, teacher = trainable(schedule), trainable(schedule, seed=1)
    ours, theirs = counted(student), counted(teacher)
    progressive(ours, theirs, Batch(X.float()), Draw(0), levels=walk).value.backward()
    assert (ours.net.calls, theirs.net.calls) == (1, 2)
    assert all(p.grad is None for p in teacher.net.parameters())
    assert all(p.grad is not None for p in student.net.parameters() if p.requires_grad)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    from full_scale.data.draws import step_draws

    walk, model = levels(vp(), 8, end="clean"), exact(appendix_a(), vp())
    student, x0 = exact(gaussian(0.6), vp()), normals(16, 2)
    value = lambda rows: (
        progressive(student, model, Batch(x0[rows]), step_draws(0, 3, rows), levels=walk).value
    )
    parts = [value(range(k, k + 4)) for k in range(0, 16, 4)]
    assert torch.stack(parts).mean().item() == pytest.approx(value(range(16)).item(), rel=1e-12)


def test_knowledge_of_a_gaussian_s_flow_map_has_no_loss():
    """N(m, c²): Φ(z) = m + c (z − α₁m)/√(α₁²c² + σ₁²), and the map itself is the student."""
    m, c, schedule = 0.7, 0.5, vp()
    top, z = schedule.at(1.0), normals(40, 3)
    ends = m + c * (z - top.alpha * m) / math.sqrt(top.alpha**2 * c**2 + top.sigma**2)
    data = Mixture(torch.ones(1), torch.full((1, 3), m, dtype=F64), torch.tensor([c], dtype=F64))
    walked = sample(exact(data, schedule), z, levels(schedule, 4000, "time", end="clean"))
    assert (walked - ends).abs().max() < 5e-3  # DDIM's error falls as 1/N
    student = Denoiser(
        lambda x, t, cond: (
            m + c * (x - top.alpha * m) / math.sqrt(top.alpha**2 * c**2 + top.sigma**2)
        ),
        schedule,
        "x0",
    )
    assert knowledge(student, Batch(ends, noise=z), Draw(0)).value < 1e-24
    # beside fresh noise, as the lecture's algorithms have it, the map is as far as two samples
    fresh = knowledge(student, Batch(ends, noise=normals(40, 3, seed=1)), Draw(0)).value
    assert c**2 < fresh < 3 * c**2  # 2c² on average
    off = knowledge(student, Batch(ends + torch.tensor([1.0, 0.0, 2.0]), noise=z), Draw(0))
    assert off.value.item() == pytest.approx(5 / 3) and off.metrics["loss"] == off.value


def test_knowledge_shows_the_student_noise_of_the_level_s_size():
    seen = {}
    for schedule in (vp(), edm(), discrete(scaled_linear())):
        net = lambda x, t, cond: seen.setdefault(schedule.name, (x, t))[0]
        pairs = Batch(torch.zeros(4, 2), noise=torch.ones(4, 2))
        knowledge(Denoiser(net, schedule, "x0"), pairs, Draw(0), start=0.9)
        level = schedule.at(0.9)
        x, t = seen[schedule.name]
        assert x[0, 0].item() == pytest.approx(math.hypot(level.alpha, level.sigma), rel=1e-6)
        assert t.tolist() == pytest.approx([0.9] * 4)


SLIPS = [
    ("shares", "a.lam - c.lam", "a.lam - b.lam", lambda: check_walks()),
    ("shares", "math.expm1(b.lam - c.lam)", "-(b.lam - c.lam)", lambda: check_walks()),
    ("two_step_target", "first.mix(b.alpha, b.sigma), b", "x, b", lambda: check_walks()),
    ("two_step_target", "first.x0, second.x0", "second.x0, first.x0", lambda: check_walks()),
    (
        "progressive",
        "torch.stack([2 * i, 2 * i + 1])",
        "torch.stack([2 * i, 2 * i])",
        lambda: test_the_loss_is_the_paper_s_in_v(),
    ),
    (
        "progressive",
        "start.alpha * x0 + start.sigma * noise",
        "start.alpha * x0 + middle.sigma * noise",
        lambda: test_the_loss_is_the_paper_s_in_v(),
    ),
    (
        "progressive",
        "weight(start, student.schedule)",
        "weight(middle, student.schedule)",
        lambda: test_the_loss_is_the_paper_s_in_v(),
    ),
    (
        "progressive",
        "flatten(1).mean(1)",
        "flatten(1).sum(1)",
        lambda: test_the_loss_is_the_paper_s_in_v(),
    ),
    (
        "progressive",
        "torch.no_grad()",
        "torch.enable_grad()",
        lambda: test_gradients_and_calls_are_the_student_s_alone(),
    ),
    (
        "knowledge",
        "math.hypot(level.alpha, level.sigma) * batch.noise",
        "level.sigma * batch.noise",
        lambda: test_knowledge_shows_the_student_noise_of_the_level_s_size(),
    ),
]


def check_walks():
    for name in ("vp", "cosine", "grid's end"):
        test_one_step_with_the_target_lands_where_two_steps_land(name)


@pytest.mark.parametrize("name, old, new, check", SLIPS, ids=[f"{s[0]}-{s[2]}" for s in SLIPS])
def test_a_slip_is_caught(monkeypatch, name, old, new, check):
    check()
    wrong = mutant(getattr(halving, name), old, new)
    monkeypatch.setattr(halving, name, wrong)
    monkeypatch.setitem(globals(), name, wrong)
    with pytest.raises(AssertionError):
        check()


WALK = levels(cosine(), 8, "time", end="clean")
NESTED = "not every second of 8: use 'sd_trailing', 'time', 'lam', 'karras' or 'arctan'"
NOISY = Denoiser(lambda x, t, cond: x, cosine(), "eps")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: progressive(*BOTH, Batch(X), Draw(0), levels=WALK[:4]), "4 levels, wanted 2N"),
        (lambda: progressive(*BOTH, Batch(X), Draw(0), levels=WALK[:1]), "1 levels, wanted 2N"),
        (lambda: progressive(*BOTH, Batch(X), Draw(0), levels=WALK[::-1]), "from noise to data"),
        (
            lambda: progressive(*BOTH, Batch(X, noise=normals(3, 2)), Draw(0), levels=WALK),
            r"noise has shape \(3, 2\)",
        ),
        (
            lambda: progressive(NOISY, BOTH[1], Batch(X), Draw(0), levels=WALK),
            "predicts eps says nothing about x₀ at t = 1",
        ),
        (lambda: progressive(BOTH[0], NOISY, Batch(X), Draw(0), levels=WALK), "says nothing"),
        (
            lambda: progressive(BOTH[0], OTHER, Batch(X), Draw(0), levels=WALK),
            r"progressive: .* different schedules, cosine and vp: pass dlib.converted",
        ),
        (lambda: knowledge(BOTH[0], Batch(X), Draw(0)), "learns from pairs"),
        (lambda: knowledge(BOTH[0], Batch(X, noise=X[:3]), Draw(0)), "learns from pairs"),
        (lambda: knowledge(NOISY, Batch(X, noise=X), Draw(0)), "says nothing about x₀"),
        (
            lambda: knowledge(BOTH[0], Batch(X, noise=X), Draw(0), start=0.0),
            "no noise at start = 0",
        ),
        (lambda: halved(BOTH[1], WALK)(X, cosine().at(0.3)), "halved: asked at t = 0.3"),
        (lambda: halved(BOTH[1], WALK[:4]), "halved: 4 levels, wanted 2N"),
        (lambda: shares(WALK[:4]), "shares: 4 levels, wanted 2N"),
        (lambda: shares(WALK[::-1]), "shares: the levels must go from noise to data"),
        (
            lambda: two_step_target(BOTH[1], X[:2], *WALK[:2], torch.ones(2)),
            r"share has shape \(2,\) for x \(2, 2\)",
        ),
        (lambda: recipes.progressive(vp(), weight="snr"), "no weight 'snr'; there are"),
        (lambda: recipes.progressive(vp(), spacing="sd_leading"), NESTED),
        (lambda: recipes.progressive(vp(), steps=0), "0 steps"),
    ],
)
def test_bad_input_is_told_what_to_type(call, says):
    with pytest.raises(ValueError, match=says):
        call()


BOTH = exact(gmm5(), cosine()), exact(gmm5(), cosine())
OTHER = exact(gmm5(), vp())


# recipes


def test_the_recipe_is_the_loss_on_its_sampler_s_levels():
    schedule = SCHEDULES["discrete"]
    student, teacher = exact(gaussian(0.5, 2), schedule), exact(appendix_a(), schedule)
    recipe = recipes.progressive(schedule, steps=4, weight="v")
    walk = levels(schedule, 8, "sd_trailing", end="clean")
    assert recipe.sampler.levels(schedule) == walk[::2]
    roles = {"student": student, "teacher": teacher}
    found = recipe.phases[0].loss(roles, Batch(X), Draw(0)).value
    want = progressive(student, teacher, Batch(X), Draw(0), levels=walk, weight=weights.v).value
    assert found == want
    for spacing in ("time", "lam", "arctan", "karras", "lcm", "sd_trailing"):
        fine = recipes.progressive(vp(), steps=4, spacing=spacing).sampler.levels(vp())
        assert len(fine) == 5 and fine[-1] is CLEAN


def test_a_first_round_folds_the_guidance_in():
    schedule, label, null = vp(), torch.arange(64) % 3, torch.tensor(-1)
    mixture = appendix_a()
    data = Mixture(mixture.weights, mixture.means, mixture.stds, torch.arange(3))
    model = exact(data, schedule)
    walk = levels(schedule, 8, "time", end="clean")
    two = recipes.progressive(schedule, null, steps=4, spacing="time", omega=2.0)
    perfect = halved(guided(model, 2.0, null), walk)
    loss = lambda recipe, student: recipe.phases[0].loss(
        {"student": student, "teacher": model}, Batch(X, label), Draw(0)
    )
    assert loss(two, perfect).value < 1e-20 < 1e-4 < loss(two, halved(model, walk)).value
    plain = recipes.progressive(schedule, None, steps=4, spacing="time")
    assert loss(plain, halved(model, walk)).value < 1e-20


@pytest.mark.parametrize("recipe", [recipes.knowledge, recipes.progressive])
def test_settings_are_keywords_of_plain_types(recipe):
    settings = list(inspect.signature(recipe).parameters.values())[2:]
    assert settings and all(
        p.kind is p.KEYWORD_ONLY and isinstance(p.default, (int, float, str)) for p in settings
    )


def test_a_small_network_halves_twice():
    """Four steps to one: N(0, ½²) has the factor of four DDIM steps, which one step must
    learn. The untrained student, and one DDIM step of the teacher, are far from it.
    """
    schedule, data = cosine(), lambda step: Batch(0.5 * Draw(step).normal((128, 1)))
    model = exact(Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([0.5])), schedule)
    z, walk = Draw(9).normal((256, 1)), levels(schedule, 4, "time", end="clean")
    want = sample(model, z, walk)
    torch.manual_seed(0)
    student = Denoiser(MLP(1, width=32, depth=1), schedule, "v")
    teacher = model
    for steps in (2, 1):
        recipe = recipes.progressive(schedule, steps=steps, spacing="time")
        teacher = student = distil(recipe, student, teacher, data, 150)
    made = recipe.sampler(student, z)
    one_step = sample(model, z, [walk[0], walk[-1]])
    off = lambda x: ((x - want).square().mean() / want.square().mean()).sqrt()
    assert off(made) < 0.15 and off(one_step) > 0.9


def test_a_small_network_learns_the_ends_of_walks():
    schedule = cosine()
    model = exact(Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([0.5])), schedule)
    walk = levels(schedule, 8, "time", end="clean")

    def pairs(step):
        z = Draw(step).normal((128, 1))
        return Batch(sample(model, z, walk), noise=z)

    torch.manual_seed(0)
    net = Denoiser(MLP(1, width=32, depth=1), schedule, "v")
    recipe = recipes.knowledge(schedule)
    assert recipe.reads == "pairs"
    student, test = distil(recipe, net, net, pairs, 150), pairs(10_000)
    off = (
        recipe.sampler(student, test.noise) - test.x0
    ).square().mean() / test.x0.square().mean()
    assert off.sqrt() < 0.15


def test_the_grids_of_a_round_are_nested():
    """What the recipe promises of the grid of Stable Diffusion's indices."""
    schedule = discrete(scaled_linear())
    for steps in (1, 2, 4, 8, 16, 32, 50):
        fine, coarse = (grid(schedule, n, "sd_trailing") for n in (2 * steps, steps))
        assert torch.equal(fine[::2], coarse)
    for spacing in re.findall(r"'(\w+)'", NESTED):  # what the error offers is taken
        assert recipes.progressive(schedule, spacing=spacing).sampler.spacing == spacing
