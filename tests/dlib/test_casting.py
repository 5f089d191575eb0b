"""Who plays, who moves, and what is said when somebody does not: recipes as data."""

from dataclasses import replace

import pytest
import torch
from truth import line

from dlib import Batch, Cast, Denoiser, Draw, Ema, Judge, Loss, Part, Phase, Recipe, Roles
from dlib import Sampler, cast, exact, flow, perform, vp
from dlib.losses.adversarial import held
from dlib.nets import MLP
from dlib.recipes import METHODS

FLOW = flow()
STUDENT, TEACHER, MEAN = Part("copy"), Part("teacher"), Part("mean")


def toy(seed=0):
    torch.manual_seed(seed)
    return Denoiser(MLP(2, width=8, depth=1), FLOW, "velocity")


def pull(role):
    """A loss that pulls a role's first weight down, whatever else it asks for."""

    def value(roles, batch, draw):
        found = roles[role].net.leave.weight.sum()
        return Loss(found, {"loss": found.detach()})

    return value


def ones(step):
    return Batch(torch.ones(4, 2))


def sgd(made, *roles):
    return {role: torch.optim.SGD(made.roles[role].net.parameters(), 0.1) for role in roles}


@pytest.mark.parametrize(
    ("phases", "parts", "says"),
    [
        (["student"], {}, "trains 'student', which nobody casts.*add 'student': Part"),
        (["target"], {"student": STUDENT, "target": MEAN}, "'target', whose part is 'mean'"),
        (["student"], {"student": STUDENT, "fake": STUDENT}, "'fake' is a part 'copy' that no"),
        (["student"], {"student": STUDENT, "d": Part("heads", "fake")}, "no phase trains"),
        (
            ["student"],
            {"student": STUDENT, "old": Part("mean", "fake")},
            "of 'fake', which nobody",
        ),
        (
            ["student"],
            {"student": STUDENT, "teacher": TEACHER, "old": Part("mean", "teacher")},
            "average of 'teacher', which no phase trains",
        ),
        (
            ["student", "d"],
            {"student": STUDENT, "d": Part("heads"), "old": Part("mean", "d")},
            "'old' is an average of 'd', which are heads",
        ),
        (
            ["student", "d"],
            {"student": STUDENT, "reward": Part("given"), "d": Part("heads", "reward")},
            "'d' are heads on 'reward', which has no network",
        ),
        (
            ["student", "d", "e"],
            {"student": STUDENT, "d": Part("heads"), "e": Part("heads", "d")},
            "'e' are heads on 'd', which has no network",
        ),
        (["student"], {"student": STUDENT, "ema": MEAN}, 'a part is named "ema"'),
        (["student"], {"student": STUDENT, "ema": TEACHER}, 'a part is named "ema"'),
    ],
)
def test_a_part_that_cannot_be_played_is_named(phases, parts, says):
    with pytest.raises(ValueError, match=says):
        Recipe(tuple(Phase(role, pull(role)) for role in phases), parts)


@pytest.mark.parametrize("of", ["student", "teacher", "target"])
def test_heads_may_read_every_network_of_the_teacher_s_kind(of):
    phases = tuple(Phase(role, pull(role)) for role in ("student", "d"))
    parts = {"student": STUDENT, "teacher": TEACHER, "target": MEAN, "d": Part("heads", of)}
    assert Recipe(phases, parts).play("heads") == ("d",)


def test_phases_epochs_groups_and_pools_are_checked():
    one, parts = (Phase("student", pull("student")),), {"student": STUDENT}
    with pytest.raises(ValueError, match="Phase: no roles"):
        Phase((), pull("student"))
    with pytest.raises(ValueError, match="Phase: .*comes twice"):
        Phase(("student", "fake", "student"), pull("student"))
    with pytest.raises(ValueError, match="Part: play = 'maen'; there are copy, teacher, mean"):
        Part("maen")
    for more, says in (
        ({"reads": "pictres"}, "reads = 'pictres'; there are pictures, texts"),
        ({"slopes": ("studnt",)}, r"slopes of \['studnt'\], which nobody casts"),
        ({"epochs": 0}, "epochs = 0"),
        ({"group": 0}, "group = 0"),
        ({"pool": lambda memos, gather: memos}, "pool without before"),
    ):
        with pytest.raises(ValueError, match=says):
            Recipe(one, parts, **more)
    for given, says in (
        ({"solver": "dimm"}, "no solver 'dimm'; there are ancestral, ddim"),
        ({"spacing": "lambda"}, "spacing = 'lambda'"),
        ({"end": "data"}, "end = 'data'"),
        ({"steps": 0}, "steps = 0"),
        ({"times": (1.0, 0.5)}, "wanted 5 of them"),
        ({"times": (0.1, 0.2, 0.3, 0.4, 0.5)}, "from noise to data"),
    ):
        with pytest.raises(ValueError, match=f"Sampler: .*{says}"):
            Sampler(**{"solver": "ddim", "spacing": "lam", "steps": 4} | given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"starts": {"studnet": None}}, r"starts for \['studnet'\].*'copy' are \['student'\]"),
        ({"decays": {"targte": 0.9}}, r"decays for \['targte'\].*'mean' are \['target'\]"),
        ({"given": {}}, r"nobody plays \['reward'\]"),
        ({"given": {"reward": 1, "prize": 2}}, r"given for \['prize'\]"),
        ({"teacher": None}, r"\['teacher', 'student'\] need a teacher"),
        (
            {"teacher": exact(line(), vp())},
            "'student' starts as a copy .* no weights: pass starts",
        ),
    ],
)
def test_what_is_handed_in_and_has_no_part_is_named(given, says):
    parts = {"student": STUDENT, "teacher": TEACHER, "target": MEAN, "reward": Part("given")}
    recipe = Recipe((Phase("student", pull("student")),), parts)
    handed = {"teacher": toy(), "given": {"reward": len}} | given
    with pytest.raises(ValueError, match=says):
        cast(recipe, handed.pop("teacher"), **handed)


