"""Opening stacks from their text: the right devices, one clear line for a mistake, and nothing left open."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.stack import absolute_text, open_stack, read_rules
from zonefs_py.errors import DeviceError, DeviceFormatError, DeviceInUse, UserError
from zonefs_py.zone import Geometry, ZoneCondition

KIB = 1024
ZONE = 64 * KIB
BLOCK = 4096


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, the current one, with devices a and b of eight zones (two conventional) and a rule file."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        create_device(name, Geometry(ZONE, ZONE, 8, 2, BLOCK, ZONE), serial=name)
    write_rules("r.json", {"operation": "write", "effect": "fail"})
    return tmp_path


def write_rules(path: str, *rules: object) -> None:
    Path(path).write_text(json.dumps({"version": 1, "rules": rules}))


def assert_free(*paths: str) -> None:
    """Nobody has these devices open, this process included."""
    for path in paths:
        open_device(path).close()


def test_a_path_is_the_device_itself(here: Path) -> None:
    with open_stack("a") as device:
        assert isinstance(device, EmulatedDevice)
        assert (device.info.kind, device.info.name) == ("emulated", "a")


def test_a_stack_of_three_and_its_name(here: Path) -> None:
    text = "fault:r.json,linear:a[6-]+b[2]"
    with open_stack(text) as device:
        assert isinstance(device, FaultDevice)
        info = device.info
        assert (info.kind, info.name, info.nr_zones, info.serial) == ("fault", text, 3, "a+b")
        with pytest.raises(DeviceError, match="zone 2: write of 4096 bytes at 131072 fails by rule 1"):
            device.write(2 * ZONE, bytes(BLOCK))
        device.write(2 * ZONE, b"x" * BLOCK)
        with pytest.raises(DeviceInUse, match=f"b is in use by pid {os.getpid()}"):
            open_device("b")
    assert_free("a", "b")
    with open_device("b") as below:
        assert below.read(2 * ZONE, BLOCK) == b"x" * BLOCK


def test_parts_can_be_stacks(here: Path) -> None:
    with open_stack("linear:(fault:r.json,a)[2-3]+(linear:b[2-4])[1-2]") as device:
        assert isinstance(device, LinearDevice)
        assert device.info.nr_zones == 4
        device.write(2 * ZONE, b"x" * BLOCK)
        with pytest.raises(DeviceError, match=r"fault:r.json,a: zone 2: .* by rule 1"):
            device.write(0, bytes(BLOCK))
    with open_device("b") as below:
        assert below.report_zones(3, 1)[0].condition is ZoneCondition.CLOSED


def test_read_only_goes_to_the_bottom(here: Path) -> None:
    with open_stack("fault:r.json,linear:a+b", read_only=True) as device, open_device("b", read_only=True):
        assert device.info.read_only
        assert isinstance(device, FaultDevice)
        device.remove_rule(1)
        with pytest.raises(DeviceError, match="read-only"):
            device.write(0, bytes(BLOCK))
        with pytest.raises(DeviceError, match="read-only"):
            device.force_condition(3, ZoneCondition.OFFLINE)


def test_forced_conditions_reach_the_bottom_and_stay(here: Path) -> None:
    with open_stack("fault:r.json,linear:a+b") as device:
        device.force_conditions([3, 9], ZoneCondition.OFFLINE)
    with open_stack("linear:a+b") as device:
        assert [zone.number for zone in device.report_zones() if zone.condition is ZoneCondition.OFFLINE] == [3, 9]


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linear:a+a", "a is used twice"),
        ("linear:a[0-3]+b+a[4-7]", "a is used twice"),
        ("linear:a+./a", "./a and a are the same device, used twice: name it once"),
        ("linear:a+link", "link and a are the same device"),
        ("fault:r.json,linear:a+(fault:r.json,a)", "a is used twice"),
    ],
)
def test_a_device_is_used_once(here: Path, text: str, words: str, read_only: bool) -> None:
    Path("link").symlink_to("a")
    with pytest.raises(UserError) as raised:
        open_stack(text, read_only=read_only)
    assert str(raised.value).startswith(words)
    assert_free("a", "b")


def test_one_device_can_give_several_slices(here: Path) -> None:
    with open_stack("linear:a[4-7,0-1]+b") as device:
        assert [zone.is_conventional for zone in device.report_zones()[:8]] == [False] * 4 + [True] * 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("none", "none does not exist"),
        ("linear:a+none", "none does not exist"),
        ("linear:a+r.json", "r.json is not a directory"),
        ("linear:a+b[8]", "b has zones 0 to 7, not 8 to 8"),
        ("linear:a+b[9-]", "b has zones 0 to 7, not 9 to 7"),
        ("linear:a[1-2,2]+b", "a: zone 2 is used twice"),
        ("linear:a+c", "c has zones of 131072 bytes, the part before it of 65536"),
        ("linear:a+d", "d has blocks of 512 bytes, the part before it of 4096"),
        ("linear:a+e+b", "e ends in a smaller zone, so nothing can follow it"),
        ("fault:none.json,a", "rule file none.json: No such file or directory"),
        ("fault:a,b", "rule file a: not a regular file"),
        ("fault:pipe,b", "rule file pipe: not a regular file"),
        ("fault:bad.json,a", "bad.json: not JSON"),
        ("fault:wrong.json,a", 'wrong.json: rule 2: "zones" is'),
        ("fault:far.json,linear:a+b", 'far.json: rule 1: "zones" has a zone 16: the device has zones 0 to 15'),
        ("linear:(fault:r.json,b)+(fault:wrong.json,a)", 'wrong.json: rule 2: "zones" is'),
        ("linear:a+", "linear:a+: character 10: the path of a device expected"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_open(here: Path, text: str, words: str) -> None:
    create_device("c", Geometry(2 * ZONE, ZONE, 4, 0, BLOCK, 2 * ZONE))
    create_device("d", Geometry(ZONE, ZONE, 4, 0, 512, ZONE))
    create_device("e", Geometry(ZONE, ZONE, 4, 0, BLOCK, BLOCK))
    os.mkfifo("pipe")
    Path("bad.json").write_text("{")
    good = {"operation": "any", "effect": "fail"}
    write_rules("wrong.json", good, good | {"zones": "x"})
    write_rules("far.json", {"operation": "any", "effect": "fail", "zones": "7-16"})
    with pytest.raises(UserError) as raised:
        open_stack(text)
    assert str(raised.value).startswith(words)
    assert "\n" not in str(raised.value)
    assert_free("a", "b", "c", "d", "e")


def test_a_part_in_use_or_damaged_leaves_the_others_closed(here: Path) -> None:
    with open_device("b"), pytest.raises(DeviceInUse, match="b is in use"):
        open_stack("linear:a+b")
    assert_free("a", "b")
    Path("b", "seq-000003").unlink()
    with pytest.raises(DeviceFormatError, match="seq-000003 is missing"):
        open_stack("linear:a+b")
    assert_free("a")


def test_a_stack_closes_once_and_for_all(here: Path) -> None:
    device = open_stack("fault:r.json,linear:a+(fault:r.json,b)")
    device.close()
    device.close()
    assert_free("a", "b")


def test_odd_names(here: Path) -> None:
    name = "x+y,[1](2)\\ \n"
    os.rename("a", name)
    os.rename("r.json", "r,1.json")
    for text in ("linear:" + r"x\+y\,\[1\]\(2\)\\ " + "\n+b", r"fault:r\,1.json,x\+y\,\[1\]\(2\)\\ " + "\n"):
        with open_stack(text) as device:
            assert device.info.name == text
    with open_stack(name) as device:
        assert device.info.name == name


def test_texts_become_absolute(here: Path) -> None:
    assert absolute_text("a") == f"{here}/a"
    assert absolute_text("../x+y") == f"{here.parent}/x+y"
    assert absolute_text("/dev/x") == "/dev/x"
    assert absolute_text(r"fault:r.json,linear:a[1-3]+b\,") == f"fault:{here}/r.json,linear:{here}/a[1-3]+{here}/b\\,"
    with pytest.raises(UserError, match="empty"):
        absolute_text("")


def test_rules_are_read_from_a_file(here: Path) -> None:
    assert len(read_rules("r.json")) == 1
    Path("r.json").chmod(0)
    if os.geteuid():
        with pytest.raises(UserError, match="Permission denied"):
            read_rules("r.json")
