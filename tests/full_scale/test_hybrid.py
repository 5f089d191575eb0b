"""Hybrid sharding, what it refuses; `test_train.py` trains with it, and `test_shares.py` looks at
what is written.
"""

import pytest
import torch

from full_scale import launch
from full_scale.launch import Processes
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
