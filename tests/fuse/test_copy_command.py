"""`zonefs-py copy` on real mounts: every pair of files, what is refused, Ctrl-C, and who moves the bytes."""

from __future__ import annotations

import mmap
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zonefs_py import MountControl

from .conftest import ZONEFS_PY, Mounts, command_environment, run, wait_until

KIB = 1024
MIB = 1024 * KIB
BLOCK = 4 * KIB


def copy(*words: str | Path, **more: Any) -> None:
    """A copy that must succeed without a word."""
    done = run(ZONEFS_PY, "copy", *words, **more)
    assert done.stdout + done.stderr == ""


def refused(*words: str | Path) -> str:
    """Return the one line with which a copy is refused."""
    done = run(ZONEFS_PY, "copy", *words, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"zonefs-py: [^\n]+\n", done.stderr)
    return done.stderr


def fill(path: Path, size: int) -> bytes:
    """Give a file content and return it; a conventional file has room for more."""
    data = os.urandom(size)
    if path.parent.name == "seq":
        descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
        try:
            # Page-aligned memory: the kernel cuts a request at a page of it, which is then the end of a block.
            with mmap.mmap(-1, size) as memory:
                memory.write(data)
                assert os.write(descriptor, memory) == size
        finally:
            os.close(descriptor)
    else:
        with open(path, "r+b" if path.exists() else "wb") as stream:
            stream.write(data)
    return data


def copies(mounted: Mounts, path: Path) -> int:
    """How many bytes the daemon has copied by itself."""
    return sum(engine["bytes"] for engine in mounted.info(path)["copy"]["engines"].values())


@pytest.fixture
def mount(device_dir: Callable[..., Path], mounted: Mounts) -> Path:
    return mounted(device_dir(zones=8, conventional=3, zone_size="1M", zone_capacity="768K"))


@pytest.mark.parametrize("source", ["a", "cnv/0", "seq/0"])
@pytest.mark.parametrize("destination", ["b", "cnv/1", "seq/1"])
def test_every_pair(mount: Path, mounted: Mounts, tmp_path: Path, source: str, destination: str) -> None:
    def place(name: str) -> Path:
        return (mount if "/" in name else tmp_path) / name

    size = 300 * KIB
    data = fill(place(source), size)
    if source == "cnv/0" and destination == "seq/1":
        # A conventional file is as large as its zone, which is more than a sequential one holds.
        assert "has room for 786432 bytes, but 1048576 are to come" in refused(place(source), place(destination))
        return
    copy("--verify", place(source), place(destination))
    assert place(destination).read_bytes()[:size] == data
    inside = "/" in source and "/" in destination
    assert copies(mounted, mount) == (place(source).stat().st_size if inside else 0)


def test_several_sources_are_gathered_in_order(mount: Path, tmp_path: Path) -> None:
    parts = [fill(tmp_path / "a", 5 * BLOCK), fill(mount / "seq/0", 3 * BLOCK), fill(tmp_path / "b", 2 * MIB % 70_000)]
    files = [tmp_path / "a", mount / "seq/0", tmp_path / "b"]
    assert "b: 67152 bytes are no multiple of the block size, 4096" in refused(*files, mount / "seq/1")
    assert (mount / "seq/1").stat().st_size == 0
    copy("--pad", "--verify", *files, mount / "seq/1")
    expected = b"".join(parts)
    expected += bytes(-len(expected) % BLOCK)
    assert (mount / "seq/1").read_bytes() == expected
    copy("--append", "--verify", mount / "seq/1", files[0], mount / "seq/1")
    assert (mount / "seq/1").read_bytes() == expected * 2 + parts[0]
    copy(*files, mount / "cnv/0")
    assert (mount / "cnv/0").read_bytes()[: sum(map(len, parts))] == b"".join(parts)
    copy(*files, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"".join(parts)


def test_between_two_mounts(device_dir: Callable[..., Path], mounted: Mounts) -> None:
    one, two = mounted(device_dir()), mounted(device_dir(block_size=512))
    data = fill(one / "seq/0", MIB)
    copy("--verify", one / "seq/0", two / "seq/0")
    assert (two / "seq/0").read_bytes() == data
    copy("--verify", two / "seq/0", one / "cnv/0")
    assert (one / "cnv/0").read_bytes() == data
    assert copies(mounted, one) == copies(mounted, two) == 0


def test_refusals_change_nothing(mount: Path, tmp_path: Path) -> None:
    fill(mount / "seq/0", BLOCK)
    fill(tmp_path / "block", BLOCK)
    fill(tmp_path / "odd", 100)
    fill(tmp_path / "large", 772 * KIB)
    (tmp_path / "empty").touch()
    cases = [
        (["block", "seq/0"], "seq/0 is not empty; --append adds to it"),
        (["odd", "seq/1"], "--pad fills the last block with zeros"),
        (["block", "odd", "seq/1"], "odd: 100 bytes"),
        (["large", "seq/1"], "has room for 786432 bytes"),
        (["block", "seq"], "is a directory; name a file"),
        (["block", "."], "is a directory"),
        (["seq", "seq/1"], "is a directory"),
        (["block", "seq/99"], "seq/99: No such file or directory"),
        (["block", "new"], "new: No such file or directory"),
        (["missing", "seq/1"], "missing: No such file or directory"),
        (["block", "block"], "block is not empty"),
        (["cnv/0", "cnv/0"], "both source and destination"),
        (["--append", "block", "cnv/0"], "no write pointer"),
        (["/dev/null", "seq/1"], "not a regular file"),
    ]

    def place(word: str) -> str | Path:
        ours = word in (".", "new", "seq") or word.startswith(("seq/", "cnv/"))
        return word if word.startswith(("-", "/")) else (mount if ours else tmp_path) / word

    before = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(mount.glob("*/*"))]
    for words, says in cases:
        assert says in refused(*map(place, words)), words
    assert before == [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(mount.glob("*/*"))]
    assert not (tmp_path / "new").exists()
    assert "see 'zonefs-py copy --help'" in run(ZONEFS_PY, "copy", "only", check=False).stderr


