"""The ladders of a zone file: which read, write or truncation is refused, how, and in which order."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.errors import (
    AppendToConventional,
    BeyondCapacity,
    BufferedSequentialWrite,
    InvalidRequest,
    NotAligned,
    NotAtWritePointer,
    NotPermitted,
    ReadOnlyFilesystem,
    ZonefsError,
)
from zonefs_py.fs.file import S_IFREG, ZoneFile
from zonefs_py.fs.layout import FileExtent
from zonefs_py.zone import ZoneCondition, ZoneOp

ZONE_SIZE = 4 * 1024 * 1024
CAPACITY = 3 * 1024 * 1024
MAX_FILE_SIZE = ZONE_SIZE
"""The largest file of the file system is a conventional one."""

BLOCKS = [512, 4096]


def seq(
    size: int = 0,
    *,
    block: int = 4096,
    condition: ZoneCondition = ZoneCondition.CLOSED,
    mode: int = 0o640,
    readonly: bool = False,
    offline: bool = False,
) -> ZoneFile:
    """A sequential file; *condition* as at mount time, *readonly* and *offline* as error handling leaves it."""
    extent = FileExtent(8, 1, 8 * ZONE_SIZE, ZONE_SIZE, CAPACITY, size, condition)
    file = ZoneFile(extent, 4, block, sequential=True, mode=mode, uid=0, gid=0, time_ns=0)
    if readonly:
        file.readonly = True
        file.mode &= ~0o222
    if offline:
        file.offline = True
        file.mode &= ~0o777
        file.size = 0
    return file


def cnv(*, block: int = 4096, condition: ZoneCondition = ZoneCondition.NOT_WP, nr_zones: int = 1) -> ZoneFile:
    """A conventional file."""
    size = nr_zones * ZONE_SIZE
    extent = FileExtent(1, nr_zones, ZONE_SIZE, size, size, size, condition)
    return ZoneFile(extent, 0, block, sequential=False, mode=0o640, uid=0, gid=0, time_ns=0)


def write(
    file: ZoneFile, offset: int, length: int, *, direct: bool = True, append: bool = False, read_only: bool = False
) -> tuple[int, int]:
    """Where and how much is written."""
    return file.check_write(offset, length, direct=direct, append=append, read_only=read_only)


def state(file: ZoneFile) -> dict[str, Any]:
    """Every attribute of *file* but its lock."""
    names = [name for kind in type(file).__mro__ for name in getattr(kind, "__slots__", ()) if name != "lock"]
    return {name: copy.copy(getattr(file, name)) for name in names}


def test_what_a_file_is_called() -> None:
    assert (seq().name, seq().number, seq().ino) == ("seq/4", 8, 8)
    assert (cnv().name, cnv().number, cnv().ino) == ("cnv/0", 1, 1)
    assert seq(mode=0o1777).mode == S_IFREG | 0o1777


class TestSequentialWrite:
    """Section "write to a sequential file"."""

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("size_blocks", [0, 1, 7])
    @pytest.mark.parametrize("blocks", [1, 2, 9])
    def test_at_the_write_pointer(self, block: int, size_blocks: int, blocks: int) -> None:
        file = seq(size_blocks * block, block=block)
        assert write(file, file.size, blocks * block) == (file.size, blocks * block)

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("blocks", [-8, -1, 1, 8])
    @pytest.mark.parametrize("length", [1, 2, 10])
    def test_off_the_write_pointer(self, block: int, blocks: int, length: int) -> None:
        file = seq(8 * block, block=block)
        with pytest.raises(NotAtWritePointer):
            write(file, file.size + blocks * block, length * block)

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("off", [1, 100, 511])
    def test_an_unaligned_offset(self, block: int, off: int) -> None:
        with pytest.raises(InvalidRequest):
            write(seq(8 * block, block=block), 8 * block + off, block)

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("more", [1, 100, 511])
    def test_a_length_of_no_whole_blocks(self, block: int, more: int) -> None:
        for length in (more, block + more, block - more):
            with pytest.raises(NotAligned):
                write(seq(block=block), 0, length)

    @pytest.mark.parametrize("block", BLOCKS)
    def test_a_write_across_the_capacity_is_cut_before_its_alignment_is_looked_at(self, block: int) -> None:
        size = CAPACITY - block
        file = seq(size, block=block)
        for length in (block, 2 * block, block + 100, CAPACITY, 1 << 40):
            assert write(file, size, length) == (size, block)
        assert write(seq(block=block), 0, CAPACITY + 1) == (0, CAPACITY)
        with pytest.raises(NotAligned):
            write(file, size, block - 1)

    @pytest.mark.parametrize("size", [0, 8192, CAPACITY - 4096, CAPACITY])
    @pytest.mark.parametrize("offset", [CAPACITY, CAPACITY + 1, CAPACITY + 4096, ZONE_SIZE, 1 << 62])
    @pytest.mark.parametrize("length", [0, 1, 100, 4096, 1 << 30])
    @pytest.mark.parametrize("direct", [True, False])
    def test_at_or_past_the_capacity(self, size: int, offset: int, length: int, direct: bool) -> None:
        with pytest.raises(BeyondCapacity):
            write(seq(size), offset, length, direct=direct)

    @pytest.mark.parametrize("offset", [0, 4096, CAPACITY - 4096])
    def test_before_the_capacity_of_a_full_zone(self, offset: int) -> None:
        with pytest.raises(InvalidRequest):
            write(seq(CAPACITY), offset, 4096)

    @pytest.mark.parametrize("offset", [0, 100, 4096, 8192, CAPACITY - 1])
    @pytest.mark.parametrize("size", [0, 4096, CAPACITY])
    def test_nothing_anywhere_before_the_capacity(self, offset: int, size: int) -> None:
        assert write(seq(size), offset, 0) == (offset, 0)

    @pytest.mark.parametrize("offset", [0, 1, 4096, 8192, CAPACITY - 1])
    @pytest.mark.parametrize("length", [0, 1, 4096, CAPACITY])
    @pytest.mark.parametrize("size", [0, 4096])
    def test_buffered(self, offset: int, length: int, size: int) -> None:
        with pytest.raises(BufferedSequentialWrite):
            write(seq(size), offset, length, direct=False)

    @pytest.mark.parametrize("offset", [0, 1, 4096, 100, CAPACITY - 1])
    def test_appending_ignores_the_offset(self, offset: int) -> None:
        assert write(seq(8192), offset, 4096, append=True) == (8192, 4096)
        assert write(seq(CAPACITY - 4096), offset, 8192, append=True) == (CAPACITY - 4096, 4096)
        with pytest.raises(BeyondCapacity):
            write(seq(CAPACITY), offset, 4096, append=True)
        with pytest.raises(NotAligned):
            write(seq(8192), offset, 100, append=True)

    @pytest.mark.parametrize("size", [0, 4096, CAPACITY])
    def test_buffered_appending(self, size: int) -> None:
        with pytest.raises(BufferedSequentialWrite):
            write(seq(size), 0, 4096, direct=False, append=True)

    def test_a_negative_offset(self) -> None:
        with pytest.raises(InvalidRequest):
            write(seq(), -4096, 4096)

    def test_the_order_of_refusals(self) -> None:
        """EPERM, EROFS, EFBIG, EIO, then alignment, then position."""
        refused: dict[str, Any] = {"offset": CAPACITY, "length": 100, "direct": False, "read_only": True}
        with pytest.raises(NotPermitted):
            write(seq(readonly=True), **refused)
        with pytest.raises(ReadOnlyFilesystem):
            write(seq(), **refused)
        refused["read_only"] = False
        with pytest.raises(BeyondCapacity):
            write(seq(), **refused)
        refused["offset"] = 100
        with pytest.raises(BufferedSequentialWrite):
            write(seq(), **refused)
        refused["direct"] = True
        with pytest.raises(NotAligned):
            write(seq(), **refused)
        refused["offset"] = refused["length"] = 4096
        with pytest.raises(NotAtWritePointer):
            write(seq(), **refused)

    @pytest.mark.parametrize("length", [0, 4096])
    def test_a_read_only_file_system(self, length: int) -> None:
        with pytest.raises(ReadOnlyFilesystem):
            write(seq(), 0, length, read_only=True)

    @pytest.mark.parametrize("file", [seq(4096, readonly=True), seq(offline=True)], ids=["read-only", "offline"])
    def test_a_zone_that_error_handling_took_out(self, file: ZoneFile) -> None:
        for offset in (0, 4096, CAPACITY):
            with pytest.raises(NotPermitted):
                write(file, offset, 4096)


class TestConventionalWrite:
    """Section "write to a conventional file"."""

    @pytest.mark.parametrize("offset", [0, 1, 100, 4096, ZONE_SIZE - 200])
    @pytest.mark.parametrize("length", [1, 100, 200])
    def test_buffered_anywhere(self, offset: int, length: int) -> None:
        assert write(cnv(), offset, length, direct=False) == (offset, length)

    def test_buffered_across_the_end_is_short(self) -> None:
        assert write(cnv(), ZONE_SIZE - 100, 200, direct=False) == (ZONE_SIZE - 100, 100)

    @pytest.mark.parametrize("block", BLOCKS)
    def test_direct_needs_whole_blocks(self, block: int) -> None:
        file = cnv(block=block)
        assert write(file, 3 * block, 2 * block) == (3 * block, 2 * block)
        assert write(file, ZONE_SIZE - block, 2 * block) == (ZONE_SIZE - block, block)
        for offset, length in ((1, block), (block, 1), (0, block + 100), (ZONE_SIZE - 100, 200)):
            with pytest.raises(NotAligned):
                write(file, offset, length)

    @pytest.mark.parametrize("direct", [True, False])
    @pytest.mark.parametrize("offset", [ZONE_SIZE, ZONE_SIZE + 1, 1 << 62])
    def test_at_or_past_the_end(self, direct: bool, offset: int) -> None:
        with pytest.raises(BeyondCapacity):
            write(cnv(), offset, 100, direct=direct)

    @pytest.mark.parametrize("direct", [True, False])
    @pytest.mark.parametrize("length", [1, 100, 4096])
    def test_appending(self, direct: bool, length: int) -> None:
        for offset in (0, 100, 4096, ZONE_SIZE - 1):
            with pytest.raises(AppendToConventional):
                write(cnv(), offset, length, direct=direct, append=True)
        with pytest.raises(BeyondCapacity):
            write(cnv(), ZONE_SIZE, length, direct=direct, append=True)

    @pytest.mark.parametrize("direct", [True, False])
    @pytest.mark.parametrize("append", [True, False])
    def test_nothing(self, direct: bool, append: bool) -> None:
        assert write(cnv(), 100, 0, direct=direct, append=append) == (100, 0)

    def test_a_read_only_file_system(self) -> None:
        with pytest.raises(ReadOnlyFilesystem):
            write(cnv(), 0, 100, direct=False, read_only=True)

    def test_an_aggregated_file_is_as_long_as_its_zones(self) -> None:
        file = cnv(nr_zones=3)
        assert write(file, ZONE_SIZE - 50, 100, direct=False) == (ZONE_SIZE - 50, 100)
        assert write(file, 3 * ZONE_SIZE - 50, 100, direct=False) == (3 * ZONE_SIZE - 50, 50)


class TestRead:
    """Section "read"."""

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [(0, 100, 100), (1, 100, 100), (511, 4097, 4097), (8000, 192, 192), (8000, 10_000, 192), (0, 1 << 40, 8192)],
    )
    def test_buffered(self, block: int, offset: int, length: int, expected: int) -> None:
        assert seq(8192, block=block).check_read(offset, length, direct=False) == expected

    @pytest.mark.parametrize("block", BLOCKS)
    def test_direct(self, block: int) -> None:
        file = seq(4 * block, block=block)
        assert file.check_read(block, block, direct=True) == block
        assert file.check_read(3 * block, 8 * block, direct=True) == block
        for offset, length in ((1, block), (0, 1), (block, block + 1), (4 * block - 1, block)):
            with pytest.raises(NotAligned):
                file.check_read(offset, length, direct=True)

    @pytest.mark.parametrize("direct", [True, False])
    @pytest.mark.parametrize("offset", [8192, 8193, 12288, CAPACITY, CAPACITY + 1, ZONE_SIZE, 1 << 62])
    @pytest.mark.parametrize("length", [0, 1, 4096])
    def test_at_and_past_the_end(self, direct: bool, offset: int, length: int) -> None:
        """Even when it is not aligned."""
        assert seq(8192).check_read(offset, length, direct=direct) == 0

    @pytest.mark.parametrize("direct", [True, False])
    def test_of_nothing(self, direct: bool) -> None:
        assert seq(8192).check_read(0, 0, direct=direct) == 0
        assert seq().check_read(0, 4096, direct=direct) == 0

    @pytest.mark.parametrize(("offset", "length"), [(-1, 4096), (0, -1)])
    def test_negative(self, offset: int, length: int) -> None:
        with pytest.raises(InvalidRequest):
            seq(8192).check_read(offset, length, direct=False)

    def test_conventional(self) -> None:
        assert cnv().check_read(ZONE_SIZE - 10, 100, direct=False) == 10
        assert cnv().check_read(ZONE_SIZE, 100, direct=False) == 0

    def test_zones_that_error_handling_took_out(self) -> None:
        assert seq(8192, readonly=True).check_read(0, 100, direct=False) == 100
        with pytest.raises(NotPermitted):
            seq(offline=True).check_read(0, 100, direct=False)

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    def test_zones_that_were_bad_before_the_mount(self, condition: ZoneCondition) -> None:
        """Read-only ones too: the device does not tell where their data ends."""
        for file in (seq(condition=condition), seq(condition=condition, mode=0o777)):
            assert (file.size, file.mode) == (0, S_IFREG)
            with pytest.raises(NotPermitted):
                file.check_read(0, 100, direct=False)
            with pytest.raises(NotPermitted):
                write(file, 0, 4096)
            with pytest.raises(NotPermitted):
                file.check_truncate(0, max_file_size=MAX_FILE_SIZE)
            assert not file.should_be_active()


class TestTruncate:
    """Section "truncate"."""

    @pytest.mark.parametrize(
        ("size", "new", "op"),
        [
            (0, 0, None),
            (0, CAPACITY, ZoneOp.FINISH),
            (4096, 0, ZoneOp.RESET),
            (4096, CAPACITY, ZoneOp.FINISH),
            (CAPACITY, 0, ZoneOp.RESET),
            (CAPACITY, CAPACITY, None),
        ],
    )
    def test_to_nothing_and_to_the_capacity(self, size: int, new: int, op: ZoneOp | None) -> None:
        assert seq(size).check_truncate(new, max_file_size=MAX_FILE_SIZE) is op

    @pytest.mark.parametrize("size", [0, 4096, 8192, CAPACITY])
    @pytest.mark.parametrize("new", [1, 512, 4096, 8192, CAPACITY - 1, CAPACITY + 1, CAPACITY + 4096, MAX_FILE_SIZE])
    def test_to_anything_else(self, size: int, new: int) -> None:
        """A partly written file's own size too."""
        with pytest.raises(NotPermitted):
            seq(size).check_truncate(new, max_file_size=MAX_FILE_SIZE)

    @pytest.mark.parametrize("file", [seq(), seq(4096), seq(CAPACITY), cnv()], ids=["empty", "partial", "full", "cnv"])
    def test_to_more_than_any_file_holds(self, file: ZoneFile) -> None:
        for new in (MAX_FILE_SIZE + 1, 1 << 62):
            with pytest.raises(BeyondCapacity):
                file.check_truncate(new, max_file_size=MAX_FILE_SIZE)

    def test_where_the_capacity_is_the_largest_size(self) -> None:
        with pytest.raises(BeyondCapacity):
            seq().check_truncate(CAPACITY + 1, max_file_size=CAPACITY)

    @pytest.mark.parametrize("new", [0, 1, 4096, ZONE_SIZE - 1, ZONE_SIZE])
    def test_of_a_conventional_file(self, new: int) -> None:
        """To its own size too."""
        with pytest.raises(NotPermitted):
            cnv().check_truncate(new, max_file_size=MAX_FILE_SIZE)

    @pytest.mark.parametrize("file", [seq(), cnv()], ids=["seq", "cnv"])
    def test_to_a_negative_size(self, file: ZoneFile) -> None:
        with pytest.raises(InvalidRequest):
            file.check_truncate(-1, max_file_size=MAX_FILE_SIZE)

    @pytest.mark.parametrize("file", [seq(4096, readonly=True), seq(offline=True)], ids=["read-only", "offline"])
    def test_of_a_zone_that_error_handling_took_out(self, file: ZoneFile) -> None:
        for new in (0, 4096, CAPACITY):
            with pytest.raises(NotPermitted):
                file.check_truncate(new, max_file_size=MAX_FILE_SIZE)


