"""Every number on a command line: what is none is a wrong call, what no device can have is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.core.test_cli import SMALL, refused, run, unchanged
from zonefs_py.cli import mount_helper as mount_helper_module

# What Python's int() takes, or a hurried reader, but what is no number here.
ODD = [
    "",
    " ",
    "-1",
    "-0",
    "+1",
    "1.0",
    "1e3",
    "0x10",
    "0b1",
    "8 ",
    " 8",
    "8\n",
    "1_0",
    "٣",
    "²",
    "\N{FULLWIDTH DIGIT ONE}",
    "nan",
    "8K8",
]
HUGE = [2**63 - 1, 2**63, 2**64, 10**39]

CREATE = ("create", "new", "--zones", "4", "--zone-size", "1M")

CRASH = ("crash", "--workload", "true", "--check", "true")
SHAPE = ("--zones", "--conventional", "--zone-size", "--zone-capacity", "--block-size", "--max-open", "--max-active")

# Where a number goes in, by a name for it; "N" is its place.
PLACES: dict[str, tuple[str, ...]] = {
    **{
        f"run {option}": ("run", "--zones", "4", "--zone-size", "1M", option, "N", "--", "true")
        for option in (*SHAPE, "--last-zone-size")
    },
    **{f"crash {option}": (*CRASH, option, "N") for option in (*SHAPE, "--states", "--seed", "--jobs")},
    "create --zones": (*CREATE, "--zones", "N"),
    "create --conventional": (*CREATE, "--conventional", "N"),
    "create --zone-size": (*CREATE, "--zone-size", "N"),
    "create --zone-capacity": (*CREATE, "--zone-capacity", "N"),
    "create --block-size": (*CREATE, "--block-size", "N"),
    "create --max-open": (*CREATE, "--max-open", "N"),
    "create --max-active": (*CREATE, "--max-active", "N"),
    "create --last-zone-size": (*CREATE, "--last-zone-size", "N"),
    "blkcopy --range SRC": ("blkcopy", "d", "--range", "N:4K", "--to", "1M"),
    "blkcopy --range LEN": ("blkcopy", "d", "--range", "256K:N", "--to", "1M"),
    "blkcopy --to": ("blkcopy", "d", "--range", "256K:4K", "--to", "N"),
    "copy --throttle": ("copy", "file", "to", "--throttle", "N"),
    "limits of bytes": ("limits", "d", "copy_max_bytes=N"),
    "limits of ranges": ("limits", "d", "copy_max_nr_ranges=N"),
    "limits copy_offload": ("limits", "d", "copy_offload=N"),
    "mkfs uid": ("mkfs", "-f", "d", "-o", "uid=N"),
    "mkfs gid": ("mkfs", "-f", "d", "-o", "gid=N"),
    "mkfs perm": ("mkfs", "-f", "d", "-o", "perm=N"),
    **{
        f"zone {operation}": ("zone", operation, "d", "--", "N")
        for operation in ("reset", "open", "close", "finish", "readonly", "offline", "online")
    },
}

NOT_OF_A_DEVICE = ("copy", "limits", "mkfs", "crash --states", "crash --seed", "crash --jobs")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device ``d`` and a file ``file`` in the current directory."""
    run("create", tmp_path / "d", *SMALL)
    (tmp_path / "file").write_bytes(b"x" * 4096)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(place: str, number: object) -> list[str]:
    return [word.replace("N", str(number)) for word in PLACES[place]]


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_number_is_a_wrong_call(place: str, here: Path) -> None:
    with unchanged(here):
        for text in ODD:
            escaped = text.encode("unicode_escape").decode()
            assert escaped in refused(*fill(place, text), status=2)


@pytest.mark.parametrize("place", [name for name in PLACES if not name.startswith(NOT_OF_A_DEVICE)])
@pytest.mark.parametrize("number", HUGE)
def test_a_huge_number_is_more_than_a_device_has(place: str, number: int, here: Path) -> None:
    with unchanged(here):
        assert refused(*fill(place, number), status=1)


@pytest.mark.parametrize("place", ["mkfs uid", "mkfs gid", "mkfs perm"])
@pytest.mark.parametrize("number", HUGE)
def test_a_huge_number_does_not_fit_the_superblock(place: str, number: int, here: Path) -> None:
    with unchanged(here):
        assert str(number) in refused(*fill(place, number), status=2)


@pytest.mark.parametrize("number", HUGE)
def test_a_huge_throttle_holds_nothing_up(number: int, here: Path) -> None:
    run(*fill("copy --throttle", number))
    assert (here / "to").read_bytes() == (here / "file").read_bytes()


@pytest.mark.parametrize(
    ("place", "words", "status"),
    [
        ("create --zones", "0 zones", 1),
        ("create --zone-size", "zone size 0", 1),
        ("create --zone-capacity", "zone capacity 0", 1),
        ("create --block-size", "block size 0", 1),
        ("create --max-open", "max open zones 0", 1),
        ("create --max-active", "max active zones 0", 1),
        ("create --last-zone-size", "last zone size 0", 1),
        ("blkcopy --range LEN", "0 bytes", 1),
        ("copy --throttle", "0 bytes a second", 2),
        ("run --zones", "0 zones", 1),
        ("crash --zones", "0 zones", 1),
        ("crash --states", "at least 1", 2),
        ("crash --jobs", "at least 1", 2),
    ],
)
@pytest.mark.parametrize("zero", ["0", "000"])
def test_a_zero_that_means_nothing(place: str, words: str, status: int, zero: str, here: Path) -> None:
    with unchanged(here):
        assert words in refused(*fill(place, zero), status=status)


@pytest.mark.parametrize("place", ["create --conventional", "mkfs uid", "mkfs gid", "mkfs perm", "zone finish"])
def test_a_zero_that_means_something(place: str, here: Path) -> None:
    if place == "zone finish":
        run("create", "-f", "d", "--zones", "4", "--zone-size", "64K")
    run(*fill(place, 0))


def test_every_numeric_option_is_tried() -> None:
    """Who adds an option that takes a number adds it to PLACES."""
    import click

    from zonefs_py.cli.main import COMMANDS, zonefs_py
    from zonefs_py.cli.parameters import Count, Size

    def options(command: click.Command) -> set[str]:
        numeric = (Count, Size, click.types.IntParamType)
        return {param.opts[0] for param in command.params if isinstance(param.type, numeric)}

    context = click.Context(zonefs_py)
    for name in COMMANDS:
        command = zonefs_py.get_command(context, name)
        assert command is not None
        for option in options(command):
            assert f"{name} {option}" in PLACES


def test_the_mount_helper_knows_a_wrong_option(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.argv", ["mount.fuse.zonefs-py", "d", "mnt", "-f", "-o", "bogus"])
    with pytest.raises(SystemExit) as ended:
        mount_helper_module.main()
    assert ended.value.code == 1  # mount(8)'s number for a wrong call
    assert "'bogus'" in capsys.readouterr().err
