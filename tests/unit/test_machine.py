"""The pure parts of tools/machine: device texts, frames, archives, versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.machine import initramfs
from tools.machine.errors import VmError
from tools.machine.packages import GOOD_QEMU, Cache, _version_key, write_starters
from tools.machine.protocol import Decoder, frame
from tools.machine.qemu import zns_arguments
from tools.machine.server import KEPT_SECONDS, _claim, _remove_old
from tools.machine.session import guest_path
from tools.machine.specs import KINDS, parse_device, parse_devices


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("null_blk", {"zoned": "1", "memory_backed": "1", "zone_size": "4", "size": "64"}),
        ("null_blk:", {"zoned": "1", "memory_backed": "1", "zone_size": "4", "size": "64"}),
        (
            "null_blk:zone_size=8M,zones=4,zone_capacity=6M,zone_nr_conv=1,blocksize=4K",
            {
                "zoned": "1",
                "memory_backed": "1",
                "zone_size": "8",
                "size": "32",
                "zone_capacity": "6",
                "zone_nr_conv": "1",
                "blocksize": "4096",
            },
        ),
        ("null_blk:zone_size=4,size=1G", {"zoned": "1", "memory_backed": "1", "zone_size": "4", "size": "1024"}),
        ("null_blk:zoned=0", {"zoned": "0", "memory_backed": "1", "size": "64"}),
        ("scsi_debug", {"zbc": "managed", "dev_size_mb": "64", "zone_size_mb": "4"}),
        ("scsi_debug:zbc=none", {"zbc": "none", "dev_size_mb": "64"}),
        (
            "zns:mssrl=16",
            {
                "mssrl": "16",
                "zone_size": "4194304",
                "size": "67108864",
                "logical_block_size": "4096",
                "physical_block_size": "4096",
            },
        ),
    ],
)
def test_settings_are_complete_and_in_the_drivers_units(text: str, settings: dict[str, str]) -> None:
    assert parse_device(text).settings == settings


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("floppy", "there is no kind 'floppy'; the kinds are null_blk, scsi_debug, zns, nvmet"),
        ("null_blk:zone_sise=4M", "null_blk has no key 'zone_sise'; its keys are"),
        ("null_blk:zone_size", "zone_size needs a value"),
        ("null_blk:zone_size=", "zone_size needs a value"),
        ("null_blk:zone_size=four", "zone_size=four is not a number"),
        ("null_blk:zone_size=-4", "zone_size=-4 is not a number"),
        ("null_blk:zone_size=1K", "zone_size=1K is not a multiple of 1M"),
        ("null_blk:zone_size=3M", "the zone size must be a power of two"),
        ("null_blk:zone_size=0", "the zone size must be a power of two"),
        ("null_blk:size=0", "the size is 0"),
        ("null_blk:zones=4,zones=5", "zones is given twice"),
        ("null_blk:zones=4,size=64M", "give size or zones, not both"),
        ("null_blk:zoned=0,zones=4", "zones needs zoned=1"),
        ("null_blk:zoned=2", "zoned is 0 or 1, not 2"),
        ("null_blk:zone_capacity=5M", "the zone capacity is larger than the zone size"),
        ("null_blk:badblocks=a/b", "badblocks=a/b has a character that the driver cannot take"),
        ("nvmet:zone_nr_conv=1", "nvmet has no key 'zone_nr_conv'"),
        ("scsi_debug:zbc=some", "zbc is none, aware or managed"),
        ("scsi_debug:zone_cap_mb=5", "the zone capacity is larger than the zone size"),
        ("zns:zone_capacity=5M", "the zone capacity is larger than the zone size"),
        ("zns:size=63M", "QEMU makes whole zones only"),
    ],
)
def test_bad_devices_are_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(VmError) as failure:
        parse_device(text)
    assert str(failure.value).startswith(f"device {text!r}: {complaint}")
    assert "\n" not in str(failure.value)


def test_there_is_one_scsi_debug() -> None:
    assert len(parse_devices(["null_blk", "null_blk", "scsi_debug"])) == 3
    with pytest.raises(VmError, match="one scsi_debug"):
        parse_devices(["scsi_debug", "null_blk", "scsi_debug"])


@given(st.sampled_from(sorted(KINDS)), st.text(max_size=40))
def test_any_text_is_read_or_refused(kind: str, rest: str) -> None:
    refusals = []
    try:
        settings = parse_device(f"{kind}:{rest}").settings
    except VmError as exc:
        settings = {}
        refusals = str(exc).splitlines()
    assert len(refusals) <= 1
    assert set(settings) <= set(KINDS[kind])


def test_zns_arguments(tmp_path: Path) -> None:
    specs = parse_devices(["null_blk", "zns:zones=8,zone_capacity=3M,max_open=2,mssrl=8,msrc=3,zasl=1,cross_read=1"])
    arguments = zns_arguments(specs, tmp_path)
    assert (tmp_path / "zns1").stat().st_size == 8 * 4 << 20
    assert arguments == [
        *("-drive", f"file={tmp_path}/zns1,format=raw,if=none,id=zns1,cache=unsafe"),
        *("-device", "nvme,id=nvme1,serial=zonefs-py-1,zoned.zasl=1"),
        "-device",
        "nvme-ns,drive=zns1,bus=nvme1,nsid=1,zoned=true,zoned.zone_capacity=3145728,zoned.max_open=2,"
        "mssrl=8,msrc=3,zoned.cross_read=on,zoned.zone_size=4194304,logical_block_size=4096,physical_block_size=4096",
    ]


@given(
    st.lists(st.tuples(st.sampled_from("RKADPHoeX"), st.integers(0, 2**32 - 1), st.binary(max_size=300))),
    st.lists(st.integers(1, 50)),
)
def test_frames_survive_any_cut(frames: list[tuple[str, int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(frame(*one) for one in frames)
    decoder = Decoder()
    got: list[tuple[str, int, bytes]] = []
    for cut in cuts:
        got += decoder.feed(stream[:cut])
        stream = stream[cut:]
    got += decoder.feed(stream)
    assert got == frames


@pytest.mark.skipif(not shutil.which("cpio"), reason="no cpio to compare with (Debian package cpio)")
def test_archives_are_what_cpio_reads(tmp_path: Path) -> None:
    data = initramfs.archive(
        [
            initramfs.directory("bin"),
            initramfs.regular("bin/program", b"#!/bin/sh\nexit 7\n", 0o755),
            initramfs.regular("empty", b""),
        ]
    )
    assert len(data) % 512 == 0, "another archive may follow"
    subprocess.run(["cpio", "-i", "--quiet"], input=data, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "bin/program"], check=False).returncode == 7
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o644


def test_versions_are_ordered_by_number() -> None:
    found = ["6.12.9+deb12-amd64", "6.12.95+deb12-amd64", "6.1.176+deb12-amd64", "6.9.7+deb12-amd64"]
    assert sorted(found, key=_version_key) == [found[2], found[3], found[0], found[1]]


def test_shims_are_not_on_the_path_inside() -> None:
    own = str(Path(sys.executable).resolve().parent)
    path = guest_path("/home/me/.pyenv/shims:/usr/bin:/opt/x", Path("/cache/tools")).split(":")
    assert path[:3] == [own, "/usr/bin", "/opt/x"] or (own == "/usr/bin" and path[:2] == ["/usr/bin", "/opt/x"])
    assert path[-1] == "/cache/tools"
    assert len(path) == len(set(path))


def test_shares_are_kept_for_a_while_after_their_machine_ended(tmp_path: Path) -> None:
    claims = {name: _claim(tmp_path / name) for name in ("runs", "ended", "ended-long-ago")}
    for name, claim in claims.items():
        assert claim is not None
        (tmp_path / name / "share").mkdir()
        (tmp_path / name / "share/file").write_text("result")
        if name != "runs":
            os.close(claim)
        if name != "ended":
            long_ago = time.time() - KEPT_SECONDS - 10
            os.utime(tmp_path / name, (long_ago, long_ago))
    _remove_old(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended", "runs"]
    assert (tmp_path / "ended/share/file").read_text() == "result"
    assert _claim(tmp_path / "runs") is None
    assert claims["runs"] is not None
    os.close(claims["runs"])


def make_qemu(path: Path, version: str) -> None:
    """A program that tells a version, as QEMU does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("installed", "unpacked", "chosen"),
    [
        (f"{GOOD_QEMU}.0.2 (Debian 1:{GOOD_QEMU}.0.2+ds-2)", None, "installed"),
        ("7.2.22 (Debian 1:7.2+dfsg-7)", f"{GOOD_QEMU}.1.0", "unpacked"),
        (f"{GOOD_QEMU + 1}.0.0", f"{GOOD_QEMU}.1.0", "installed"),
        ("7.2.22", "8.0.0", None),
        ("nonsense", None, None),
    ],
)
def test_an_old_qemu_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, unpacked: str | None, chosen: str | None
) -> None:
    paths = {"installed": tmp_path / "bin/qemu-system-x86_64", "unpacked": tmp_path / "tools/run/qemu-system-x86_64"}
    make_qemu(paths["installed"], installed)
    if unpacked is not None:
        make_qemu(paths["unpacked"], unpacked)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert Cache(tmp_path)._program("qemu-system-x86_64") == (paths[chosen] if chosen else None)


def test_unpacked_programs_do_not_need_those_of_the_system(tmp_path: Path) -> None:
    """Debian 12's depmod is a link to /bin/kmod, which is not there if kmod is not installed."""
    for name, text in {"bin/kmod": 'echo "${0##*/} $1 $LD_LIBRARY_PATH"', "usr/bin/setpriv": "exit 7"}.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/depmod").symlink_to("/bin/kmod")
    (tmp_path / "bin/lsmod").symlink_to("kmod")
    write_starters(tmp_path)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    for name in ("depmod", "lsmod", "kmod"):
        shown = subprocess.run([moved / "run" / name, "-b"], capture_output=True, text=True, check=True).stdout
        assert shown.startswith(f"{name} -b {moved}/run/../usr/lib/")
    assert subprocess.run([moved / "run/setpriv"], check=False).returncode == 7
    moved.rename(tmp_path)
