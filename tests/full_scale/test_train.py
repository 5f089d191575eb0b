"""The launch scripts on two processes: every recipe is killed in its middle, goes on with the
numbers of an unbroken run, and is exported into what stock programs read."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from diffusers import LCMScheduler
from PIL import Image
from safetensors.torch import load_file

import full_scale.sample as sampling
from full_scale import export
from full_scale.out import lora_files
from full_scale.sampling.request import Config
from full_scale.families.tiny import tiny_pipeline

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "--tiny",
    "--batch",
    "4",
    "--micro",
    "1",
    "--steps",
    "6",
    "--warmup",
    "0",
    "--log-every",
    "1",
    "--save-every",
    "2",
    "--show-every",
    "0",
]
SHOW = ["--show-every", "6", "--prompts", "a cat"]
QUIET = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": str(ROOT),
    "PYTHON": sys.executable,
}
RECIPES = {
    "finetune-fsdp": ["finetune", "--parallel", "fsdp", "--ema", "0.9"],
    "lcm-fsdp": ["lcm", "--parallel", "fsdp"],
    "lcm_lora-ddp": ["lcm_lora", "--ema", "0.9"],
    "pcm_lora-ddp": ["pcm_lora"],
    "pcm_adversarial-ddp": ["pcm_adversarial"],
    "swiftbrush-ddp": ["swiftbrush"],
}


def start(flags, data, out, processes=2, restarts=0) -> subprocess.Popen:
    """A training run, as the launch scripts start it."""
    script = ROOT / "full_scale" / "launch" / ("one_node.sh" if processes > 1 else "one_gpu.sh")
    command = [
        "bash",
        script,
        flags[0],
        *SHORT,
        "--device",
        "cpu",
        "--data",
        str(data),
        "--out",
        str(out),
        *flags[1:],
    ]
    env = {**QUIET, "GPUS": str(processes), "RESTARTS": str(restarts)}
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(process: subprocess.Popen) -> str:
    """What a run printed, once it has ended well."""
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]
    return said


def losses(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def workers(process: subprocess.Popen) -> list[int]:
    """The processes that torchrun started, each in a session of its own."""
    return [
        int(pid)
        for pid in subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
        ).stdout.split()
    ]


def wait_for_step(out: Path, step: int, process: subprocess.Popen) -> None:
    """Until the log has the line of this step."""
    deadline = time.monotonic() + 400
    while not (
        (out / "log.jsonl").exists() and len((out / "log.jsonl").read_text().splitlines()) > step
    ):
        assert process.poll() is None and time.monotonic() < deadline, (
            process.communicate()[0][-3000:] if process.poll() is not None else "too slow"
        )
        time.sleep(0.02)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """The folder of each recipe's run from start to end."""
    root, found = tmp_path_factory.mktemp("unbroken"), {}

    def run(name):
        if name not in found:
            finished(start([*RECIPES[name], *SHOW], data, root / name))
            found[name] = root / name
        return found[name]

    return run


@pytest.fixture(scope="module")
def resumed(data, tmp_path_factory):
    """The folder of each recipe's run that was killed in its middle and started again."""
    root, found = tmp_path_factory.mktemp("resumed"), {}

    def run(name):
        if name not in found:
            process = start([*RECIPES[name], *SHOW], data, root / name)
            wait_for_step(root / name, 3, process)
            for pid in [*workers(process), process.pid]:
                os.kill(pid, signal.SIGKILL)
            process.communicate()
            assert not (root / name / "done").exists()
            assert "6/6" in finished(start([*RECIPES[name], *SHOW], data, root / name))
            found[name] = root / name
        return found[name]

    return run


@pytest.mark.parametrize("name", RECIPES)
def test_kill_and_resume_is_bitwise_the_unbroken_run(name, unbroken, resumed):
    """Losses and the grid of pictures, which all processes sample together."""
    run, whole, grid = resumed(name), unbroken(name), Path("pictures", "samples-00000006.png")
    assert losses(run) == losses(whole) and len(losses(run)) == 6
    assert (run / grid).read_bytes() == (whole / grid).read_bytes() and Image.open(
        run / grid
    ).size == (128, 128)
    assert (run / "done").exists() and not list(run.glob("*.part"))


