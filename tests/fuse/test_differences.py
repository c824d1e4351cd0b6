"""One test for each entry of docs/differences.md: where FUSE, or a decision of ours, departs from kernel zonefs."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import opened
from tests.fuse.conftest import PROGRAMS, ZONEFS_PY, Mounts, run, wait_until
from zonefs_py.control.client import MountControl, ask
from zonefs_py.control.mounts import find_mount

BLOCK = 4096
MIB = 1 << 20
DeviceFactory = Callable[..., Path]


def block_of(letter: bytes, length: int = BLOCK) -> memoryview:
    """*length* bytes in page-aligned memory, as O_DIRECT wants."""
    memory = mmap.mmap(-1, max(length, mmap.PAGESIZE))
    memory[:length] = letter * length
    return memoryview(memory)[:length]


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError, match="Errno") as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


@pytest.fixture
def mnt(device_dir: DeviceFactory, mounted: Mounts) -> Path:
    """A mount with conventional files of 1 MiB and sequential ones of 1 MiB, blocks of 4096."""
    return mounted(device_dir())


# What FUSE decides


def test_file_system_type(mnt: Path) -> None:
    assert run("stat", "-f", "-c", "%t", mnt).stdout.strip() == "65735546"


def test_file_system_id(mnt: Path) -> None:
    assert run("stat", "-f", "-c", "%i", mnt).stdout.strip() == "0"


def test_access_control_list(mnt: Path) -> None:
    with refused(errno.ENODATA):
        os.getxattr(mnt / "seq/0", "system.posix_acl_access")
    for name in ("user.a", "security.a", "trusted.a"):
        with refused(errno.EOPNOTSUPP):
            os.getxattr(mnt / "seq/0", name)
        with refused(errno.EOPNOTSUPP):
            os.setxattr(mnt / "seq/0", name, b"")
    assert os.listxattr(mnt / "seq/0") == []


def test_device_number(mnt: Path) -> None:
    assert os.major(mnt.stat().st_dev) == 0
    assert mnt.stat().st_dev != mnt.parent.stat().st_dev


def test_mount_table(mnt: Path) -> None:
    entry = find_mount(str(mnt))
    assert entry is not None
    assert entry.type == "fuse.zonefs-py"
    assert entry.source.endswith("disk0")
    assert {"nosuid", "nodev", "default_permissions"} <= entry.options
    assert not any(option.startswith("errors=") for option in entry.options)
    assert "errors=remount-ro" in ask(str(mnt), {"request": "info"})["mount"]["options"]


def test_read_only_after_error(mnt: Path, mounted: Mounts, tmp_path: Path) -> None:
    mounted.expect_log(mnt, "seq/0")
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as file:
        os.pwrite(file, block_of(b"a"), 0)
        with open(tmp_path / "disk0" / "seq-000002", "ab") as zone:
            zone.write(bytes(BLOCK))
        with refused(errno.EIO):
            os.pwrite(file, block_of(b"b"), BLOCK)
        with refused(errno.EROFS):
            os.pwrite(file, block_of(b"b"), BLOCK)
    with refused(errno.EROFS):
        os.open(mnt / "seq/1", os.O_WRONLY)
    os.rename(mnt / "seq/1", mnt / "seq/1")
    assert ask(str(mnt), {"request": "info"})["mount"]["read_only"] is True
    entry = find_mount(str(mnt))
    assert entry is not None
    assert "rw" in entry.options
    assert not os.statvfs(mnt).f_flag & os.ST_RDONLY


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: run it as root")
def test_users_after_an_error(mnt: Path, mounted: Mounts, tmp_path: Path) -> None:
    mounted.expect_log(mnt, "seq/0")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as file:
        os.pwrite(file, block_of(b"a"), 0)
        ask(str(mnt), {"request": "force-condition", "zones": [2], "condition": "offline"})
        with refused(errno.EIO):
            os.pwrite(file, block_of(b"b"), BLOCK)
    for name in ("seq/0", "seq/1"):
        with refused(errno.EROFS):
            os.truncate(mnt / name, 0)
        with refused(errno.ENOTDIR):
            os.rmdir(mnt / name)
        done = run(*nobody, "sh", "-c", f"truncate -s 0 {name}; chmod 600 {name}", cwd=mnt, check=False)
        said = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
        assert said == [os.strerror(errno.EACCES), os.strerror(errno.EPERM)]


@pytest.mark.skipif(os.geteuid() != 0, reason="root may open a file of no mode")
def test_a_conventional_file_that_was_taken_offline_is_not_read(device_dir: DeviceFactory, mounted: Mounts) -> None:
    """As the kernel's: its size is 0, but a read is refused, and not at the end of the file."""
    mnt = mounted(device_dir(), "errors=zone-offline")
    mounted.expect_log(mnt, "cnv/0")
    with opened(mnt / "cnv/0", os.O_WRONLY | os.O_DIRECT) as file:
        ask(str(mnt), {"request": "add-faults", "rules": [{"operation": "flush", "effect": "fail"}]})
        with refused(errno.EIO):
            os.fsync(file)
    assert (mnt / "cnv/0").stat().st_size == 0
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECT):
        with opened(mnt / "cnv/0", flags) as file, refused(errno.EPERM):
            os.preadv(file, [block_of(b"a")], 0)


