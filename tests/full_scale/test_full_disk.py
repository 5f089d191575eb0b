"""A disk that is full while tensors are saved: safetensors has an error of its own for it."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from dlib import Batch
from full_scale.data.draws import step_draws
from full_scale.families import open_family, saving
from full_scale.launch import Processes
from full_scale.out import lora_files
from full_scale.run import culprit
from full_scale.run.settings import read

FULL = "Error while serializing: I/O error: No space left on device (os error 28)"
WORDS = {
    FULL: errno.ENOSPC,
    "Error while serializing: I/O error: Disk quota exceeded (os error 122)": errno.EDQUOT,
    "Error while serializing: I/O error: File too large (os error 27)": errno.EFBIG,
    'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "x" })': 28,
}
"""safetensors' texts, the last one of an earlier release."""
X = torch.zeros(1, 50_000)
CPU = torch.device("cpu")


def refuse(text: str):
    def save_file(*given, **more):
        raise SafetensorError(text)

    return save_file


@pytest.mark.parametrize("text", WORDS)
def test_the_system_s_number_is_read_from_the_text(text, monkeypatch, tmp_path):
    monkeypatch.setattr(saving, "save_file", refuse(text))
    with pytest.raises(OSError) as said:
        saving.save_tensors({"x": X}, tmp_path / "x.safetensors")
    assert said.value.errno == WORDS[text] and said.value.filename.endswith("x.safetensors")


def test_what_is_no_error_of_the_system_stays_safetensors_own(monkeypatch, tmp_path):
    monkeypatch.setattr(saving, "save_file", refuse("Error while serializing: InvalidHeader 28"))
    with pytest.raises(SafetensorError):
        saving.save_tensors({"x": X}, tmp_path / "x.safetensors")


def test_the_installed_release_says_it_so(tmp_path):
    """By the system itself: a limit on the size of files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
    try:
        with pytest.raises(OSError) as said:
            saving.save_tensors({"x": X}, tmp_path / "x.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said.value.errno == errno.EFBIG


def shapes(out: Path) -> None:
    family = open_family("shapes", None, CPU)
    family.save(family.net, out)


def pipeline(out: Path) -> None:
    family = open_family("sd", None, CPU)
    family.save(family.net, out)


def lora(out: Path) -> None:
    lora_files.save({"unet.x.lora_A": X, "unet.x.lora_B": X.clone()}, 1, 1.0, "unet", out)


def micro_batch(out: Path) -> None:
    """The one that a run keeps, of a gradient that is not finite."""
    micro = [(Batch(torch.zeros(1, 3)), step_draws(0, 0, [0]))]
    scene = culprit.Scene("student", None, 1, micro, [[(0, 0)]])
    s = read(["finetune", "--tiny", "--out", str(out)])
    culprit._keep(scene, 0, [(0, 0)], s, lambda rows: ["a cat"], Processes(0, 1, CPU, None))


@pytest.mark.parametrize("save", [shapes, pipeline, lora, micro_batch])
def test_whatever_is_saved_says_it_as_the_system_does(save, monkeypatch, tmp_path):
    monkeypatch.setattr(saving, "save_file", refuse(FULL))
    monkeypatch.setattr(safetensors.torch, "save_file", refuse(FULL))  # diffusers' way to it
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}") as said:
        save(tmp_path)
    assert said.value.errno == errno.ENOSPC
