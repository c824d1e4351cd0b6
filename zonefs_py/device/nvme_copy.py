"""The Copy command of NVMe as bytes: what the controller tells about it, and the command itself. Pure.

NVM Express NVM Command Set Specification, "Copy command" and "Identify"; how it ends is in `nvme_status`.
Numbers of ranges and of blocks are 0-based on the wire and nowhere else. Blocks are logical blocks of the namespace.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from zonefs_py.units import round_down
from zonefs_py.zone import CopyRange

COPY_OPCODE = 0x19
IDENTIFY_OPCODE = 0x06
IDENTIFY_SIZE = 4096

CNS_NAMESPACE = 0x00
CNS_CONTROLLER = 0x01
CNS_NAMESPACE_OF_COMMAND_SET = 0x05
"""With command set 0 (NVM): among others, the format of a namespace's protection information."""

MAX_RANGES = 256
MAX_RANGE_BLOCKS = 1 << 16
"""What the fields of a command can express at most."""

_RANGE = struct.Struct("<8xQH14x")
"""A source range entry of format 0: 8 reserved bytes, SLBA, NLB, 6 reserved bytes, and tags that we do not use."""

PASSTHROUGH = struct.Struct("<BBHIIIQQII6III")
"""struct nvme_passthru_cmd of linux/nvme_ioctl.h; its last field is the result."""


# What the controller tells


class Controller(NamedTuple):
    """What Identify Controller says about Copy.

    ``copy``: the command is supported; ``formats``: a bit for each format of range lists; ``extended_formats``: the
    namespace has to be asked which guard its protection information has.
    """

    copy: bool
    formats: int
    extended_formats: bool


class Namespace(NamedTuple):
    """What Identify Namespace says about Copy: ``mssrl`` blocks a range, ``mcl`` in all, ``msrc`` + 1 ranges.

    ``nr_blocks`` of ``block_size`` bytes; ``protection`` is the type of protection information, 0 if there is none.
    """

    nr_blocks: int
    block_size: int
    protection: int
    mssrl: int
    mcl: int
    msrc: int


def parse_controller(page: bytes) -> Controller:
    """Return what *page*, as Identify Controller gives it, says about Copy."""
    (oncs,) = struct.unpack_from("<H", page, 520)
    (formats,) = struct.unpack_from("<H", page, 534)
    (attributes,) = struct.unpack_from("<I", page, 96)
    return Controller(bool(oncs & 1 << 8), formats, bool(attributes & 1 << 15))


def pack_controller(controller: Controller) -> bytes:
    """Return a page that says what *controller* says, and is zeros else."""
    page = bytearray(IDENTIFY_SIZE)
    struct.pack_into("<H", page, 520, controller.copy << 8)
    struct.pack_into("<H", page, 534, controller.formats)
    struct.pack_into("<I", page, 96, controller.extended_formats << 15)
    return bytes(page)


def format_index(page: bytes) -> int:
    """Return which of its LBA formats the namespace of *page*, as Identify Namespace gives it, has."""
    return page[26] & 0xF | page[26] >> 1 & 0x30


def parse_namespace(page: bytes) -> Namespace:
    """Return what *page*, as Identify Namespace gives it, says about Copy."""
    (nr_blocks,) = struct.unpack_from("<Q", page)
    mssrl, mcl, msrc = struct.unpack_from("<HIB", page, 74)
    block_shift = page[128 + 4 * format_index(page) + 2]
    return Namespace(nr_blocks, 1 << block_shift, page[29] & 7, mssrl, mcl, msrc)


def pack_namespace(namespace: Namespace) -> bytes:
    """Return a page that says what *namespace* says, in LBA format 0, and is zeros else."""
    page = bytearray(IDENTIFY_SIZE)
    struct.pack_into("<Q", page, 0, namespace.nr_blocks)
    page[29] = namespace.protection
    struct.pack_into("<HIB", page, 74, namespace.mssrl, namespace.mcl, namespace.msrc)
    page[130] = namespace.block_size.bit_length() - 1
    return bytes(page)


def guard_bits(page: bytes, index: int) -> int:
    """Return the guard size of LBA format *index* in *page*, the NVM command set's own; 0: one we do not know."""
    (extended,) = struct.unpack_from("<I", page, 12 + 4 * index)
    return {0: 16, 1: 32, 2: 64}.get(extended >> 7 & 3, 0)


# What can be asked of it


@dataclass(frozen=True)
class CopySupport:
    """What one Copy command may be. ``nr_blocks`` of ``block_size`` bytes are there to copy from and to."""

    nr_blocks: int
    block_size: int
    max_range_blocks: int
    max_blocks: int
    max_ranges: int

    @property
    def max_bytes(self) -> int:
        """Bytes of all ranges of a command."""
        return self.max_blocks * self.block_size

    @property
    def max_range_bytes(self) -> int:
        """Bytes of one range."""
        return min(self.max_range_blocks, self.max_blocks) * self.block_size

    def takes(self, ranges: Sequence[CopyRange]) -> bool:
        """Whether *ranges* make one command: within the limits, in whole blocks of the namespace, and gapless."""
        return (
            1 <= len(ranges) <= self.max_ranges
            and all(0 < part.length <= self.max_range_bytes for part in ranges)
            and sum(part.length for part in ranges) <= self.max_bytes
            and all(self._has(part.source, part.length) and self._has(part.destination, part.length) for part in ranges)
            and all(one.destination + one.length == other.destination for one, other in pairwise(ranges))
        )

    def _has(self, offset: int, length: int) -> bool:
        return not (offset | length) % self.block_size and 0 <= offset <= self.nr_blocks * self.block_size - length


