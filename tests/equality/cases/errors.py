"""What I/O errors, broken zones and zones moved by others lead to, under each errors= policy."""

from __future__ import annotations

import os

from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.cases.groups import ERRORS, SCSI_ERRORS, ZNS_ERRORS, case, recover, statvfs, use_broken


def external_then_write(t: Calls, name: str, zone: int, what: str, flags: str = "RDWR|DIRECT") -> None:
    b = t.block
    file = t.open(name, flags)
    t.pwrite(file, 0, 2 * b)
    t.external(zone, what)
    t.stat(name)
    # What a device shows past a zone's write pointer is its own affair.
    shown = what != "reset"
    if shown:
        t.pread(file, 0, b)
    t.writable(name)
    t.pwrite(file, 2 * b, b)
    t.snapshot(name)
    t.counters()
    use_broken(t, name, file, read=shown)
    t.snapshot(name)
    t.counters()
    t.record("statvfs", [], statvfs, t)
    recover(t)
    t.writable(name)
    t.line(call="state", args=[name], ret=t.state(name))


def _external(number: int, what: str, flags: str) -> None:
    def test(t: Calls) -> None:
        external_then_write(t, f"seq/{number}", t.geometry.seq_zone(number), what, flags)

    test.__name__ = f"external_{what}_{flags.lower().replace('|', '_')}"
    case(*ERRORS)(test)
    if what in ("write", "reset", "finish"):
        case(*ZNS_ERRORS)(test)
    # After a reset or finish it is chance whether the block layer still knows the write pointer and refuses a write
    # itself (EIO), or the disk does (EREMOTEIO).
    if what == "write":
        case(*SCSI_ERRORS)(test)


for _number, (_what, _flags) in enumerate(
    [
        ("write", "RDWR|DIRECT"),
        ("write", "RDWR|DIRECT|APPEND"),
        ("write", "RDWR|DIRECT|SYNC"),
        ("reset", "RDWR|DIRECT"),
        ("finish", "RDWR|DIRECT"),
        ("readonly", "RDWR|DIRECT"),
        ("offline", "RDWR|DIRECT"),
    ]
):
    _external(_number, _what, _flags)


@case(*ERRORS)
def offline_zone_is_read(t: Calls) -> None:
    for number, flags in ((7, "RDWR|DIRECT"), (8, "RDWR")):
        name = f"seq/{number}"
        writer = t.open(name, "WRONLY|DIRECT")
        t.pwrite(writer, 0, 2 * t.block)
        file = t.open(name, flags)
        t.external(t.geometry.seq_zone(number), "offline")
        t.pread(file, 0, t.block)
        t.snapshot(name)
        use_broken(t, name, file)
        recover(t)


@case(*ERRORS)
def broken_zone_is_truncated(t: Calls) -> None:
    for number, what in ((9, "readonly"), (10, "offline")):
        name = f"seq/{number}"
        writer = t.open(name, "RDWR|DIRECT")
        t.pwrite(writer, 0, 2 * t.block)
        t.external(t.geometry.seq_zone(number), what)
        t.writable(name)
        t.truncate(name, 0)
        t.truncate(name, t.geometry.capacity)
        t.close(t.open(name, "RDONLY|TRUNC"))
        t.fsync(writer)
        t.writable("seq/30")
        t.line(call="state", args=[name], ret=t.state(name))
        t.pread(writer, 0, t.block)
        recover(t)


