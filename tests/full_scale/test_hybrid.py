"""Hybrid sharding, what it refuses; `test_train.py` trains with it, and `test_shares.py` looks at
what is written.
"""

import copy

import pytest
import torch

from dlib import Draw
from full_scale import launch
from full_scale.families.shapes import Shapes
from full_scale.launch import Processes
from full_scale.run.cast import _shard
from full_scale.run.checks import check
from full_scale.run.settings import read


@pytest.mark.parametrize("way", ["fsdp", "hybrid"])
def test_what_fsdp_refuses_hybrid_refuses_in_the_same_words(way):
    for words, match in (
        (["lcm_lora"], r"with adapters \(student\): a twin shares its base's tensors, which"),
        (
            ["pcm_adversarial", "--lora-rank", "0"],
            r"with heads \(discriminator\): they read a network's",
        ),
        (["scm", "--dtype", "bfloat16"], f"{way} on bfloat16 weights cannot give: add --dtype"),
    ):
        s = read([*words, "--tiny", "--data", "x", "--micro", "1", "--parallel", way])
        with pytest.raises(ValueError, match=match) as error:
            check(s)
        assert f"--parallel {way} " in str(error.value)


def test_nodes_of_unequal_size_are_refused(monkeypatch, processes):
    four = Processes(0, 4, torch.device("cpu"), processes.saving)
    for said, size in (("2", 2), ("4", 4), ("1", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", said)
        assert launch.node_size(four) == size
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="4 processes are not nodes of 3 each: .*parallel fsdp"):
        launch.node_size(four)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert launch.node_size(four) == 4


def test_srun_says_how_many_processes_a_node_has(monkeypatch, processes):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    slurm = {"NTASKS": "4", "PROCID": "3", "LOCALID": "1", "NTASKS_PER_NODE": "2"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("MASTER_ADDR", "here")
    assert launch.place() == (3, 4)
    assert launch.node_size(Processes(3, 4, torch.device("cpu"), processes.saving)) == 2


class Heard(torch.nn.Module):
    """A network that remembers the times it was told."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, x, time, cond):
        self.time = time
        return self.layer(x.to(self.layer.weight.dtype)).to(x.dtype)


def test_a_sharded_network_in_bfloat16_is_told_the_very_time(processes):
    """bfloat16 has no 999: rounded to it, the time is 1000."""
    s = read(["finetune", "--tiny", "--data", "x", "--parallel", "fsdp"])
    net = _shard(Heard(), s, torch.bfloat16, None)
    time = torch.tensor([999.0, 998.5])
    x = net(torch.ones(2, 3), time, None)
    assert net.time.dtype == torch.float32 and torch.equal(net.time, time)
    assert x.shape == (2, 3)


def test_the_captioned_shapes_network_computes_in_its_weights_dtype(bfloat16):
    net = Shapes.tiny(torch.device("cpu"), torch.float32).denoiser().net
    x = Draw(0).normal((2, 3, 16, 16))
    cond = {"text": torch.zeros(2, 10, dtype=torch.int64)}
    time, whole = torch.tensor([0.999, 0.5]), net
    half = copy.deepcopy(net).to(torch.bfloat16)
    with torch.no_grad():
        a, b = whole(x, time, cond), half(x, time, cond)
    assert b.dtype == torch.float32
    # a bfloat16 number is known to .004 of itself, and ten or so layers add up
    assert (a - b).square().mean().sqrt() < 0.05 * a.std()
