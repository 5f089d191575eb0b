"""Checkpoints that survive: sharded, written while training goes on, complete or absent, the
last good one always kept.

A checkpoint is a folder step-00001200 with the shards that `torch.distributed.checkpoint`
writes and run.json. It is written under another name and renamed when every process has
finished. The index of the shards is a pickle: resume only your own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from full_scale.launch import Processes

PREFIX, PART = "step-", ".part"


def complete(out: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first; half-written ones are not among them."""
    return sorted(
        path
        for path in out.glob(f"{PREFIX}*")
        if path.suffix != PART and (path / "run.json").is_file()
    )


def described(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: its step and the settings of its run."""
    return json.loads((path / "run.json").read_text())


class Checkpoints:
    """The checkpoints of one run, of which the last `keep` stay."""

    def __init__(self, out: Path, keep: int, processes: Processes):
        self.out, self.keep, self.processes = out, keep, processes
        self.pending: tuple[Future, Path] | None = None
        if processes.leads:
            out.mkdir(parents=True, exist_ok=True)
            for half in out.glob(f"{PREFIX}*{PART}"):
                shutil.rmtree(half, ignore_errors=True)
        dist.barrier()

    def save(
        self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any], wait: bool = False
    ) -> None:
        """Write `state` (tensors, also sharded ones) as the checkpoint of `step`. Training may
        go on at once, unless `wait`.
        """
        self.finish()
        part = self.out / f"{PREFIX}{step:08d}{PART}"
        if self.processes.leads:
            try:
                part.mkdir(parents=True, exist_ok=True)
                (part / "run.json").write_text(json.dumps({"step": step, **facts}, indent=1))
            except OSError as error:
                raise self._failed(part, error) from error
        future = dcp.async_save(
            dict(state), checkpoint_id=part, process_group=self.processes.saving
        )
        self.pending = future, part
        if wait:
            self.finish()

    def poll(self) -> None:
        """Give a checkpoint that has been written its name. Call it now and then."""
        if self.pending and self.pending[0].done():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written. OSError, in words, if it could not
        be.
        """
        if not self.pending:
            return
        (future, part), self.pending = self.pending, None
        try:
            future.result()
        # whatever the writer's threads met: a full disk, a lost file system
        except (Exception, CheckpointException) as error:
            raise self._failed(part, error) from error
        if self.processes.leads:
            os.replace(part, part.with_suffix(""))
            for old in complete(self.out)[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)

    def _failed(self, part: Path, error: BaseException) -> OSError:
        """The error to raise; the half-written checkpoint is removed, which also makes room."""
        shutil.rmtree(part, ignore_errors=True)
        good = complete(self.out)
        return OSError(
            f"checkpoint {part.stem} could not be written ({_cause(error)}). "
            f"{f'The last good one is {good[-1]}' if good else 'There is none yet'}: "
            "make room, or fix the disk, and start the same command again"
        )

    def load(self, path: Path, state: Mapping[str, Any]) -> None:
        """Fill the tensors of `state` in place from a checkpoint, however many processes wrote
        it.
        """
        dcp.load(dict(state), checkpoint_id=path, process_group=self.processes.saving)


def _cause(error: BaseException) -> str:
    """The first line of what really went wrong, inside the writer's wrappers."""
    found = next(iter(error.failures.values()), None) if hasattr(error, "failures") else None
    error = found[0] if isinstance(found, tuple) else found or error
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