@case(*ERRORS)
def readonly_zone_is_read(t: Calls) -> None:
    name = "seq/11"
    file = t.open(name, "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * t.block)
    t.external(t.geometry.seq_zone(11), "readonly")
    t.pread(file, 0, t.block)
    t.content(name)
    t.fsync(file)
    t.line(call="state", args=[name], ret=t.state(name))
    t.writable(name)


@case(*ERRORS)
def write_error(t: Calls) -> None:
    for zone, flags in ((20, "RDWR|DIRECT"), (21, "RDWR|DIRECT|APPEND")):
        name = f"seq/{zone - t.geometry.seq_zone(0)}"
        file = t.open(name, flags)
        t.pwrite(file, 0, t.block)
        t.subject.fail(zone, 2 * t.block, t.block)
        t.pwrite(file, t.block, 4 * t.block)
        t.snapshot(name)
        use_broken(t, name, None)
        recover(t)


@case(*ERRORS)
def read_error(t: Calls) -> None:
    for zone, flags in ((22, "RDWR|DIRECT"), (23, "RDWR")):
        name = f"seq/{zone - t.geometry.seq_zone(0)}"
        writer = t.open(name, "RDWR|DIRECT")
        t.pwrite(writer, 0, 4 * t.block)
        file = t.open(name, flags)
        t.subject.fail(zone, 0, 2 * t.block)
        t.pread(file, 0, t.block)
        t.line(call="state", args=[name], ret=t.state(name))
        t.writable(name)
        t.writable("seq/30")


@case(*ERRORS)
def conventional_read_error(t: Calls) -> None:
    t.subject.fail(3, 0, 2 * t.block)
    for flags in ("RDONLY|DIRECT", "RDONLY"):
        file = t.open("cnv/2", flags)
        t.pread(file, 0, t.block)
        t.line(call="state", args=["cnv/2"], ret=t.state("cnv/2"))
        t.writable("seq/30")


@case(*ERRORS)
def conventional_write_error(t: Calls) -> None:
    file = t.open("cnv/1", "RDWR|DIRECT")
    t.pwrite(file, 0, t.block)
    t.subject.fail(2, t.block, t.block)
    t.pwrite(file, t.block, t.block)
    t.line(call="state", args=["cnv/1"], ret=t.state("cnv/1"))
    t.writable("seq/30")
    t.fsync(file)


@case(*ERRORS)
def conventional_write_error_through_the_cache(t: Calls) -> None:
    file = t.open("cnv/1", "RDWR")
    t.pwrite(file, t.block, t.block)
    t.fsync(file)
    t.line(call="state", args=["cnv/1"], ret=t.state("cnv/1"))
    t.fsync(file)
    recover(t)


@case(*ERRORS)
def descriptors_of_other_files(t: Calls) -> None:
    b = t.block
    other, cnv = t.open("seq/14", "RDWR|DIRECT"), t.open("cnv/0", "RDWR")
    file = t.open("seq/15", "RDWR|DIRECT")
    t.pwrite(file, 0, b)
    t.external(t.geometry.seq_zone(15), "write")
    t.pwrite(file, b, b)
    t.pwrite(other, 0, b)
    t.pwrite(other, t.size("seq/14"), b)
    t.pwrite(cnv, 0, b)
    t.pread(cnv, 0, b)
    t.ftruncate(other, 0)
    t.fsync(other)
    t.on("seq/14", "chmod", 0o600)
    t.record("access", ["seq/14"], os.access, t.path("seq/14"), os.R_OK)
    recover(t)


@case(*ERRORS)
def users_after_an_error(t: Calls) -> None:
    """Which refusal comes first."""
    broken = t.open("seq/36", "RDWR|DIRECT")
    t.pwrite(broken, 0, t.block)
    t.external(t.geometry.nr_conventional + 36, "offline")
    t.pwrite(broken, t.block, t.block)
    t.record("rename", ["seq/37", "seq/37"], os.rename, t.path("seq/37"), t.path("seq/37"))
    t.on("seq/36", "rmdir")
    t.on("seq/37", "rmdir")
    t.record("fallocate", ["seq/36", 0], system.fallocate, broken.fd, 0, 0, t.block, about=broken)
    with t.user(1000, 1000):
        for name in ("seq/36", "seq/37", "cnv/0"):
            for flags in ("RDONLY", "RDWR|DIRECT", "RDONLY|TRUNC"):
                t.close(t.open(name, flags))
            t.truncate(name, 0)
            t.on(name, "chmod", 0o600)
            t.on(name, "chown", 1, 1)
            t.on(name, "utime", (1, 1))
    recover(t)


@case("errors-remount-ro")
def flags_of_a_mount_after_an_error(t: Calls) -> None:
    file = t.open("seq/35", "RDWR|DIRECT")
    t.pwrite(file, 0, t.block)
    t.external(t.geometry.seq_zone(35), "write")
    t.pwrite(file, t.block, t.block)
    t.record("statvfs-read-only", [], bool, os.statvfs(t.path("")).f_flag & os.ST_RDONLY)
    t.record("access", ["seq/1", "W"], os.access, t.path("seq/1"), os.W_OK)
    recover(t)


@case("errors-remount-ro")
def umount_forgets(t: Calls) -> None:
    options = t.subject.options
    t.close_all()
    t.umount()
    t.mount(options)
    names = [f"seq/{number}" for number in range(16)]
    t.snapshot(*names)
    t.counters()
    t.record("statvfs", [], statvfs, t)
