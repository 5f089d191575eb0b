"""Pictures of 12 and 16 bits a channel, written by hand: PIL writes few of them."""

from __future__ import annotations

import struct
import zlib

import numpy as np

GREY = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], -1)


def png16(values: np.ndarray, clear: bytes = b"") -> bytes:
    """Grey, RGB or RGBA; clear: the value that is transparent."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    height, width, *channels = values.shape
    kind = {(): 0, (3,): 2, (4,): 6}[tuple(channels)]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    parts += [chunk(b"tRNS", clear)] * bool(clear)
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: np.ndarray, end: str = "<", white: int = 1, bits: int = 16) -> bytes:
    """Grey (white: TIFF's PhotometricInterpretation, 0 where zero is white) or RGB."""
    height, width, *channels = values.shape
    count = channels[0] if channels else 1
    data = values.astype(f"{end}u2").tobytes() if bits == 16 else twelve(values)
    places = (180, 200)  # of the bits of three channels, and of the values
    tags = {256: width, 257: height, 258: bits if count == 1 else places[0], 259: 1}
    tags |= {262: 2 if channels else white, 273: places[1], 277: count, 278: height}
    tags |= {279: len(data)}
    directory = struct.pack(end + "H", len(tags))
    for tag, value in tags.items():
        short = tag not in (273, 279) and not (tag == 258 and count > 1)
        number = count if tag == 258 else 1
        held = struct.pack(end + "HH", value, 0) if short else struct.pack(end + "I", value)
        kind = 4 if tag in (273, 279) else 3
        directory += struct.pack(end + "HHI", tag, kind, number) + held
    head = (b"II" if end == "<" else b"MM") + struct.pack(end + "HI", 42, 8) + directory
    head = head.ljust(places[0], b"\0") + struct.pack(end + "HHH", bits, bits, bits)
    return head.ljust(places[1], b"\0") + data


def twelve(values: np.ndarray) -> bytes:
    """The upper 12 of 16 bits, two values in three bytes."""
    high = (values >> 4).astype(int).ravel()
    a, b = high[::2], high[1::2]
    return np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()


def pnm16(values: np.ndarray, most: int = 65535) -> bytes:
    height, width, *channels = values.shape
    head = f"P{6 if channels else 5} {width} {height} {most}\n".encode()
    return head + (values.astype(int) * most // 65535).astype(">u2").tobytes()
