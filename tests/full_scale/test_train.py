"""The command line on two processes: every recipe is killed in its middle and goes on with the numbers of an unbroken run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["--tiny", "--batch", "4", "--micro", "1", "--steps", "6", "--warmup", "0", "--log-every", "1", "--save-every", "2", "--show-every", "0"]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
RECIPES = {
    "finetune-fsdp": ["finetune", "--parallel", "fsdp", "--ema", "0.9"],
    "lcm-fsdp": ["lcm", "--parallel", "fsdp"],
    "lcm_lora-ddp": ["lcm_lora", "--ema", "0.9"],
    "pcm_lora-ddp": ["pcm_lora"],
    "pcm_adversarial-ddp": ["pcm_adversarial"],
    "swiftbrush-ddp": ["swiftbrush"],
}


def start(flags, data, out, processes=2) -> subprocess.Popen:
    """A training run."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else [sys.executable]
    command = [*launch, "-m", "full_scale.train", flags[0], *SHORT, "--data", str(data), "--out", str(out), *flags[1:]]
    return subprocess.Popen(command, cwd=ROOT, env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen) -> str:
    """What a run printed, once it has ended well."""
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]
    return said


def losses(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def workers(process: subprocess.Popen) -> list[int]:
    """The processes that torchrun started, each in a session of its own."""
    return [int(pid) for pid in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()]


def wait_for_step(out: Path, step: int, process: subprocess.Popen) -> None:
    """Until the log has the line of this step."""
    deadline = time.monotonic() + 400
    while not ((out / "log.jsonl").exists() and len((out / "log.jsonl").read_text().splitlines()) > step):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:] if process.poll() is not None else "too slow"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """The folder of each recipe's run from start to end."""
    root, found = tmp_path_factory.mktemp("unbroken"), {}

    def run(name):
        if name not in found:
            finished(start(RECIPES[name], data, root / name))
            found[name] = root / name
        return found[name]

    return run


@pytest.mark.parametrize("name", RECIPES)
def test_kill_and_resume_is_bitwise_the_unbroken_run(name, unbroken, data, tmp_path):
    process = start(RECIPES[name], data, tmp_path / "run")
    wait_for_step(tmp_path / "run", 3, process)
    for pid in [*workers(process), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "run" / "done").exists()
    finished(start(RECIPES[name], data, tmp_path / "run"))
    assert losses(tmp_path / "run") == losses(unbroken(name)) and len(losses(tmp_path / "run")) == 6
    assert (tmp_path / "run" / "done").exists() and not list((tmp_path / "run").glob("*.part"))


def test_two_processes_are_one_with_twice_the_micro_batches(unbroken, data, tmp_path):
    finished(start(RECIPES["lcm_lora-ddp"], data, tmp_path / "one", processes=1))
    for one, two in zip(losses(tmp_path / "one"), losses(unbroken("lcm_lora-ddp")), strict=True):
        assert one.keys() == two.keys() and all(one[key] == pytest.approx(two[key], rel=2e-5, abs=1e-7) for key in one)


@pytest.mark.parametrize(("recipe", "parallel", "micro"), [("finetune", "ddp", "8"), ("lcm", "fsdp", "4")])
def test_two_processes_have_the_gradient_of_one(recipe, parallel, micro, data, tmp_path):
    """Two processes × 4 rows = one × 8, or one × 4 twice, to rounding; of all weights, so that it has a million entries.

    The Huber distance of `lcm`, whose slope turns within 1e-3, magnifies the rounding of kernels for 8 rows to 3e-5: hence its 4.
    """
    flags = [recipe, "--tiny", "--data", str(data), "--batch", "8", "--clip", "0", "--show-every", "0"]
    found = {}
    for name, processes, more in (("one", 1, ["--micro", micro]), ("two", 2, ["--micro", "4", "--parallel", parallel])):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launch, str(ROOT / "tests" / "full_scale" / "gradients.py"), str(tmp_path / name), *flags, *more]
        finished(subprocess.Popen(command, cwd=ROOT, env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        found[name] = torch.load(tmp_path / f"{name}-0.pt", weights_only=True)
    assert found["one"].norm() > 0 and (found["two"] - found["one"]).norm() < 1e-6 * found["one"].norm()


def test_fsdp_is_ddp(unbroken, data, tmp_path):
    finished(start(["lcm"], data, tmp_path / "ddp"))
    for ddp, fsdp in zip(losses(tmp_path / "ddp"), losses(unbroken("lcm-fsdp")), strict=True):
        assert all(ddp[key] == pytest.approx(fsdp[key], rel=1e-4, abs=1e-7) for key in ddp)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGUSR1], ids=["SIGTERM", "SIGUSR1"])
def test_a_signal_saves_and_the_same_command_goes_on(ending, data, tmp_path):
    flags = ["finetune", "--ema", "0", "--save-every", "100", "--steps", "60"]
    process = start(flags, data, tmp_path / "run", processes=1)
    wait_for_step(tmp_path / "run", 1, process)
    process.send_signal(ending)
    assert f"{ending.name}: saved at step" in finished(process)
    (saved,) = (tmp_path / "run").glob("step-*")
    lines = len(losses(tmp_path / "run"))
    assert int(saved.name.removeprefix("step-")) == lines < 60 and not (tmp_path / "run" / "done").exists()
    finished(start([*flags[:-1], str(lines + 1)], data, tmp_path / "run", processes=1))
    assert [line["step"] for line in losses(tmp_path / "run")] == list(range(lines + 1))


def test_a_rank_that_dies_ends_the_run_and_the_last_checkpoint_survives(data, tmp_path):
    process = start(["finetune", "--ema", "0", "--steps", "200"], data, tmp_path / "run")
    wait_for_step(tmp_path / "run", 4, process)
    os.kill(max(workers(process)), signal.SIGKILL)
    said, _ = process.communicate(timeout=400)
    assert process.returncode != 0 and "SIGKILL" in said
    last = max(int(path.name.removeprefix("step-")) for path in (tmp_path / "run").glob("step-????????"))
    finished(start(["finetune", "--ema", "0", "--steps", str(last + 1)], data, tmp_path / "run"))
    assert losses(tmp_path / "run")[-1]["step"] == last


@pytest.mark.parametrize(("flags", "says"), [
    (["lcm_lora", "--hyper.omga", "1"], "--hyper.omega"),
    (["lcmm"], "no recipe file lcmm; there are finetune, lcm"),
    (["finetune", "--weights", "nowhere", "--no-tiny"], "no such folder here"),
    (["finetune", "--batch", "64"], "40 rows, fewer than one global batch of 64"),
])
def test_what_a_reader_can_put_right_is_one_message(flags, says, data, tmp_path):
    process = start(flags, data, tmp_path / "run", processes=1)
    said, _ = process.communicate(timeout=400)
    assert process.returncode != 0 and says in " ".join(said.split()) and "Traceback" not in said
