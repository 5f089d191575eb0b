"""What a run has logged, for tests that compare two of them."""

from __future__ import annotations

import json
from pathlib import Path

from full_scale.run.speed import SPEED


def losses(out: Path) -> list[dict[str, float]]:
    """The lines of a run's log without times and memory, which no two runs have alike."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(SPEED)} for line in lines]
