"""Where a run's numbers and pictures go: a text file, TensorBoard, and Weights & Biases for
those who ask for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dlib._util import require


class Logger(Protocol):
    """Two methods."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, image: Image.Image) -> None: ...


class Lines:
    """log.jsonl, a line a step, every digit kept, and the pictures as files. A resumed run
    drops the lines it will write again.
    """

    def __init__(self, out: Path, start: int):
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.path = out, out / "log.jsonl"
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        kept = [line for line in text.splitlines() if _step(line) < start]
        half = self.path.with_name(".half-log.jsonl")
        half.write_text("".join(f"{line}\n" for line in kept))
        half.replace(self.path)  # a kill between the two loses no line

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        folder = self.out / "pictures"
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{name}-{step:08d}.png")


def _step(line: str) -> float:
    """The step of a line; a line that a crash cut short, or a disk has changed, counts as one
    that will be written again.
    """
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Board:
    """TensorBoard: `tensorboard --logdir OUT`."""

    def __init__(self, out: Path, start: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(out / "tensorboard", purge_step=start)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")


class Wandb:
    """Weights & Biases, into a project; a resumed run goes on with its own curve."""

    def __init__(self, project: str, out: Path, settings: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise ValueError(
                f"--wandb {project}: the package is not installed: pip install wandb, or leave "
                "--wandb out and read TensorBoard"
            ) from None
        self.run, self.picture_of = (
            wandb.init(
                project=project,
                dir=out,
                id=out.resolve().name,
                resume="allow",
                config=dict(settings),
            ),
            wandb.Image,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        self.run.log({name: self.picture_of(image)}, step=step)


def open_loggers(
    out: Path, start: int, project: str, settings: Mapping[str, Any]
) -> list[Logger]:
    """The loggers of the leading process. `start`: the first step that will be logged."""
    require(not out.is_file(), f"--out {out} is a file, wanted a folder")
    loggers: list[Logger] = [Lines(out, start), Board(out, start)]
    return [*loggers, Wandb(project, out, settings)] if project else loggers
