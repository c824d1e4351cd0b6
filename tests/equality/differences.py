"""The differences from the kernel that docs/differences.md tells of, as patterns.

Each is met on an emulated device or on a block device, or stands in `NOT_COMPARED` with the reason why it cannot be. A
difference that none of these explains is a bug, and so is one of these that is not met any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Row:
    """An answer of the kernel's beside ours. ``kernel`` and ``ours`` are the name of an errno, or what was returned.

    ``first_size`` is the size that the file ``args[0]`` had before, as it was last seen here; None if it was not.
    """

    case: str
    call: str
    args: list[Any]
    kernel: Any
    ours: Any
    kernel_state: list[Any] | None
    our_state: list[Any] | None
    first_size: int | None = None

    def __str__(self) -> str:
        states = "" if self.kernel_state == self.our_state else f"; files {self.kernel_state} and {self.our_state}"
        return f"{self.call} {self.args}: the kernel {self.kernel}, we {self.ours}{states}"


@dataclass(frozen=True)
class Difference:
    """One difference. ``name`` is the first column of its row in docs/differences.md.

    ``cases`` are patterns of the cases in which it may be met, ``test`` says whether a row is one. If it ``lasts``,
    what follows it in such a case is a consequence, and may differ too. An emulated device does not show it if it is
    ``only_on_block_devices``.
    """

    name: str
    cases: tuple[str, ...]
    test: Callable[[Row], bool]
    lasts: bool = False
    only_on_block_devices: bool = False

    def concerns(self, case: str) -> bool:
        """Whether *case* may meet it."""
        return any(fnmatchcase(case, pattern) for pattern in self.cases)

    def explains(self, row: Row) -> bool:
        """Whether *row* is this difference."""
        return self.test(row)

    def leads_to(self, row: Row) -> bool:
        """Whether *row* may be a consequence, when this difference was met before in the same case."""
        return self.lasts and self.concerns(row.case)


def _answers(call: str, kernel: Any, ours: Any) -> Callable[[Row], bool]:
    """A row of *call* with exactly these answers."""
    return lambda row: row.call == call and row.kernel == kernel and row.ours == ours


def _nothing_copied(row: Row) -> bool:
    """The kernel looks at where a copy would go, or where it would come from, even if nothing is to be copied.

    Its largest offset is that of the file system's largest file; FUSE's has no such limit.
    """
    if row.call == "copy-on":
        # From where to where is not among its arguments: it tells how much, and the positions afterwards.
        return bool(row.kernel in ("EFBIG", "EPERM") and isinstance(row.ours, list) and row.ours[0] == 0)
    if row.call not in ("copy_file_range", "sendfile") or row.first_size is None or row.args[1] < row.first_size:
        return False  # there is something to be copied, or that is not known
    if row.call == "sendfile":
        return bool(row.kernel == "EOVERFLOW" and (row.ours == 0 or isinstance(row.ours, str)))
    return bool(row.kernel in ("EFBIG", "EPERM") and row.ours == 0)


DIFFERENCES = (
    # What FUSE decides
    Difference("type in statfs", ("plain/identity",), _answers("statfs-type", "0x5a4f4653", "0x65735546")),
    Difference("st_dev", ("plain/identity",), _answers("device-number", True, False)),
    Difference(
        "/proc/mounts",
        ("plain/identity",),
        _answers("mount-table", ["zonefs", ["errors=remount-ro"]], ["fuse.zonefs-py", []]),
    ),
    Difference(
        "file system made read-only by an error",
        ("errors-remount-ro/flags_of_a_mount_after_an_error", "errors-remount-ro/users_after_an_error", "hunt/*"),
        lambda row: (
            (row.call, row.kernel, row.ours) in (("statvfs-read-only", True, False), ("access", False, True))
            or (row.call == "rename" and row.args[0] == row.args[1] and (row.kernel, row.ours) == ("EROFS", None))
        ),
    ),
    Difference("f_fsid in statfs", ("plain/identity",), _answers("statvfs-id", True, False)),
    Difference(
        "getxattr of `system.posix_acl_access`",
        ("plain/access_control_lists",),
        _answers("getxattr", "ENOTSUP", "ENODATA"),
    ),
    Difference("/sys/fs/zonefs", ("plain/identity",), _answers("sysfs", True, False)),
    Difference(
        "lseek SEEK_SET, SEEK_CUR, SEEK_END past the size",
        ("plain/seeks_past_the_size",),
        lambda row: row.call == "lseek" and row.kernel == "EINVAL" and isinstance(row.ours, int),
    ),
    Difference(
        "write of 0 bytes",
        ("*/write_nothing_*", "*/write_at_capacity", "hunt/*"),
        lambda row: row.call == "pwrite" and row.args[2] == 0 and row.kernel in ("EIO", "EFBIG") and row.ours == 0,
    ),
    Difference(
        "direct read of 0 bytes at an offset that is no multiple of the block size; any read of 0 bytes of a file whose"
        " zone is offline",
        ("plain/read_nothing", "flaky-zone-offline/conventional_is_read_after_its_flush_failed", "hunt/*"),
        lambda row: row.call == "pread" and row.args[2] == 0 and row.kernel in ("EINVAL", "EPERM") and row.ours[0] == 0,
    ),
    Difference(
        "RWF_APPEND on a conventional file",
        ("plain/conventional_append_by_flag",),
        _answers("pwrite", "EINVAL", "EFBIG"),
    ),
    Difference(
        "O_APPEND on a conventional file, offset at or past the end",
        ("plain/conventional_append_past_end",),
        _answers("pwrite", "EFBIG", "EINVAL"),
    ),
    Difference(
        "O_APPEND or RWF_APPEND on a sequential file: the offset that was given",
        ("*/write_append_past_capacity",),
        lambda row: (
            row.call in ("pwrite", "write")
            and (row.kernel, row.ours if isinstance(row.ours, str) else "written")
            in (("EFBIG", "written"), ("EFBIG", "EIO"), ("EIO", "EFBIG"))
        ),
        lasts=True,
    ),
    Difference(
        "direct write above 1 MiB whose length is not whole blocks",
        ("plain/write_large_unaligned",),
        _answers("pwrite", "EINVAL", 1 << 20),
    ),
    # null_blk with blocks of 4096 bytes writes past its own memory when it gets such memory (Linux 6.12).
    Difference(
        "direct read or write above 1 MiB, with memory that is not page-aligned",
        ("scsi/large_with_memory_within_a_page", "zns/large_with_memory_within_a_page"),
        lambda row: row.call in ("pread", "pwrite") and row.args[2] > 1 << 20 and row.ours == "EINVAL",
        only_on_block_devices=True,
    ),
    Difference(
        "mount options `noatime`, `strictatime` and their kin",
        ("mounts/access_time_options",),
        _answers("times", [], ["a"]),
    ),
    Difference(
        "shared mapping of a sequential file",
        ("plain/mappings_shared",),
        lambda row: row.call == "mmap" and row.args[2] == "shared" and row.ours == "ENODEV",
    ),
    Difference(
        "shared mapping of a conventional file that is open with O_DIRECT",
        ("plain/mappings_conventional_direct",),
        lambda row: row.call == "mmap" and "DIRECT" in row.args[1] and row.ours == "ENODEV",
    ),
    Difference("swapon of a conventional file", ("plain/swap",), _answers("swapon", None, "EINVAL"), lasts=True),
    Difference(
        "fallocate past the size of the largest file, or for a file whose zone broke",
        ("plain/allocation_at_the_end", "errors-*/users_after_an_error", "hunt/*"),
        lambda row: row.call == "fallocate" and row.kernel in ("EFBIG", "EPERM") and row.ours == "ENOTSUP",
    ),
    Difference(
        "a new name (open with O_CREAT, mkdir, rename, ...), as a user other than root; on a read-only mount",
        ("plain/new_names_as_user", "mounts/mount_read_only_new_names"),
        lambda row: row.kernel == "ENOENT" and row.ours in ("EACCES", "EROFS", "EPERM"),
    ),
    Difference(
        "what cannot be done anyway, on a file whose zone broke or a file system that an error made read-only",
        ("errors-*/users_after_an_error", "hunt/*"),
        lambda row: (
            (
                (row.kernel, row.ours) in (("EPERM", "EACCES"), ("EROFS", "EACCES"), ("EROFS", "EPERM"))
                or (row.call, row.kernel, row.ours) in (("rmdir", "EPERM", "ENOTDIR"), ("rmdir", "EROFS", "ENOTDIR"))
            )
            and row.kernel_state == row.our_state
        ),
    ),
    Difference(
        "ioctl FIGETBSZ; FIBMAP",
        ("plain/ioctls_of_blocks", "sectors/ioctls_of_sectors"),
        lambda row: (
            row.call == "ioctl"
            and (row.args, row.kernel, row.ours) in ((["FIBMAP"], "EINVAL", 0), (["FIGETBSZ"], 512, 4096))
        ),
    ),
    Difference(
        "epoll; name_to_handle_at",
        ("plain/events",),
        lambda row: (row.call, row.kernel, row.ours) in (("epoll", "EPERM", None), ("name_to_handle", "ENOTSUP", None)),
    ),
    Difference(
        "an offset at or past the size of the largest file, where nothing is to be copied",
        ("plain/copy_nothing", "plain/send_nothing", "random/*", "hunt/*"),
        _nothing_copied,
    ),
    Difference(
        "set-user-ID and set-group-ID bits of a conventional file that is written through the page cache",
        ("plain/set_id_bits_of_conventional_buffered",),
        lambda row: row.call == "pwrite" and row.kernel == row.ours,
        lasts=True,
    ),
    Difference(
        "set-user-ID and set-group-ID bits of a file that a user calls fallocate for",
        ("mounts/first_allocation_by_a_user",),
        lambda row: row.call == "fallocate" and row.kernel == row.ours,
    ),
    Difference(
        "set-user-ID and set-group-ID bits of a file that a user's copy to fails",
        ("mounts/failing_copy_by_a_user",),
        lambda row: row.call == "copy_file_range" and row.kernel == row.ours and isinstance(row.ours, str),
        lasts=True,
    ),
    Difference(
        "copy_file_range within a file, that reaches past the size of the largest file",
        ("plain/copy_within_a_file_past_the_largest",),
        lambda row: (
            row.call == "copy_file_range"
            and row.args[0] == row.args[2]
            and row.ours == "EINVAL"
            and row.args[1] < row.args[3] < row.args[1] + row.args[4]
            and isinstance(row.kernel, int)
            and row.kernel < row.args[4]
        ),
        lasts=True,
    ),
    Difference(
        "splice from a sequential file that was taken offline, not open with O_DIRECT",
        ("mounts/splice_of_an_offline_file", "hunt/*"),
        lambda row: row.call in ("splice-out", "splice") and row.kernel == "EPERM" and row.ours in (0, [0, 0]),
    ),
    Difference(
        "asynchronous write (io_submit) of which only a part fits",
        ("plain/asynchronous_past_the_end", "hunt/*"),
        lambda row: (
            row.call == "io_submit"
            and isinstance(row.kernel, list)
            and isinstance(row.ours, list)
            and all(one == two or (one > 0 and two == -5) for one, two in zip(row.kernel, row.ours, strict=True))
        ),
    ),
    Difference(
        "write error on a conventional file, asynchronous (io_submit)",
        ("flaky-*/asynchronous_write_to_conventional_fails",),
        lambda row: (
            (row.call == "io_submit" and row.kernel == row.ours)
            or (row.call, row.kernel, row.ours) == ("pwrite", "EROFS", 4096)
        ),
        lasts=True,
    ),
    # What we chose
    Difference(
        "memory of a direct write that is not aligned, or in pieces that are not",
        ("plain/write_memory_by_one", "plain/write_memory_in_pieces", "plain/conventional_memory_by_one"),
        lambda row: row.call in ("pwrite", "pwritev") and row.kernel == "EINVAL" and row.ours == 4096,
        lasts=True,
    ),
    Difference(
        "direct read into memory that is not aligned",
        ("plain/read_memory_by_one",),
        lambda row: row.call == "pread" and row.kernel == "EINVAL" and row.ours[0] == 4096,
    ),
    Difference("bad pointer in a write", ("plain/write_bad_pointer",), _answers("writable", "EROFS", None)),
    Difference(
        "write error on a conventional file, through the page cache",
        ("errors-*/conventional_write_error_through_the_cache",),
        lambda row: row.call == "pwrite" and row.kernel == 4096 and row.ours == "EIO",
        lasts=True,
    ),
    Difference("times set by utimensat", ("plain/times_after_eviction",), _answers("times-kept", False, True)),
    Difference(
        "remount without options",
        ("mounts/remount_without_options",),
        lambda row: row.call == "pwrite" and row.kernel_state != row.our_state,
        lasts=True,
    ),
    Difference(
        "close of a zone that fails, with `explicit-open`",
        ("mounts/finished_while_explicitly_open", "scsi-closing/*"),
        lambda row: (
            (row.call == "counters" and row.kernel["nr_wro_seq_files"] > row.ours["nr_wro_seq_files"])
            or (row.call == "open" and (row.kernel, row.ours) == ("EBUSY", 0))
        ),
    ),
    Difference(
        "permission bits above 07777 in the superblock",
        ("mounts/superblock_permissions_above_twelve_bits",),
        _answers("mode", "121777", "101777"),
    ),
    Difference(
        "`remount,rw` of a mount that began with `ro`",
        ("mounts/remount_of_read_only",),
        _answers("remount", None, "refused"),
        lasts=True,
    ),
    Difference(
        "copy_file_range",
        (
            "plain/copy_to_buffered",
            "plain/copy_part_of_a_block",
            "plain/copy_from_within_a_block",
            "plain/copy_unaligned_direct_source",
        ),
        lambda row: row.call == "copy_file_range" and row.kernel in ("EIO", "EINVAL") and isinstance(row.ours, int),
        lasts=True,
    ),
    Difference(
        "zones of a block device that are open when it is mounted read-only",
        ("mounts/mount_read_only",),
        _answers("zones", {"4": "cl 4096"}, {"4": "oi 4096"}),
        only_on_block_devices=True,
    ),
    Difference(
        "fsync of a block device to which nothing was written since the last one",
        ("flaky-*/flush_of_nothing_fails",),
        _answers("fsync", "EIO", None),
        lasts=True,
        only_on_block_devices=True,
    ),
    Difference("mounting a device twice", ("mounts/mount_twice",), _answers("mount-again", None, "refused")),
)

NOT_COMPARED = {
    "sync; syncfs": "the recorded calls cannot see what is not written yet; below the file system they do not look",
    "a mount made by a plain user": "the kernel has no such mounts",
    "the file system's program dies": "the kernel has no such program",
    **dict.fromkeys(
        (
            "a zone goes offline while a file is open for reading past the daemon",
            "access time of a file that is read",
            "open O_RDWR of a sequential file that others read, not by its name (`/proc/self/fd`)",
            "locks and inotify watches of a sequential file that was opened for reading first, then O_RDWR",
            (
                "shared mapping of a conventional file that somebody has open O_RDWR since it was read past the daemon,"
                " where it may be no more"
            ),
            "data of a write that is under way",
        ),
        "the calls that are recorded do not show it; tests/fuse/test_passthrough.py has some that do",
    ),
    (
        "several direct writes above 1 MiB at a time to a sequential file that was opened O_RDWR while others had it"
        " open, by these and by those"
    ): "the calls that are recorded come one at a time; tests/fuse/test_two_nodes.py has some that do not",
}
"""Differences that no recording can show, and why."""
