"""The superblock against bytes that this file computes by itself, and against damage."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zonefs_py.errors import SuperblockError
from zonefs_py.fs.superblock import Features, Superblock

UUID = bytes(range(16))


def raw_superblock(
    *,
    magic: bytes = b"SFOZ",
    label: bytes = b"",
    uuid: bytes = UUID,
    features: int = 0,
    uid: int = 0,
    gid: int = 0,
    perm: int = 0,
    reserved: bytes = bytes(3988),
    crc: int | None = None,
) -> bytes:
    """The 4096 bytes as the specification has them, with the right CRC unless one is given."""
    body = label.ljust(64, b"\0") + uuid + struct.pack("<QIII", features, uid, gid, perm) + reserved
    if crc is None:
        crc = zlib.crc32(magic + bytes(4) + body) ^ 0xFFFFFFFF
    block = magic + struct.pack("<I", crc) + body
    assert len(block) == 4096
    return block


def bitwise_crc(data: bytes) -> int:
    """CRC-32 from its definition: reflected, polynomial 0xEDB88320, seed of ones, no inversion at the end."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc


superblocks = st.builds(
    Superblock,
    label=st.binary(max_size=64).map(lambda label: label.rstrip(b"\0")),
    uuid=st.binary(min_size=16, max_size=16),
    features=st.integers(0, 15).map(Features),
    uid=st.integers(0, 0xFFFFFFFE),
    gid=st.integers(0, 0xFFFFFFFE),
    perm=st.integers(0, 0xFFFFFFFF),
)


def test_pack_gives_the_bytes_of_the_specification() -> None:
    superblock = Superblock(b"disk", UUID, Features(0b1111), uid=1000, gid=100, perm=0o600)
    expected = raw_superblock(label=b"disk", features=0b1111, uid=1000, gid=100, perm=0o600)
    assert superblock.pack() == expected


def test_pack_has_magic_and_crc_as_measured() -> None:
    block = Superblock(uuid=UUID).pack()
    assert block[:4].hex() == "53464f5a"
    assert struct.unpack_from("<I", block, 4)[0] == bitwise_crc(block[:4] + bytes(4) + block[8:])


def test_defaults_apply_where_the_features_say_nothing() -> None:
    superblock = Superblock.unpack(raw_superblock(features=0, uid=7, gid=8, perm=0o777))
    assert (superblock.file_uid, superblock.file_gid, superblock.file_permissions) == (0, 0, 0o640)
    assert not superblock.aggregate_conventional
    assert superblock.feature_names == []


def test_fields_apply_where_the_features_say_so() -> None:
    superblock = Superblock.unpack(raw_superblock(features=0b1111, uid=7, gid=8, perm=0o1777))
    assert (superblock.file_uid, superblock.file_gid, superblock.file_permissions) == (7, 8, 0o1777)
    assert superblock.aggregate_conventional
    assert superblock.feature_names == ["aggr_cnv", "uid", "gid", "perm"]


def test_fsid_is_both_halves_of_the_uuid() -> None:
    low, high = struct.unpack("<QQ", UUID)
    assert Superblock(uuid=UUID).fsid == low ^ high
    assert Superblock().fsid == 0


@pytest.mark.parametrize("label", [b"", b"a", b"\xff" * 64, b"a\0b"])
def test_labels_are_not_checked_by_the_format(label: bytes) -> None:
    assert Superblock.unpack(raw_superblock(label=label)).label == label


def test_label_text_is_for_people() -> None:
    assert Superblock(label="Zürich".encode()).label_text == "Zürich"
    assert Superblock(label=b"a\0b").label_text == "a"
    assert Superblock(label=b"\xff").label_text == "\ufffd"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"magic": b"SFOz"}, "bad magic 0x7a4f4653"),
        ({"magic": bytes(4)}, "bad magic 0x00000000"),
        ({"crc": 0x12345678}, "bad crc 0x12345678"),
        ({"features": 0x10}, "unknown features 0x10"),
        ({"features": 1 << 63 | 1}, "unknown features 0x8000000000000000"),
        ({"features": 0b0010, "uid": 0xFFFFFFFF}, "invalid uid"),
        ({"features": 0b0100, "gid": 0xFFFFFFFF}, "invalid gid"),
        ({"reserved": b"\1" + bytes(3987)}, "reserved area"),
        ({"reserved": bytes(3987) + b"\1"}, "reserved area"),
    ],
)
def test_each_damaged_field_is_named(damage: dict, words: str) -> None:
    with pytest.raises(SuperblockError, match=words):
        Superblock.unpack(raw_superblock(**damage))


@pytest.mark.parametrize(
    "fields", [{"uid": 0xFFFFFFFF}, {"gid": 0xFFFFFFFF}, {"uuid": bytes(16)}, {"features": 8, "perm": 0xFFFFFFFF}]
)
def test_what_the_kernel_accepts_is_accepted(fields: dict) -> None:
    assert Superblock.unpack(raw_superblock(**fields)).pack() == raw_superblock(**fields)


@pytest.mark.parametrize("length", [0, 1, 108, 4095])
def test_a_short_superblock_is_refused(length: int) -> None:
    with pytest.raises(SuperblockError, match=f"superblock of {length} bytes"):
        Superblock.unpack(raw_superblock()[:length])


def test_only_the_first_4096_bytes_count() -> None:
    assert Superblock.unpack(raw_superblock() + b"x" * 100) == Superblock(uuid=UUID)


@pytest.mark.parametrize(
    "fields",
    [{"label": bytes(65)}, {"label": b"a\0"}, {"uuid": bytes(15)}, {"uid": -1}, {"gid": 1 << 32}, {"perm": 1 << 32}],
)
def test_fields_that_do_not_fit_are_refused_at_once(fields: dict) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Superblock(**fields)


@given(superblocks)
def test_round_trip(superblock: Superblock) -> None:
    assert Superblock.unpack(superblock.pack()) == superblock


@given(superblocks, st.dictionaries(st.integers(0, 4095), st.integers(0, 255), min_size=1))
@example(Superblock(), {4: 0})
@example(Superblock(), {4095: 1})
def test_damaged_bytes_never_yield_another_superblock(superblock: Superblock, damage: dict[int, int]) -> None:
    block = bytearray(superblock.pack())
    for offset, value in damage.items():
        block[offset] = value
    try:
        found = Superblock.unpack(bytes(block))
    except SuperblockError:
        return
    assert found == superblock


@given(st.binary(max_size=5000))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SuperblockError):
        Superblock.unpack(data)


@given(
    st.fixed_dictionaries(
        {
            "features": st.integers(0, 2**64 - 1),
            "uid": st.integers(0, 2**32 - 1),
            "gid": st.integers(0, 2**32 - 1),
            "perm": st.integers(0, 2**32 - 1),
        }
    )
)
def test_any_field_values_with_a_right_crc_are_taken_or_refused(fields: dict[str, Any]) -> None:
    block = raw_superblock(**fields)
    bad = fields["features"] > 15
    bad |= bool(fields["features"] & 2) and fields["uid"] == 0xFFFFFFFF
    bad |= bool(fields["features"] & 4) and fields["gid"] == 0xFFFFFFFF
    if bad:
        with pytest.raises(SuperblockError):
            Superblock.unpack(block)
    else:
        assert Superblock.unpack(block).pack() == block
