import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from toy_data import weights
from toy_data.digits import TEACHER, digits_classifier, digits_facts, digits_teacher, new_teacher


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    return tmp_path


def test_what_is_written_comes_back_frozen(folder):
    net, facts = (
        nn.Linear(3, 2),
        {"architecture": {"widths": [3, 2]}, "steps": 7, "scores": {"loss": 0.25}},
    )
    path = weights.write("small", net, facts)
    # no half-written file is left
    assert [p.name for p in folder.iterdir()] == ["small.safetensors"] == [path.name]
    assert weights.facts("small", "maker") == facts
    again = weights.restore("small", nn.Linear(3, 2), facts["architecture"], "maker")
    assert torch.equal(again.weight, net.weight) and torch.equal(again.bias, net.bias)
    assert not again.training and not any(p.requires_grad for p in again.parameters())


def test_equal_weights_and_facts_make_equal_bytes(folder):
    net, facts = nn.Linear(3, 2), {"architecture": {}, "steps": 7, "seed": 0, "scores": {}}
    assert (
        weights.write("a", net, facts).read_bytes() == weights.write("b", net, facts).read_bytes()
    )


def test_a_failed_write_leaves_the_old_file(folder, monkeypatch):
    before = weights.write("small", nn.Linear(3, 2), {"architecture": {}}).read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(weights.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        weights.write("small", nn.Linear(3, 2), {"architecture": {}})
    assert [p.read_bytes() for p in folder.iterdir()] == [before]


@pytest.mark.parametrize("load", [digits_teacher, digits_classifier, digits_facts])
def test_a_missing_file_says_how_to_make_it(folder, load):
    with pytest.raises(
        FileNotFoundError, match=r"is missing: make it with `python -m toy_data.train_digits`"
    ):
        load()


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x00" * 64]
)
def test_a_damaged_file_is_named(folder, content):
    (folder / "digits_teacher.safetensors").write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"digits_teacher.safetensors is not a weights file.*python -m "
        r"toy_data.train_digits",
    ):
        digits_teacher()


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"facts": "not json"},
        {"facts": json.dumps({"steps": 1})},
        {"facts": json.dumps({"architecture": TEACHER | {"width": 8}})},
    ],
)
def test_a_file_that_does_not_state_this_network_is_refused(folder, metadata):
    save_file(new_teacher().net.state_dict(), folder / "digits_teacher.safetensors", metadata)
    with pytest.raises(
        ValueError, match=r"digits_teacher.safetensors.*python -m toy_data.train_digits"
    ):
        digits_teacher()