def picture_of(code: str) -> tuple:
    """(what the code of a model card makes with seed 0, its pipeline)."""
    names = {"seeds": [torch.Generator().manual_seed(0)]}
    exec(
        code.replace("FOLDER", "'export'").replace("= pipe(", "= pipe(generator=seeds, prompt="),
        names,
    )
    return np.asarray(names["picture"]).astype(int), names["pipe"]


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_killed_is_exported_and_stock_programs_read_it(
    name, resumed, tmp_path, monkeypatch
):
    """The model card's own lines are run: stock diffusers, and `full_scale.sample`; where both
    sample alike, their pictures are equal.
    """
    monkeypatch.chdir(tmp_path)
    # the name that the cards give to random tiny weights
    tiny_pipeline().save_pretrained("WEIGHTS")
    out = export.run(export.Export(resumed(name), to=Path("export")))
    step, card = export.chosen(resumed(name), None), (out / "README.md").read_text()
    theirs, pipe = picture_of(re.search("```python\n(.*?)```", card, re.DOTALL)[1])
    words = shlex.split(
        re.search(r"python -m full_scale.sample (.*)", card)[1].replace("FOLDER", "export")
    )
    made = sampling.run(tyro.cli(Config, args=words))
    ours = np.asarray(Image.open(made / "grid.png")).astype(int)
    assert ours.shape == (128, 128, 3) and ours.std() > 5
    # finetune keeps its weights' own scheduler
    assert name.startswith("finetune") or np.abs(ours - theirs).max() <= 2
    found, own = export.student(step)[1], dict(pipe.unet.named_parameters())
    if "lora" in name or "pcm" in name:
        keys = {key.split(".")[0] for key in load_file(out / lora_files.KOHYA)}
        assert keys == {
            f"lora_unet_{layer.removesuffix('.base_layer.weight').replace('.', '_')}"
            for layer in own
            if layer.endswith("base_layer.weight")
        }
        assert all(
            value.any() for key, value in load_file(out / lora_files.DIFFUSERS).items()
        ) and len(found) == 2 * len(keys)
    else:
        assert all(
            torch.equal(own[key.removeprefix("unet.")], value) for key, value in found.items()
        ) and len(found) == len(own)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    assert pipe("a cat", num_inference_steps=4, guidance_scale=1.0).images[0].size == (128, 128)


def test_two_processes_are_one_with_twice_the_micro_batches(unbroken, data, tmp_path):
    finished(start(RECIPES["lcm_lora-ddp"], data, tmp_path / "one", processes=1))
    for one, two in zip(losses(tmp_path / "one"), losses(unbroken("lcm_lora-ddp")), strict=True):
        assert one.keys() == two.keys() and all(
            one[key] == pytest.approx(two[key], rel=2e-5, abs=1e-7) for key in one
        )


