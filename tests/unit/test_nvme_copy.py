"""NVMe's Copy command byte for byte: what is sent, and what Identify says; every byte worked out by hand."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zonefs_py.device.nvme_copy import (
    CNS_CONTROLLER,
    CNS_NAMESPACE_OF_COMMAND_SET,
    Controller,
    CopyRequest,
    CopySupport,
    Namespace,
    NoCopy,
    NvmeCommand,
    SourceRange,
    copy_support,
    decode_copy,
    encode_copy,
    encode_sources,
    format_index,
    guard_bits,
    identify,
    pack_controller,
    pack_namespace,
    pack_passthrough,
    parse_controller,
    parse_namespace,
    passthrough_result,
)
from zonefs_py.zone import CopyRange

SUPPORT = CopySupport(nr_blocks=1 << 20, block_size=4096, max_range_blocks=128, max_blocks=256, max_ranges=16)


def test_a_command_byte_for_byte() -> None:
    sources = [SourceRange(0x1122334455667788, 1), SourceRange(5, 65536)]
    command = encode_sources(3, 0x123456789A, sources)
    assert command.opcode == 0x19
    assert command.nsid == 3
    # SDLBA in dwords 10 and 11, number of ranges less one in dword 12, descriptor format 0.
    assert command.cdw == (0x3456789A, 0x12, 1, 0, 0, 0)
    assert command.data.hex(" ", 8) == (
        "0000000000000000 8877665544332211 0000000000000000 0000000000000000"
        " 0000000000000000 0500000000000000 ffff000000000000 0000000000000000"
    )
    packed = pack_passthrough(command, 0x7F0102030405, 64)
    assert packed.hex(" ", 4) == (
        "19000000 03000000 00000000 00000000 00000000 00000000 05040302 017f0000 00000000 40000000"
        " 9a785634 12000000 01000000 00000000 00000000 00000000 00000000 00000000"
    )
    packed[-4:] = b"\x07\x00\x00\x00"
    assert passthrough_result(packed) == 7


def test_ranges_in_bytes_become_blocks() -> None:
    ranges = [CopyRange(40960, 8192, 4096), CopyRange(0, 12288, 128 * 4096)]
    command = encode_copy(1, ranges, SUPPORT)
    assert command.cdw == (2, 0, 1, 0, 0, 0)
    assert decode_copy(command) == CopyRequest(2, 2, 0, (SourceRange(10, 1), SourceRange(0, 128)))
    with pytest.raises(ValueError, match="no Copy command"):
        encode_copy(1, [CopyRange(0, 8192, 129 * 4096)], SUPPORT)


sources_lists = st.lists(
    st.builds(SourceRange, st.integers(0, (1 << 64) - 1), st.integers(1, 1 << 16)), min_size=1, max_size=256
)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1), sources_lists)
@example(0xFFFFFFFE, (1 << 64) - 1, [SourceRange((1 << 64) - 1, 1 << 16)] * 256)
def test_a_command_is_read_back(nsid: int, destination: int, sources: list[SourceRange]) -> None:
    command = encode_sources(nsid, destination, sources)
    assert len(command.data) == 32 * len(sources)
    assert decode_copy(command) == CopyRequest(destination, len(sources), 0, tuple(sources))
    assert len(pack_passthrough(command, (1 << 64) - 1, len(command.data))) == 72


@pytest.mark.parametrize("sources", [[], [SourceRange(0, 1)] * 257, [SourceRange(0, 0)], [SourceRange(0, 65537)]])
def test_what_no_command_can_say(sources: list[SourceRange]) -> None:
    with pytest.raises(ValueError, match="range"):
        encode_sources(1, 0, sources)


def test_a_command_with_less_data_than_it_says() -> None:
    command = encode_sources(1, 7, [SourceRange(1, 1), SourceRange(2, 1)])
    assert decode_copy(command._replace(data=command.data[:63])) == CopyRequest(7, 2, 0, (SourceRange(1, 1),))
    other = command._replace(cdw=(7, 0, 0x3F00, 0, 0, 0))
    assert decode_copy(other) == CopyRequest(7, 1, 0xF, (SourceRange(1, 1),))


def test_identify_commands() -> None:
    assert identify(CNS_CONTROLLER) == NvmeCommand(0x06, 0, (1, 0, 0, 0, 0, 0), b"", 4096)
    assert identify(CNS_NAMESPACE_OF_COMMAND_SET, 9, 2) == NvmeCommand(0x06, 9, (5, 0x02000000, 0, 0, 0, 0), b"", 4096)


# Identify


def page(**at: bytes) -> bytes:
    """A page with bytes at offsets: ``_520=b"..."``."""
    filled = bytearray(4096)
    for offset, content in at.items():
        start = int(offset[1:])
        filled[start : start + len(content)] = content
    return bytes(filled)


def test_identify_controller() -> None:
    assert parse_controller(bytes(4096)) == Controller(copy=False, formats=0, extended_formats=False)
    # ONCS bit 8 at 520, OCFS at 534, CTRATT bit 15 at 96.
    told = page(_520=b"\x00\x01", _534=b"\x03\x00", _96=b"\x00\x80\x00\x00")
    assert parse_controller(told) == Controller(copy=True, formats=3, extended_formats=True)
    every_other_bit = page(_520=b"\xff\xfe", _96=b"\xff\x7f\xff\xff")
    assert parse_controller(every_other_bit) == Controller(copy=False, formats=0, extended_formats=False)


def test_identify_namespace() -> None:
    # NSZE at 0, FLBAS at 26, DPS at 29, MSSRL at 74, MCL at 76, MSRC at 80, LBA formats from 128 on.
    told = page(
        _0=b"\x00\x00\x08\x00\x00\x00\x00\x00",
        _26=b"\x02",
        _29=b"\x09",
        _74=b"\x80\x00",
        _76=b"\x00\x01\x00\x00",
        _80=b"\x0f",
        _128=b"\x00\x00\x09\x00" + b"\x08\x00\x09\x00" + b"\x08\x00\x0c\x00",
    )
    assert parse_namespace(told) == Namespace(0x80000, 4096, protection=1, mssrl=128, mcl=256, msrc=15)


@pytest.mark.parametrize(("flbas", "index"), [(0x00, 0), (0x0F, 15), (0x1F, 15), (0x20, 16), (0x65, 53), (0x90, 0)])
def test_the_index_of_a_format_is_in_two_pieces(flbas: int, index: int) -> None:
    assert format_index(page(_26=bytes([flbas]))) == index
    told = page(_26=bytes([flbas]), **{f"_{128 + 4 * index}": b"\x00\x00\x0d\x00"})
    assert parse_namespace(told).block_size == 8192


@pytest.mark.parametrize(("format", "bits"), [(0, 16), (1, 32), (2, 64), (3, 0)])
def test_guards(format: int, bits: int) -> None:
    # ELBAF at 12: storage tag size in bits 0 to 6, protection information format in bits 7 and 8.
    told = page(_16=struct.pack("<I", format << 7 | 0x7F | 0xFFFFFE00))
    assert guard_bits(told, 1) == bits
    assert guard_bits(told, 0) == 16


controllers = st.builds(Controller, st.booleans(), st.integers(0, 0xFFFF), st.booleans())
namespaces = st.builds(
    Namespace,
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([512, 4096, 65536]),
    st.integers(0, 7),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFF),
)


@given(controllers, namespaces)
def test_pages_are_read_back(controller: Controller, namespace: Namespace) -> None:
    assert parse_controller(pack_controller(controller)) == controller
    assert parse_namespace(pack_namespace(namespace)) == namespace
    assert len(pack_controller(controller)) == len(pack_namespace(namespace)) == 4096


# Support

ABLE = Controller(copy=True, formats=1, extended_formats=False)
NAMESPACE = Namespace(1 << 20, 4096, 0, 128, 256, 15)


def test_limits_in_bytes() -> None:
    support = copy_support(ABLE, NAMESPACE, 16, 4096)
    assert support == SUPPORT
    assert (support.max_bytes, support.max_range_bytes, support.max_ranges) == (1048576, 524288, 16)
    assert copy_support(ABLE, NAMESPACE._replace(mcl=100), 16, 4096).max_range_bytes == 409600


def test_limits_are_cut_to_the_blocks_of_the_block_device() -> None:
    support = copy_support(ABLE, Namespace(1 << 20, 512, 0, 65535, 1001, 255), 16, 4096)
    assert (support.max_range_blocks, support.max_blocks, support.max_ranges) == (65528, 1000, 256)


@pytest.mark.parametrize(
    ("controller", "namespace", "guard", "block_size", "words"),
    [
        (ABLE._replace(copy=False), NAMESPACE, 16, 4096, "does not support the Copy command"),
        (ABLE._replace(formats=0), NAMESPACE, 16, 4096, "format 0"),
        (ABLE._replace(formats=0xFFFE), NAMESPACE, 16, 4096, "format 0"),
        (ABLE, NAMESPACE._replace(protection=1), 16, 4096, "protection information of type 1, 16-bit guard"),
        (ABLE, NAMESPACE._replace(protection=3), 64, 4096, "protection information of type 3, 64-bit guard"),
        (ABLE, NAMESPACE._replace(mssrl=0), 16, 4096, "limits of 0"),
        (ABLE, NAMESPACE._replace(mcl=0), 16, 4096, "limits of 0"),
        (ABLE, NAMESPACE, 16, 512, "blocks of 512 bytes are not made of the namespace's, 4096 bytes"),
        (ABLE, NAMESPACE._replace(block_size=512, mssrl=7), 16, 4096, "a whole block of 4096 bytes"),
        (ABLE, NAMESPACE._replace(block_size=512, mcl=7), 16, 4096, "a whole block of 4096 bytes"),
    ],
)
def test_who_cannot_copy(controller: Controller, namespace: Namespace, guard: int, block_size: int, words: str) -> None:
    with pytest.raises(NoCopy, match=words):
        copy_support(controller, namespace, guard, block_size)


B = 4096


@pytest.mark.parametrize(
    ("ranges", "taken"),
    [
        ([], False),
        ([(0, 8, 1)], True),
        ([(0, 8, 128)], True),
        ([(0, 8, 129)], False),
        ([(0, 8, 128), (0, 136, 128)], True),
        ([(0, 8, 128), (0, 136, 128), (0, 264, 1)], False),
        ([(number, 100 + number, 1) for number in range(16)], True),
        ([(number, 100 + number, 1) for number in range(17)], False),
        ([(0, 8, 1), (0, 10, 1)], False),
        ([(0, 8, 1), (0, 8, 1)], False),
        ([((1 << 20) - 1, 8, 1)], True),
        ([((1 << 20) - 1, 8, 2)], False),
        ([(8, (1 << 20) - 1, 1)], True),
        ([(8, (1 << 20) - 1, 2)], False),
        ([(0, 8, 0)], False),
        ([(-1, 8, 1)], False),
    ],
)
def test_what_makes_a_command(ranges: list[tuple[int, int, int]], taken: bool) -> None:
    assert SUPPORT.takes([CopyRange(*(number * B for number in one)) for one in ranges]) is taken


@pytest.mark.parametrize("odd", [CopyRange(1, B, B), CopyRange(0, B + 512, B), CopyRange(0, B, B + 1)])
def test_only_whole_blocks_make_a_command(odd: CopyRange) -> None:
    assert not SUPPORT.takes([odd])


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 40)), min_size=1, max_size=8), st.integers(0, 1000))
def test_what_is_taken_is_what_the_command_says(sources: list[tuple[int, int]], destination: int) -> None:
    ranges, end = [], destination
    for start, count in sources:
        ranges.append(CopyRange(start * B, end * B, count * B))
        end += count
    small = replace(SUPPORT, max_range_blocks=20, max_blocks=60, max_ranges=4)
    fits = len(sources) <= 4 and max(count for _, count in sources) <= 20 and end - destination <= 60
    assert small.takes(ranges) is fits
    if fits:
        request = decode_copy(encode_copy(1, ranges, small))
        assert request == CopyRequest(destination, len(sources), 0, tuple(SourceRange(*one) for one in sources))
