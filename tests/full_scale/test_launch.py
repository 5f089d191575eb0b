"""The launch scripts: two torchrun agents, a torchrun that starts again, and SLURM's
environment, each really started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import free_port
from logged import losses

from full_scale import launch
from full_scale.run.checkpoint import complete, described
from full_scale.train import main

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "full_scale" / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
QUIET = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHON": sys.executable,
}
RUN = [
    "finetune",
    "--family",
    "shapes",  # without diffusers' and transformers' imports, ten seconds a process
    "--tiny",
    "--device",
    "cpu",
    "--batch",
    "4",
    "--micro",
    "1",
    "--ema",
    "0",
    "--warmup",
    "0",
    "--steps",
    "2",
    "--log-every",
    "1",
    "--show-every",
    "0",
]


def started(script: str, words: list[str], folder: Path, **environment: str) -> subprocess.Popen:
    """A script started in `folder`, which is not the repository."""
    return subprocess.Popen(
        ["bash", LAUNCH / script, *words],
        cwd=folder,
        env={**QUIET, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(process: subprocess.Popen, status: int = 0) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == status, said[-3000:]
    return said


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_and_say_what_they_need(name):
    assert subprocess.run(["bash", "-n", LAUNCH / name]).returncode == 0
    text = (LAUNCH / name).read_text()
    assert all(
        word in text
        for word in ("# Needs ", "# cost: ", "# Stop ", "# Resume ", "full_scale.train")
    ) and os.access(LAUNCH / name, os.X_OK)


def test_one_gpu_is_python_alone(tmp_path):
    """`python -m full_scale.train` with the words as they are, wherever it is started."""
    (tmp_path / "python").write_text(
        '#!/usr/bin/env bash\necho "$PYTHONPATH"; printf "%s\\n" "$@"'
    )
    (tmp_path / "python").chmod(0o755)
    words = ["lcm", "--out", "a folder"]
    said = ended(started("one_gpu.sh", words, tmp_path, PYTHON=str(tmp_path / "python")))
    path, *given = said.splitlines()
    assert path.split(":")[0] == str(ROOT) and given == ["-m", "full_scale.train", *words]


def test_one_process_is_two_agents(shapes_data, tmp_path):
    """One process of four rows; two torchrun agents on loopback, one process each, of two
    rows: the same losses.
    """
    main([*RUN, "--data", str(shapes_data), "--out", str(tmp_path / "one")])
    assert (tmp_path / "one" / "done").exists()
    where = {"NODES": "2", "GPUS": "1", "HEAD": f"localhost:{free_port()}", "RESTARTS": "0"}
    agents = [
        started(
            "several_nodes.sh",
            [*RUN, "--data", str(shapes_data), "--out", "two"],
            tmp_path,
            **where,
        )
        for _ in range(2)
    ]
    for agent in agents:
        ended(agent)
    assert (
        json.loads((tmp_path / "two" / "settings.json").read_text())["processes"] == 2
        and (tmp_path / "two" / "done").exists()
    )
    for one, two in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert one.keys() == two.keys() and all(
            one[key] == pytest.approx(two[key], rel=2e-5, abs=1e-7) for key in one
        )
    assert len(losses(tmp_path / "one")) == 2


def workers(process: subprocess.Popen) -> set[int]:
    """The processes that torchrun started, each in a session of its own."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return {int(pid) for pid in found.stdout.split()}


def wait(process: subprocess.Popen, until) -> None:
    """Until something holds of a run that goes on."""
    deadline = time.monotonic() + 400
    while not until():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline, "too slow"
        time.sleep(0.02)


def test_a_rank_that_dies_is_started_again_and_then_ends_the_run(shapes_data, tmp_path):
    """torchrun goes on from the last checkpoint, as often as RESTARTS says. Then the run ends,
    its last checkpoint survives, and the same command goes on.
    """
    words, out = (
        [*RUN, "--save-every", "2", "--data", str(shapes_data), "--out"],
        tmp_path / "run",
    )
    process = started(
        "one_node.sh", [*words, "run", "--steps", "100000"], tmp_path, GPUS="2", RESTARTS="1"
    )
    lines = lambda: len(losses(out)) if (out / "log.jsonl").exists() else 0
    wait(process, lambda: lines() > 3 and complete(out))
    first = workers(process)
    os.kill(max(first), signal.SIGKILL)
    wait(process, lambda: len(workers(process) - first) == 2)
    (out / "log.jsonl").rename(out / "before.jsonl")  # so that what comes is of the new workers
    saved = lambda: described(complete(out)[-1])["step"]
    wait(process, lambda: lines() > 3 and saved() > losses(out)[0]["step"])
    os.kill(max(workers(process)), signal.SIGKILL)
    said, _ = process.communicate(timeout=400)
    assert process.returncode != 0 and "SIGKILL" in said
    went_on, last = losses(out)[0]["step"], described(complete(out)[-1])["step"]
    assert 2 <= went_on < last < 100_000 and not (out / "done").exists()
    main([*words, str(out), "--steps", str(last + 1)])
    assert [line["step"] for line in losses(out)] == list(range(went_on, last + 1))
    assert (out / "done").exists()


