#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compile zonefs_py/fuse/_door.c against several versions of libfuse's headers, with all warnings as errors.

Without arguments: against the headers that pkg-config finds. DIR is a directory that has fuse_lowlevel.h in it or below
(an unpacked libfuse3-dev package, a prefix). --debian SUITE takes the headers of a Debian suite, such as trixie or
sid: the package is fetched from the mirror that APT is configured for, with lists and files in a temporary directory,
and is not installed.

The status is 0 if everything compiles, 1 if not, and 3 if headers could not be fetched.

This compiles. That a version works is shown by running tests/fuse with it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "zonefs_py/fuse/_door.c"
WARNINGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-cast-function-type")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class CheckError(Exception):
    """Something that the user must know, in one line."""


class NotToBeHad(CheckError):
    """Headers that cannot be fetched here: nothing is known of how `_door.c` gets on with them."""


def run(*command: str | Path, environment: dict[str, str] | None = None, directory: Path | None = None) -> str:
    """Run *command*; return what it printed. Raises CheckError with all that it said if it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment, cwd=directory
    )
    if done.returncode:
        raise CheckError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def headers_below(directory: Path) -> Path:
    """The directory below *directory* that has libfuse's headers. Raises CheckError."""
    found = sorted(path.parent for path in directory.rglob("fuse_lowlevel.h"))
    if not found:
        raise CheckError(f"{directory}: there is no fuse_lowlevel.h in it")
    return found[0]


def configured_mirror() -> str:
    """The address of the Debian mirror that APT uses. Raises CheckError, NotToBeHad."""
    for line in run("apt-get", "indextargets", "--format", "$(SITE)").splitlines():
        if re.search(r"/debian/?$", line):
            return line
    raise NotToBeHad("APT has no Debian mirror; give directories instead of --debian")


def fetch(suite: str, into: Path) -> Path:
    """Unpack the headers of *suite*'s libfuse3 below *into*. Raises NotToBeHad."""
    try:
        return _fetch(suite, into)
    except (CheckError, FileNotFoundError) as exc:
        raise NotToBeHad(f"Debian {suite}: {exc}") from exc


def _fetch(suite: str, into: Path) -> Path:
    lists, files = into / "lists" / "partial", into / "cache" / "archives" / "partial"
    for directory in (lists, files):
        directory.mkdir(parents=True)
    (into / "sources.list").write_text(f"deb [signed-by={KEYRING}] {configured_mirror()} {suite} main\n")
    (into / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{into}/sources.list";\nDir::Etc::sourceparts "-";\n'
        f'Dir::State::lists "{into}/lists";\nDir::Cache "{into}/cache";\nAPT::Sandbox::User "root";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(into / "apt.conf")}
    run("apt-get", "--quiet", "update", environment=environment)
    run("apt-get", "--quiet", "download", f"libfuse3-dev/{suite}", environment=environment, directory=into)
    (package,) = into.glob("libfuse3-dev_*.deb")
    run("dpkg", "-x", package, into / "root")
    return headers_below(into / "root")


def version_of(flags: list[str]) -> str:
    """The version that the headers say they are."""
    text = '#define FUSE_USE_VERSION 312\n#include <fuse_lowlevel.h>\n"found" FUSE_MAJOR_VERSION FUSE_MINOR_VERSION\n'
    done = subprocess.run(["cc", "-E", "-P", "-", *flags], input=text, capture_output=True, text=True)
    found = re.search(r'"found" (\d+) (\d+)', done.stdout)
    if done.returncode or found is None:
        raise CheckError(f"the headers cannot be read with {shlex.join(flags)}:\n{done.stderr}")
    return f"{found[1]}.{found[2]}"


def check(flags: list[str], into: Path) -> None:
    """Compile with *flags*. Raises CheckError with what the compiler said."""
    python = f"-I{sysconfig.get_path('include')}"
    run("cc", "-c", "-fPIC", *WARNINGS, python, *flags, SOURCE, "-o", into / "door.o")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="*", type=Path, metavar="DIR", help="headers of one version of libfuse")
    parser.add_argument("--debian", action="append", default=[], metavar="SUITE", help="the headers of a Debian suite")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="zonefs-py-door-") as name:
            into = Path(name)
            wanted = [(str(path), [f"-I{headers_below(path)}"]) for path in arguments.directories]
            for suite in arguments.debian:
                directory = into / suite
                directory.mkdir()
                wanted.append((f"Debian {suite}", [f"-I{fetch(suite, directory)}"]))
            if not wanted:
                wanted = [("pkg-config fuse3", shlex.split(run("pkg-config", "--cflags", "fuse3")))]
            for what, flags in wanted:
                version = version_of(flags)
                check(flags, into)
                print(f"libfuse {version} ({what}): compiles without a warning; nothing was run")
    except (CheckError, OSError) as exc:
        print(f"check_door: {exc}", file=sys.stderr)
        return 3 if isinstance(exc, NotToBeHad) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
