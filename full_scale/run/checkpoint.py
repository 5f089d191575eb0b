"""Checkpoints that survive: sharded, written while training goes on, complete or absent, the
last good one always kept, and none read that the disk has changed.

A checkpoint is a folder step-00001200 with the shards that `torch.distributed.checkpoint`
writes, run.json, and manifest.json, the sizes and digests of them all. It is written under
another name, synced to the disk, and renamed when every process has finished. The index of the
shards is a pickle: resume only your own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor

from full_scale import launch
from full_scale.launch import Processes
from full_scale.out import manifest
from full_scale.run import room

PREFIX, PART, DAMAGED = "step-", ".part", ".damaged"
NAME = re.compile(rf"{PREFIX}\d{{8,}}")


def complete(out: Path) -> list[Path]:
    """The checkpoints in a run's folder that were written to their end, oldest first. Whether
    they are whole still, `newest_whole` says.
    """
    return sorted(path for path in out.glob(f"{PREFIX}*") if NAME.fullmatch(path.name))


class Newest(NamedTuple):
    """The newest checkpoint that is whole, if there is one, and what is wrong with each that is
    newer.
    """

    path: Path | None
    damaged: dict[Path, str]


def newest_whole(out: Path) -> Newest:
    """Where a run's folder stands: training, export and sampling all begin from here. Nothing
    is changed, so a run may be going on in `out`.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(complete(out)):
        fault = manifest.fault(path)
        if not fault:
            return Newest(path, damaged)
        if path.exists():  # else the run has just put it away: it keeps its last ones
            damaged[path] = fault
    return Newest(None, damaged)


def none_whole(out: Path, damaged: Mapping[Path, str]) -> str:
    """What to do when every checkpoint is damaged, in one line."""
    listed = "; ".join(f"{path.name}: {fault}" for path, fault in damaged.items())
    return (
        f"{out} holds no checkpoint that is whole ({listed}). Nothing was changed: copy one of "
        "them back from where you keep copies, or begin anew with another --out"
    )


