"""The larger rung, from files that are written here in the archives' own formats."""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from dlib import NULL
from toy_data.larger import FILES, larger, larger_batches

ROOT = Path(__file__).parents[2]


def write_idx(path, values: np.ndarray) -> None:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


@pytest.fixture
def archives(tmp_path):
    """MNIST with five training and three test pictures; CIFAR-10 with two a file."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 3)):
        pictures = rng.integers(0, 256, (count, 28, 28))
        pictures[0, 0, 0] = 255
        write_idx(raw / f"{part}-images-idx3-ubyte", pictures)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count))
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in FILES["cifar10"][2][:-1]:
        value = np.zeros((2, 3072), np.uint8)
        value[1, :1024] = 255  # red
        (folder / name).write_bytes(pickle.dumps({"data": value, "labels": [3, 4]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return tmp_path


def test_pictures_labels_and_the_archives_split(archives):
    (x0, labels), (held, out) = larger("mnist", archives)
    assert x0.shape == (5, 1, 32, 32) and held.shape == (3, 1, 32, 32)
    assert labels.tolist() == [0, 1, 2, 3, 4] and out.tolist() == [0, 1, 2]
    assert x0[0, 0, 2, 2] == 1 and (x0[:, :, :2] == -1).all() and x0.dtype == torch.float32


def test_batches_are_a_function_of_seed_and_step(archives):
    data = larger_batches("mnist", archives, 64, seed=0, drop=0.5)
    one, again = data(3), data(3)
    assert torch.equal(one.x0, again.x0) and torch.equal(one.cond, again.cond)
    assert 10 < (one.cond == NULL).sum() < 54


def test_cifar_is_read_when_its_checksums_are_those_of_the_archive(archives, monkeypatch):
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setitem(torchvision.datasets.CIFAR10.meta, "md5", None)
    (x0, labels), (held, _) = larger("cifar10", archives)
    assert x0.shape == (10, 3, 32, 32) and held.shape == (2, 3, 32, 32)
    assert (x0[1, 0] == 1).all() and (x0[1, 1:] == -1).all() and labels[:2].tolist() == [3, 4]


def test_what_is_missing_is_named(archives, tmp_path):
    with pytest.raises(FileNotFoundError, match="FashionMNIST/raw lacks train-images-idx3-ubyte"):
        larger("fashion_mnist", archives)
    (archives / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="lacks t10k-labels-idx1-ubyte.*4 in all"):
        larger("mnist", str(archives) + "/.")
    with pytest.raises(ValueError, match="no data 'imagenet'; there are mnist, fashion_mnist"):
        larger("imagenet", archives)


def test_the_engineer_s_page_trains_a_teacher_on_it(archives):
    """As it is printed, but for the folder and the number of updates."""
    page = (ROOT / "book/pages/for/engineer.md").read_text(encoding="utf-8")
    (code,) = [
        block for block in re.findall("```python\n(.*?)```", page, re.S) if "larger" in block
    ]
    code = code.replace('"archives"', repr(str(archives))).replace("20_000", "2")
    found = {}
    exec(code, found)
    before, after = (dict(found[name].net.named_parameters()) for name in ("start", "teacher"))
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert (found["data"](0).cond == 0).any() and found["data"](0).cond.shape == (128, 1)
    assert all(value.isfinite().all() for value in after.values())
