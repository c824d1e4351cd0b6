"""Build sdist and wheel, install each into a clean environment, and start what was installed.

Run where ``build`` is installed: ``tox run -e package``. Leaves nothing behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WANTED_IN_SDIST = ("pyproject.toml", "README.md", "LICENSE", "tools/build_door.py", "zonefs_py/fuse/_door.c", "tests")
SMOKE = "import zonefs_py.fuse._door, zonefs_py; print(zonefs_py.Filesystem.__name__)"


def run(*command: str | Path, cwd: Path) -> str:
    """Run *command* outside the source tree; return what it printed; leave if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
        sys.exit(f"check_package: exit status {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def one(directory: Path, pattern: str) -> Path:
    """The only file in *directory* that matches."""
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        sys.exit(f"check_package: expected one {pattern}, found {[path.name for path in found]}")
    return found[0]


def check_contents(sdist: Path, wheel: Path) -> None:
    """The sdist can be built from; the wheel holds the extension, the licence and no tests."""
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for wanted in WANTED_IN_SDIST:
        if not any(name == wanted or name.startswith(wanted + "/") for name in names):
            sys.exit(f"check_package: {sdist.name} lacks {wanted}")
    unwanted = [name for name in names if name.endswith((".so", ".pyc"))]
    with zipfile.ZipFile(wheel) as contents:
        names = contents.namelist()
    if not any(name.startswith("zonefs_py/fuse/_door.") and name.endswith(".so") for name in names):
        sys.exit(f"check_package: {wheel.name} lacks the compiled extension")
    if not any(name.endswith("LICENSE") for name in names):
        sys.exit(f"check_package: {wheel.name} lacks the licence")
    unwanted += [name for name in names if name.startswith(("tests/", "tools/")) or name.endswith(".pyc")]
    if unwanted:
        sys.exit(f"check_package: these do not belong there: {unwanted}")


def check_installation(package: Path, work: Path) -> None:
    """Install *package* into a new environment and start everything it brings."""
    environment = work / f"venv-{package.name}"
    venv.create(environment, with_pip=True)
    programs = environment / "bin"
    run(programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", package, cwd=work)
    version = run(programs / "zonefs-py", "--version", cwd=work).strip()
    run(programs / "mkzonefs", "--help", cwd=work)
    if not (programs / "mount.fuse.zonefs-py").exists():
        sys.exit(f"check_package: {package.name} brings no mount helper")
    run(programs / "python", "-c", SMOKE, cwd=work)
    run(programs / "zonefs-py", "create", "disk", "--zones", "4", "--zone-size", "1M", "--force", cwd=work)
    run(programs / "zonefs-py", "mkfs", "disk", cwd=work)
    print(f"{package.name}: installs and starts ({version})")


def main() -> None:
    """Build, then check both."""
    with tempfile.TemporaryDirectory(prefix="zonefs-py-package-") as name:
        work = Path(name)
        run(sys.executable, "-m", "build", "--outdir", work, ROOT, cwd=work)
        sdist, wheel = one(work, "*.tar.gz"), one(work, "*.whl")
        check_contents(sdist, wheel)
        check_installation(wheel, work)
        check_installation(sdist, work)


if __name__ == "__main__":
    main()
