"""What crosses between the grader and a child: frames of a kind and bytes; arrays are float64,
float32, int64 or Boolean, never pickled.
"""

import json
import math
import socket
import struct
import time

import numpy as np

READY, REFUSED, JOB, CALL, REPLY, ARRAYS, ERROR = b"S", b"X", b"J", b"C", b"R", b"A", b"E"
LIMIT = 4_000_000  # bytes in a frame
_HEAD = struct.Struct("<cI")
_KINDS = {kind: np.dtype(f"<{kind.decode()}") for kind in (b"f8", b"f4", b"i8", b"b1")}


class Broken(Exception):
    """The other side closed the line, kept silent for too long, or sent what is not a frame."""


class Channel:
    """One end of a socket that carries frames; every receive ends by `deadline` (of
    time.monotonic).
    """

    def __init__(self, line: socket.socket, deadline: float = math.inf):
        self.line, self.deadline = line, deadline

    def send(self, kind: bytes, body: bytes = b"") -> None:
        self._patience()
        try:
            self.line.sendall(_HEAD.pack(kind, len(body)) + body)
        except OSError as error:
            raise Broken(f"the line broke: {error}") from None

    def receive(self) -> tuple[bytes, bytes]:
        kind, length = _HEAD.unpack(self._exactly(_HEAD.size))
        if length > LIMIT:
            raise Broken(f"a message of {length} bytes: at most {LIMIT} are taken")
        return kind, self._exactly(length)

    def _exactly(self, n: int) -> bytes:
        parts = bytearray()
        while len(parts) < n:
            self._patience()
            try:
                part = self.line.recv(min(n - len(parts), 1 << 16))
            except OSError as error:
                raise Broken(f"the line broke: {error}") from None
            if not part:
                raise Broken("the line was closed")
            parts += part
        return bytes(parts)

    def _patience(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Broken("out of time")
        self.line.settimeout(None if left == math.inf else left)


def pack(arrays: list[np.ndarray], note: dict | None = None) -> bytes:
    """A JSON note and arrays of at most eight axes as bytes: float32 and Boolean stay
    what they are, whole numbers are int64, all else is float64.
    """
    text = json.dumps(note or {}).encode()
    parts = [struct.pack("<IB", len(text), len(arrays)), text]
    for value in arrays:
        value = np.asarray(value)
        kept = "f4" if value.dtype == np.float32 else "f8"
        kind = {"i": "i8", "b": "b1"}.get(value.dtype.kind, kept)
        head = struct.pack(f"<2sB{value.ndim}I", kind.encode(), value.ndim, *value.shape)
        parts += [head, value.astype(f"<{kind}").tobytes()]
    return b"".join(parts)


def unpack(body: bytes) -> tuple[dict, list[np.ndarray]]:
    """The inverse of `pack`. ValueError for anything else: sizes are compared with what is
    really there.
    """
    try:
        length, count = struct.unpack_from("<IB", body)
        note, at, arrays = json.loads(body[5 : 5 + length]), 5 + length, []
        for _ in range(count):
            kind, axes = _KINDS[body[at : at + 2]], body[at + 2]
            shape = struct.unpack_from(f"<{axes}I", body, at + 3)
            many, at = math.prod(shape), at + 3 + 4 * axes
            if axes > 8 or kind.itemsize * many > len(body) - at:
                raise ValueError("an array is larger than its message")
            arrays.append(np.frombuffer(body, kind, many, at).reshape(shape).copy())
            at += kind.itemsize * many
    except (struct.error, LookupError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"not a list of arrays: {error}") from None
    if at != len(body) or not isinstance(note, dict):
        raise ValueError("not a list of arrays")
    return note, arrays