@pytest.mark.parametrize(
    "parts",
    [{"net": STUDENT}, {"net": STUDENT, "student": TEACHER}],
    ids=["nobody", "the teacher itself"],
)
def test_an_average_of_a_student_that_is_not_trained_is_refused(parts):
    recipe = Recipe((Phase("net", pull("net")),), parts)
    says = r"ema = 0.9 averages the role 'student', and .* trains \['net'\], .*leave ema out"
    with pytest.raises(ValueError, match=says):
        cast(recipe, toy(), ema=0.9)
    assert not cast(recipe, toy()).means


def test_a_role_that_a_loss_asks_for_or_forgets_is_named():
    asks = Recipe((Phase("student", pull("fake")),), {"student": STUDENT})
    made = cast(asks, toy())
    with pytest.raises(ValueError, match="asks for the role 'fake', which nobody plays"):
        perform(asks, made, sgd(made, "student"), ones, 1, Draw(0))
    forgets = Recipe((Phase("student", pull("student")),), {"student": STUDENT, "old": TEACHER})
    made = cast(forgets, toy())
    with pytest.raises(ValueError, match=r"has asked for \['old'\]: take it out"):
        perform(forgets, made, sgd(made, "student"), ones, 1, Draw(0))


def test_an_average_moves_when_its_role_moved_and_only_then():
    """every = 3, seven steps: three moves, by Ema's formula; a decay of .9 is no .9³."""
    parts = {"student": STUDENT, "fake": STUDENT, "slow": MEAN, "quick": Part("mean", "fake")}

    def both(roles, batch, draw):
        assert roles["slow"] and roles["quick"]
        return pull("fake")(roles, batch, draw)

    phases = Phase("student", pull("student"), every=3), Phase("fake", both)
    recipe = Recipe(phases, parts)
    made = cast(recipe, toy(), decays={"slow": 0.15, "quick": 0.15}, ema=0.5)
    start = made.roles["student"].net.leave.weight.detach().clone()
    perform(recipe, made, sgd(made, "student", "fake"), ones, 7, Draw(0))
    counts = {name: mean.count for name, (_, mean) in made.means.items()}
    assert counts == {"slow": 3, "quick": 7, "ema": 3}
    live, mean = start.clone(), start.clone()
    for k in range(3):
        live -= 0.1
        decay = min(0.15, (1 + k) / (10 + k))
        mean = decay * mean + (1 - decay) * live
    torch.testing.assert_close(made.means["slow"][1].net.leave.weight, mean)


def test_a_mean_without_decay_is_the_live_role_without_gradient():
    recipe = Recipe(
        (Phase("student", pull("student")),), {"student": STUDENT, "target": Part("mean")}
    )
    made = cast(recipe, toy())
    x, level = torch.ones(1, 2), FLOW.at(0.5)
    made.roles["student"].net.leave.weight.data += 1
    assert not made.roles["target"](x, level).raw.requires_grad and not made.means
    assert torch.equal(made.roles["target"](x, level).raw, made.roles["student"](x, level).raw)


def test_the_average_of_a_twin_shares_its_base():
    from dlib.lora import twin

    net = twin(MLP(2, width=8, depth=1), rank=2)
    mean = Ema(net, 0.5)
    assert mean.net.leave.weight is net.leave.weight
    assert set(mean.weights) == {name for name, p in net.named_parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="no weight of this network wants a gradient"):
        Ema(MLP(2).requires_grad_(False))