class NoCopy(Exception):
    """A namespace cannot be asked to copy; the text says why."""


def copy_support(controller: Controller, namespace: Namespace, guard: int, block_size: int) -> CopySupport:
    """Return what Copy can be used for on a block device with blocks of *block_size* bytes. Raises NoCopy.

    *guard* is the size of the guards of the namespace's protection information, in bits, if it has any.
    """
    if not controller.copy:
        raise NoCopy("the controller does not support the Copy command")
    if not controller.formats & 1:
        raise NoCopy("the controller does not take range lists of format 0")
    if namespace.protection:
        # Format 0 is for 16-bit guards, and even there a range has to bring the tags that its blocks were written with.
        raise NoCopy(f"the namespace has protection information of type {namespace.protection}, {guard}-bit guard")
    if not namespace.mssrl or not namespace.mcl:
        raise NoCopy("the namespace tells limits of 0 for the Copy command")
    if block_size % namespace.block_size:
        raise NoCopy(f"blocks of {block_size} bytes are not made of the namespace's, {namespace.block_size} bytes")
    most = round_down(namespace.mcl, block_size // namespace.block_size)
    range_most = round_down(namespace.mssrl, block_size // namespace.block_size)
    if not most or not range_most:
        raise NoCopy(f"a Copy command cannot have a whole block of {block_size} bytes")
    return CopySupport(namespace.nr_blocks, namespace.block_size, range_most, most, namespace.msrc + 1)


# The command


class NvmeCommand(NamedTuple):
    """A command with *data* to the controller, or *receive* bytes from it. ``cdw`` are its dwords 10 to 15."""

    opcode: int
    nsid: int
    cdw: tuple[int, int, int, int, int, int]
    data: bytes = b""
    receive: int = 0


class SourceRange(NamedTuple):
    """Blocks to copy from: ``nr_blocks`` from ``start`` on."""

    start: int
    nr_blocks: int


class CopyRequest(NamedTuple):
    """A Copy command read back. ``nr_ranges`` is what its dword says, and ``ranges`` is what its data holds of them."""

    destination: int
    nr_ranges: int
    format: int
    ranges: tuple[SourceRange, ...]


def identify(cns: int, nsid: int = 0, command_set: int = 0) -> NvmeCommand:
    """Return the Identify command for page *cns*."""
    return NvmeCommand(IDENTIFY_OPCODE, nsid, (cns, command_set << 24, 0, 0, 0, 0), receive=IDENTIFY_SIZE)


def encode_sources(nsid: int, destination: int, sources: Sequence[SourceRange]) -> NvmeCommand:
    """Return the Copy command that lays *sources* end to end from block *destination* on.

    ValueError: no command can say so.
    """
    if not 1 <= len(sources) <= MAX_RANGES:
        raise ValueError(f"{len(sources)} ranges: one command has 1 to {MAX_RANGES}")
    if not all(1 <= source.nr_blocks <= MAX_RANGE_BLOCKS for source in sources):
        raise ValueError(f"a range has 1 to {MAX_RANGE_BLOCKS} blocks")
    data = b"".join(_RANGE.pack(source.start, source.nr_blocks - 1) for source in sources)
    # Dword 12: the number of ranges in bits 0 to 7, format 0 in bits 8 to 11; no protection information, FUA or
    # limited retry.
    return NvmeCommand(
        COPY_OPCODE, nsid, (destination & 0xFFFFFFFF, destination >> 32, len(sources) - 1, 0, 0, 0), data
    )


def encode_copy(nsid: int, ranges: Sequence[CopyRange], support: CopySupport) -> NvmeCommand:
    """Return the command that copies *ranges*. ValueError where `CopySupport.takes` says no."""
    if not support.takes(ranges):
        raise ValueError(f"no Copy command can have these {len(ranges)} ranges")
    size = support.block_size
    sources = [SourceRange(part.source // size, part.length // size) for part in ranges]
    return encode_sources(nsid, ranges[0].destination // size, sources)


def decode_copy(command: NvmeCommand) -> CopyRequest:
    """Return what *command*, a Copy command, asks for."""
    low, high, dword12 = command.cdw[:3]
    nr_ranges = (dword12 & 0xFF) + 1
    whole = len(command.data) - len(command.data) % _RANGE.size
    ranges = tuple(SourceRange(start, count + 1) for start, count in _RANGE.iter_unpack(command.data[:whole]))
    return CopyRequest(high << 32 | low, nr_ranges, dword12 >> 8 & 0xF, ranges[:nr_ranges])


def pack_passthrough(command: NvmeCommand, address: int, length: int) -> bytearray:
    """Return the struct nvme_passthru_cmd of *command*, whose data is *length* bytes at *address*."""
    return bytearray(
        PASSTHROUGH.pack(command.opcode, 0, 0, command.nsid, 0, 0, 0, address, 0, length, *command.cdw, 0, 0)
    )


def passthrough_result(packed: bytes | bytearray) -> int:
    """Return dword 0 of the completion from what the kernel made of `pack_passthrough`."""
    result: int = PASSTHROUGH.unpack(packed)[-1]
    return result
