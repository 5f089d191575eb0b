"""What a bad disk does to a file."""

import os
from pathlib import Path


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    """Other bytes in the middle, as many as before: what loads without a word."""
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 4] = bytes(byte ^ 0x5A for byte in whole[middle : middle + 4])
    path.write_bytes(whole)


def flip(path: Path, found: bytes) -> None:
    """Change a bit in the last byte of these, wherever they are in the file."""
    whole = path.read_bytes()
    assert found in whole
    path.write_bytes(whole.replace(found, found[:-1] + bytes([found[-1] ^ 1])))
