"""Ordinary programs on a mount: they must see what they would see on kernel zonefs."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.conftest import Mounts, command_environment, run

BLOCK = 4096
MIB = 1 << 20
ZONE = 4 * MIB
CAPACITY = 3 * MIB

# Directories are root's and nobody may write them: the kernel stops other users before zonefs is asked.
CREATION = errno.ENOENT if os.geteuid() == 0 else errno.EACCES
REMOVAL = errno.EPERM if os.geteuid() == 0 else errno.EACCES


@pytest.fixture
def mnt(device_dir: Callable[..., Path], mounted: Mounts) -> Path:
    """Eight zones of 4 MiB, 3 MiB of which can be written; the first two are conventional."""
    return mounted(device_dir(zones=8, conventional=2, zone_size="4M", zone_capacity="3M"))


def pattern(length: int, start: int = 0) -> bytes:
    """*length* bytes that tell where they belong: each 8 bytes hold their offset."""
    return b"".join(struct.pack("<Q", start + offset) for offset in range(0, length, 8))


def fails_with(number: int, *command: str | Path) -> None:
    """*command* must fail and say the system's words for errno *number*."""
    done = run(*command, check=False)
    assert done.returncode != 0, f"{command} was not refused"
    assert os.strerror(number) in done.stderr + done.stdout


def append(path: Path, data: bytes) -> None:
    """Append *data* to a sequential file in one write, with dd."""
    command = ["dd", f"of={path}", f"bs={len(data)}", "iflag=fullblock", "oflag=direct,append", "conv=notrunc"]
    subprocess.run(command, input=data, capture_output=True, check=True, env=command_environment())


# --- dd -------------------------------------------------------------------------------------------------------------


