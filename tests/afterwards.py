"""Unmounts what tests leave mounted below a directory, also if they are killed. A process of its own.

It waits for the end of its standard input, which its parent holds open and never writes to.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from zonefs_py.testing.keeper import outlive_signals, unmount_below

ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def unmounted_afterwards(directory: Path) -> Iterator[None]:
    """See that what is mounted below *directory* afterwards, or when this process has been killed, is unmounted."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.afterwards", str(directory)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # the terminal's signals are not for it
        cwd=ROOT,
    ):
        yield


def main() -> int:
    """Wait, and unmount."""
    outlive_signals()
    sys.stdin.read()
    unmount_below(sys.argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
