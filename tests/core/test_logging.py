"""What the log of a mount takes and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import logging, sys
from zonefs_py.cli.daemon import set_up_logging

for _ in range(2):
    set_up_logging(sys.argv[1], "info", foreground=True)
log = logging.getLogger("pyfuse3")
for answer in ("No such file or directory", "Invalid argument"):
    log.error("%s(): fuse_reply_* failed with %s", "fuse_release", answer)
log.info("a task was started")
logging.getLogger("zonefs_py").info("fuse_reply_* failed with No such file or directory")
"""


def test_an_answer_that_nobody_waits_for_is_no_error(tmp_path: Path) -> None:
    """Whatever else pyfuse3 complains of is in the log."""
    log = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", PROGRAM, log], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert [line.partition("] ")[2] for line in log.read_text().splitlines()] == [
        "ERROR fuse_release(): fuse_reply_* failed with Invalid argument",
        "INFO fuse_reply_* failed with No such file or directory",
    ]
