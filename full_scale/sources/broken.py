"""Which file of a folder of weights cannot be read: libraries that fail on one seldom name it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open


def broken(folder: Path) -> str:
    """The first safetensors or JSON file in a folder, or one below, that cannot be read, and
    why; empty if all can. Of safetensors the head is read and held against the file's size.
    """
    for file in sorted({*folder.glob("*"), *folder.glob("*/*")}):
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, SafetensorError) as error:
            return f"{file} is damaged ({str(error).splitlines()[0]})"
    return ""
