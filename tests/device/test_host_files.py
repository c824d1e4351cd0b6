"""Reads of host files that break off: a bad sector makes a read short, and is an error only for who asks again."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.descriptors import opened
from zonefs_py.device.host_files import read_fully
from zonefs_py.device.zone_files import DirectoryStore
from zonefs_py.zone import Geometry

PAGE = mmap.PAGESIZE
GOOD = b"good" * (PAGE // 4)


@pytest.fixture
def bad_place(tmp_path: Path) -> Iterator[int]:
    """An offset in /proc/self/mem at which one page can be read, and the next one cannot, as on a disk that fails.

    What is there is a mapping of a file that ends before the mapping does.
    """
    (tmp_path / "mapped").write_bytes(GOOD * 2)
    with (tmp_path / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE) as memory:
        file.truncate(PAGE)
        yield ctypes.addressof(ctypes.c_char.from_buffer(memory))


def test_what_is_before_a_bad_place_is_not_taken_for_all(bad_place: int) -> None:
    buffer = memoryview(bytearray(2 * PAGE))
    with opened(Path("/proc/self/mem"), os.O_RDONLY) as descriptor:
        assert os.preadv(descriptor, [buffer], bad_place) == PAGE, "this is what a single call says"
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            read_fully(descriptor, buffer, bad_place)
        assert read_fully(descriptor, buffer[:PAGE], bad_place) == PAGE
    assert buffer[:PAGE] == GOOD


def test_the_end_of_a_file_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(GOOD)
    buffer = memoryview(bytearray(2 * PAGE))
    with opened(tmp_path / "file", os.O_RDONLY) as descriptor:
        assert read_fully(descriptor, buffer, 4) == PAGE - 4
        assert buffer[: PAGE - 4] == GOOD[4:]
        assert read_fully(descriptor, buffer, PAGE) == 0


@pytest.fixture
def store_with_bad_place(tmp_path: Path) -> Iterator[DirectoryStore]:
    """A store whose zone 0 is the memory of this process."""
    if os.geteuid() != 0:
        pytest.skip("a bind mount takes root")
    directory = tmp_path / "zones"
    directory.mkdir()
    zone = directory / "cnv-000000"
    zone.touch()
    subprocess.run(["mount", "--bind", f"/proc/{os.getpid()}/mem", zone], check=True, timeout=30)
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        store = DirectoryStore(str(directory), descriptor, Geometry(PAGE, PAGE, 1, 1, PAGE, PAGE), read_only=True)
        yield store
        store.close()
    finally:
        subprocess.run(["umount", zone], check=True, timeout=30)


def test_a_zone_with_a_bad_sector_is_not_filled_up_with_zeros(
    store_with_bad_place: DirectoryStore, bad_place: int
) -> None:
    """Reads into a buffer too, which are what copies through memory are made of."""
    store, buffer = store_with_bad_place, memoryview(bytearray(2 * PAGE))
    # In any order: the first finds out that this file cannot say whether a read would wait.
    for read in (store.read_into_now, store.read_into_now, store.read_into):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            read(0, bad_place, buffer)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        store.read(0, bad_place, 2 * PAGE)
    assert store.read(0, bad_place, PAGE) == GOOD
