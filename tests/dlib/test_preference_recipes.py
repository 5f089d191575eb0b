"""The recipes of Part VII on the plane: they run, they say what they should, they learn."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from dlib import Batch, Denoiser, Draw, Recipe, cast, flow, perform, recipes, vp
from dlib.losses.preference import gaussian_kl
from dlib.nets import MLP
from dlib.recipes.preferences import opposed
from dlib.reward_tilts import Linear

REWARD = Linear(torch.tensor([1.0, 0.0]))
SMALL = {
    "reward_gradient": {"steps": 4, "last": 2, "deepest": 3, "omega": 0.0, "kl": 0.1},
    "ddpo": {"steps": 3, "omega": 0.0, "group": 4, "epochs": 2, "clip": 0.1, "kl": 0.1},
    "flow_grpo": {"steps": 4, "omega": 0.0, "group": 4, "window": 2, "kl": 0.1},
    "nft": {"steps": 3, "group": 4, "kl": 0.1},
    "dpo": {"beta": 100.0},
}


def network(schedule):
    torch.manual_seed(0)
    return Denoiser(MLP(2, 16, 1), schedule, "v")


def made(name, **more):
    schedule = flow() if name == "flow_grpo" else vp()
    recipe = getattr(recipes, name)(schedule, None, **(SMALL[name] | more))
    student = network(schedule)
    given = {"reward": REWARD} if "reward" in recipe.parts else None
    decays = {"old": 0.5} if "old" in recipe.parts else None
    actors = cast(recipe, student, given=given, decays=decays)
    return recipe, actors


def pair(step):
    draw = Draw(100 + step)
    other = draw.normal((8, 2)) if step >= 0 else None
    return Batch(draw.normal((8, 2)), other=other)


def data(recipe: Recipe):
    if recipe.reads == "preferences":
        return pair
    return lambda step: Batch(torch.zeros(8, 2))


def run(name, steps=2, **more):
    recipe, actors = made(name, **more)
    net = actors.roles["student"].net
    before = copy.deepcopy(net.state_dict())
    optim = torch.optim.SGD(net.parameters(), 1e-2)
    history = perform(recipe, actors, {"student": optim}, data(recipe), steps, Draw(0))
    moved = sum(float((v - before[k]).abs().sum()) for k, v in net.state_dict().items())
    return history, moved, net


@pytest.mark.parametrize("name", SMALL)
def test_every_recipe_runs_and_moves_its_student(name):
    history, moved, _ = run(name)
    assert moved > 0 and len(history["student/loss"]) == 2
    if name == "ddpo":  # the first epoch's ratio is 1, the second's hardly another
        assert history["student/ratio"][0] == pytest.approx(1, abs=0.05)
    if "reward" in made(name)[0].parts:
        assert len(history["student/reward"]) == 2
        told = {"student/kl", "student/anchor"} & {*history}
        assert told == {"student/anchor" if name == "nft" else "student/kl"}
        assert (name == "reward_gradient") == ("student/spread" in history)
        asked = ("reference" in made(name, kl=kl)[0].parts for kl in (0.1, 0.0))
        assert [*asked] == [True, name != "nft"]


@pytest.mark.parametrize("name", ["ddpo", "flow_grpo"])
def test_the_first_ratio_is_one(name):
    """The loss walks the same steps as the rollout: what DanceGRPO's users test first."""
    parts = rolled(*made(name))
    assert len(parts) == {"ddpo": 2, "flow_grpo": 2}[name]
    for part in parts:
        assert float(part().metrics["ratio"]) == pytest.approx(1, abs=1e-5)


def rolled(recipe, actors):
    """The parts of the first step's loss, after its rollout."""
    batch, draw = Batch(torch.zeros(8, 2), memo={}), Draw(0)
    with torch.no_grad():
        memos = [recipe.before(actors.roles, batch, draw)]
        batch.memo.update(recipe.pool(memos, lambda x: (x, slice(None)))[0])
    return recipe.phases[0].loss(actors.roles, batch, draw)


