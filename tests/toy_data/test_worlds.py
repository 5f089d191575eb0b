"""The toy worlds answer to the same verbs, and what they call real is what was asked for."""

import inspect

import pytest
import torch

from dlib import Batch, Denoiser, Draw, vp
from toy_data import worlds
from toy_data.mixtures import gmm5, labelled
from toy_data.worlds import DigitPictures, Points, ShapePictures, World

MADE = {
    "points": lambda: Points(gmm5()),
    "labelled": lambda: Points(labelled(), vp(), by_label=True),
    "digits": DigitPictures,
    "shapes": ShapePictures,
}
FULL = {"points": 400, "labelled": 400, "digits": 296, "shapes": 512}
EVERY = pytest.mark.parametrize("name", MADE)


@EVERY
def test_all_worlds_have_the_same_verbs_and_arguments(name):
    world = MADE[name]()
    for verb in World.__abstractmethods__:
        wanted = inspect.signature(getattr(World, verb))
        assert inspect.signature(getattr(type(world), verb)) == wanted, verb
    batch, asked = world.batches(4, seed=0)(7), world.ask(4, seed=1)
    again = world.batches(4, seed=0)(7)
    assert torch.equal(batch.x0, again.x0)
    for other in (world.batches(4, seed=0)(8), world.batches(4, seed=1)(7)):
        assert not torch.equal(batch.x0, other.x0)
    assert batch.x0.shape == asked.x0.shape and bool(asked.x0.isnan().all())
    null = None if world.null is None else torch.as_tensor(world.null).shape
    for cond in (batch.cond, asked.cond):
        assert (None if cond is None else cond.shape[1:]) == null
    for x in (world.draw(world.teacher, asked, seed=2), world.real(asked, seed=2)):
        assert x.shape == asked.x0.shape and bool(x.isfinite().all())


@EVERY
def test_real_samples_are_what_was_asked_for_and_score_as_the_floor(name):
    world = MADE[name]()
    asked = world.ask(FULL[name], seed=1)
    found, floor = world.scores(world.real(asked, seed=2), asked), world.floor(asked)
    assert found.keys() == floor.keys()
    for score, value in found.items():
        mean, std = floor[score]
        assert abs(value - mean) <= 6 * std + 1e-9, score
    if name == "points":
        return
    turned = world.real(replaced(asked), seed=2)  # what another row was asked for
    right = telling(name, world, world.real(asked, seed=2), asked)
    wrong = telling(name, world, turned, asked)
    assert right > 0.9 and wrong < 0.9 * right
    drawn = world.draw(world.teacher, asked, seed=2)
    assert telling(name, world, drawn, asked) > (right + wrong) / 2


def test_real_points_of_a_label_are_the_mixture_s_own():
    world = MADE["labelled"]()
    x0, label = world.mixture.sample(40_000, Draw(0))
    real = world.real(Batch(x0, label), seed=1)
    for k in label.unique():
        own, found = x0[label == k], real[label == k]
        error = (2 * own.var(0) / len(own)).sqrt()
        assert bool(((own.mean(0) - found.mean(0)).abs() < 5 * error).all())


def replaced(asked: Batch) -> Batch:
    return Batch(asked.x0, None if asked.cond is None else asked.cond.roll(1, 0))


def telling(name, world, x, asked) -> float:
    """The share that shows what it should."""
    if name != "labelled":
        return world.scores(x, asked)["accuracy"]
    clean = world.schedule.at(1e-3)
    return world.mixture.class_prob(x, clean, asked.cond).mean().item()


@EVERY
def test_the_variety_of_real_samples_is_one_and_that_of_a_stuck_model_none(name, monkeypatch):
    world, few = MADE[name](), dict(conditions=4, each=8)
    teacher = world.teacher
    stuck = Denoiser(lambda x, t, cond: torch.zeros_like(x), teacher.schedule, "x0")
    assert world.variety(stuck, 0, **few) < 0.01
    drawn = lambda other: monkeypatch.setattr(type(world), "draw", other)
    drawn(lambda self, model, asked, seed: one_each(self, asked, seed))
    assert world.variety(teacher, 0, **few) < 0.01, "what is asked for differs, and no more"
    drawn(lambda self, model, asked, seed: self.real(asked, seed) / 2)
    assert world.variety(teacher, 0, **few) == pytest.approx(1 / 4)
    drawn(lambda self, model, asked, seed: self.real(asked, seed + 1))
    assert 0.5 < world.variety(teacher, 0, **few) < 2


def one_each(world: World, asked: Batch, seed: int) -> torch.Tensor:
    """The same real sample wherever the same is asked for."""
    x = world.real(asked, seed)
    if asked.cond is None:
        return x[:1].expand_as(x)
    which = asked.cond.unique(dim=0, return_inverse=True)[1]
    return x[torch.stack([(which == k).nonzero()[0, 0] for k in which])]


def test_students_of_pictures_start_as_the_teacher_and_those_of_points_anew():
    for name in ("digits", "shapes"):
        world = worlds.world_of(name)
        assert world.start(3) is world.teacher
    first, second = (worlds.world_of("labelled").start(seed).net for seed in (0, 1))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    with pytest.raises(ValueError, match="no world 'cats'; there are gmm5, labelled, digits"):
        worlds.world_of("cats")
