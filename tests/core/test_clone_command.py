"""``zonefs-py clone`` and ``create --profile``: what they make, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.core.test_cli import KIB, SMALL, conditions, refused, run, unchanged, zones
from zonefs_py import FormatOptions, open_device, open_filesystem
from zonefs_py.device.profiles import PROFILES
from zonefs_py.fs.format import format_device


def device_info(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("info", path, "--format", "json").out)["device"]
    return found


# create --profile


def test_profiles_are_listed() -> None:
    lines = run("create", "--list-profiles").out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *PROFILES]
    assert "1077M" in lines[2]


@pytest.mark.parametrize("name", PROFILES)
def test_a_device_of_a_profile_in_few_zones(name: str, tmp_path: Path) -> None:
    path, profile = tmp_path / "d", PROFILES[name]
    run("create", path, "--profile", name, "--zones", 20)
    found = device_info(path)
    assert found["profile"] == name
    assert found["nr_zones"] == 20
    assert found["nr_conventional_zones"] == (1 if profile.geometry.nr_conventional else 0)
    assert (found["zone_size"], found["zone_capacity"]) == (profile.geometry.zone_size, profile.geometry.zone_capacity)
    assert (found["max_open_zones"], found["max_active_zones"]) == (profile.max_open_zones, profile.max_active_zones)
    assert f"profile:               {name}\n" in run("info", path).out
    run("mkfs", path)


def test_a_whole_drive(tmp_path: Path) -> None:
    run("create", tmp_path / "d", "--profile", "wd-zn540")
    assert device_info(tmp_path / "d")["size"] == PROFILES["wd-zn540"].geometry.size


def test_options_replace_what_the_profile_says(tmp_path: Path) -> None:
    path = tmp_path / "d"
    run(
        *("create", path, "--profile", "hgst-hc620", "--zones", 10, "--conventional", 3, "--zone-size", "1M"),
        *(
            "--zone-capacity",
            "768K",
            "--block-size",
            512,
            "--max-open",
            5,
            "--max-active",
            6,
            "--last-zone-size",
            "64K",
        ),
    )
    found = device_info(path)
    assert found["profile"] == "hgst-hc620"
    assert (found["nr_zones"], found["nr_conventional_zones"], found["block_size"]) == (10, 3, 512)
    assert (found["zone_size"], found["zone_capacity"]) == (1024 * KIB, 768 * KIB)
    assert (found["max_open_zones"], found["max_active_zones"]) == (5, 6)
    assert zones(path)[9]["size"] == 64 * KIB


def test_no_conventional_zones_can_be_said(tmp_path: Path) -> None:
    run("create", tmp_path / "d", "--profile", "hgst-hc620", "--zones", 10, "--conventional", 0)
    assert device_info(tmp_path / "d")["nr_conventional_zones"] == 0


def test_a_smaller_zone_keeps_the_share_of_its_capacity(tmp_path: Path) -> None:
    run("create", tmp_path / "d", "--profile", "wd-zn540", "--zones", 4, "--zone-size", "2M")
    assert device_info(tmp_path / "d")["zone_capacity"] == 1077 * KIB // 4096 * 4096


def test_create_refuses_what_is_missing_or_unknown(tmp_path: Path) -> None:
    path = tmp_path / "d"
    assert "--zones" in refused("create", path, "--zone-size", "1M", status=2)
    assert "--zone-size" in refused("create", path, "--zones", 4, status=2)
    assert "--profile" in refused("create", path, status=2)
    assert "'hgst-hc620'" in refused("create", path, "--profile", "floppy", status=2)
    assert "max open zones 20" in refused("create", path, "--profile", "wd-zn540", "--max-open", 20)
    assert list(tmp_path.iterdir()) == []


# clone


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A formatted device with something in it."""
    path = tmp_path / "source"
    run("create", path, *SMALL, "--max-open", 3)
    with open_device(path) as device:
        format_device(device, FormatOptions(label="original", uid=5))
        for number, blocks in ((2, 3), (4, 48)):
            device.write(number * 256 * KIB, b"".join(bytes([n + 1]) * 4096 for n in range(blocks)))
        device.write(300 * KIB, b"conventional" * 4096)
    run("zone", "readonly", path, 5)
    run("zone", "offline", path, 6)
    return path