def test_several_nodes_asks_for_what_it_lacks(tmp_path):
    assert "how many machines" in ended(started("several_nodes.sh", ["finetune"], tmp_path), 1)
    assert "HEAD=node0:29500" in ended(
        started("several_nodes.sh", ["finetune"], tmp_path, NODES="2"), 1
    )


SRUN = """#!/usr/bin/env bash
# srun, as far as a program can tell: as many processes as SLURM_NTASKS, numbered.
echo "srun $*" >> calls
shift  # --kill-on-bad-exit=1
for rank in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
exit "${failed:-0}"
"""
SCONTROL = """#!/usr/bin/env bash
[[ $1 == show ]] && echo 127.0.0.1 && exit
echo "scontrol $*" >> calls
"""
RANKS = """
import sys, torch, torch.distributed as dist
from full_scale import launch
processes = launch.start("cpu")
total = torch.tensor([10.0 + processes.rank])
dist.all_reduce(total)
open(f"rank-{processes.rank}", "w").write(f"{processes.size} {total.item()} {' '.join(sys.argv[1:])}")
launch.stop()
"""


@pytest.fixture
def cluster(tmp_path):
    """A folder in which srun and scontrol stand first on the path, and PYTHON is a program of
    the test's.
    """
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def submit(program: str, *words: str, tasks: int = 1) -> subprocess.Popen:
        (tmp_path / "python").write_text(f"#!/usr/bin/env bash\n{program}\n")
        (tmp_path / "python").chmod(0o755)
        slurm = {
            "SLURM_NTASKS": str(tasks),
            "SLURM_JOB_ID": str(free_port()),
            "SLURM_JOB_NODELIST": "n[0-1]",
            "SLURM_SUBMIT_DIR": str(ROOT),
        }
        return started(
            "slurm.sh",
            list(words),
            tmp_path,
            PATH=f"{tmp_path}:{os.environ['PATH']}",
            PYTHON=str(tmp_path / "python"),
            **slurm,
        )

    return submit


def test_srun_makes_a_world(cluster, tmp_path):
    """Two processes with SLURM's variables alone find each other."""
    (tmp_path / "ranks.py").write_text(RANKS)
    job = cluster(f'exec "{sys.executable}" ranks.py "$@"', "finetune", "--out", "run", tasks=2)
    ended(job)
    for rank in (0, 1):
        assert (
            tmp_path / f"rank-{rank}"
        ).read_text() == "2 21.0 -m full_scale.train finetune --out run"


def test_srun_without_an_address_says_what_to_export(monkeypatch):
    for name, value in {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    with pytest.raises(ValueError, match="srun without MASTER_ADDR: .*slurm.sh"):
        launch.start("cpu")


def test_a_restart_that_would_wait_for_ever_is_refused(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RESTART_COUNT": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ValueError,
        match="export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun --max_restarts",
    ):
        launch.start("cpu")


@pytest.mark.parametrize(
    ("program", "words", "status", "again"),
    [
        ("mkdir -p a && touch a/done", ["--out", "a"], 0, False),  # done
        ("mkdir -p a/step-00000005", ["--out=a"], 0, True),  # saved because it was asked to stop
        (
            "mkdir -p runs/train/step-00000005; exit 1",
            [],
            0,
            True,
        ),  # died, but further than before
        # failed at once: srun's status
        ("mkdir -p a/step-00000005.part; exit 3", ["--out", "a"], 1, False),
    ],
    ids=["done", "stopped", "died", "failed"],
)
def test_a_job_is_queued_again_while_it_gets_on(cluster, tmp_path, program, words, status, again):
    job = cluster(program, "finetune", *words)
    ended(job, status)
    assert (
        any(
            line.startswith("scontrol requeue")
            for line in (tmp_path / "calls").read_text().splitlines()
        )
        == again
    )
