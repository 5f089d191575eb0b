"""The judge's choices follow the hidden reward, the proxy can be hacked, and the estimate of a
divergence is right where it is known.
"""

import pytest
import torch
from truth import mutant

from dlib import Draw, Mixture, exact, vp
from dlib.reward_tilts import Linear, mean_reward, reward_tilt
from toy_data import judged_pictures, preferences
from toy_data.judged_pictures import caption_reward, codes_of, colour_reward, digit_pairs
from toy_data.judged_pictures import ink_reward, shape_pairs
from toy_data.preferences import (
    Digits,
    Plane,
    Shapes,
    hidden_reward,
    kl_estimate,
    preference_pairs,
)
from toy_data.preferences import proxy_reward, two_sides
from toy_data.shape_captions import tokens
from toy_data.digits import digits_split
from toy_data.shape_reader import read, shows
from toy_data.shapes import INKS, pictures


def test_a_batch_is_a_function_of_seed_and_step():
    made = lambda seed: preference_pairs(two_sides(), hidden_reward(), 8, seed)
    data, again = made(0), made(0)
    assert torch.equal(data(3).x0, again(3).x0) and torch.equal(data(3).other, data(3).other)
    assert not torch.equal(data(3).x0, data(4).x0)
    assert not torch.equal(data(3).x0, made(1)(3).x0)
    assert data(0).x0.dtype == torch.float32 and data(0).cond is None


def test_the_judge_chooses_as_bradley_and_terry_say():
    """Of 20000 pairs, those whose rewards differ by 0.9 … 1.1: a share sigmoid(1), within four
    standard errors. And whom it chooses says nothing where the rewards are equal.
    """
    reward = Linear(torch.tensor([1.0, 0.0]))
    batch = preference_pairs(two_sides(), reward, 20_000, seed=0)(0)
    gap = reward(batch.x0) - reward(batch.other)
    near = (gap.abs() - 1).abs() < 0.1
    share = (gap[near] > 0).double().mean()
    assert share.item() == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.035)
    # both of a pair are from the mixture: half of all points, whoever won, are on the right
    every = torch.cat([batch.x0, batch.other])
    assert (every[:, 0] > 0).double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_following_the_proxy_raises_the_truth_and_then_spoils_it():
    """Exactly: along the tilt by the proxy the hidden reward climbs, and falls again below
    where it began.
    """
    mixture, hidden, proxy = two_sides(), hidden_reward(), proxy_reward()
    found = [reward_tilt(mixture, proxy, beta) for beta in (2.0, 1.0, 0.25, 0.1, 0.05)]
    gained = [tilt.reward for tilt in found]
    true = [mean_reward(tilt.mixture, hidden) for tilt in found]
    start = mean_reward(mixture, hidden)
    assert gained == sorted(gained)
    assert start < true[0] < true[1] < true[2] > true[3] > true[4]
    assert true[4] < start
    # the proxy is the slope of the hidden reward at the middle
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(hidden(x).sum(), x)
    torch.testing.assert_close(slope[0], proxy.slope)


def test_the_estimate_of_the_divergence_is_the_known_one():
    """One Gaussian moved by δ: ½(δ/S)², and the estimate says how sure it is."""
    base = Mixture(torch.ones(1), torch.zeros(1, 2), torch.tensor([0.5]))
    moved = Mixture(torch.ones(1), torch.tensor([[0.4, 0.0]]), torch.tensor([0.5]))
    value, error = kl_estimate(exact(moved, vp()), base, n=200)
    assert value == pytest.approx(0.32, abs=4 * error) and 0.02 < error < 0.1
    assert kl_estimate(exact(base, vp()), base, n=50)[0] == pytest.approx(0, abs=2e-3)


def test_one_of_two_pictures_shows_its_caption_and_of_the_other_one_fact_is_wrong():
    batch = shape_pairs(120, seed=0)(0)
    codes = codes_of(batch.cond)
    right = [shows(read(x), codes) for x in (batch.x0, batch.other)]
    assert torch.equal(right[0], ~right[1])
    worth = [caption_reward(x, batch.cond) for x in (batch.x0, batch.other)]
    best = torch.maximum(*worth)
    assert bool((best == 8).all())
    # one fact of 3 … 7: and the judge finds it as often as Bradley and Terry say
    lost = (best - torch.minimum(*worth)) / 8
    assert set((1 / lost).round().int().tolist()) <= {3, 4, 5, 6, 7}
    expected = torch.sigmoid(8 * lost)
    spread = (expected * (1 - expected)).sum().sqrt() / len(expected)
    share = right[0].double().mean()
    assert abs(share - expected.mean()) < 4 * spread