def test_counters_in_info(device_dir: DeviceFactory, mounted: Mounts) -> None:
    mnt = mounted(device_dir(max_open=2, max_active=3))

    def counters() -> list[int]:
        shown = mounted.info(mnt)["mount"]
        names = ("max_wro_seq_files", "nr_wro_seq_files", "max_active_seq_files", "nr_active_seq_files")
        return [shown[name] for name in names]

    assert counters() == [2, 0, 3, 0]
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as file:
        os.pwrite(file, block_of(b"a"), 0)
        assert counters() == [2, 1, 3, 1]
    assert counters() == [2, 0, 3, 1]


def test_seek_past_the_size(mnt: Path) -> None:
    with opened(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file:
        os.pwrite(file, block_of(b"a"), 0)
        assert os.lseek(file, 3 * BLOCK, os.SEEK_SET) == 3 * BLOCK
        assert os.lseek(file, 1, os.SEEK_CUR) == 3 * BLOCK + 1
        assert os.lseek(file, 1, os.SEEK_END) == BLOCK + 1
        # The rest is as in the kernel's zonefs.
        assert os.lseek(file, 1, os.SEEK_DATA) == 1
        assert os.lseek(file, 1, os.SEEK_HOLE) == BLOCK
        with refused(errno.ENXIO):
            os.lseek(file, BLOCK, os.SEEK_DATA)


def test_empty_write(mnt: Path) -> None:
    with opened(mnt / "seq/0", os.O_WRONLY) as file:
        assert os.pwrite(file, b"", 0) == 0
        assert os.pwrite(file, b"", MIB) == 0


def test_append_to_conventional_per_call(mnt: Path) -> None:
    with opened(mnt / "cnv/0", os.O_WRONLY) as file, refused(errno.EFBIG):
        os.pwritev(file, [b"x"], 0, os.RWF_APPEND)


def test_append_to_conventional(mnt: Path) -> None:
    with opened(mnt / "cnv/0", os.O_WRONLY | os.O_APPEND) as file:
        for offset in (0, MIB, 2 * MIB):
            with refused(errno.EINVAL):
                os.pwrite(file, b"x", offset)


def test_append_to_sequential(mnt: Path) -> None:
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT | os.O_APPEND) as file:
        for offset in (MIB, 0, 2 * MIB):
            assert os.pwrite(file, block_of(b"a"), offset) == BLOCK
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as file:
        assert os.pwritev(file, [block_of(b"b")], MIB, os.RWF_APPEND) == BLOCK
    assert (mnt / "seq/0").read_bytes() == b"a" * 3 * BLOCK + b"b" * BLOCK
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_APPEND) as file, refused(errno.EIO):
        os.pwrite(file, b"x", MIB)
    os.truncate(mnt / "seq/0", MIB)
    with opened(mnt / "seq/0", os.O_WRONLY) as file, refused(errno.EFBIG):
        os.pwritev(file, [b"x"], 0, os.RWF_APPEND)