@pytest.mark.parametrize(
    ("recipe", "parallel", "micro"), [("finetune", "ddp", "8"), ("lcm", "fsdp", "4")]
)
def test_two_processes_have_the_gradient_of_one(recipe, parallel, micro, data, tmp_path):
    """Two processes × 4 rows = one × 8, or one × 4 twice, to rounding; of all weights, so that
    it has a million entries.

    The Huber distance of `lcm`, whose slope turns within 1e-3, magnifies the rounding of
    kernels for 8 rows to 3e-5: hence its 4.
    """
    flags = [
        recipe,
        "--tiny",
        "--data",
        str(data),
        "--batch",
        "8",
        "--clip",
        "0",
        "--show-every",
        "0",
    ]
    found = {}
    for name, processes, more in (
        ("one", 1, ["--micro", micro]),
        ("two", 2, ["--micro", "4", "--parallel", parallel]),
    ):
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(processes),
        ]
        command = [
            sys.executable,
            *launch,
            str(ROOT / "tests" / "full_scale" / "gradients.py"),
            str(tmp_path / name),
            *flags,
            *more,
        ]
        finished(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=QUIET,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        found[name] = torch.load(tmp_path / f"{name}-0.pt", weights_only=True)
    assert (
        found["one"].norm() > 0
        and (found["two"] - found["one"]).norm() < 1e-6 * found["one"].norm()
    )


def test_fsdp_is_ddp(unbroken, data, tmp_path):
    finished(start(["lcm"], data, tmp_path / "ddp"))
    for ddp, fsdp in zip(losses(tmp_path / "ddp"), losses(unbroken("lcm-fsdp")), strict=True):
        assert all(ddp[key] == pytest.approx(fsdp[key], rel=1e-4, abs=1e-7) for key in ddp)
    (what, whole), (_, sharded) = (
        export.student(export.chosen(out, None))
        for out in (tmp_path / "ddp", unbroken("lcm-fsdp"))
    )
    # six steps of at most 8e-6
    assert what == "averaged student" and all(
        (whole[key] - sharded[key]).abs().max() < 2e-5 for key in whole
    )


@pytest.mark.parametrize(
    ("ending", "processes"),
    [(signal.SIGTERM, 1), (signal.SIGUSR1, 2)],
    ids=["SIGTERM", "SIGUSR1"],
)
def test_a_signal_saves_and_the_same_command_goes_on(ending, processes, data, tmp_path):
    """One process alone; one worker of two, whose flag the other must see."""
    flags = ["finetune", "--ema", "0", "--save-every", "100", "--steps", "60"]
    process = start(flags, data, tmp_path / "run", processes)
    wait_for_step(tmp_path / "run", 1, process)
    os.kill(max(workers(process)) if processes > 1 else process.pid, ending)
    said = finished(process)
    assert (
        len(re.findall(f"({ending.name}|another process was asked to stop): saved at step", said))
        == 1
    )
    (saved,) = (tmp_path / "run").glob("step-*")
    lines = len(losses(tmp_path / "run"))
    assert (
        int(saved.name.removeprefix("step-")) == lines < 60
        and not (tmp_path / "run" / "done").exists()
    )
    finished(start([*flags[:-1], str(lines + 1)], data, tmp_path / "run", processes=1))
    assert [line["step"] for line in losses(tmp_path / "run")] == list(range(lines + 1))


def test_a_rank_that_dies_ends_the_run_and_the_last_checkpoint_survives(data, tmp_path):
    """Without restarts; then with one, where torchrun itself goes on from that checkpoint."""
    flags = ["finetune", "--ema", "0", "--steps"]
    process = start([*flags, "200"], data, tmp_path / "run")
    wait_for_step(tmp_path / "run", 4, process)
    os.kill(max(workers(process)), signal.SIGKILL)
    said, _ = process.communicate(timeout=400)
    assert process.returncode != 0 and "SIGKILL" in said
    last = max(
        int(path.name.removeprefix("step-")) for path in (tmp_path / "run").glob("step-????????")
    )
    process = start([*flags, str(last + 12)], data, tmp_path / "run", restarts=1)
    wait_for_step(tmp_path / "run", last + 3, process)
    os.kill(max(workers(process)), signal.SIGKILL)
    finished(process)
    assert [line["step"] for line in losses(tmp_path / "run")] == list(range(last + 12)) and (
        tmp_path / "run" / "done"
    ).exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["lcm_lora", "--hyper.omga", "1"], "--hyper.omega"),
        (["lcmm"], "no recipe file lcmm; there are finetune, lcm"),
        (["finetune", "--weights", "nowhere", "--no-tiny"], "no such folder here"),
        (["finetune", "--batch", "64"], "40 rows, fewer than one global batch of 64"),
    ],
)
def test_what_a_reader_can_put_right_is_one_message(flags, says, data, tmp_path):
    process = start(flags, data, tmp_path / "run", processes=1)
    said, _ = process.communicate(timeout=400)
    assert process.returncode != 0 and says in " ".join(said.split()) and "Traceback" not in said
