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

NOTE = """The recipe `finetune` on the random tiny Stable Diffusion (0.9 M parameters), float32, CPU, one thread a process, {rows} prepared captioned shapes.

*Efficiency* is weak scaling: rows a second of two processes with a core each, over twice those of one process, each with micro-batches of {micro}. The
time of a step is (wall time of {long} steps − that of {short} steps)/{difference}, the least of {repeats} runs: starting Python is not in it.
*Save* is how long `Engine.save` keeps training from going on: the checkpoint itself is written meanwhile. *Written* is until it has its name.
*Resume* is `open_engine` with a checkpoint to load, less without; medians of {saves}."""
SHORT, LONG, MICRO, ROWS = 4, 24, 8, 64


def run(repeats: int = 3, saves: int = 9) -> Report:
    """Seconds and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _prepare(root)
        one, two = (min(_step(root, processes) for _ in range(repeats)) for processes in (1, 2))
        stall, written, resume = _survive(root, saves)
    rows = [
        ["a step, one process", one, "s"], ["a step of twice the rows, two processes", two, "s"], ["efficiency of two processes", one / two, "ratio"],
        ["save: training waits", stall, "s"], ["save: written after", written, "s"], ["resume", resume, "s"],
    ]
    note = NOTE.format(rows=ROWS, micro=MICRO, long=LONG, short=SHORT, difference=LONG - SHORT, repeats=repeats, saves=saves)
    return Report("Training that survives", note, ["what", "value", "unit"], rows)


def _prepare(root: Path) -> None:
    from full_scale import prepare
    from toy_data.shapes import write_folder

    write_folder(root / "pictures", ROWS, seed=0)
    prepare.run(prepare.Config(source=(str(root / "pictures"),), out=root / "data", tiny=True))


def _step(root: Path, processes: int) -> float:
    """Seconds a step, from the difference of two runs."""
    short, long = (_wall(root, processes, steps) for steps in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def _wall(root: Path, processes: int, steps: int) -> float:
    out = tempfile.mkdtemp(dir=root)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    flags = ["--tiny", "--data", root / "data", "--out", out, "--batch", MICRO * processes, "--micro", MICRO, "--steps", steps,
             "--show-every", 0, "--save-every", 10_000, "--ema", 0]
    command = [sys.executable, *launch, "-m", "full_scale.train", "finetune", *map(str, flags)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    start = time.perf_counter()
    subprocess.run(command, check=True, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def _survive(root: Path, saves: int) -> tuple[float, float, float]:
    """Median seconds that a save holds training up, that it takes in all, and that a resume takes longer than a start."""
    from full_scale import world as processes
    from full_scale.settings import read
    from full_scale.train import open_engine

    torch.set_num_threads(1)
    world = processes.start("cpu")
    try:
        s = read(["finetune", "--tiny", "--data", str(root / "data"), "--out", str(root / "run"), "--batch", "8", "--micro", "8"])
        fresh = statistics.median(_timed(lambda: open_engine(s, world)) for _ in range(saves))
        engine, stalls, whole = open_engine(s, world), [], []
        for _ in range(saves):
            engine.advance()
            start = time.perf_counter()
            engine.save()
            stalls.append(time.perf_counter() - start)
            engine.checkpoints.finish()
            whole.append(time.perf_counter() - start)
        again = statistics.median(_timed(lambda: open_engine(s, world)) for _ in range(saves))
        return statistics.median(stalls), statistics.median(whole), again - fresh
    finally:
        processes.stop()


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