def test_empty_read(mnt: Path) -> None:
    for name in ("seq/0", "cnv/0"):
        with opened(mnt / name, os.O_RDONLY | os.O_DIRECT) as file:
            assert os.pread(file, 0, 1) == b""


def test_copy_of_nothing(mnt: Path) -> None:
    with opened(mnt / "cnv/0", os.O_RDWR) as source, opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as target:
        assert os.sendfile(target, source, MIB, BLOCK) == 0
        assert os.copy_file_range(source, target, BLOCK, MIB, 4 * MIB) == 0


def test_large_unaligned_write(device_dir: DeviceFactory, mounted: Mounts) -> None:
    mnt = mounted(device_dir(zone_size="4M"))
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as file:
        assert os.pwrite(file, block_of(b"a", MIB + 100), 0) == MIB
        assert os.fstat(file).st_size == MIB
        with refused(errno.EINVAL):
            os.pwrite(file, block_of(b"a", 100), MIB)


def test_large_requests_with_unaligned_memory(device_dir: DeviceFactory, mounted: Mounts) -> None:
    mnt = mounted(device_dir(zone_size="4M"), "passthrough=off")
    memory = block_of(b"a", 3 * MIB)[512:]
    with opened(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file:
        with refused(errno.EINVAL):
            os.pwrite(file, memory[: 2 * MIB], 0)
        assert os.fstat(file).st_size == 0
        assert os.pwrite(file, memory[: MIB - BLOCK], 0) == MIB - BLOCK
        assert os.preadv(file, [memory[: MIB - BLOCK]], 0) == MIB - BLOCK
        assert os.pwrite(file, block_of(b"a", MIB), MIB - BLOCK) == MIB
        with refused(errno.EINVAL):
            os.preadv(file, [memory[:MIB]], 0)


def test_access_time_options(device_dir: DeviceFactory, mounted: Mounts) -> None:
    mnt = mounted(device_dir(), "noatime")
    with opened(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file:
        os.pwrite(file, block_of(b"a"), 0)
        os.utime(mnt / "seq/0", ns=(1, 2))
        os.pread(file, BLOCK, 0)
    assert (mnt / "seq/0").stat().st_atime_ns > 1


def test_shared_mapping(device_dir: DeviceFactory, mounted: Mounts) -> None:
    mnt = mounted(device_dir(), "passthrough=off")
    with opened(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file:
        os.pwrite(file, block_of(b"a"), 0)
        for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
            with refused(errno.ENODEV):
                mmap.mmap(file, BLOCK, mmap.MAP_SHARED, protection)
        with mmap.mmap(file, BLOCK, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as private:
            assert private[:3] == b"aaa"
            private[:3] = b"bbb"
        assert os.pread(file, BLOCK, 0)[:3] == b"aaa"
    with opened(mnt / "seq/0", os.O_RDONLY) as file, refused(errno.ENODEV):
        mmap.mmap(file, BLOCK, mmap.MAP_SHARED, mmap.PROT_READ)


def test_shared_mapping_of_conventional(mnt: Path) -> None:
    with opened(mnt / "cnv/0", os.O_RDWR | os.O_DIRECT) as file, refused(errno.ENODEV):
        mmap.mmap(file, BLOCK, mmap.MAP_SHARED, mmap.PROT_READ)
    with opened(mnt / "cnv/0", os.O_RDWR) as file, mmap.mmap(file, BLOCK) as shared:
        shared[:3] = b"abc"
        shared.flush()
    assert (mnt / "cnv/0").read_bytes()[:3] == b"abc"


def test_sync(mnt: Path, tmp_path: Path) -> None:
    control = MountControl(mnt)
    control.add_faults([{"operation": "write", "effect": "stuck", "count": None}])

    def on_device() -> bytes:
        return (tmp_path / "disk0" / "cnv-000001").read_bytes()[:3]

    with opened(mnt / "cnv/0", os.O_RDWR) as file, mmap.mmap(file, BLOCK) as shared:
        shared[:3] = b"abc"
        # Not by a program: while that is started it closes the file, and waits for what is to be written.
        syncing = threading.Thread(target=ctypes.CDLL(None).syncfs, args=(file,), daemon=True)
        try:
            syncing.start()
            wait_until("it is being written", lambda: control.faults()["stuck"])
            wait_until("syncfs is over", lambda: not syncing.is_alive())
            assert on_device() == bytes(3)
        finally:
            control.clear_faults()
        os.fsync(file)
        assert on_device() == b"abc"


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away; run the tests as root")
def test_set_id_bits_of_conventional(mnt: Path) -> None:
    write = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY | int(sys.argv[2])), bytes(4096))"
    for flags, mode in ((0, 0o755), (os.O_DIRECT, 0o6755)):
        os.chown(mnt / "cnv/0", 12345, 12345)
        os.chmod(mnt / "cnv/0", 0o6755)
        writer = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "python3", "-c", write)
        run(*writer, "cnv/0", str(flags), cwd=mnt)
        assert (mnt / "cnv/0").stat().st_mode & 0o7777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away; run the tests as root")
def test_set_id_bits_and_fallocate(mnt: Path) -> None:
    for mode in (0o755, 0o6755):
        os.chown(mnt / "seq/0", 12345, 12345)
        os.chmod(mnt / "seq/0", 0o6755)
        user = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        done = run(*user, "fallocate", "-l", "4096", "seq/0", cwd=mnt, check=False)
        assert "supported" in done.stderr
        assert (mnt / "seq/0").stat().st_mode & 0o7777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away; run the tests as root")
def test_set_id_bits_and_copies(mnt: Path) -> None:
    for name in ("cnv/0", "seq/0"):
        os.chown(mnt / name, 12345, 12345)
    os.chmod(mnt / "seq/0", 0o6755)
    copy = (
        "import os; target = os.open('seq/0', os.O_WRONLY | os.O_DIRECT);"
        "os.copy_file_range(os.open('cnv/0', os.O_RDONLY), target, 4096, 0, 4096)"
    )
    user = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "python3", "-c", copy)
    assert "Invalid argument" in run(*user, cwd=mnt, check=False).stderr
    assert (mnt / "seq/0").stat().st_mode & 0o7777 == 0o755


