"""What surviving costs: saving, resuming, and a second process, on the tiny Stable Diffusion."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.report import Report

NOTE = """The recipe `finetune` on the random tiny Stable Diffusion (0.9 M parameters),
float32, CPU, one thread a process, {rows} prepared captioned shapes.

*Efficiency* is weak scaling: rows a second of two processes with a core each, over twice those
of one process, each with micro-batches of {micro}. The time of a step is the median of {steps}
after two to warm up, the least of {repeats} runs, one and two processes in turn. *Save* is how
long `Engine.save` keeps training from going on: the checkpoint itself is written meanwhile.
*Written* is until it has its name. *Resume* is `open_engine` with a checkpoint to load, less
without; medians of {saves}."""
STEPS, MICRO, ROWS = 30, 8, 64


def run(repeats: int = 3, saves: int = 9) -> Report:
    """Seconds and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _prepare(root)
        one, two = (
            min(times)
            for times in zip(
                *([_step(root, processes) for processes in (1, 2)] for _ in range(repeats))
            )
        )
        stall, written, resume = _survive(root, saves)
    rows = [
        ["a step, one process", one, "s"],
        ["a step of twice the rows, two processes", two, "s"],
        ["efficiency of two processes", one / two, "ratio"],
        ["save: training waits", stall, "s"],
        ["save: written after", written, "s"],
        ["resume", resume, "s"],
    ]
    note = NOTE.format(rows=ROWS, micro=MICRO, steps=STEPS, repeats=repeats, saves=saves)
    return Report("Training that survives", note, ["what", "value", "unit"], rows)


def _prepare(root: Path) -> None:
    from full_scale import prepare
    from toy_data.shapes import write_folder

    write_folder(root / "pictures", ROWS, seed=0)
    prepare.run(prepare.Config(source=(str(root / "pictures"),), out=root / "data", tiny=True))


def _step(root: Path, processes: int) -> float:
    """Seconds a step, measured by the first of `processes` processes: the median of `STEPS`,
    after two to warm up.
    """
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        if processes > 1
        else []
    )
    out = tempfile.mkdtemp(dir=root)
    command = [
        sys.executable,
        *launch,
        "-m",
        "bench.training",
        str(root / "data"),
        out,
        str(MICRO * processes),
        f"{out}/seconds",
    ]
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        stderr=subprocess.DEVNULL,
    )
    return float(Path(out, "seconds").read_text())


def _time_steps(data: str, out: str, batch: str, result: str) -> None:
    """What a process of `_step` does."""
    from full_scale import launch
    from full_scale.run.settings import read
    from full_scale.train import open_engine

    torch.set_num_threads(1)
    processes = launch.start("cpu")
    engine = open_engine(
        read(
            [
                "finetune",
                "--tiny",
                "--data",
                data,
                "--out",
                out,
                "--batch",
                batch,
                "--micro",
                str(MICRO),
                "--ema",
                "0",
            ]
        ),
        processes,
    )
    times = [_timed(engine.advance) for _ in range(2 + STEPS)]
    if processes.leads:
        Path(result).write_text(str(statistics.median(times[2:])))
    launch.stop()


def _survive(root: Path, saves: int) -> tuple[float, float, float]:
    """Median seconds that a save holds training up, that it takes in all, and that a resume
    takes longer than a start.
    """
    from full_scale import launch
    from full_scale.run.settings import read
    from full_scale.train import open_engine

    torch.set_num_threads(1)
    processes = launch.start("cpu")
    try:
        s = read(
            [
                "finetune",
                "--tiny",
                "--data",
                str(root / "data"),
                "--out",
                str(root / "run"),
                "--batch",
                "8",
                "--micro",
                "8",
            ]
        )
        fresh = statistics.median(_timed(lambda: open_engine(s, processes)) for _ in range(saves))
        engine, stalls, whole = open_engine(s, processes), [], []
        for _ in range(saves):
            engine.advance()
            start = time.perf_counter()
            engine.save()
            stalls.append(time.perf_counter() - start)
            engine.checkpoints.finish()
            whole.append(time.perf_counter() - start)
        again = statistics.median(_timed(lambda: open_engine(s, processes)) for _ in range(saves))
        return statistics.median(stalls), statistics.median(whole), again - fresh
    finally:
        launch.stop()


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    _time_steps(*sys.argv[1:])
