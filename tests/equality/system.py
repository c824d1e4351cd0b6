"""System calls that Python's standard library has no name for. Nothing here knows zonefs.

Every function raises OSError as those of `os` do.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import Any

# With PyDLL instead of CDLL nothing may block; these calls may.
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.pwrite.restype = _LIBC.pread.restype = _LIBC.write.restype = _LIBC.read.restype = ctypes.c_ssize_t
_LIBC.pwrite.argtypes = _LIBC.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]

# Numbers of x86-64.
_SYS_GETDENTS64 = 217
_SYS_IO_SETUP = 206
_SYS_IO_DESTROY = 207
_SYS_IO_GETEVENTS = 208
_SYS_IO_SUBMIT = 209
_SYS_RENAMEAT2 = 316
_SYS_PWRITEV2 = 328
_SYS_PREADV2 = 327
_SYS_STATX = 332

AT_FDCWD = -100

MS_RDONLY = 1
MS_REMOUNT = 32
MS_NOATIME = 1024


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number: int, *arguments: Any) -> int:
    """Make the system call *number*."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return int(_checked(_LIBC.syscall(ctypes.c_long(number), *words)))


def mount(source: str, target: str, kind: str, flags: int, data: str | None) -> None:
    """mount(2)."""
    text = None if data is None else data.encode()
    _checked(_LIBC.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), text))


