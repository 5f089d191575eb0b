"""Sampling in parallel over time: the steps of a sweep as one large batch on one device, or as
shares of it on several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from dlib import SOLVERS, Denoiser, anderson, parareal, picard
from dlib._util import require
from dlib.denoiser import Net
from full_scale.launch import Processes

if TYPE_CHECKING:
    from tqdm import tqdm

PARALLEL_IN_TIME = {"picard": picard, "anderson": anderson, "parareal": parareal}


def check_parallel_in_time(
    name: str, solver: str, chunk: int | None, tol: float, window: int | None
) -> None:
    """Raise ValueError for a request that no parallel sampler can meet."""
    require(
        name in PARALLEL_IN_TIME,
        f"--parallel-in-time {name}: no such sampler; there are {', '.join(PARALLEL_IN_TIME)}",
    )
    able = [known for known, step in SOLVERS.items() if step.memoryless]
    require(
        solver in able,
        f"--parallel-in-time {name} with --solver {solver}: it remembers former steps, and "
        "steps made at the same time have none; "
        f"type --solver ddim, or one of {', '.join(able)}",
    )
    require(
        0 <= tol < float("inf"),
        f"--tol {tol:g}: wanted 0 (the sequential pictures) or more, e.g. 1e-3",
    )
    require(chunk is None or chunk >= 1, f"--chunk {chunk}: wanted at least 1")
    require(window is None or window >= 1, f"--window {window}: wanted at least 1")
    require(
        window is None or name != "parareal",
        "--window is for picard and anderson; parareal has blocks: leave it out",
    )


def finder(
    name: str,
    tol: float,
    window: int | None,
    chunk: int | None,
    processes: Processes | None,
    bar: tqdm,
    costs: list[dict[str, int]],
) -> Callable[..., Tensor]:
    """What `latents` calls for each batch: the sampler `name`, asked as
    `check_parallel_in_time` has checked. Its cost is appended to `costs`, its progress shown
    in `bar`.
    """
    own = {} if name == "parareal" else {"window": window}

    def find(model, x, levels, solver, cond, draws, each) -> Tensor:
        before = bar.n

        def show(done: int, _: float) -> None:
            if name == "parareal":
                bar.set_postfix(iteration=done)
            else:
                bar.update(before + done - bar.n)

        shared = spread(model, len(x), processes, chunk)
        found = PARALLEL_IN_TIME[name](
            shared, x, levels, solver, tol=tol, cond=cond, draw=draws, each=show, **own
        )
        bar.update(before + len(levels) - 1 - bar.n)
        costs.append({"sweeps": found.sweeps, "depth": found.depth, "work": found.work})
        return found.x

    return find


def spread(
    model: Denoiser, batch: int, processes: Processes | None = None, chunk: int | None = None
) -> Denoiser:
    """The same denoiser whose calls on k·`batch` rows are shared among processes, at most
    `chunk` times `batch` rows a network call.

    Every process gives the same rows and gets all answers. With chunk = 1 the network sees the
    batches that `sample` shows it, so that no rounding differs. A call of `batch` rows or
    fewer is made by every process itself.
    """

    def wire(net: Net) -> Net:
        def shared(x: Tensor, time: Tensor, cond: Any) -> Tensor:
            points = len(x) // batch
            if points <= 1:
                return net(x, time, cond)
            mine = _share(points, processes)
            raw = None
            for some in _cut(mine, chunk or points):
                rows = slice(some.start * batch, some.stop * batch)
                part = net(x[rows], time[rows], _rows(cond, rows))
                raw = (
                    torch.zeros(len(x), *part.shape[1:], dtype=part.dtype, device=part.device)
                    if raw is None
                    else raw
                )
                raw[rows] = part
            return _gathered(raw, x, processes)

        shared.inner = net
        return shared

    return model.rewired(wire)


def _share(points: int, processes: Processes | None) -> range:
    """This process's points: contiguous, as equal as can be."""
    if processes is None:
        return range(points)
    return range(
        points * processes.rank // processes.size, points * (processes.rank + 1) // processes.size
    )


def _cut(points: range, size: int) -> list[range]:
    return [points[i : i + size] for i in range(0, len(points), size)]


def _rows(cond: Any, rows: slice) -> Any:
    if isinstance(cond, Mapping):
        return {name: value[rows] for name, value in cond.items()}
    return cond if cond is None else cond[rows]


def _gathered(raw: Tensor | None, x: Tensor, processes: Processes | None) -> Tensor:
    """All rows, from the processes that made them: a sum with zeros, which changes no number."""
    if processes is None or processes.size == 1:
        return raw
    raw = torch.zeros_like(x) if raw is None else raw.contiguous()
    dist.all_reduce(raw)
    return raw
