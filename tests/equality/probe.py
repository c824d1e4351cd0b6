"""The probe: runs cases and random calls on one file system, and writes what came of them as JSON lines.

``python3 -m tests.equality.probe SUBJECT`` in the root of the project, as root. Python's standard library is all it
needs. See `subjects` for what it can run on, `calls` for the lines.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.equality import cases, random_calls
from tests.equality.calls import Calls
from tests.equality.geometry import GEOMETRIES, pack_superblock
from tests.equality.subjects import SUBJECTS, Subject

SEQUENCES = {"null_blk": random_calls.SEQUENCES} | random_calls.LIVE_SEQUENCES
"""By the kind of device."""


def matches(name: str, patterns: list[str]) -> bool:
    """Whether a case or sequence is wanted; without patterns all are."""
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def run_group(subject: Subject, name: str, group: cases.Group, out: IO[str], wanted: list[str]) -> None:
    """Run the cases of one group whose names match *wanted*."""
    chosen = [case for case in group.cases if matches(f"{name}/{case.__name__}", wanted)]
    if not chosen:
        return
    geometry = GEOMETRIES[group.geometry]
    subject.make(geometry, group.write_errors, group.read_errors, flaky=group.flaky)
    t = Calls(subject, geometry, out)
    try:
        if group.mounted:
            subject.format(pack_superblock(group.features, group.uid, group.gid, group.perm))
            subject.mount(group.options)
        for case in chosen:
            t.begin(f"{name}/{case.__name__}")
            try:
                case(t)
            except Exception:
                traceback.print_exc()
                t.line(call="broken", args=[], ret=None)
                raise
            if group.mounted:
                t.tidy(sequential_files(t))
    finally:
        t.close_all()
        if os.path.ismount(subject.root):
            subject.umount()
        subject.drop()


def sequential_files(t: Calls) -> list[str]:
    """The names of all sequential files."""
    return [f"seq/{name}" for name in os.listdir(t.path("seq"))]


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=sorted(SUBJECTS))
    parser.add_argument("--out", type=Path, help="file for the lines; default: stdout")
    only = "cases (GROUP/CASE) and sequences (random/NAME) whose names match; may be repeated"
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help=only)
    parser.add_argument("--device", default="", help="a block device to overwrite, for subjects that make none")
    parser.add_argument("--directory", type=Path, help="where to mount, and to make emulated devices")
    arguments = parser.parse_args()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="equality-", dir=arguments.directory) as directory:
        os.chmod(directory, 0o755)
        subject = SUBJECTS[arguments.subject](Path(directory), arguments.device)
        with arguments.out.open("w") if arguments.out else sys.stdout as out:
            out.write(f'{{"subject":"{subject.kind}","version":"{subject.version}"}}\n')
            for name, group in (cases.GROUPS | cases.LIVE_GROUPS).items():
                if group.device == subject.device_kind:
                    run_group(subject, name, group, out, arguments.only)
            for name, sequence in SEQUENCES[subject.device_kind].items():
                if matches(f"random/{name}", arguments.only):
                    random_calls.run(subject, name, sequence, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