def test_the_proxy_of_shapes_likes_ink_and_has_a_gradient():
    cond = tokens(["a small red circle", "a blue square above a green circle"])
    real = pictures(codes_of(cond), Draw(0)).requires_grad_()
    painted = INKS[[0, 2], :, None, None].expand(-1, -1, 16, 16)
    value = colour_reward(real, cond)
    assert bool((colour_reward(painted, cond) > value + 1.5).all())
    assert bool((caption_reward(painted, cond) < caption_reward(real, cond)).all())
    assert colour_reward(torch.ones(2, 3, 16, 16), cond).abs().max() < 0.01
    (slope,) = torch.autograd.grad(value.sum(), real)
    assert bool((slope.flatten(1).norm(dim=1) > 0).all())
    # among real pairs it sides with the judge more often than not (625 of 1000)
    batch = shape_pairs(400, seed=1)(0)
    sides = colour_reward(batch.x0, batch.cond) > colour_reward(batch.other, batch.cond)
    assert 0.53 < sides.double().mean() < 0.8


def test_pairs_of_digits_are_of_one_label_and_the_judge_likes_ink():
    batch = digit_pairs(2000, seed=0)(0)
    (x0, labels), _ = digits_split()
    apart = torch.cdist(batch.other[:50].flatten(1), x0.flatten(1))
    assert torch.equal(labels[apart.argmin(1)], batch.cond[:50])
    gap = ink_reward(batch.x0) - ink_reward(batch.other)
    chance = torch.sigmoid(gap.abs())[gap != 0]
    spread = (chance * (1 - chance)).sum().sqrt() / len(chance)
    share = (gap[gap != 0] > 0).double().mean()
    assert abs(share - chance.mean()) < 4 * spread


def test_all_worlds_have_the_same_verbs():
    second = {Plane: "proxy", Shapes: "proxy", Digits: "read"}
    for world, n in ((Plane(), 400), (Shapes(), 6), (Digits(), 200)):
        asked = world.ask(n, seed=1)
        assert asked.x0.isnan().all() and torch.equal(
            asked.x0.isnan(), world.ask(n, seed=1).x0.isnan()
        )
        x = world.draw(world.teacher, asked, seed=2)
        assert x.shape == asked.x0.shape
        found, floor = world.scores(x, asked), world.floor(asked)
        assert found.keys() == floor.keys() == {"reward", second[type(world)]}
        batch = world.batches(4, seed=0)(0)
        assert batch.other.shape == batch.x0.shape == (4, *asked.x0.shape[1:])
        mean, std = floor["reward"]
        if isinstance(world, Shapes):
            assert (mean, std) == (8.0, 0.0)
        else:
            assert abs(found["reward"] - mean) < 6 * std
        null = None if world.null is None else torch.as_tensor(world.null).shape
        assert null == (None if batch.cond is None else batch.cond.shape[1:])
    with pytest.raises(ValueError, match="297 digits, wanted at most 296"):
        Digits().ask(297, seed=0)


def test_the_empty_caption_has_no_reward():
    with pytest.raises(ValueError, match="is not a caption of shapes"):
        caption_reward(torch.zeros(1, 3, 16, 16), tokens([""]))


@pytest.mark.parametrize(
    "function, old, new, test",
    [
        ("judged", "chosen, first, second", "chosen, second, first", "judge"),
        ("_worth", "(shown == asked) & stated", "shown == asked", "pictures"),
        ("_slipped", "(old + by) % of", "old", "pictures"),
        ("_slipped", "3 - old", "old", "pictures"),
        ("kl_estimates", "- mixture.log_prob", "+ mixture.log_prob", "estimate"),
    ],
)
def test_a_slip_in_the_judge_is_caught(function, old, new, test, monkeypatch):
    home = preferences if function == "kl_estimates" else judged_pictures
    broken = mutant(getattr(home, function), old, new)
    monkeypatch.setattr(home, function, broken)
    if function == "judged":
        monkeypatch.setattr(preferences, function, broken)
    tests = {
        "judge": test_the_judge_chooses_as_bradley_and_terry_say,
        "pictures": test_one_of_two_pictures_shows_its_caption_and_of_the_other_one_fact_is_wrong,
        "estimate": test_the_estimate_of_the_divergence_is_the_known_one,
    }
    monkeypatch.setitem(globals(), "kl_estimate", preferences.kl_estimate)
    with pytest.raises(AssertionError):
        tests[test]()
