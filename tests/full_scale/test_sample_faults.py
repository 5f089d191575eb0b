"""Sampling that goes wrong: what can be known before the first picture is said before it, and
pictures that are finished stay.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import full_scale.evaluate as evaluate
import full_scale.sample as command
from full_scale import prepare, train
from full_scale.families import open_family, weights
from full_scale.out import folder as output
from full_scale.out import judges, lora_files
from full_scale.run.engine import Engine
from full_scale.sampling.request import Config, check
from full_scale.sources.captioned import read_captioned
from toy_data.shapes import write_folder

WORDS = ["--family", "shapes", "--tiny", "--solver", "ddim", "--steps", "2", "--prompt"]
CIRCLE = "a red circle"
NET = open_family("shapes", None, torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "open_family", lambda *given: NET)


def typed(monkeypatch, *words: str) -> str | int | None:
    """What the command line exits with."""
    monkeypatch.setattr(sys, "argv", ["sample", *WORDS, *words])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in this process has its own
    try:
        return command.main()
    except SystemExit as answer:
        return answer.code


def never(*given, **more):
    raise AssertionError("work was begun")


PLACES = {
    "file/new": "nothing can be written to .*file .Not a directory",
    "/proc/new/er": "nothing can be written to /proc ",
    "x" * 300: "File name too long",
    "mounted": "is where a disk is mounted: name a folder in it, mounted/new",
    "file": "exists and is not empty; nothing was overwritten. Pass --out file-001",
}


@pytest.mark.parametrize("out", PLACES)
def test_a_place_that_cannot_be_written_is_said_before_weights_are_read(out, monkeypatch):
    Path("file").touch()
    real = output.os.path.ismount
    monkeypatch.setattr(output.os.path, "ismount", lambda p: str(p) == "mounted" or real(p))
    monkeypatch.setattr(command, "open_family", never)
    with pytest.raises(ValueError, match=f"--out {out}.*{PLACES[out]}"):
        command.run(Config(prompt=(CIRCLE,), family="shapes", tiny=True, out=Path(out)))
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_too_little_room_is_said_before_weights_are_read(monkeypatch):
    """By the system itself: a limit on the size of files, where the room is set aside."""
    assert NET.decode(torch.zeros(3, 16, 16)).size == (NET.side(None),) * 2
    monkeypatch.setattr(command, "open_family", never)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
    try:
        said = typed(monkeypatch, CIRCLE, "--out", "new/er")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "--out new/er: File too large: 0.2 MB are wanted for the pictures, and " in said
    assert "MB are free there" in said and not any(Path().iterdir())


def test_more_pictures_than_the_disk_holds_are_refused_at_once(monkeypatch):
    """Before any are listed or encoded, and before a file system that knows no holes is filled."""
    little = shutil.disk_usage(".")._replace(free=10**9)
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: little)
    for name in ("posix_fallocate", "truncate"):
        monkeypatch.setattr(output.os, name, never)
    monkeypatch.setattr(command, "open_family", never)
    said = typed(monkeypatch, CIRCLE, "--n", "100000000", "--out", "new/er")
    assert "--out new/er: No space left on device: " in said and "1000.0 MB are free" in said
    assert not any(Path().iterdir())


NO_MEMORY = {
    "a GPU": torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.6 GiB"
    ),
    "CUDA elsewhere": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might"),
    "a CPU": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "Python": MemoryError(),
}


def raising(error):
    def fail(*given, **more):
        raise error

    return fail


@pytest.mark.parametrize("where", NO_MEMORY)
def test_memory_that_runs_out_is_one_line(where, monkeypatch):
    monkeypatch.setattr(command, "latents", raising(NO_MEMORY[where]))
    said = typed(monkeypatch, CIRCLE, "--out", "new")
    assert said.startswith("full_scale.sample: out of memory") and "\n" not in said
    assert ": pass a --batch below 4, smaller --height and --width, or --dtype" in said
    assert "GPU 0" not in said and not any(Path().iterdir())
    assert "--batch" not in str(typed(monkeypatch, CIRCLE, "--batch", "1"))


def test_another_error_is_none_of_memory(monkeypatch):
    monkeypatch.setattr(command, "latents", raising(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="do not match"):
        typed(monkeypatch, CIRCLE)


def test_memory_that_runs_out_elsewhere_names_the_flag(monkeypatch, capsys):
    """In a step of training, in its pictures, in prepare and in evaluate."""
    where = "a GPU"
    write_folder(Path("pictures"), 8, seed=0)
    data = ["--family", "shapes", "--tiny"]
    made = ["prepare", *data, "--source", "pictures", "--out", "data"]
    monkeypatch.setattr(sys, "argv", made)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "open_family", raising(NO_MEMORY[where]))
        with pytest.raises(SystemExit, match="prepare: out of memory .*a smaller --batch;"):
            prepare.main()
    prepare.main()
    words = ["finetune", *data, "--data", "data", "--out", "run", "--batch", "4", "--steps", "2"]
    words += ["--save-every", "1", "--show-every", "2", "--device", "cpu", "--prompts", CIRCLE]
    words += ["--seed", str(2**64 - 1)]  # the last there is
    at = lambda micro, *more: train.main([*words, "--micro", micro, *more])
    with monkeypatch.context() as patch:
        patch.setattr(train, "latents", raising(NO_MEMORY[where]))
        with pytest.raises(SystemExit, match="out of memory .*: the grid .* fewer --prompts, or"):
            at("4")
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "advance", raising(NO_MEMORY[where]))
        with pytest.raises(
            SystemExit,
            match=r"^full_scale.train: out of memory .*: add a --micro below 4 or --recompute, "
            "which change no result; .*full_scale.estimate .*--card GB .*last checkpoint$",
        ):
            at("4")
        with pytest.raises(SystemExit, match="add --recompute, which"):
            at("1")
        with pytest.raises(SystemExit, match=r"\): python -m full_scale.estimate"):
            at("1", "--recompute")
    at("2")  # goes on, as it said
    assert "finetune: 2 steps in run" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["evaluate", "--pictures", "pictures"])
    monkeypatch.setattr(judges, "toy", raising(NO_MEMORY[where]))
    with pytest.raises(SystemExit, match="evaluate: out of memory .*pass a smaller --batch"):
        evaluate.main()


def stop(how: str, monkeypatch, at: int = 3):
    """Make the third batch fail, or another."""
    real, calls = command.latents, []

    def latents(*given):
        calls.append(1)
        if len(calls) == at and how == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        if len(calls) == at and how == "not finite":
            raise FloatingPointError("no longer finite")
        return real(*given)

    def write(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2 if "002" in path.name else None])
        if "002" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "latents", latents)
    if how == "full disk":
        monkeypatch.setattr(Path, "write_bytes", write)


@pytest.mark.parametrize("how", ["Ctrl-C", "full disk", "not finite"])
def test_finished_pictures_survive(how, monkeypatch, capsys):
    """Those of an unbroken run, with their settings; `evaluate` reads them."""
    words = (CIRCLE, "a blue square", "--n", "2", "--batch", "1", "--seed", "5", "--out")
    assert typed(monkeypatch, *words, "whole") is None
    with monkeypatch.context() as patch:
        stop(how, patch)
        said = typed(patch, *words, "runs/some")
    assert (
        said == 130
        if how == "Ctrl-C"
        else {
            "full disk": "--out runs/some: No space left on device: ",
            "not finite": "no longer finite",
        }[how]
        in said
    )
    assert "2 finished pictures are in runs/some\n" in capsys.readouterr().err
    found = {path.name for path in Path("runs/some").iterdir()}
    assert found == {"000.png", "001.png", "grid.png", "settings.json"}
    assert [path.name for path in Path("runs").iterdir()] == ["some"]
    for name in ("000.png", "001.png"):
        some, whole = (np.asarray(Image.open(Path(at) / name)) for at in ("runs/some", "whole"))
        assert np.array_equal(some, whole)
    told = json.loads(Path("runs/some/settings.json").read_text())
    assert told["asked"] == 4 and [each["seed"] for each in told["pictures"]] == [5, 6]
    assert len(read_captioned(Path("runs/some"), "")[0]) == 2


@pytest.mark.parametrize("how", ["Ctrl-C", "not finite"])
def test_nothing_finished_leaves_nothing(how, monkeypatch):
    stop(how, monkeypatch, at=1)
    assert typed(monkeypatch, CIRCLE, "--n", "4", "--out", "a/b/c") and not any(Path().iterdir())


WANTED = "from which each picture counts on: wanted"


@pytest.mark.parametrize(
    "words, says",
    [
        (["caf\udce9"], "--prompt caf\\udce9: not UTF-8"),
        ([CIRCLE, "\ud83d"], "--prompt \\ud83d: not UTF-8"),
        ([CIRCLE, "--negative", "\udcff"], "--negative \\udcff: not UTF-8"),
        ([CIRCLE, "--seed", str(2**64)], f"--seed {2**64}: a seed has 64 bits"),
        ([CIRCLE, "--n", "2", "--seed", str(2**64 - 1)], f"wanted 0 … {2**64 - 2}"),
        ([CIRCLE, "--seed", "-1"], f"--seed -1: a seed has 64 bits, {WANTED} 0 … {2**64 - 1}"),
        ([CIRCLE, "--n", "3", "--seed", "-2"], f"{WANTED} 0 … {2**64 - 3}"),
    ],
)
def test_words_and_seeds_that_cannot_be_used_name_their_flag(words, says, monkeypatch):
    said = typed(monkeypatch, *words)
    assert says in said and "\n" not in said and not any(Path().iterdir())


@pytest.mark.parametrize(
    "word, value, wanted",
    [
        *(("batch", value, "at least 1") for value in ("0", "-1")),
        *((word, "-8", "at least 1") for word in ("height", "width", "n", "steps")),
        *(("omega", value, "a finite ω ≥ 0") for value in ("nan", "inf", "-1")),
        *(("merge", value, "a share") for value in ("nan", "-1", "1.5")),
        *(("tol", value, "0 (the sequential") for value in ("nan", "inf", "-1")),
    ],
)
def test_a_number_that_no_picture_can_have_names_its_flag(word, value, wanted, monkeypatch):
    monkeypatch.setattr(command, "open_family", never)
    parallel = ["--parallel-in-time", "picard"] if word == "tol" else []
    said = typed(monkeypatch, CIRCLE, *parallel, f"--{word}", value)
    assert said.startswith(f"full_scale.sample: --{word} {value}: wanted {wanted}"), said


def test_the_last_seed_is_used():
    check(Config(prompt=(CIRCLE,) * 2, tiny=True, n=2, seed=2**64 - 4))


def test_sampled_shapes_are_scored(monkeypatch, capsys):
    """One after the other as typed; and real shapes, enlarged, score to the bit as they are."""
    typed(monkeypatch, CIRCLE, "a small blue square", "--n", "2")
    monkeypatch.setattr(sys, "argv", ["evaluate", "--pictures", "runs/sample-001"])
    evaluate.main()
    assert "shapes: accuracy" in capsys.readouterr().out
    write_folder(Path("real"), 8, seed=0)
    real = read_captioned(Path("real"), "")[0]
    x = [NET.encode_pictures([each.picture], 16)[0] for each in real]
    large = [each._replace(picture=NET.decode(value)) for each, value in zip(real, x)]
    assert large[0].picture.size == (128, 128)
    assert judges.toy(large, real) == judges.toy(real, real)
    blurred = [each._replace(picture=each.picture.rotate(3)) for each in large]
    assert "shapes" not in judges.toy(blurred, [])


LAYER = "unet.mid_block.attentions.0.proj_in"
KOHYA = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.mark.parametrize(
    "odd",
    [
        f"{KOHYA}.dora_scale",
        f"{LAYER}.lora_magnitude_vector",
        f"{KOHYA}_2.lokr_w1",
        f"{KOHYA}.hada_w1_a",
        f"{KOHYA}.lora_mid.weight",
        f"{KOHYA}.diff_b",
        f"{KOHYA}_2.alpha",
        f"{LAYER}_2.lora_A.weight",
        f"{LAYER}_2.lora_B.weight",
        "emb_params",
    ],
)
def test_what_a_lora_file_holds_beside_pairs_is_refused_by_name(odd, tmp_path):
    """Before a network is touched: diffusers would drop it with a warning."""
    pairs = [f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"]
    pairs += [f"{KOHYA}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")]
    pairs += [f"{LAYER}.processor.to_q_lora.{end}.weight" for end in ("down", "up")]
    assert weights.lora_layers(pairs) == (3, [])
    save_file({name: torch.zeros(1) for name in [*pairs, odd]}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=f"1 of its tensors have no place, the first {odd}:"):
        weights.add_lora(None, tmp_path / "x.safetensors")


def test_what_is_written_for_others_can_be_read_by_them(tmp_path):
    """safetensors makes files private, and so does a temporary folder; the umask decides."""

    def fill(half):
        (half / "unet").mkdir()
        lora_files.save({"unet.x.lora_A": x, "unet.x.lora_B": x.clone()}, 1, 1.0, "unet", half)
        save_file({"x": x}, half / "unet" / "model.safetensors")
        NET.save(NET.net, half)

    x = torch.zeros(1, 1)
    for mask, folder, file in ((0o002, 0o775, 0o664), (0o027, 0o750, 0o640)):
        old = os.umask(mask)
        try:
            out = output.whole(tmp_path / f"{mask}", fill)
        finally:
            os.umask(old)
        found = [out, *out.rglob("*")]
        assert len(found) == 7
        for path in found:
            assert path.stat().st_mode & 0o777 == (folder if path.is_dir() else file), path
