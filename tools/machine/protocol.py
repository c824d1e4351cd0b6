"""Frames between the host and the agent in the machine, and between a server and its clients.

A frame is a header (kind, job, length of the payload) and the payload. Both sides import this module; inside, every
import is slow, so it needs next to nothing.

Requests: ``R`` run (JSON: argv, env, cwd), ``K`` kill the job's process group (payload: signal number), ``A`` add a
device (JSON: kind, settings), ``D`` remove a device (payload: path), ``P`` power off.
Answers: ``H`` hello (JSON), ``o`` and ``e`` output and errors of a job, ``X`` the end of a job (JSON: status, path or
error).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PORT_NAME = "zonefs-py.machine"
HEADER = struct.Struct("<cII")


def frame(kind: str, job: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return HEADER.pack(kind.encode(), job, len(payload)) + payload


class Decoder:
    """Cut a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[str, int, bytes]]:
        """Take *data* in and give the frames that are complete now: kind, job, payload."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, job, length = HEADER.unpack_from(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield kind.decode("latin-1"), job, payload