class Opinion(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def forward(self, features):
        return self.layer(features[0])


def judged(on):
    return Judge(on, [on.net.enter], Opinion())


def test_heads_learn_with_their_backbone_in_one_pass_and_are_held_with_it():
    """One phase for fake and heads; in the student's phase neither gets a gradient, and x does."""
    parts = {"student": STUDENT, "fake": STUDENT, "judge": Part("heads", "fake")}
    seen = []

    def student(roles, batch, draw):
        x = roles["student"](batch.x0, FLOW.at(0.5)).x0
        value = held(roles["judge"])(x, torch.full((4,), 0.5), None).mean()
        (by_x,) = torch.autograd.grad(value, x, retain_graph=True)
        seen.append(by_x.abs().max().item())
        return Loss(value, {})

    def fake(roles, batch, draw):
        time = torch.full((4,), 0.5)
        value = roles["judge"](batch.x0, time, None).mean()
        return Loss(value + roles["fake"].net(batch.x0, time, None).mean(), {})

    recipe = Recipe((Phase("student", student), Phase(("fake", "judge"), fake)), parts)
    torch.manual_seed(1)
    made = cast(recipe, toy(), heads=judged)
    for model in (made.roles["student"], made.roles["fake"]):
        torch.nn.init.normal_(model.net.leave.weight)
    nets = {role: made.roles[role].net for role in parts}
    optims = sgd(made, "student", "fake", "judge")
    grads = []
    before = optims["student"].step
    optims["student"].step = lambda: (
        grads.append({r: [p.grad for p in n.parameters()] for r, n in nets.items()}),
        before(),
    )
    perform(recipe, made, optims, ones, 1, Draw(0))
    assert seen[0] > 0 and any(g is not None for g in grads[0]["student"])
    assert all(g is None for role in ("fake", "judge") for g in grads[0][role])
    for role in ("fake", "judge"):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in nets[role].parameters())


def test_rollouts_are_pooled_and_gone_over_in_parts():
    """Two epochs of two parts: the gradient of a step is the parts' sum, and `before` has none."""
    calls = []

    def roll(roles, batch, draw):
        calls.append(("roll", torch.is_grad_enabled()))
        return {"reward": batch.x0[:, 0] * roles["reward"](1.0)}

    def pool(memos, gather):
        rows, mine = gather(torch.cat([memo["reward"] for memo in memos]))
        calls.append(("pool", rows.tolist()))
        return [{"better": (rows - rows.mean())[mine]}]

    def student(roles, batch, draw):
        weight = roles["student"].net.leave.weight
        part = lambda k: Loss(weight.sum() * batch.memo["better"][k], {"k": torch.tensor(k / 1)})
        return [lambda k=k: part(k) for k in (0, 1)]

    recipe = Recipe(
        (Phase("student", student),),
        {"student": STUDENT, "reward": Part("given")},
        before=roll,
        pool=pool,
        epochs=2,
    )
    made = cast(recipe, toy(), given={"reward": lambda x: 2 * x})
    start = made.roles["student"].net.leave.weight.detach().clone()
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]])
    history = perform(recipe, made, sgd(made, "student"), lambda step: Batch(rows), 1, Draw(0))
    assert calls == [("roll", False), ("pool", [2.0, 4.0, 12.0])]
    # 0.1 · two epochs · (−4 − 2): the advantages of the first two rows
    moved = made.roles["student"].net.leave.weight.detach() - start
    torch.testing.assert_close(moved, torch.full_like(moved, 1.2))
    assert history["student/k"] == [0.5]


def test_a_batch_must_hold_what_the_recipe_reads():
    one, parts, noise = (
        (Phase("student", pull("student")),),
        {"student": STUDENT},
        torch.zeros(4, 2),
    )
    for reads, more, says in (
        ("pairs", {}, "reads pairs, and the batch has no noise"),
        ("preferences", {}, "has no `other`"),
        ("pictures", {"other": noise}, "has an `other`"),
    ):
        recipe = Recipe(one, parts, reads=reads)
        made = cast(recipe, toy())
        batch = Batch(torch.ones(4, 2), **more)
        with pytest.raises(ValueError, match=says):
            perform(recipe, made, sgd(made, "student"), lambda step: batch, 1, Draw(0))


READS_TEXTS = [name for name, make in METHODS.items() if make(vp(), None).reads == "texts"]


def test_the_recipes_that_read_texts_are_known():
    assert set(READS_TEXTS) >= {"reward_gradient", "ddpo", "flow_grpo", "nft", "sds"}


@pytest.mark.parametrize("name", READS_TEXTS)
def test_a_recipe_that_draws_its_own_noise_refuses_a_batch_s(name):
    recipe = METHODS[name](vp(), None)
    given = {"reward": lambda x0, cond: x0[:, 0]} if "reward" in recipe.parts else None
    made = cast(recipe, replace(toy(), schedule=vp(), predicts="v"), given=given)
    data = lambda step: Batch(torch.ones(4, 2), noise=torch.zeros(4, 2))
    with pytest.raises(
        ValueError, match="reads texts and draws its noise itself, .*leave it out"
    ):
        perform(recipe, made, sgd(made, *recipe.trained), data, 1, Draw(0))


