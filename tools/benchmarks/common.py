"""What all suites need: errors in one line, programs, progress, the mount of a device."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent.parent
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
T = TypeVar("T")


class BenchError(Exception):
    """Something that the user must know, in one line."""


@dataclass
class Notes:
    """What was left out and why, and what makes figures doubtful. Both are printed at once, and recorded."""

    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def skip(self, what: str, reason: object) -> None:
        """Record that *what* was not measured."""
        self.skipped.append(f"{what}: {reason}")
        say(f"left out: {what}: {reason}")

    def warn(self, text: str) -> None:
        """Record *text*."""
        self.warnings.append(text)
        say(f"warning: {text}")


def say(text: str) -> None:
    """Print a line for the user that is no result."""
    progress("")
    print(f"tools/bench: {text}", file=sys.stderr)


def progress(text: str) -> None:
    """Show what is going on, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    """The environment of programs: English messages, and the administrator's programs within reach."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


def run(*command: str | Path) -> str:
    """Run *command*; return what it printed. Raises BenchError with its last line if it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment(), check=False
        )
    except FileNotFoundError:
        raise BenchError(f"{words[0]} is not installed") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise BenchError(f"{' '.join(words)}: {lines[-1]}")
    return done.stdout


def info(tool: str, target: Path) -> dict[str, Any]:
    """What ``zonefs-py info`` says of a device or a mount."""
    document: dict[str, Any] = json.loads(run(tool, "info", target, "--format", "json"))
    return document


@contextlib.contextmanager
def mounted(tool: str, device: Path, mount_point: Path, *options: str) -> Iterator[Path]:
    """A mount of *device* at *mount_point*, which is made if it is missing, while the block runs."""
    mount_point.mkdir(exist_ok=True)
    run(tool, "mount", device, mount_point, *(("-o", ",".join(options)) if options else ()))
    try:
        yield mount_point
    finally:
        run(tool, "umount", mount_point)


def check_room(directory: Path, room: int) -> None:
    """Raise BenchError unless *directory* has *room* bytes free."""
    free = shutil.disk_usage(directory).free
    if free < room:
        raise BenchError(f"{directory} has {free // MIB} MiB free, {room // MIB} are needed")


def rotated(items: Sequence[T], turn: int) -> list[T]:
    """Return *items*, begun with another one each *turn*, so that none always meets a warm or a tired machine."""
    start = turn % len(items) if items else 0
    return [*items[start:], *items[:start]]


def host_filesystem(path: Path) -> str:
    """The type of the file system that holds *path*, as stat(1) names it."""
    return run("stat", "--file-system", "--format=%T", path).strip()