@pytest.mark.parametrize(
    ("size", "explicitly_open", "readonly", "active"),
    [
        (0, False, False, False),
        (4096, False, False, True),
        (CAPACITY, False, False, False),
        (0, True, False, True),
        (4096, True, False, True),
        (4096, True, True, False),
        (4096, False, True, False),
    ],
)
def test_active_files_are_partly_written_or_explicitly_open(
    size: int, explicitly_open: bool, readonly: bool, active: bool
) -> None:
    file = seq(size, readonly=readonly)
    file.explicitly_open = explicitly_open
    assert file.should_be_active() is active


def test_conventional_files_are_never_active() -> None:
    assert not cnv().should_be_active()


@pytest.mark.parametrize(("mode", "after"), [(0o6755, 0o755), (0o6745, 0o2745), (0o4644, 0o644), (0o2644, 0o2644)])
def test_set_id_bits_are_dropped(mode: int, after: int) -> None:
    """Set-group-ID without group execution means something else, and stays."""
    file = seq(mode=mode)
    file.drop_set_id()
    assert file.mode == S_IFREG | after


SIZES = st.integers(0, CAPACITY // 512).map(lambda blocks: blocks * 512)
NUMBERS = st.one_of(st.integers(-2, 2 * ZONE_SIZE), SIZES, st.sampled_from([0, CAPACITY, ZONE_SIZE, 1 << 62]))


@given(st.booleans(), SIZES, NUMBERS, NUMBERS, st.booleans(), st.booleans(), st.booleans())
def test_checks_change_nothing_and_promise_only_what_can_be(
    sequential: bool, size: int, offset: int, length: int, direct: bool, append: bool, read_only: bool
) -> None:
    file = seq(size, block=512) if sequential else cnv(block=512)
    before = state(file)
    try:
        at, count = write(file, offset, max(length, 0), direct=direct, append=append, read_only=read_only)
    except ZonefsError:
        pass
    else:
        assert not read_only
        assert 0 <= count <= max(length, 0)
        if count:
            assert at + count <= file.capacity
            if sequential:
                assert direct
                assert at == file.size
            if direct:
                assert at % 512 == count % 512 == 0
    try:
        count = file.check_read(offset, length, direct=direct)
    except InvalidRequest:
        pass
    else:
        assert 0 <= count <= length
        assert not count or offset + count <= file.size
    try:
        op = file.check_truncate(offset, max_file_size=MAX_FILE_SIZE)
    except ZonefsError:
        pass
    else:
        assert sequential
        assert (offset, op) in ((0, ZoneOp.RESET), (CAPACITY, ZoneOp.FINISH), (file.size, None))
    assert state(file) == before