def described(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: its step and the settings of its run."""
    return json.loads((path / "run.json").read_text())


class Writer(dcp.FileSystemWriter):
    """Writes shards, and beside them the manifest: each process reads the digests of its own
    files, and the one that leads writes them down when all are there.
    """

    def write_data(self, plan: Any, planner: Any) -> torch.futures.Future:
        written = super().write_data(plan, planner).value() if plan.items else []
        names = sorted({one.storage_data.relative_path for one in written})
        both: torch.futures.Future = torch.futures.Future()
        both.set_result((written, manifest.entries(Path(self.path), names)))
        return both

    def finish(self, metadata: Any, results: Any) -> None:
        super().finish(metadata, [written for written, _ in results])
        files = manifest.entries(Path(self.path), ["run.json", ".metadata"])
        for _, entries in results:
            files |= entries
        manifest.seal(Path(self.path), files)


def share(state: Mapping[str, Any], leads: bool) -> dict[str, Any]:
    """What this process copies to the host and writes of a state, so that all of them together
    hold it once: of sharded tensors its own shards, of which the first replica's are taken, and
    all else if it leads.
    """
    found: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            if inner := share(value, leads):
                found[name] = inner
        elif _is_first(value) if isinstance(value, DTensor) else leads:
            found[name] = value
    return found


def _is_first(value: DTensor) -> bool:
    """Whether no process before this one holds the same shards."""
    places = value.device_mesh.get_coordinate() or ()
    return not any(n for n, how in zip(places, value.placements) if how.is_replicate())


class Checkpoints:
    """The checkpoints of one run, of which the last `keep` stay."""

    def __init__(self, out: Path, keep: int, processes: Processes):
        self.out, self.keep, self.processes = out, keep, processes
        self.pending: tuple[Future, Path] | None = None
        self.needed = 0  # bytes of the checkpoint that is being written
        if processes.leads:
            out.mkdir(parents=True, exist_ok=True)
            for half in out.glob(f"{PREFIX}*{PART}"):
                shutil.rmtree(half, ignore_errors=True)
        dist.barrier()

    def newest(self) -> Path | None:
        """The checkpoint to go on from: the newest that is whole, the same for every process.
        Damaged ones that are newer are named and put aside, none is deleted. ValueError if
        there are checkpoints and none is whole.
        """
        found = newest_whole(self.out) if self.processes.leads else None
        path, damaged = launch.told(found, self.processes)
        if path is None and damaged:
            raise ValueError(none_whole(self.out, damaged))
        if self.processes.leads:
            for broken, fault in damaged.items():
                print(f"{broken} is damaged: {fault}. It is kept as {_aside(broken).name}")
        return path

    def save(
        self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any], wait: bool = False
    ) -> None:
        """Write `state` (tensors, also sharded ones) as the checkpoint of `step`, from a copy in
        the host's memory, of which this process has its `share`. Training may go on at once,
        unless `wait`.
        """
        self.finish()
        part, self.needed = self.out / f"{PREFIX}{step:08d}{PART}", room.needed(state)
        about = {"step": step, **facts}
        failed = self._begin(part, about) if self.processes.leads else ""
        if failed := launch.told(failed, self.processes):
            raise OSError(failed)
        on_gpu = self.processes.device.type == "cuda"
        stager = DefaultStager(  # a GPU copies into pinned memory without a detour
            StagingOptions(
                use_pinned_memory=on_gpu,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=on_gpu,
            )
        )
        future = dcp.async_save(
            share(state, self.processes.leads),
            checkpoint_id=part,
            storage_writer=Writer(part),
            async_stager=stager,
            process_group=self.processes.saving,
        )
        future.add_done_callback(lambda _: stager.close())
        self.pending = future, part
        if wait:
            self.finish()

    def _begin(self, part: Path, about: Mapping[str, Any]) -> str:
        """Make the folder with run.json; in words what was wrong, or nothing."""
        try:
            part.mkdir(parents=True, exist_ok=True)
            free = room.free(self.out)
            if free is not None and free < self.needed:
                return self._failed(part, "the disk is full")
            (part / "run.json").write_text(json.dumps(about, indent=1))
            manifest.flush(part / "run.json")
            return ""
        except OSError as error:
            return self._failed(part, _worded(error))

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
            if launch.is_loss(cause := _cause(error)):
                raise cause from None
            raise OSError(self._failed(part, _worded(cause))) from error
        if self.processes.leads:
            os.replace(part, part.with_suffix(""))
            manifest.flush(self.out)
            for old in complete(self.out)[: -self.keep]:
                away = old.with_suffix(PART)  # at once: half a checkpoint would look damaged
                os.replace(old, away)
                shutil.rmtree(away, ignore_errors=True)

    def keep_last(self, error: Exception) -> None:
        """Before a run ends with `error`, which nothing here may hide: wait for the checkpoint
        that is being written, or, if another process is lost, give it its name only if it has
        been written.
        """
        try:
            (self.poll if launch.is_loss(error) else self.finish)()
        except Exception as other:
            print(f"ALARM: {other}", file=sys.stderr)

    def _failed(self, part: Path, why: str) -> str:
        """What to say; the half-written checkpoint is removed, which also makes room."""
        free = room.free(self.out)
        shutil.rmtree(part, ignore_errors=True)
        good = complete(self.out)
        return (
            f"checkpoint {part.stem} could not be written ({why}): it needs "
            f"{room.size(self.needed)}, and {room.size(free)} were free. "
            f"{f'The last good one is {good[-1]}' if good else 'There is none yet'}: "
            "make room, or fix the disk, and start the same command again"
        )

    def load(self, path: Path, state: Mapping[str, Any]) -> None:
        """Fill the tensors of `state` in place from a checkpoint, however many processes wrote
        it.
        """
        dcp.load(dict(state), checkpoint_id=path, process_group=self.processes.saving)


def _aside(path: Path) -> Path:
    """Put a damaged checkpoint where no run reads or removes it; its new name."""
    number, new = 1, path.with_suffix(DAMAGED)
    while new.exists():
        number += 1
        new = path.with_suffix(f"{DAMAGED}-{number}")
    os.replace(path, new)
    return new


def _cause(error: BaseException) -> BaseException:
    """What really went wrong, inside the writer's wrappers."""
    found = next(iter(error.failures.values()), None) if hasattr(error, "failures") else None
    return found[0] if isinstance(found, tuple) else found or error


def _worded(error: BaseException) -> str:
    """Its first line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