def umount(target: str, *, lazily: bool = False) -> None:
    """umount2(2) without flags, or with MNT_DETACH."""
    _checked(_LIBC.umount2(target.encode(), 2 if lazily else 0))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    _checked(_LIBC.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def sync_file_range(descriptor: int, offset: int, length: int, flags: int) -> None:
    """sync_file_range(2)."""
    _checked(_LIBC.sync_file_range(descriptor, ctypes.c_long(offset), ctypes.c_long(length), flags))


def syncfs(descriptor: int) -> None:
    """syncfs(2)."""
    _checked(_LIBC.syncfs(descriptor))


def readahead(descriptor: int, offset: int, count: int) -> None:
    """readahead(2)."""
    _checked(_LIBC.readahead(descriptor, ctypes.c_long(offset), ctypes.c_size_t(count)))


def swapon(path: str) -> None:
    """swapon(2)."""
    _checked(_LIBC.swapon(path.encode(), 0))


def swapoff(path: str) -> None:
    """swapoff(2)."""
    _checked(_LIBC.swapoff(path.encode()))


def renameat2(old: str, new: str, flags: int) -> None:
    """renameat2(2)."""
    syscall(_SYS_RENAMEAT2, AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags)


def name_to_handle(path: str) -> None:
    """name_to_handle_at(2), its answer thrown away."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 8 + 128)
    mount_id = ctypes.c_int()
    _checked(_LIBC.name_to_handle_at(AT_FDCWD, path.encode(), handle, ctypes.byref(mount_id), 0))


def memory(length: int) -> int:
    """Map *length* bytes of anonymous memory; return its address."""
    address = _LIBC.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    return int(_mapped(address))


def _mapped(address: int | None) -> int:
    if address is None or address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return address


def map_file(descriptor: int, length: int, protection: int, flags: int, offset: int = 0) -> int:
    """mmap(2) of a file, without the checks that Python's own makes; return the address."""
    return _mapped(_LIBC.mmap(None, length, protection, flags, descriptor, offset))


def unmap(address: int, length: int) -> None:
    """munmap(2)."""
    _checked(_LIBC.munmap(address, length))


def msync(address: int, length: int) -> None:
    """msync(2) with MS_SYNC."""
    _checked(_LIBC.msync(ctypes.c_void_p(address), ctypes.c_size_t(length), 4))


def peek(address: int, length: int) -> bytes:
    """Read memory."""
    return ctypes.string_at(address, length)


def poke(address: int, data: bytes) -> None:
    """Write memory."""
    ctypes.memmove(address, data, len(data))


def write_from(descriptor: int, address: int, length: int, offset: int) -> int:
    """pwrite(2) from an address, good or bad."""
    return int(_checked(_LIBC.pwrite(descriptor, address, length, offset)))


def write_on(descriptor: int, address: int, length: int) -> int:
    """write(2) from an address."""
    return int(_checked(_LIBC.write(descriptor, ctypes.c_void_p(address), ctypes.c_size_t(length))))


def read_on(descriptor: int, address: int, length: int) -> int:
    """read(2) to an address."""
    return int(_checked(_LIBC.read(descriptor, ctypes.c_void_p(address), ctypes.c_size_t(length))))


def writev(descriptor: int, pieces: list[tuple[int, int]], offset: int, flags: int = 0) -> int:
    """pwritev2(2) from pieces of memory (address, length)."""
    words = [word for piece in pieces for word in piece]
    vector = (ctypes.c_uint64 * len(words))(*words)
    return syscall(_SYS_PWRITEV2, descriptor, vector, len(pieces), offset, 0, flags)


def read_to(descriptor: int, address: int, length: int, offset: int) -> int:
    """pread(2) to an address, good or bad."""
    return int(_checked(_LIBC.pread(descriptor, address, length, offset)))


def pwritev2(descriptor: int, address: int, length: int, offset: int, flags: int) -> int:
    """pwritev2(2) of one piece of memory; offset -1 is the file's position."""
    vector = (ctypes.c_uint64 * 2)(address, length)
    return syscall(_SYS_PWRITEV2, descriptor, vector, 1, offset, -1 if offset < 0 else 0, flags)


def preadv2(descriptor: int, address: int, length: int, offset: int, flags: int) -> int:
    """preadv2(2) to one piece of memory."""
    vector = (ctypes.c_uint64 * 2)(address, length)
    return syscall(_SYS_PREADV2, descriptor, vector, 1, offset, 0, flags)


def getdents(descriptor: int) -> list[tuple[str, int, int, int]]:
    """getdents64(2): names, inode numbers, offsets and types of what one call gives."""
    buffer = ctypes.create_string_buffer(1 << 16)
    length = syscall(_SYS_GETDENTS64, descriptor, buffer, len(buffer))
    entries = []
    at = 0
    while at < length:
        ino, offset, size, kind = struct.unpack_from("QqHB", buffer, at)
        name = buffer.raw[at + 19 : at + size]
        entries.append((name.partition(b"\0")[0].decode(), ino, offset, kind))
        at += size
    return entries


def statx(path: str) -> tuple[int, int, int, int]:
    """statx(2): mask, attributes, and the alignment that direct I/O needs in memory and in the file."""
    buffer = ctypes.create_string_buffer(256)
    # STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID | STATX_DIOALIGN
    syscall(_SYS_STATX, AT_FDCWD, path.encode(), 0, 0x7FF | 0x800 | 0x1000 | 0x2000, buffer)
    mask, _, attributes = struct.unpack_from("IIQ", buffer, 0)
    memory_align, offset_align = struct.unpack_from("II", buffer, 0x98)
    return mask, attributes, memory_align, offset_align


class Watch:
    """A watch of inotify(7) for all that happens to a file or directory."""

    ALL_EVENTS = 0xFFF
    NAMES = (
        "ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN", "MOVED_FROM", "MOVED_TO", "CREATE",
        "DELETE", "DELETE_SELF", "MOVE_SELF",
    )  # fmt: skip

    def __init__(self, path: str) -> None:
        self._descriptor = _checked(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        _checked(_LIBC.inotify_add_watch(self._descriptor, path.encode(), self.ALL_EVENTS))

    def events(self) -> list[str]:
        """What has happened since the last call: the names of events, with the name in the directory if there is."""
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return []
        found, at = [], 0
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode()
            words = [word for bit, word in enumerate(self.NAMES) if mask >> bit & 1]
            found.append("|".join(words) + (f" {name}" if name else ""))
            at += 16 + length
        return found

    def close(self) -> None:
        """Watch no more."""
        os.close(self._descriptor)


class AsyncWriter:
    """Asynchronous writes of the kernel's own kind (io_submit), as libaio makes them."""

    def __init__(self, events: int = 16) -> None:
        self._context = ctypes.c_ulong(0)
        syscall(_SYS_IO_SETUP, events, ctypes.byref(self._context))

    def write(self, descriptor: int, pieces: list[tuple[int, int, int]], flags: int = 0) -> list[int]:
        """Submit writes of (address, length, offset) in one call; return the result of each in their order.

        A negative result is an errno. Raises OSError if the first could not be submitted.
        """
        blocks = []
        for number, (address, length, offset) in enumerate(pieces):
            # struct iocb: data, key, rw_flags, opcode (PWRITE), priority, descriptor, buffer, bytes, offset, ...
            words = struct.pack("QIIHhIQQqQII", number, 0, flags, 1, 0, descriptor, address, length, offset, 0, 0, 0)
            blocks.append(ctypes.create_string_buffer(words, len(words)))
        pointers = (ctypes.c_void_p * len(blocks))(*[ctypes.addressof(block) for block in blocks])
        submitted = syscall(_SYS_IO_SUBMIT, self._context, len(blocks), pointers)
        events = ctypes.create_string_buffer(32 * submitted)
        got = syscall(_SYS_IO_GETEVENTS, self._context, submitted, submitted, events, None)
        results = dict(struct.unpack_from("Q8xq", events, 32 * index) for index in range(got))
        return [results[number] for number in range(submitted)]

    def close(self) -> None:
        """Give the context back."""
        syscall(_SYS_IO_DESTROY, self._context)
