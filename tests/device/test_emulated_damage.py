"""The emulated device in a directory: what it refuses to open, and what it says of it."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.device.conformance import pattern, write_blocks, zone_of
from tests.device.directories import BLOCK, CAPACITY, FIRST, SIZE, listing, zone_file
from zonefs_py.device.directory import open_device
from zonefs_py.errors import DeviceFormatError


def damage(how: Callable[[Path], object], named: str, says: str) -> object:
    """A damage, the file that the refusal names, and a word of it."""
    return pytest.param(how, named, says, id=f"{named}-{says.replace(' ', '-')}")


def replaced_by_link(path: Path) -> None:
    zone_file(path, 3).unlink()
    zone_file(path, 3).symlink_to(zone_file(path, 4))


def dangling_link(path: Path) -> None:
    zone_file(path, 0).unlink()
    zone_file(path, 0).symlink_to("/nowhere")


def replaced_by_directory(path: Path) -> None:
    zone_file(path, 3).unlink()
    zone_file(path, 3).mkdir()


def replaced_by_pipe(path: Path) -> None:
    zone_file(path, 0).unlink()
    os.mkfifo(zone_file(path, 0))


def replaced_by_socket(path: Path) -> None:
    zone_file(path, 7).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(path)
        try:
            listener.bind("seq-000007")
        finally:
            os.chdir(before)


def of_the_other_type(path: Path) -> None:
    zone_file(path, 2).rename(path / "cnv-000002")


def unnumbered(path: Path) -> None:
    zone_file(path, 2).rename(path / "seq-2")


DAMAGES = [
    damage(lambda path: zone_file(path, 3).unlink(), "seq-000003", "missing"),
    damage(lambda path: zone_file(path, 0).unlink(), "cnv-000000", "missing"),
    damage(of_the_other_type, "seq-000002", "missing"),
    damage(unnumbered, "seq-000002", "missing"),
    damage(replaced_by_link, "seq-000003", "not a regular file"),
    damage(dangling_link, "cnv-000000", "not a regular file"),
    damage(replaced_by_directory, "seq-000003", "not a regular file"),
    damage(replaced_by_pipe, "cnv-000000", "not a regular file"),
    damage(replaced_by_socket, "seq-000007", "not a regular file"),
    damage(lambda path: os.truncate(zone_file(path, 3), CAPACITY + 1), "seq-000003", str(CAPACITY)),
    damage(lambda path: os.truncate(zone_file(path, 3), SIZE), "seq-000003", str(CAPACITY)),
    damage(lambda path: os.truncate(zone_file(path, 1), SIZE + BLOCK), "cnv-000001", str(SIZE)),
    damage(lambda path: os.truncate(zone_file(path, 1), SIZE - BLOCK), "cnv-000001", str(SIZE)),
    damage(lambda path: os.truncate(zone_file(path, 0), 0), "cnv-000000", str(SIZE)),
]


@pytest.mark.parametrize("read_only", [False, True], ids=["rw", "ro"])
@pytest.mark.parametrize(("how", "named", "says"), DAMAGES)
def test_a_damaged_zone_file_is_named(
    path: Path, how: Callable[[Path], object], named: str, says: str, read_only: bool
) -> None:
    how(path)
    before = listing(path)
    with pytest.raises(DeviceFormatError) as raised:
        open_device(path, read_only=read_only)
    message = str(raised.value)
    assert named in message
    assert says in message
    assert "\n" not in message
    assert listing(path) == before
    # The lock is gone with the refusal.
    with pytest.raises(DeviceFormatError):
        open_device(path)


def write_text(text: str) -> Callable[[Path], object]:
    """A damage: other content for device.json."""
    return lambda file: file.write_text(text)


def link_to_itself(file: Path) -> None:
    file.rename(file.with_name("real"))
    file.symlink_to("real")


def make_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def make_huge(file: Path) -> None:
    os.truncate(file, 1 << 40)


@pytest.mark.parametrize(
    "how",
    [
        Path.unlink,
        write_text(""),
        write_text("{}"),
        write_text('{"format": "zloop"}'),
        lambda file: os.truncate(file, file.stat().st_size // 2),
        lambda file: file.write_bytes(b"\0" * 500),
        link_to_itself,
        make_directory,
        make_pipe,
        make_huge,
    ],
    ids=["missing", "empty", "object", "foreign", "truncated", "zeros", "link", "directory", "pipe", "huge"],
)
def test_a_damaged_description_is_named(path: Path, how: Callable[[Path], object]) -> None:
    how(path / "device.json")
    for read_only in (False, True):
        with pytest.raises(DeviceFormatError, match=r"device\.json") as raised:
            open_device(path, read_only=read_only)
        assert "\n" not in str(raised.value)


def test_what_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(DeviceFormatError, match="does not exist"):
        open_device(tmp_path / "nothing")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DeviceFormatError, match="not a directory"):
            open_device(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeviceFormatError, match=r"no device\.json"):
        open_device(tmp_path / "empty")


def test_a_description_of_more_zones_than_there_are(path: Path) -> None:
    content = json.loads((path / "device.json").read_text())
    (path / "device.json").write_text(json.dumps(content | {"nr_zones": 9}))
    with pytest.raises(DeviceFormatError, match="seq-000008"):
        open_device(path)


def test_other_files_in_the_directory_do_no_harm(path: Path) -> None:
    (path / "notes.txt").write_text("mine")
    (path / "seq-000099").touch()
    with open_device(path) as device:
        write_blocks(device, FIRST)
    assert (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("more", "blocks"), [(1, 0), (511, 2), (BLOCK - 1, 5), (BLOCK // 2, 11)])
def test_half_a_block_at_the_end_is_cut_off(
    path: Path, more: int, blocks: int, caplog: pytest.LogCaptureFixture
) -> None:
    file = zone_file(path, 3)
    file.write_bytes(pattern(0, blocks * BLOCK) + b"x" * more)
    with open_device(path, read_only=True) as device:
        assert zone_of(device, 3).wp == 3 * SIZE + blocks * BLOCK
        assert device.read(3 * SIZE, SIZE)[: blocks * BLOCK] == pattern(0, blocks * BLOCK)
    assert file.stat().st_size == blocks * BLOCK + more
    assert not caplog.records
    with caplog.at_level(logging.WARNING), open_device(path) as device:
        assert zone_of(device, 3).wp == 3 * SIZE + blocks * BLOCK
        assert device.read(3 * SIZE, SIZE) == pattern(0, blocks * BLOCK) + bytes(SIZE - blocks * BLOCK)
        write_blocks(device, 3)
    (record,) = caplog.records
    assert "seq-000003" in record.getMessage()
    assert f"from {blocks * BLOCK + more} to {blocks * BLOCK}" in record.getMessage()
    assert file.stat().st_size == (blocks + 1) * BLOCK