@pytest.mark.parametrize("name", ["ddpo", "flow_grpo"])
def test_the_divergence_that_is_told_is_that_of_all_trained_steps(name, monkeypatch):
    """In nats. A trainer averages the metrics of the two parts, of which each is a step."""
    each = []

    def kept(step, reference):
        found = gaussian_kl(step, reference)
        each.append(found.detach())
        return found

    monkeypatch.setattr("dlib.recipes.rewards.gaussian_kl", kept)
    recipe, actors = made(name)
    with torch.no_grad():
        actors.roles["student"].net.leave.bias.add_(0.1)
    told = torch.stack([part().metrics["kl"] for part in rolled(recipe, actors)]).mean()
    assert len(each) == 2 and min(float(nats.mean()) for nats in each) > 0
    assert float(told) == pytest.approx(float(sum(each).mean()), rel=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_the_negative_steps_the_other_way(name):
    """Without a divergence the first step of the negative is the positive's, turned around.
    DPO's and NFT's first steps from the reference, too.
    """
    SMALL_NAME = {k: v for k, v in SMALL[name].items() if k != "kl"}
    steps = []
    for negative in (False, True):
        schedule = flow() if name == "flow_grpo" else vp()
        more = {"kl": 0.0} if name != "dpo" else {}
        more |= {"epochs": 1} if name == "ddpo" else {}
        recipe = getattr(recipes, name)(
            schedule, None, **{**SMALL_NAME, **more}, negative=negative
        )
        given = {"reward": REWARD} if "reward" in recipe.parts else None
        decays = {"old": 0.5} if "old" in recipe.parts else None
        actors = cast(recipe, network(schedule), given=given, decays=decays)
        net = actors.roles["student"].net
        start = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
        optim = torch.optim.SGD(net.parameters(), 1e-3)
        perform(recipe, actors, {"student": optim}, data(recipe), 1, Draw(0))
        end = torch.cat([p.detach().flatten() for p in net.parameters()])
        steps.append(end - start)
    assert steps[0].abs().max() > 1e-7
    angle = torch.cosine_similarity(steps[0], steps[1], dim=0)
    if name == "nft":  # its denoising part has no sign, and is the same in both
        assert angle < 0.9
    else:
        assert angle < -0.999


def dpo_by_hand(student, reference, batch, draw, beta, face):
    """−log sigmoid of half of β times the gap of errors on ε or on the velocity, with x on a
    straight path, (1 − t) x₀ + t ε, whose velocity is ε − x₀.
    """
    t = (0.02 + 0.98 * draw.uniform(len(batch.x0)).double())[:, None]
    eps = draw.normal(batch.x0)

    def gap(x0):
        x = (1 - t) * x0 + t * eps
        errors = []
        for model in (student, reference):
            u = model(x, model.schedule.at(t.flatten(), like=x), None).velocity
            own = u - (eps - x0) if face == "velocity" else (1 - t) * u + x - eps
            errors.append(own.square().mean(1))
        return errors[0] - errors[1]

    return -logsigmoid(-0.5 * beta * (gap(batch.x0) - gap(batch.other))).mean()


@pytest.mark.parametrize(
    ("predicts", "weight", "face"),
    [
        ("velocity", "own", "velocity"),
        ("velocity", "velocity", "velocity"),
        ("velocity", "eps", "eps"),
        ("eps", "own", "eps"),
        ("v", "own", "eps"),
        ("v", "velocity", "velocity"),
    ],
)
def test_dpo_compares_the_errors_of_the_student_s_own_kind(predicts, weight, face):
    """On straight paths a velocity's, else ε's as in the paper; both are asked by name."""
    student, reference = (replace(network(flow()), predicts=predicts) for _ in range(2))
    student.net.double(), reference.net.double()
    with torch.no_grad():
        for p in student.net.parameters():
            p.add_(0.05)
    batch = Batch(Draw(1).normal(torch.zeros(64, 2).double()))
    batch = replace(batch, other=batch.x0.flip(0))
    recipe = recipes.dpo(flow(), beta=3.0, weight=weight)
    roles = {"student": student, "reference": reference}
    found = float(recipe.phases[0].loss(roles, batch, Draw(2)).value.detach())
    by_hand = {
        f: float(dpo_by_hand(student, reference, batch, Draw(2), 3.0, f).detach())
        for f in ("velocity", "eps")
    }
    assert found == pytest.approx(by_hand[face], rel=1e-6)  # times are drawn in float32
    assert abs(by_hand["velocity"] - by_hand["eps"]) > 1e-3


def test_the_negated_reward_is_still_read():
    def history_of(turn):
        recipe, actors = made("reward_gradient")
        optim = torch.optim.SGD(actors.roles["student"].net.parameters(), 1e-3)
        return perform(turn(recipe), actors, {"student": optim}, data(recipe), 1, Draw(0))

    history, plain = history_of(opposed), history_of(lambda recipe: recipe)
    assert history["student/reward"][0] == pytest.approx(-plain["student/reward"][0], abs=1e-5)


def test_a_window_moves_from_noise_to_data():
    recipe = recipes.flow_grpo(flow(), None, **{**SMALL["flow_grpo"], "steps": 6, "move": 2})
    student = network(flow())
    roles = cast(recipe, student, given={"reward": REWARD}).roles
    drawn = []
    for step in (0, 2, 4, 6, 8):
        batch = replace(Batch(torch.zeros(4, 2)), step=step)
        with torch.no_grad():
            old = recipe.before(roles, batch, Draw(0))["old"]
        drawn.append((old != 0).any(0).nonzero().flatten().tolist())
    assert drawn == [[0, 1], [1, 2], [2, 3], [3, 4], [0, 1]]


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("ddpo", {"eta": 0.0}, "eta = 0"),
        ("ddpo", {"steps": 1}, "no action"),
        ("flow_grpo", {"window": 2, "move": 0}, "move = 0"),
        ("dpo", {"weight": "epsilon"}, "no weight 'epsilon'; there are own, elbo"),
        ("reward_gradient", {"last": 0}, "last = 0"),
        ("reward_gradient", {"steps": 4, "deepest": 5}, "deepest = 5 of 4"),
        ("reward_gradient", {"deepest": -3}, "deepest = -3"),
        ("reward_gradient", {"kl": -0.1}, "kl = -0.1"),
        ("ddpo", {"kl": -0.1}, "kl = -0.1"),
        ("flow_grpo", {"window": 99}, "window = 99, .* from 0 .* to 9"),
        ("flow_grpo", {"noise": 0.0, "preserving": True}, "noise = 0"),
        ("nft", {"solver": "x"}, "nft: no solver 'x'; there are ancestral, ddim"),
        ("nft", {"kl": -0.1}, "kl = -0.1"),
    ],
)
def test_bad_input(name, asked, said):
    with pytest.raises(ValueError, match=said):
        getattr(recipes, name)(flow(), None, **asked)
