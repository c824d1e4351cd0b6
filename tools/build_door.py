"""Hatchling build hook: compile the C extension ``zonefs_py.fuse._door`` against the system's libfuse.

For an editable install the shared object goes into the source tree, for a wheel into the wheel only.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("zonefs_py/fuse/_door.c")


class DoorBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # generic only in newer hatchling
    """Adds the compiled extension to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell hatchling where the result belongs. Not called for an sdist's sources."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        # Until `finalize`; if the build fails before, until this interpreter ends.
        self._room = tempfile.TemporaryDirectory(prefix="zonefs-py-door-")
        built = _compile(root, Path(self._room.name))
        destination = SOURCE.with_name(built.name)
        if version == "editable":
            # Replaced, not overwritten: a mounted file system may be running the old one.
            beside = (root / destination).with_suffix(".new")
            shutil.copy2(built, beside)
            beside.replace(root / destination)
        else:
            build_data["force_include"][str(built)] = str(destination)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled: it is in the wheel now."""
        if self.target_name == "wheel":
            self._room.cleanup()


def _pkg_config(*arguments: str) -> list[str]:
    command = ["pkg-config", *arguments, "fuse3 >= 3.10"]
    try:
        found = subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("zonefs-py: pkg-config is missing; on Debian: apt-get install pkg-config libfuse3-dev gcc")
    except subprocess.CalledProcessError as exc:
        sys.exit(f"zonefs-py: libfuse 3.10 or newer is missing; on Debian: apt-get install libfuse3-dev\n{exc.stderr}")
    return shlex.split(found.stdout)


def _compile(root: Path, into: Path) -> Path:
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(
        "zonefs_py.fuse._door",
        sources=[str(root / SOURCE)],
        extra_compile_args=[
            *_pkg_config("--cflags"),
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Wno-cast-function-type",
        ],
        extra_link_args=_pkg_config("--libs"),
    )
    distribution = Distribution({"name": "zonefs-py-door", "ext_modules": [extension]})
    command = build_ext(distribution)
    command.build_lib = str(into / "lib")
    command.build_temp = str(into / "temp")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(extension.name))