def test_dd_writes_and_reads_a_sequential_file(mnt: Path, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(pattern(CAPACITY))
    run("dd", f"if={source}", f"of={mnt}/seq/0", "bs=64k", "oflag=direct", "status=none")
    assert (mnt / "seq/0").stat().st_size == CAPACITY
    run("dd", f"if={mnt}/seq/0", f"of={back}", "bs=64k", "iflag=direct", "status=none")
    assert back.read_bytes() == source.read_bytes()


def test_dd_without_notrunc_resets_the_zone_first(mnt: Path) -> None:
    append(mnt / "seq/0", pattern(2 * BLOCK))
    run("dd", "if=/dev/zero", f"of={mnt}/seq/0", f"bs={BLOCK}", "count=1", "oflag=direct", "status=none")
    assert (mnt / "seq/0").read_bytes() == bytes(BLOCK)


def test_dd_appends(mnt: Path) -> None:
    for number in range(5):
        append(mnt / "seq/1", pattern(BLOCK, number * BLOCK))
    assert (mnt / "seq/1").read_bytes() == pattern(5 * BLOCK)


def test_dd_off_the_write_pointer_is_refused(mnt: Path) -> None:
    append(mnt / "seq/0", pattern(4 * BLOCK))
    for block in (0, 3, 5, 700):
        fails_with(errno.EINVAL, "dd", "if=/dev/zero", f"of={mnt}/seq/0", f"bs={BLOCK}", f"seek={block}", "count=1",
                   "oflag=direct", "conv=notrunc")  # fmt: skip
    assert (mnt / "seq/0").read_bytes() == pattern(4 * BLOCK)


def test_dd_of_odd_sizes_and_through_the_page_cache_is_refused(mnt: Path) -> None:
    target = f"of={mnt}/seq/0"
    fails_with(errno.EINVAL, "dd", "if=/dev/zero", target, "bs=1000", "count=1", "oflag=direct", "conv=notrunc")
    fails_with(errno.EIO, "dd", "if=/dev/zero", target, f"bs={BLOCK}", "count=1", "conv=notrunc")
    assert (mnt / "seq/0").stat().st_size == 0


def test_dd_stops_at_the_capacity(mnt: Path) -> None:
    fails_with(errno.EFBIG, "dd", "if=/dev/zero", f"of={mnt}/seq/0", "bs=1M", "count=4", "oflag=direct")
    assert (mnt / "seq/0").stat().st_size == CAPACITY


# --- cp, cat, and other readers -------------------------------------------------------------------------------------


def test_cp_and_cat_read(mnt: Path, tmp_path: Path) -> None:
    data = pattern(20 * BLOCK)
    append(mnt / "seq/0", data)
    append(mnt / "seq/1", data[: 3 * BLOCK])
    run("cp", mnt / "seq/0", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    run("cp", "-r", mnt / "seq", tmp_path / "tree")
    assert (tmp_path / "tree/1").read_bytes() == data[: 3 * BLOCK]
    assert sorted(os.listdir(tmp_path / "tree")) == [str(number) for number in range(6)]
    both = subprocess.run(["cat", mnt / "seq/0", mnt / "seq/1", mnt / "seq/2"], capture_output=True, check=True)
    assert both.stdout == data + data[: 3 * BLOCK]
    assert run("sha256sum", mnt / "seq/0").stdout.split()[0] == hashlib.sha256(data).hexdigest()
    run("cmp", mnt / "seq/0", tmp_path / "copy")


def test_cp_copies_between_sequential_files(mnt: Path, mounted: Mounts) -> None:
    """cp asks for copy_file_range, which is an operation of the device and no buffered write."""
    data = pattern(7 * BLOCK)
    append(mnt / "seq/1", data)
    run("cp", mnt / "seq/1", mnt / "seq/0")
    assert run("sha256sum", mnt / "seq/0").stdout.split()[0] == hashlib.sha256(data).hexdigest()
    # It was we who copied, not the kernel.
    engines = mounted.info(mnt)["copy"]["engines"]
    assert sum(done["bytes"] for done in engines.values()) == len(data)


def test_cp_and_cat_cannot_write_a_sequential_file(mnt: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(pattern(BLOCK))
    fails_with(errno.EIO, "cp", tmp_path / "source", mnt / "seq/0")
    fails_with(errno.EIO, "sh", "-c", 'cat "$1" >>"$2"', "sh", tmp_path / "source", mnt / "seq/0")
    assert (mnt / "seq/0").stat().st_size == 0


def test_cp_makes_no_files(mnt: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    fails_with(CREATION, "cp", tmp_path / "source", mnt / "seq/new")
    fails_with(CREATION, "mkdir", mnt / "new")
    fails_with(REMOVAL, "rm", "-f", mnt / "seq/0")


def test_new_names_without_permission(device_dir: Callable[..., Path], mounted: Mounts) -> None:
    """Kernel zonefs says ENOENT to everybody; see docs/differences.md."""
    mnt = mounted(device_dir(), "ro")
    fails_with(errno.EROFS, "mkdir", mnt / "new")
    if os.geteuid() == 0:
        mounted.unmount(mnt)
        mounted(device_dir(), at=mnt)
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        done = run(*nobody, "sh", "-c", "touch new; mkdir seq/new; mv seq/0 seq/new", cwd=mnt, check=False)
        assert [line.rpartition(": ")[2] for line in done.stderr.splitlines()] == [os.strerror(errno.EACCES)] * 3


def test_conventional_file_is_written_in_place(mnt: Path, tmp_path: Path) -> None:
    file = mnt / "cnv/0"
    (tmp_path / "source").write_bytes(b"zonefs")
    run("dd", f"if={tmp_path}/source", f"of={file}", "bs=1", "seek=12345", "conv=notrunc", "status=none")
    with file.open("rb") as opened:
        opened.seek(12344)
        assert opened.read(8) == b"\0zonefs\0"
    assert file.stat().st_size == ZONE
    fails_with(errno.EPERM, "cp", tmp_path / "source", file)


def test_another_file_system_lives_in_a_conventional_file(mnt: Path) -> None:
    run("mkfs.ext4", "-q", "-F", mnt / "cnv/0")
    run("e2fsck", "-f", "-n", mnt / "cnv/0")


# --- stat, ls, find, du, df -----------------------------------------------------------------------------------------


def test_stat_shows_zones(mnt: Path) -> None:
    append(mnt / "seq/3", pattern(5 * BLOCK))
    form = "--format=%n %F %s %b %B %o %h %a %i"
    shown = run("stat", form, "cnv", "seq", "cnv/0", "seq/0", "seq/3", cwd=mnt).stdout.splitlines()
    assert shown == [
        f"cnv directory 1 0 512 {BLOCK} 2 555 9",
        f"seq directory 6 0 512 {BLOCK} 2 555 10",
        f"cnv/0 regular file {ZONE} {ZONE // 512} 512 {BLOCK} 1 640 1",
        f"seq/0 regular empty file 0 {CAPACITY // 512} 512 {BLOCK} 1 640 2",
        f"seq/3 regular file {5 * BLOCK} {CAPACITY // 512} 512 {BLOCK} 1 640 5",
    ]


def test_file_system_statistics(mnt: Path) -> None:
    append(mnt / "seq/3", pattern(5 * BLOCK))
    shown = run("stat", "--file-system", "--format=%S %b %f %a %c %d %l", mnt).stdout.split()
    blocks = (ZONE + 6 * CAPACITY) // BLOCK
    free = 6 * CAPACITY // BLOCK - 5
    assert shown == [str(number) for number in (BLOCK, blocks, free, free, 9, 0, 16)]
    assert run("df", "--output=size,avail", "-B", str(BLOCK), mnt).stdout.split()[-2:] == [str(blocks), str(free)]


def test_ls_and_find_show_the_tree_in_numeric_order(mnt: Path) -> None:
    append(mnt / "seq/2", pattern(BLOCK))
    listed = run("ls", "-lnU", "--time-style=+", mnt / "seq").stdout.splitlines()
    assert [line.split() for line in listed[1:]] == [
        ["-rw-r-----", "1", str(os.geteuid()), str(os.getegid()), str(BLOCK if number == 2 else 0), str(number)]
        for number in range(6)
    ]
    assert run("ls", mnt).stdout.split() == ["cnv", "seq"]
    found = run("find", ".", "-type", "f", cwd=mnt).stdout.split()
    assert found == ["./cnv/0", *(f"./seq/{number}" for number in range(6))]
    assert run("find", "seq", "-size", "+0", cwd=mnt).stdout.split() == ["seq", "seq/2"]
    assert run("du", "-s", "--block-size=1", mnt / "seq").stdout.split()[0] == str(6 * CAPACITY)


def test_truncate_resets_and_finishes(mnt: Path, mounted: Mounts) -> None:
    append(mnt / "seq/0", pattern(BLOCK))
    run("truncate", f"--size={CAPACITY}", mnt / "seq/0")
    assert mounted.zones(mnt)["seq/0"]["condition"] == "full"
    run("truncate", "--size=0", mnt / "seq/0")
    assert mounted.zones(mnt)["seq/0"]["condition"] == "empty"
    fails_with(errno.EPERM, "truncate", f"--size={BLOCK}", mnt / "seq/0")


# --- Python's os module ---------------------------------------------------------------------------------------------


@pytest.fixture
def page() -> Iterator[mmap.mmap]:
    """A block of memory as O_DIRECT likes it."""
    with mmap.mmap(-1, BLOCK) as memory:
        memory[:] = pattern(BLOCK)
        yield memory


def test_os_module_writes_and_reads(mnt: Path, page: mmap.mmap) -> None:
    file = os.open(mnt / "seq/0", os.O_RDWR | os.O_DIRECT)
    try:
        assert os.write(file, page) == BLOCK
        assert os.lseek(file, 0, os.SEEK_CUR) == BLOCK
        assert os.pwrite(file, page, BLOCK) == BLOCK
        assert os.pwritev(file, [page, page], 2 * BLOCK) == 2 * BLOCK
        os.fsync(file)
        os.fdatasync(file)
        assert os.fstat(file).st_size == os.lseek(file, 0, os.SEEK_END) == 4 * BLOCK
        page[:] = bytes(BLOCK)
        assert os.preadv(file, [page], 3 * BLOCK) == BLOCK
        assert page[:] == pattern(BLOCK)
        assert os.preadv(file, [page], 4 * BLOCK) == 0
        os.ftruncate(file, 0)
        assert os.fstat(file).st_size == 0
    finally:
        os.close(file)


def test_os_module_appends(mnt: Path, page: mmap.mmap) -> None:
    file = os.open(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
    try:
        assert os.write(file, page) == BLOCK
        assert os.pwrite(file, page, 0) == BLOCK
        assert os.lseek(file, 0, os.SEEK_CUR) == BLOCK
    finally:
        os.close(file)
    assert (mnt / "seq/0").read_bytes() == 2 * pattern(BLOCK)


def test_os_module_is_refused(mnt: Path, page: mmap.mmap) -> None:
    file = os.open(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT)
    try:
        refused(errno.EINVAL, os.pwrite, file, page, BLOCK)
        refused(errno.EFBIG, os.pwrite, file, page, CAPACITY)
        refused(errno.EPERM, os.ftruncate, file, BLOCK)
        assert os.fstat(file).st_size == 0
    finally:
        os.close(file)
    with (mnt / "seq/0").open("ab", buffering=0) as buffered:
        refused(errno.EIO, buffered.write, page)
    refused(CREATION, (mnt / "seq/new").write_bytes, b"")
    refused(CREATION, os.mkdir, mnt / "seq/new")
    refused(CREATION, os.rename, mnt / "seq/0", mnt / "seq/new")
    refused(REMOVAL, os.replace, mnt / "seq/0", mnt / "seq/1")
    refused(REMOVAL, os.unlink, mnt / "seq/0")
    refused(errno.EPERM, os.truncate, mnt / "cnv/0", 0)


def refused(number: int, call: Callable[..., object], *arguments: object) -> None:
    """The call must raise OSError with errno *number*."""
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
        call(*arguments)
    assert caught.value.errno == number


def test_scandir_and_shutil(mnt: Path, tmp_path: Path) -> None:
    append(mnt / "seq/4", pattern(7 * BLOCK))
    with os.scandir(mnt / "seq") as entries:
        seen = [(entry.name, entry.is_file(), entry.inode(), entry.stat().st_size) for entry in entries]
    assert seen == [(str(number), True, number + 2, 7 * BLOCK if number == 4 else 0) for number in range(6)]
    shutil.copyfile(mnt / "seq/4", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == pattern(7 * BLOCK)
    assert stat.filemode((mnt / "seq/4").stat().st_mode) == "-rw-r-----"
    with (mnt / "seq/4").open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
        assert mapped[5 * BLOCK : 6 * BLOCK] == pattern(BLOCK, 5 * BLOCK)


# --- fio: synchronous, and direct-I/O asynchronous writers ----------------------------------------------------------

ENGINES = ["psync", "pvsync2", "libaio", "io_uring"]


def fio(file: Path, *options: str, check: bool = True) -> dict[str, Any]:
    """Run one fio job on *file* with direct I/O; return what its JSON says of the job."""
    done = run(
        "fio",
        "--name=job",
        f"--filename={file}",
        "--direct=1",
        "--thread",
        # A zone file can neither be created nor preallocated nor extended by truncation.
        "--allow_file_create=0",
        "--create_on_open=1",
        "--fallocate=none",
        "--verify_state_save=0",
        "--output-format=json",
        *options,
        check=check,
    )
    job: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return job


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An I/O engine of fio that this machine has; skips if it has not."""
    name: str = request.param
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(BLOCK))
    tried = run(
        "fio",
        "--name=probe",
        f"--filename={probe}",
        "--rw=read",
        "--bs=4k",
        f"--ioengine={name}",
        "--thread",
        check=False,
    )
    if tried.returncode != 0:
        pytest.skip(f"fio cannot use {name} here: {(tried.stderr.strip() or tried.stdout.strip()).splitlines()[-1]}")
    return name


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("depth", [1, 8])
def test_fio_writes_a_zone_and_verifies_it(mnt: Path, engine: str, depth: int) -> None:
    job = fio(
        mnt / "seq/0",
        "--rw=write",
        "--bs=16k",
        f"--size={CAPACITY}",
        f"--ioengine={engine}",
        f"--iodepth={depth}",
        "--verify=crc32c",
        "--verify_fatal=1",
    )
    assert job["error"] == 0
    assert job["write"]["io_bytes"] == CAPACITY
    assert job["read"]["io_bytes"] == CAPACITY
    assert (mnt / "seq/0").stat().st_size == CAPACITY


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_fio_off_the_write_pointer_fails(mnt: Path, engine: str) -> None:
    append(mnt / "seq/0", pattern(BLOCK))
    job = fio(mnt / "seq/0", "--rw=write", "--bs=4k", "--size=64k", f"--ioengine={engine}", check=False)
    assert job["error"] == errno.EINVAL
    assert (mnt / "seq/0").read_bytes() == pattern(BLOCK)


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_fio_reads_at_random(mnt: Path, engine: str) -> None:
    append(mnt / "seq/0", pattern(MIB))
    job = fio(mnt / "seq/0", "--rw=randread", "--bs=4k", "--size=1m", f"--ioengine={engine}", "--iodepth=8")
    assert job["error"] == 0
    assert job["read"]["io_bytes"] == MIB


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_fio_writes_a_conventional_file_at_random(mnt: Path, engine: str) -> None:
    job = fio(
        mnt / "cnv/0",
        "--rw=randwrite",
        "--bs=8k",
        "--size=1m",
        f"--ioengine={engine}",
        "--iodepth=8",
        "--verify=crc32c",
    )
    assert job["error"] == 0
    assert job["write"]["io_bytes"] == MIB


def test_four_fio_jobs_write_four_zones_at_a_time(mnt: Path) -> None:
    jobs = [word for number in range(4) for word in (f"--name=job{number}", f"--filename={mnt}/seq/{number}")]
    shared = ["--rw=write", "--bs=64k", f"--size={CAPACITY}", "--direct=1", "--thread", "--allow_file_create=0"]
    run("fio", *shared, "--create_on_open=1", "--fallocate=none", "--ioengine=libaio", "--iodepth=4", *jobs)
    assert [(mnt / f"seq/{number}").stat().st_size for number in range(6)] == [CAPACITY] * 4 + [0] * 2