def test_an_error_says_what_of_a_failed_write_is_there(
    device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path
) -> None:
    """Who goes on from that number with --append has every byte once."""
    path = mounted(device_dir(zones=8, conventional=1), "errors=repair")
    mounted.expect_log(path, "fails by rule|size changed from 0")
    fill(tmp_path / "a", 8 * BLOCK)
    for source in (tmp_path / "a", path / "seq/0"):
        if source.parent.name == "seq":
            run(ZONEFS_PY, "copy", tmp_path / "a", source)
        rule = {"operation": "write", "effect": "fail", "zones": 2, "after": 2 * BLOCK}
        # A host that copies by itself is asked for no write.
        run(ZONEFS_PY, "limits", path, "copy_offload=0")
        MountControl(path).add_faults([rule])
        message = refused(source, path / "seq/1")
        assert message.endswith(f"{2 * BLOCK} of {8 * BLOCK} bytes were copied to {path}/seq/1\n")
        assert (path / "seq/1").stat().st_size == 2 * BLOCK
        MountControl(path).clear_faults()
        os.truncate(path / "seq/1", 0)


def test_an_error_says_how_much_was_copied(device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path) -> None:
    path = mounted(device_dir(zones=8, conventional=1, max_active=1), "errors=repair")
    mounted.expect_log(path, "zone 2: 1 zones are active")
    data = fill(path / "seq/0", BLOCK)
    fill(tmp_path / "a", 2 * BLOCK)
    message = refused(tmp_path / "a", path / "seq/1")
    assert f"a to {path}/seq/1: " in message
    assert message.endswith(f"0 of 8192 bytes were copied to {path}/seq/1\n")
    assert "0 of 4096 bytes were copied" in refused(path / "seq/0", path / "seq/1")
    assert (path / "seq/1").stat().st_size == 0
    assert (path / "seq/0").read_bytes() == data


def test_a_zone_that_cannot_be_read_is_not_an_empty_file(
    device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path
) -> None:
    device = device_dir()
    run(ZONEFS_PY, "zone", "offline", device, "2")
    path = mounted(device)
    assert (path / "seq/0").stat().st_size == 0
    assert "seq/0: " in refused(path / "seq/0", path / "seq/1")
    assert "seq/0: " in refused(path / "seq/0", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ctrl_c_stops_between_two_pieces(mount: Path, tmp_path: Path) -> None:
    data = fill(tmp_path / "a", 512 * KIB)
    command: list[str | Path] = [ZONEFS_PY, "copy", "--throttle", "200K", tmp_path / "a", mount / "seq/0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=command_environment()) as process:
        wait_until("something is copied", lambda: (mount / "seq/0").stat().st_size > 0)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    copied = (mount / "seq/0").read_bytes()
    assert 0 < len(copied) < len(data)
    assert copied == data[: len(copied)]
    assert message == f"zonefs-py: interrupted: {len(copied)} of {len(data)} bytes were copied to {mount}/seq/0\n"
    # The rest can be appended, as the write pointer is where the message says.
    (tmp_path / "rest").write_bytes(data[len(copied) :])
    copy("--append", tmp_path / "rest", mount / "seq/0")
    assert (mount / "seq/0").read_bytes() == data


def test_the_bar_is_for_terminals(mount: Path, tmp_path: Path) -> None:
    fill(tmp_path / "a", 64 * KIB)
    master, terminal = pty.openpty()
    try:
        command: list[str | Path] = [ZONEFS_PY, "copy", "--throttle", "40K", tmp_path / "a", mount / "seq/0"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=terminal, env=command_environment(), timeout=60, check=False
        )
        os.close(terminal)
        terminal = -1
        shown = b""
        while b"100%" not in shown:
            shown += os.read(master, 4096)
    finally:
        os.close(master)
        if terminal >= 0:
            os.close(terminal)
    assert done.returncode == 0
    assert done.stdout == b""
    assert b"Copying" in shown


def test_the_throttle_is_for_all_sources_together(tmp_path: Path) -> None:
    files = [tmp_path / f"part{number}" for number in range(5)]
    data = b"".join(fill(file, 64 * KIB) for file in files)
    before = time.monotonic()
    copy("--throttle", "640K", *files, tmp_path / "out")
    # A tenth of a second each; after the last one nothing is waited for.
    assert time.monotonic() - before >= 0.4
    assert (tmp_path / "out").read_bytes() == data
