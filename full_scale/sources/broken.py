"""Which file of a folder of weights cannot be read, and which is not there: libraries that fail
on one seldom name it.
"""

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


def unreadable(folder: Path, captions: bool) -> list[str]:
    """The files that a folder of a transformers model lacks to read pictures, and captions if
    it is to read any. Without a tokenizer's file transformers would make one up that knows no
    word, without a word of warning.
    """
    there = lambda *files: all((folder / file).is_file() for file in files)
    absent = [] if there("preprocessor_config.json") else ["preprocessor_config.json"]
    words = not captions or there("tokenizer.json") or there("vocab.json", "merges.txt")
    return absent if words else [*absent, "tokenizer.json"]
