"""Makes the calls of `hunt`, in processes of their own; in the machine with the kernel's zonefs, for a hunt outside.

``python3 -m tests.equality.play DIRECTORY`` answers in a directory that both sides see: a file ``ask`` there is
answered by a file ``answer``, until there is one called ``stop``.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.compare import Line
from tests.equality.geometry import pack_superblock
from tests.equality.subjects import SUBJECTS, Subject
from tests.equality.wide_calls import SCENES, Player, Scene, Step

POLL_SECONDS = 0.02
"""How often each side looks for a file of the other's: a 9p share tells nobody of a new one."""

SECONDS = 600
"""For one list of steps; a file system that needs more hangs."""


def play(subject: Subject, scene: Scene, steps: list[Step]) -> list[Line]:
    """Make *steps* on a new device; the lines that were written, each with the index of its step.

    What is no answer, but the end of the file system or a mistake here, is a line too.
    """
    out = io.StringIO()
    subject.make(scene.geometry, (), (), flaky=scene.flaky)
    t = Calls(subject, scene.geometry, out)
    lines: list[Line] = []

    def take(number: int) -> None:
        lines.extend(json.loads(line) | {"step": number} for line in out.getvalue().splitlines())
        out.seek(0)
        out.truncate()

    number = 0
    try:
        subject.format(pack_superblock(scene.features, 1000, 1001, 0o640))
        for zone, condition in scene.broken:
            subject.external(zone, condition)
        subject.mount(scene.options)
        player = Player(t, scene)
        for number, step in enumerate(steps):
            player.play(step)
            take(number)
        t.close_all()
        if scene.flaky:
            t.let_fail("")
        t.umount()
    except Exception:  # whatever it is, it is what this list of steps leads to
        t.line(call="broken", args=[], ret=traceback.format_exc())
    take(number)
    t.close_all()
    if os.path.ismount(subject.root):
        with suppress(OSError):
            system.umount(subject.root, lazily=True)
    subject.drop()
    return lines


_subjects: list[Subject] = []
"""In a process that makes calls: the one that it makes them on."""


def _begin(kind: str, directory: str) -> None:
    os.umask(0o022)
    _subjects.append(SUBJECTS[kind](Path(directory, kind)))


def _play(scene: str, steps: list[Step]) -> list[Line]:
    return play(_subjects[0], SCENES[scene], steps)


class Players:
    """A process for each file system: no descriptor of one is open in the daemon of another."""

    def __init__(self, directory: str, kinds: Iterable[str]) -> None:
        """*directory* is theirs; users other than root can enter it."""
        spawn = get_context("spawn")
        self._pools = {kind: ProcessPoolExecutor(1, spawn, _begin, (kind, directory)) for kind in kinds}

    def play(self, kinds: Iterable[str], scene: str, steps: list[Step]) -> list[list[Line]]:
        """The lines of each of *kinds* for the same *steps*, made at the same time. Raises TimeoutError."""
        futures = [self._pools[kind].submit(_play, scene, steps) for kind in kinds]
        return [future.result(timeout=SECONDS) for future in futures]

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)


def put(path: Path, value: object) -> None:
    """Write a file that is there only when it is whole."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value))
    draft.rename(path)


def take(path: Path) -> Any:
    """Read a file, and take it away. Raises FileNotFoundError."""
    value = json.loads(path.read_text())
    path.unlink()
    return value


def serve(directory: Path, players: Players) -> None:
    """Answer in *directory* until there is a file called ``stop``."""
    while not (directory / "stop").exists():
        try:
            kinds, scene, steps = take(directory / "ask")
        except FileNotFoundError:
            time.sleep(POLL_SECONDS)
            continue
        put(directory / "answer", players.play(kinds, scene, steps))


def main() -> int:
    """Answer in the directory that the command line names."""
    with tempfile.TemporaryDirectory(prefix="equality-") as own:
        os.chmod(own, 0o755)
        players = Players(own, ("kernel", "ours-on-null_blk"))
        try:
            serve(Path(sys.argv[1]), players)
        finally:
            players.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