def test_a_clone_with_data_is_a_filesystem_too(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with unchanged(source):
        assert run("clone", source, copy, "--data").out == ""
    for name in ("cnv-000000", "cnv-000001", *(f"seq-{number:06d}" for number in range(2, 8))):
        assert (copy / name).read_bytes() == (source / name).read_bytes()
    assert conditions(copy) == conditions(source) == "nw nw cl em fu ro of em"
    with open_filesystem(copy) as fs:
        assert fs.superblock.label == b"original"
        assert fs.getattr(fs.resolve("seq/0")).size == 3 * 4096
    with unchanged(source):
        run("zone", "reset", copy, 2)


def test_a_clone_without_data_is_not_formatted(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run("clone", source, copy)
    assert conditions(copy) == conditions(source)
    assert not any((copy / "seq-000002").read_bytes())
    assert json.loads(run("info", copy, "--format", "json").out)["format"] is None
    assert device_info(copy)["max_open_zones"] == 3


def test_some_zones(source: Path, tmp_path: Path) -> None:
    run("clone", source, tmp_path / "copy", "--zones", "1-2,4")
    assert conditions(tmp_path / "copy") == "nw cl fu"


def test_a_clone_of_a_stack(source: Path, tmp_path: Path) -> None:
    run("create", tmp_path / "other", *SMALL)
    run("clone", f"linear:{source}+{tmp_path}/other[2-7]", tmp_path / "copy", "--data")
    assert conditions(tmp_path / "copy") == "nw nw cl em fu ro of em em em em em em em"
    assert (tmp_path / "copy" / "seq-000004").read_bytes() == (source / "seq-000004").read_bytes()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["none", "copy"], 1, "none"),
        (["empty", "copy"], 1, "neither an emulated device"),
        (["source", "source"], 1, "source is what is to be cloned"),
        (["source", "source", "-f"], 1, "source is what is to be cloned"),
        (["source", "empty/../source", "-f"], 1, "is what is to be cloned"),
        (["source", "other"], 1, "not empty"),
        (["source", "foreign", "-f"], 1, "thesis"),
        (["source", "none/copy"], 1, "No such file"),
        (["source", "copy", "--zones", "8"], 1, "there is no zone 8"),
        (["source", "copy", "--zones", "2"], 1, "a device has 2 to"),
        (["source", "copy", "--zones", "2,1"], 1, "conventional zones first"),
        (["source", "copy", "--zones", ""], 2, "'' is not a zone"),
        (["source", "copy", "--zones", "1;2"], 2, "'1;2' is not a zone"),
        (["source", "copy", "--zones", "5-3"], 2, "backwards"),
        (["linear:source+source", "copy"], 1, "twice"),
        (["source"], 2, "DIR"),
    ],
)
def test_clone_refuses(
    words: list[str], status: int, says: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis").write_text("mine")
    run("create", "other", *SMALL)
    with unchanged(tmp_path):
        assert says in refused("clone", *words, status=status)


def test_a_source_in_use_is_not_cloned(source: Path, tmp_path: Path) -> None:
    with open_device(source):
        assert "in use by pid" in refused("clone", source, tmp_path / "copy")
    with open_device(source, read_only=True):
        run("clone", source, tmp_path / "copy")
    assert "unmount it to clone it, or mount it read-only" not in refused("clone", source, tmp_path / "copy")


def test_force_replaces_a_device_as_a_whole(source: Path, tmp_path: Path) -> None:
    run("create", tmp_path / "copy", "--zones", 30, "--zone-size", "64K")
    run("clone", source, tmp_path / "copy", "-f", "--data")
    assert conditions(tmp_path / "copy") == conditions(source)
    assert len(list((tmp_path / "copy").iterdir())) == 9