def test_copy_within_a_file_past_its_end(mnt: Path) -> None:
    with opened(mnt / "cnv/0", os.O_RDWR) as file:
        with refused(errno.EINVAL):
            os.copy_file_range(file, file, 4 * BLOCK, MIB - 3 * BLOCK, MIB - BLOCK)
        assert os.copy_file_range(file, file, BLOCK, MIB - 3 * BLOCK, MIB - BLOCK) == BLOCK


def test_splice_from_an_offline_file(device_dir: DeviceFactory, mounted: Mounts) -> None:
    mnt = mounted(device_dir(), "errors=zone-offline")
    mounted.expect_log(mnt, "seq/0")
    with opened(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file, opened(mnt / "seq/0", os.O_RDONLY) as buffered:
        ask(str(mnt), {"request": "force-condition", "zones": [2], "condition": "offline"})
        with refused(errno.EIO):
            os.pwrite(file, block_of(b"x"), 0)
        reading, writing = os.pipe()
        with refused(errno.EPERM):
            os.splice(file, writing, BLOCK, offset_src=0)
        assert os.splice(buffered, writing, BLOCK, offset_src=0) == 0
        os.close(reading)
        os.close(writing)


def test_swap_file(mnt: Path) -> None:
    run("mkswap", mnt / "cnv/0")
    done = run("swapon", mnt / "cnv/0", check=False)
    assert done.returncode != 0
    assert "Invalid argument" in done.stderr
    assert str(mnt) not in Path("/proc/swaps").read_text()


def test_fallocate(mnt: Path) -> None:
    for options in (["-o", "0"], ["-o", str(MIB)], ["-p", "-o", "0"]):
        done = run("fallocate", *options, "-l", "4096", mnt / "cnv/0", check=False)
        assert done.returncode != 0
        assert "supported" in done.stderr  # "not supported", "keep size mode is unsupported"
    done = run("fallocate", "-o", str(64 * MIB), "-l", "4096", mnt / "seq/0", check=False)
    assert "supported" in done.stderr


def test_block_size_ioctl(device_dir: DeviceFactory, mounted: Mounts) -> None:
    mnt = mounted(device_dir(block_size=512))
    assert (mnt / "seq/0").stat().st_blksize == 512
    assert os.statvfs(mnt).f_bsize == 512
    with opened(mnt / "seq/0", os.O_RDONLY) as file:
        for request, answer in ((2, 4096), (1, 0)):  # FIGETBSZ, FIBMAP
            assert struct.unpack("i", fcntl.ioctl(file, request, bytes(4)))[0] == answer


def test_epoll_and_handles(mnt: Path) -> None:
    with opened(mnt / "seq/0", os.O_RDONLY) as file, select.epoll() as poller:
        poller.register(file, select.EPOLLIN)
        assert poller.poll(timeout=10) == [(file, select.EPOLLIN)]


def test_other_users(device_dir: DeviceFactory, mounted: Mounts) -> None:
    device = device_dir()
    device.parent.chmod(0o755)
    for ancestor in device.parents:
        if ancestor.stat().st_mode & 0o005 != 0o005:
            ancestor.chmod(ancestor.stat().st_mode | 0o005)
    mnt = mounted(device, "noallow_other")
    listing = run("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "ls", mnt, check=False)
    assert "Permission denied" in listing.stderr
    mounted.unmount(mnt)
    mnt = mounted(device)
    listing = run("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "ls", mnt)
    assert listing.stdout.split() == ["cnv", "seq"]


def test_killed_daemon(mnt: Path, mounted: Mounts, tmp_path: Path) -> None:
    file = os.open(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT)
    os.pwrite(file, block_of(b"a"), 0)
    os.kill(mounted.get(mnt).pid, signal.SIGKILL)
    wait_until("the daemon is gone", lambda: not mounted.get(mnt).daemon_runs)
    # What the kernel was about to send is aborted, what comes later finds nobody.
    with pytest.raises(OSError, match="Errno"):
        os.pwrite(file, block_of(b"a"), BLOCK)
    with refused(errno.ENOTCONN):
        os.close(file)
    with refused(errno.ENOTCONN):
        os.statvfs(mnt)
    run(ZONEFS_PY, "umount", mnt)
    mounted.forget(mnt)
    again = mounted(tmp_path / "disk0")
    assert (again / "seq/0").read_bytes() == b"a" * BLOCK


# What we chose


def test_memory_alignment(mnt: Path) -> None:
    memory = block_of(b"a", 3 * BLOCK)
    with opened(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file:
        assert os.pwrite(file, memory[1 : BLOCK + 1], 0) == BLOCK
        assert os.pwritev(file, [memory[:100], memory[: BLOCK - 100]], BLOCK) == BLOCK
        assert os.preadv(file, [memory[1 : BLOCK + 1]], 0) == BLOCK
        assert bytes(memory[1 : BLOCK + 1]) == b"a" * BLOCK
    assert (mnt / "seq/0").read_bytes() == b"a" * 2 * BLOCK
    with opened(mnt / "cnv/0", os.O_RDWR) as source, opened(mnt / "seq/1", os.O_RDWR | os.O_DIRECT) as target:
        os.pwrite(source, bytes(range(256)) * 64, 0)
        assert os.sendfile(target, source, 100, BLOCK) == BLOCK
        assert os.pread(target, BLOCK, 0) == (bytes(range(256)) * 64)[100 : 100 + BLOCK]


BAD_POINTER = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.pwrite.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
memory = libc.mmap(None, 8192, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
ctypes.memset(memory, 97, 8192)
libc.munmap(memory + 4096, 4096)
file = os.open(sys.argv[1], os.O_WRONLY | os.O_DIRECT)
for address, length in ((memory + 4096, 4096), (memory, 8192)):
    print(libc.pwrite(file, address, length, 0), ctypes.get_errno())
"""


def test_bad_pointer(mnt: Path) -> None:
    done = run(PROGRAMS / "python", "-c", BAD_POINTER, mnt / "seq/0")
    nothing, some = done.stdout.splitlines()
    assert nothing == f"-1 {errno.EFAULT}"
    assert some in (f"-1 {errno.EFAULT}", f"{BLOCK} {errno.EFAULT}")
    written = int(some.split()[0])
    assert (mnt / "seq/0").stat().st_size == max(written, 0)
    assert ask(str(mnt), {"request": "info"})["mount"]["read_only"] is False


def test_conventional_write_error(mnt: Path, mounted: Mounts) -> None:
    ask(str(mnt), {"request": "force-condition", "zones": [1], "condition": "read-only"})
    with opened(mnt / "cnv/0", os.O_WRONLY) as file:
        with refused(errno.EIO):
            os.pwrite(file, b"x", 0)
        os.fsync(file)
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as file:
        assert os.pwrite(file, block_of(b"a"), 0) == BLOCK
    assert ask(str(mnt), {"request": "info"})["mount"]["read_only"] is False


def test_times_are_kept(mnt: Path) -> None:
    os.utime(mnt / "seq/0", ns=(5_000_000_001, 7_000_000_002))
    # Makes the kernel forget inodes that nobody has open.
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    status = (mnt / "seq/0").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (5_000_000_001, 7_000_000_002)


def options_of(mnt: Path) -> set[str]:
    shown: str = ask(str(mnt), {"request": "info"})["mount"]["options"]
    return set(shown.split(","))


@pytest.fixture
def remount() -> Callable[[Path, str], subprocess.CompletedProcess[str]]:
    """Remounts as mount(8) does through its helper."""

    def call(mnt: Path, options: str) -> subprocess.CompletedProcess[str]:
        return run(PROGRAMS / "mount.fuse.zonefs-py", "none", mnt, "-o", f"remount,{options}", check=False)

    return call


def test_remount_keeps_options(device_dir: DeviceFactory, mounted: Mounts, remount: Any) -> None:
    mnt = mounted(device_dir(max_open=2), "errors=repair,explicit-open")
    assert remount(mnt, "ro").returncode == 0
    assert {"ro", "errors=repair", "explicit-open"} <= options_of(mnt)
    with refused(errno.EROFS):
        os.open(mnt / "seq/0", os.O_WRONLY)
    assert remount(mnt, "rw,errors=zone-ro").returncode == 0
    assert {"rw", "errors=zone-ro", "explicit-open"} <= options_of(mnt)
    with opened(mnt / "seq/0", os.O_WRONLY):
        done = remount(mnt, "ro")
    assert done.returncode == 32  # mount(8)'s number for a mount that failed
    assert "rw" in options_of(mnt)


def test_read_only_mount_stays(device_dir: DeviceFactory, mounted: Mounts, remount: Any) -> None:
    mnt = mounted(device_dir(), "ro")
    done = remount(mnt, "rw")
    assert done.returncode == 32  # mount(8)'s number for a mount that failed
    assert "unmount it and mount it read-write" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    with refused(errno.EROFS):
        os.open(mnt / "seq/0", os.O_WRONLY)


def test_copy_file_range(mnt: Path) -> None:
    with (
        opened(mnt / "cnv/0", os.O_RDWR) as source,
        opened(mnt / "seq/0", os.O_RDWR) as buffered,
        opened(mnt / "seq/1", os.O_RDWR | os.O_DIRECT) as direct,
    ):
        data = bytes(range(256)) * 64
        os.pwrite(source, data, 0)
        assert os.copy_file_range(source, buffered, 2 * BLOCK, 0, 0) == 2 * BLOCK
        assert os.copy_file_range(source, direct, BLOCK + 100, 100, 0) == BLOCK
        with refused(errno.EINVAL):
            os.copy_file_range(source, direct, 100, 0, BLOCK)
    assert (mnt / "seq/0").read_bytes() == data[: 2 * BLOCK]
    assert (mnt / "seq/1").read_bytes() == data[100 : 100 + BLOCK]
    assert ask(str(mnt), {"request": "info"})["mount"]["read_only"] is False


def test_second_mount(device_dir: DeviceFactory, mounted: Mounts, tmp_path: Path) -> None:
    device = device_dir()
    mnt = mounted(device)
    second = tmp_path / "second"
    second.mkdir()
    done = run(ZONEFS_PY, "mount", device, second, check=False)
    assert done.returncode == 1
    assert f"in use by pid {mounted.get(mnt).pid}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not json.loads(run("findmnt", "--json", mnt).stdout)["filesystems"][0]["target"].endswith("second")