def test_the_sampler_is_sample_on_its_own_levels():
    from dlib import CLEAN, sample, solvers

    model, x = exact(line(), vp()), Draw(0).normal((5, 1), torch.float64)
    ours = Sampler("dpm_solver_pp_2m", "lam", 6)
    levels = ours.levels(model.schedule)
    assert levels[-1] is CLEAN and len(levels) == 7
    want = sample(model, x, levels, solvers.dpm_solver_pp_2m)
    assert torch.equal(ours(model, x), want)
    jumps = Sampler("ddim", "pcm", 2, "grid", times=(1.0, 0.5, 0.01))
    assert [level.t for level in jumps.levels(vp())] == [1.0, 0.5, 0.01]
    assert jumps.facts["times"] == [1.0, 0.5, 0.01] and "wrap" not in jumps.facts
    shifted = replace(ours, wrap=lambda model: replace(model, predicts="v"))
    assert torch.equal(shifted(replace(model, predicts="eps"), x), want)


def test_a_plain_cast_of_roles_will_do():
    model = toy()
    recipe = Recipe((Phase("student", pull("student")),), {"student": STUDENT})
    made = Cast(Roles(student=model))
    found = perform(recipe, made, sgd(made, "student"), ones, 2, Draw(0))
    assert found["student/loss"][1] < found["student/loss"][0]
    with pytest.raises(ValueError, match=r"no optimiser for \['student'\]"):
        perform(recipe, made, {}, ones, 1, Draw(0))


@pytest.mark.parametrize("role", ["teacher", "fake"])
def test_an_optimiser_of_a_role_that_nobody_trains_is_named(role):
    recipe = Recipe(
        (Phase("student", pull("student")),), {"student": STUDENT, "teacher": TEACHER}
    )
    made = cast(recipe, toy())
    optims = sgd(made, "student")
    says = rf"an optimiser for \['{role}'\], and the recipe trains \['student'\]: leave it out"
    with pytest.raises(ValueError, match=says):
        perform(recipe, made, optims | {role: optims["student"]}, ones, 1, Draw(0))


def test_an_optimiser_of_another_network_is_refused():
    """The role would never move; one of some of its weights will do."""
    recipe = Recipe((Phase("student", pull("student")),), {"student": STUDENT})
    made, other = cast(recipe, toy()), toy()
    optims = {"student": torch.optim.SGD(other.net.parameters(), 0.1)}
    with pytest.raises(ValueError, match="the optimiser for 'student' has none of its weights"):
        perform(recipe, made, optims, ones, 1, Draw(0))
    some = torch.optim.SGD(made.roles["student"].net.leave.parameters(), 0.1)
    assert perform(recipe, made, {"student": some}, ones, 1, Draw(0))


@pytest.mark.parametrize("roles", ["fake", ("student", "fake")])
def test_a_role_that_its_phase_s_loss_does_not_reach_is_named(roles):
    """It would never move, and nobody would say so."""
    phases = (Phase("student", pull("student")), Phase(roles, pull("student")))
    phases = phases if isinstance(roles, str) else phases[1:]
    recipe = Recipe(phases, {"student": STUDENT, "fake": STUDENT})
    made = cast(recipe, toy())
    before = [weight.clone() for weight in made.roles["fake"].net.parameters()]
    with pytest.raises(
        ValueError, match=r"does not reach the weights of 'fake'.*roles\['fake'\]"
    ):
        perform(recipe, made, sgd(made, "student", "fake"), ones, 1, Draw(0))
    for old, now in zip(before, made.roles["fake"].net.parameters(), strict=True):
        assert torch.equal(old, now)


def test_a_shared_draw_is_one_number_for_every_cut():
    import numpy as np

    from full_scale.data.draws import Draws, step_draws

    cuts = [step_draws(3, 5, rows) for rows in (range(4), range(2), range(2, 4))]
    assert len({tuple(draw.shared(1000) for _ in range(3)) for draw in cuts}) == 1
    many = [step_draws(3, step, [0]).shared(4) for step in range(400)]
    assert np.abs(np.bincount(many) - 100).max() < 5 * 100**0.5  # five standard errors
    assert step_draws(3, 5, [0]).shared(10**6) != step_draws(3, 5, [0]).integers(10**6, 1).item()
    assert cuts[0].copy().shared(10**6) == cuts[0].shared(10**6)
    with pytest.raises(ValueError, match="nothing to share"):
        Draws([Draw(0)]).shared(2)
    assert Draw(0).shared(7) == Draw(0).integers(7, 1).item()
