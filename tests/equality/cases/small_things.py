"""Extended attributes, ioctls, synchronising, locks, events, swap."""

from __future__ import annotations

import fcntl
import os
import select
import struct

from tests.equality import system
from tests.equality.calls import Calls, File
from tests.equality.cases.groups import case


def get_attribute(t: Calls, name: str, attribute: str) -> str:
    """An extended attribute."""
    return os.getxattr(t.path(name), attribute).hex()


@case("plain")
def extended_attributes(t: Calls) -> None:
    for name in ("seq/0", "seq"):
        for attribute in ("user.a", "trusted.a", "security.a", "system.a", "plain"):
            t.record("setxattr", [name, attribute], os.setxattr, t.path(name), attribute, b"x")
            t.record("getxattr", [name, attribute], get_attribute, t, name, attribute)
            t.record("removexattr", [name, attribute], os.removexattr, t.path(name), attribute)
        t.record("listxattr", [name], os.listxattr, t.path(name))
        acl = "system.posix_acl_access"
        t.record("setxattr", [name, acl], os.setxattr, t.path(name), acl, b"x")


@case("plain")
def access_control_lists(t: Calls) -> None:
    acl = "system.posix_acl_access"
    t.record("getxattr", ["seq/0", acl], get_attribute, t, "seq/0", acl)
    t.record("removexattr", ["seq/0", acl], os.removexattr, t.path("seq/0"), acl)


IOCTLS = {
    "FS_IOC_GETFLAGS": 0x80086601,
    "FS_IOC_SETFLAGS": 0x40086602,
    "FS_IOC_FSGETXATTR": 0x801C581F,
    "FS_IOC_GETVERSION": 0x80087601,
    "FS_IOC_GETFSLABEL": 0x81009431,
    "FS_IOC_ENABLE_VERITY": 0x40806685,
    "FS_IOC_GET_ENCRYPTION_POLICY": 0x400C6615,
    "BLKREPORTZONE": 0xC0101282,
    "BLKRESETZONE": 0x40101283,
    "BLKGETSIZE64": 0x80081272,
    "BLKGETZONESZ": 0x80041284,
    "FITRIM": 0xC0185879,
    "TCGETS": 0x5401,
    "UNKNOWN": 0x12345678,
    "FIONREAD": 0x541B,
    "FIFREEZE": 0xC0045877,
    "FS_IOC_RESVSP": 0x40305828,
    "FS_IOC_FIEMAP": 0xC020660B,
    "FIDEDUPERANGE": 0xC0189436,
}


@case("plain")
def ioctls(t: Calls) -> None:
    writer = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(writer, 0, 3 * t.block)
    os.lseek(writer.fd, t.block, os.SEEK_SET)
    for name, number in IOCTLS.items():

        def call(number: int = number) -> str:
            data = bytearray(512)
            fcntl.ioctl(writer.fd, number, data)
            return data.rstrip(b"\0").hex()

        t.record("ioctl", [name], call)


def integer_ioctl(file: File, number: int) -> int:
    """An ioctl that answers with an integer."""
    (answer,) = struct.unpack("i", fcntl.ioctl(file.fd, number, bytes(4)))
    return int(answer)


@case("plain")
def ioctls_of_blocks(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    for name, number in (("FIGETBSZ", 2), ("FIBMAP", 1)):
        t.record("ioctl", [name], integer_ioctl, file, number)
    with t.user(1000, 1000):
        t.record("ioctl", ["FIBMAP"], integer_ioctl, file, 1)


@case("sectors")
def ioctls_of_sectors(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.record("ioctl", ["FIGETBSZ"], integer_ioctl, file, 2)


@case("plain")
def synchronising(t: Calls) -> None:
    for name in ("seq/0", "cnv/0"):
        for flags in ("RDONLY", "WRONLY|DIRECT", "RDWR"):
            file = t.open(name, flags)
            t.fsync(file)
            t.record("fdatasync", [name], os.fdatasync, file.fd)
            t.record("syncfs", [name], system.syncfs, file.fd)
            t.record("sync_file_range", [name], system.sync_file_range, file.fd, 0, t.block, 7)
            t.record("readahead", [name], system.readahead, file.fd, 0, t.block)
            for advice in (0, 1, 2, 3, 4, 5, 9):
                t.record("fadvise", [name, advice], os.posix_fadvise, file.fd, 0, 0, advice)
            t.record("poll", [name], poll, file.fd)
            t.close(file)


def poll(fd: int) -> int:
    """What poll(2) says at once."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLOUT)
    ((_, events),) = poller.poll(0)
    return events


@case("plain")
def locks(t: Calls) -> None:
    for name in ("seq/0", "cnv/0"):
        one, two = t.open(name, "RDWR"), t.open(name, "RDWR")
        t.record("flock", [name], fcntl.flock, one.fd, fcntl.LOCK_EX)
        t.record("flock", [name, "two"], fcntl.flock, two.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        t.record("flock", [name, "un"], fcntl.flock, one.fd, fcntl.LOCK_UN)
        t.record("lockf", [name], fcntl.lockf, one.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)
        t.close(one)
        t.close(two)
        for lease in (fcntl.F_RDLCK, fcntl.F_WRLCK):
            file = t.open(name, "RDONLY")
            t.record("setlease", [name, lease], fcntl.fcntl, file.fd, fcntl.F_SETLEASE, lease)
            t.close(file)


@case("plain")
def events(t: Calls) -> None:
    file = t.open("seq/0", "RDWR")
    with select.epoll() as poller:
        t.record("epoll", ["seq/0"], poller.register, file.fd, select.EPOLLIN)
    t.record("name_to_handle", ["seq/0"], system.name_to_handle, t.path("seq/0"))


@case("plain")
def watches(t: Calls) -> None:
    """What inotify tells of a file, and of the directory that it is in."""
    for name in ("seq/0", "cnv/0"):
        watched, directory = system.Watch(t.path(name)), system.Watch(t.path(os.path.dirname(name)))

        def happened(name: str = name, one: system.Watch = watched, two: system.Watch = directory) -> None:
            t.line(call="inotify", args=[name], ret=[one.events(), two.events()])

        file = t.open(name, "RDWR|DIRECT")
        happened()
        t.pwrite(file, 0, t.block)
        happened()
        t.pwrite(file, 3, 5)
        happened()
        t.ftruncate(file, 0)
        happened()
        t.on(name, "chmod", 0o600)
        happened()
        t.on(name, "chmod", 0o640)
        t.on(name, "utime", (1, 1))
        happened()
        t.close(file)
        happened()
        t.truncate(name, t.size(name))
        happened()
        t.stat(name)
        happened()
        watched.close()
        directory.close()


@case("plain")
def swap(t: Calls) -> None:
    # A swap header: version 1, last page, no bad pages; the signature at the end of the first page.
    header = bytearray(4096)
    struct.pack_into("<III", header, 1024, 1, t.size("cnv/0") // 4096 - 1, 0)
    header[4086:] = b"SWAPSPACE2"
    for name in ("cnv/0", "seq/0"):
        file = t.open(name, "RDWR|DIRECT")
        address = t.fill(4096)
        system.poke(address, bytes(header))
        t.record("swap-header", [name], system.write_from, file.fd, address, 4096, 0, about=name)
        t.record("swapon", [name], system.swapon, t.path(name))
        t.pwrite(file, 4096, 4096)
        t.truncate(name, 0)
        t.record("swapoff", [name], system.swapoff, t.path(name))


@case("plain")
def busy(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.umount()
    t.remount("", read_only=True)
    t.pwrite(file, 0, t.block)
