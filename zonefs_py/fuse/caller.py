"""Who sent a request: looked up in /proc when something is refused, while the caller still waits for the answer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process: its id, and the name of the thread that called; what is not known is None."""

    pid: int | None
    name: str | None


def process_of(thread: int) -> Process:
    """Return the process of *thread*, the id that the kernel gives with a request; 0 is nobody (pages written back).

    The kernel gives the id as this process sees it, 0 too for a process of a PID namespace that it does not see.
    """
    if not thread:
        return Process(None, None)
    try:
        lines = Path(f"/proc/{thread}/status").read_text(errors="replace").splitlines()
    except OSError:
        return Process(thread, None)
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return Process(int(fields.get("Tgid", thread)), fields.get("Name"))
