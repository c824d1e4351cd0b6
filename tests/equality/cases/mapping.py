"""Mappings and allocation."""

from __future__ import annotations

import mmap
import os
import resource
import signal

from tests.equality import system
from tests.equality.calls import Calls, File
from tests.equality.cases.groups import BOTH, case

PROTECTIONS = {"r": mmap.PROT_READ, "w": mmap.PROT_WRITE, "rw": mmap.PROT_READ | mmap.PROT_WRITE}


def map_all(
    t: Calls,
    name: str,
    kinds: dict[str, int],
    modes: tuple[str, ...] = ("RDONLY", "RDWR|DIRECT", "RDONLY|DIRECT", "WRONLY", "RDWR"),
) -> None:
    for flags in modes:
        file = t.open(name, flags)
        for kind, map_flags in kinds.items():
            for protection, bits in PROTECTIONS.items():

                def call(file: File = file, bits: int = bits, map_flags: int = map_flags) -> str | None:
                    address = system.map_file(file.fd, t.block, bits, map_flags)
                    try:
                        return t.digest(system.peek(address, t.block)) if bits & mmap.PROT_READ else None
                    finally:
                        system.unmap(address, t.block)

                t.record("mmap", [name, flags, kind, protection], call)
        t.close(file)


@case(*BOTH)
def mappings_private(t: Calls) -> None:
    writer = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(writer, 0, 2 * 4096)
    map_all(t, "seq/0", {"private": mmap.MAP_PRIVATE})
    map_all(t, "cnv/0", {"private": mmap.MAP_PRIVATE})


@case("plain")
def mappings_shared(t: Calls) -> None:
    writer = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(writer, 0, 2 * t.block)
    map_all(t, "seq/0", {"shared": mmap.MAP_SHARED})


@case("plain")
def mappings_conventional(t: Calls) -> None:
    file = t.open("cnv/0", "RDWR")
    t.pwrite(file, 0, t.block)
    t.close(file)
    map_all(t, "cnv/0", {"shared": mmap.MAP_SHARED}, ("RDONLY", "RDWR", "WRONLY"))


@case("plain")
def mappings_conventional_direct(t: Calls) -> None:
    file = t.open("cnv/0", "RDWR")
    t.pwrite(file, 0, t.block)
    t.close(file)
    map_all(t, "cnv/0", {"shared": mmap.MAP_SHARED}, ("RDWR|DIRECT", "RDONLY|DIRECT"))


@case("plain", "aggregated")
def mapping_writes(t: Calls) -> None:
    size = t.size("cnv/0")
    file = t.open("cnv/0", "RDWR")
    direct = t.open("cnv/0", "RDWR|DIRECT")

    def call() -> None:
        for offset in (0, size - t.block):
            address = system.map_file(file.fd, t.block, PROTECTIONS["rw"], mmap.MAP_SHARED, offset)
            system.poke(address + 10, b"mapped")
            system.msync(address, t.block)
            system.unmap(address, t.block)

    t.record("mmap-write", ["cnv/0"], call, about=file)
    t.pread(file, 0, 100)
    t.pread(direct, 0, t.block)
    t.pread(direct, size - t.block, t.block)
    t.content("cnv/0")


@case("plain")
def mapping_past_the_end(t: Calls) -> None:
    writer = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(writer, 0, t.block)
    reader = t.open("seq/0", "RDONLY")

    def touch(offset: int, truncate: bool = False) -> list[int]:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            import faulthandler

            faulthandler.disable()
            status = 1
            try:
                address = system.map_file(reader.fd, 2 * t.block, mmap.PROT_READ, mmap.MAP_PRIVATE)
                system.peek(address, 10)
                if truncate:
                    os.truncate(t.path("seq/0"), 0)
                system.peek(address + offset, 10)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        return [os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, os.WEXITSTATUS(status)]

    t.record("touch", [0], touch, 0)
    t.record("touch", [t.block], touch, t.block)
    t.record("touch-truncated", [0], touch, 0, True)


@case("plain")
def allocation(t: Calls) -> None:
    for name in ("seq/0", "cnv/0"):
        for flags in ("RDWR|DIRECT", "RDONLY"):
            file = t.open(name, flags)
            for mode in (0, 1, 3, 8, 16, 17, 32, 64, 1 << 20):
                for offset, length in ((0, t.block), (t.block, 2 * t.block), (0, 0), (-1, 1)):
                    t.record(
                        "fallocate",
                        [name, flags, mode, offset, length],
                        system.fallocate,
                        file.fd,
                        mode,
                        offset,
                        length,
                    )
            t.close(file)
        file = t.open(name, "RDWR|DIRECT")
        t.record("posix_fallocate", [name], os.posix_fallocate, file.fd, 0, t.block, about=file)


@case("plain")
def allocation_at_the_end(t: Calls) -> None:
    size = t.size("cnv/0")
    file = t.open("cnv/0", "RDWR")
    t.record("fallocate", ["cnv/0", 0, size], system.fallocate, file.fd, 0, size, t.block)
    file = t.open("seq/0", "RDWR|DIRECT")
    t.record("fallocate", ["seq/0", 0, size], system.fallocate, file.fd, 0, size, t.block)
