"""Methods that follow a reward, through the engine: adapters and Flow-GRPO on two processes as
on one, and their negatives.
"""

import methods
import pytest
import test_shapes_of_methods as shapes
import torch

from full_scale.train import open_engine

FEW = "--reward redness --hyper.omega 0 --hyper.spacing sd_trailing --hyper.kl 0".split()
GRPO = [*FEW, *"--hyper.steps 3 --hyper.group 4 --hyper.preserving --hyper.clip 0.2".split()]
TWELVE = "--batch 12 --hyper.group 4".split()
ROWS = {
    "ddpo by adapters": ("ddpo", [*methods.TRIES, *TWELVE, "--lora-rank", "2"], []),
    "flow_grpo": ("flow_grpo", [*GRPO, *TWELVE], []),
}


@pytest.mark.parametrize("name", ROWS)
def test_two_processes_do_what_one_does(name, more, tmp_path, monkeypatch):
    monkeypatch.setitem(shapes.TWO, name, ROWS[name])
    shapes.test_two_processes_do_what_one_does(name, more, tmp_path)


NEGATED = {
    "ddpo": [*FEW, *"--hyper.steps 3 --hyper.group 4 --hyper.clip 0.2".split()],
    "flow_grpo": GRPO,
    "reward_gradient": [*FEW, "--hyper.steps", "2"],
    "nft": "--reward redness --hyper.steps 2 --hyper.group 4 --hyper.spacing sd_trailing".split(),
}


@pytest.mark.parametrize("method", NEGATED)
def test_the_negative_goes_the_other_way(method, more, tmp_path, processes):
    """The same samples with the other sign of the reward; of NFT's first step a part, the
    denoising, has no sign.
    """
    rewards, moves = [], []
    for name, flags in (("positive", []), ("negative", ["--hyper.negative"])):
        s = shapes.of(method, more, tmp_path / name, "--micro", "4", *NEGATED[method], *flags)
        engine = open_engine(s, processes)
        weights = engine.cast.trained["student"].weights.values()
        start = [p.detach().clone() for p in weights]
        told = engine.advance()
        rewards.append(float(told["student/reward"]))
        moves.append(torch.cat([(p - q).flatten() for p, q in zip(weights, start)]).detach())
        assert method == "nft" or float(told["student/kl"]) == 0  # also where it has no price
    assert rewards[0] == pytest.approx(-rewards[1], rel=1e-4) and abs(rewards[0]) > 1e-3
    angle = torch.cosine_similarity(*moves, dim=0)
    assert angle < (0.9 if method == "nft" else -0.9)
