"""Every command on real directories: what it does, and how it refuses.

A refusal is one line on stderr that begins with the program's name, an exit status that is not zero, and nothing
changed. The commands run in this process: a traceback would be an exception here.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zonefs_py import __version__
from zonefs_py.cli import main as main_module
from zonefs_py.cli import mkzonefs as mkzonefs_module
from zonefs_py.cli.common import SlowProgress
from zonefs_py.device.directory import open_device
from zonefs_py.device.fault_rules import FaultRule
from zonefs_py.fs.superblock import Superblock
from zonefs_py.zone import ZoneCondition

KIB = 1024
SMALL = ("--zones", "8", "--conventional", "2", "--zone-size", "256K", "--zone-capacity", "192K")


@dataclass
class Result:
    status: int
    out: str
    err: str


def call(main: Callable[[list[str]], int], *argv: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in argv])
    return Result(status, out.getvalue(), err.getvalue())


def run(*argv: object) -> Result:
    """Run a command that must succeed without complaint."""
    result = call(main_module.main, *argv)
    assert (result.status, result.err) == (0, "")
    return result


def refused(*argv: object, status: int = 1, program: str = "zonefs-py") -> str:
    """Run a command that must be refused; return what it says after the program's name."""
    main = mkzonefs_module.main if program == "mkzonefs" else main_module.main
    result = call(main, *argv)
    assert result.status == status, result
    assert result.out == ""
    assert re.fullmatch(rf"{program}: [^\n]+\n", result.err), result.err
    return result.err.removeprefix(f"{program}: ").rstrip("\n")


def snapshot(directory: Path) -> dict[str, Any]:
    """All that could change in a directory, but for access times."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path.relative_to(directory))] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return found


@contextlib.contextmanager
def unchanged(directory: Path) -> Iterator[None]:
    before = snapshot(directory)
    yield
    assert snapshot(directory) == before


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A small device: zones 0 and 1 conventional, 2 to 7 sequential."""
    run("create", tmp_path / "d", *SMALL)
    return tmp_path / "d"


@pytest.fixture
def formatted(device: Path) -> Path:
    run("mkfs", device)
    return device


def zones(device: Path) -> list[dict[str, Any]]:
    zones: list[dict[str, Any]] = json.loads(run("report", device, "--format", "json").out)["zones"]
    return zones


def conditions(device: Path) -> str:
    """The conditions of all zones, two letters each."""
    return " ".join(re.findall(r"zcond: ?\d+\((..)\)", run("report", device, "--format", "blkzone").out))


# The program itself


def test_help_and_version_by_their_installed_names(tmp_path: Path) -> None:
    for module, name in (("main", "zonefs-py"), ("mkzonefs", "mkzonefs")):
        for option, start in (("--help", f"Usage: {name} "), ("-h", f"Usage: {name} "), ("--version", name)):
            done = subprocess.run(
                [sys.executable, "-m", f"zonefs_py.cli.{module}", option], capture_output=True, text=True, check=True
            )
            assert done.stdout.startswith(start)
            assert done.stderr == ""
    assert __version__ in done.stdout


def test_every_command_has_help() -> None:
    for name in main_module.COMMANDS:
        assert run(name, "--help").out.startswith(f"Usage: zonefs-py {name} ")
    for name in ("reset", "open", "close", "finish", "readonly", "offline", "online"):
        assert run("zone", name, "--help").out.startswith(f"Usage: zonefs-py zone {name} ")


def test_the_help_of_a_fault_names_all_its_fields() -> None:
    words = set(re.findall(r"\w+", run("fault", "mnt", "add", "--help").out))
    assert {field.name for field in dataclasses.fields(FaultRule)} <= words


def test_help_takes_less_than_150_ms() -> None:
    def cpu_time() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    # Processor time, and the best of five: other work on the machine must not fail this test.
    spent = []
    for _ in range(5):
        before = cpu_time()
        subprocess.run([sys.executable, "-m", "zonefs_py.cli.main", "--help"], capture_output=True, check=True)
        spent.append(cpu_time() - before)
    assert min(spent) < 0.150


@pytest.mark.parametrize(
    "argv",
    [
        ["create", "", *SMALL],
        ["mkfs", ""],
        ["mount", "", "mnt"],
        ["mount", "disk", ""],
        ["mount", "disk", "mnt", "--log-file", ""],
        ["umount", ""],
        ["report", ""],
        ["info", ""],
        ["limits", ""],
        ["blkcopy", "", "--range", "0:4K", "--to", "8K"],
        ["copy", "", "file"],
        ["copy", "file", ""],
        ["zone", "reset", "", "1"],
        ["zone", "offline", "", "1"],
        ["install-mount-helper", "--directory", ""],
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_an_empty_path_is_not_the_current_directory(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("create", tmp_path, *SMALL)
    monkeypatch.chdir(tmp_path)
    with unchanged(tmp_path):
        assert "an empty path names nothing" in refused(*argv, status=2)
        if argv[0] == "mkfs":
            assert "an empty path names nothing" in refused("", status=2, program="mkzonefs")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["frobnicate"], "frobnicate"),
        (["create"], "DIR"),
        (["create", "x"], "--zones"),
        (["create", "x", "--zones", "many", "--zone-size", "1M"], "many"),
        (["create", "x", "--zones", "4", "--zone-size", "1M", "--colour", "red"], "--colour"),
        (["mkfs"], "DEVICE"),
        (["mkfs", "a", "b"], "b"),
        (["report", "x", "--format", "xml"], "xml"),
        (["info"], "DEVICE|MOUNTPOINT"),
        (["zone", "reset"], "DEVICE"),
        (["zone", "melt", "x"], "melt"),
    ],
)
def test_misuse_is_one_line_with_status_2(argv: list[str], words: str) -> None:
    message = refused(*argv, status=2)
    assert words in message
    assert "--help" in message


@pytest.mark.parametrize(
    "command", ["mkfs {}", "info {}", "report {}", "zone reset {} 1", "clone {} new", "create {} --profile wd-zn540"]
)
def test_a_loop_of_symbolic_links_is_no_device(command: str, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert refused(*command.format(loop).split()).startswith(f"{loop}")


def test_mount8_without_its_helper_is_told_of_it(device: Path, tmp_path: Path) -> None:
    """mount.fuse, which it runs instead, takes our type for a command that mounts."""
    message = refused(device, tmp_path, "-o", "rw,remount,errors=repair", status=2)
    assert "zonefs-py install-mount-helper" in message


def test_an_unprintable_name_is_shown_on_one_line(tmp_path: Path) -> None:
    assert "a\\nb\\x1b" in refused("info", tmp_path / "a\nb\x1b")
    assert "\\udcff" in refused("info", os.fsdecode(bytes(tmp_path) + b"/\xff"))


def test_info_shows_a_name_that_is_no_text(tmp_path: Path) -> None:
    """Any terminal takes what is printed; JSON gives back the name, as Python has it, and so the way to the device."""
    device = os.fsdecode(bytes(tmp_path) + b"/\xff")
    run("create", device, *SMALL)
    run("mkfs", device, "-L", os.fsdecode(b"l\xff"))
    text = run("info", device).out
    assert f"{tmp_path}/\\udcff" in text.encode("ascii").decode()
    document = json.loads(run("info", device, "--format", "json").out.encode("ascii"))
    assert document["device"]["name"] == device
    assert document["format"]["label"] == "l\ufffd"
    assert os.path.isdir(document["device"]["name"])


def test_an_unexpected_exception_is_not_hidden(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("zonefs_py.cli.info.is_device", fail)
    with pytest.raises(AssertionError, match="a bug"):
        main_module.main(["info", str(device)])


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zonefs_py.cli.info.is_device", interrupt)
    result = call(main_module.main, "info", device)
    assert result == Result(130, "", "zonefs-py: interrupted\n")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    run("create", tmp_path / "d", "--zones", "4000", "--zone-size", "64K")
    command = [sys.executable, "-m", "zonefs_py.cli.main", "report", str(tmp_path / "d")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


# create


def test_create_makes_the_layout_of_zloop(device: Path) -> None:
    names = [f"cnv-{n:06d}" for n in (0, 1)] + ["device.json"] + [f"seq-{n:06d}" for n in range(2, 8)]
    assert sorted(path.name for path in device.iterdir()) == names
    assert [(device / name).stat().st_size for name in names if name != "device.json"] == [256 * KIB] * 2 + [0] * 6


def test_create_takes_every_option(tmp_path: Path) -> None:
    path = tmp_path / "d"
    run(
        *("create", path, "--zones", 10, "--zone-size", "1M", "--zone-capacity", "768K", "--block-size", 512),
        *("--max-open", 3, "--max-active", 4, "--last-zone-size", "512K"),
    )
    found = json.loads(run("info", path, "--format", "json").out)["device"]
    assert found["size"] == 9 * 1024 * KIB + 512 * KIB
    assert found["nr_conventional_zones"] == 0
    assert (found["zone_size"], found["zone_capacity"], found["block_size"]) == (1024 * KIB, 768 * KIB, 512)
    assert (found["max_open_zones"], found["max_active_zones"]) == (3, 4)
    assert (zones(path)[9]["size"], zones(path)[9]["capacity"]) == (512 * KIB, 512 * KIB)


def test_create_uses_an_empty_directory(tmp_path: Path) -> None:
    run("create", tmp_path, *SMALL)
    assert conditions(tmp_path) == "nw nw em em em em em em"


def test_create_is_quick_for_many_zones(tmp_path: Path) -> None:
    run("create", tmp_path / "d", "--zones", 20_000, "--zone-size", "64K")
    assert len(zones(tmp_path / "d")) == 20_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--zones 4 --zone-size 0", "zone size"),
        ("--zones 4 --zone-size 10000", "zone size"),
        ("--zones 4 --zone-size 2K --block-size 512", "superblock"),
        ("--zones 4 --zone-size 1M --block-size 1024", "block size 1024"),
        ("--zones 4 --zone-size 1M --block-size 0", "block size 0"),
        ("--zones 4 --zone-size 1M --zone-capacity 2M", "zone capacity 2M"),
        ("--zones 4 --zone-size 1M --zone-capacity 5000", "zone capacity"),
        ("--zones 4 --zone-size 1M --zone-capacity 0", "zone capacity"),
        ("--zones 4 --zone-size 1M --zone-capacity 512 --block-size 512", "superblock"),
        ("--zones 4 --zone-size 1M --last-zone-size 2M", "last zone size 2M"),
        ("--zones 4 --zone-size 1M --last-zone-size 100", "last zone size"),
        ("--zones 4 --zone-size 1M --last-zone-size 0", "last zone size"),
        ("--zones 1 --zone-size 1M", "1 zones"),
        ("--zones 0 --zone-size 1M", "0 zones"),
        ("--zones 999999999 --zone-size 1M", "999999999 zones"),
        ("--zones 1000000 --zone-size 1000000T", "zones of"),
        ("--zones 4 --zone-size 1M --conventional 5", "5 conventional"),
        ("--zones 4 --zone-size 1M --max-open 0", "max open zones 0"),
        ("--zones 4 --zone-size 1M --max-active 0", "max active zones 0"),
        ("--zones 99999999999999999999 --zone-size 1M", "99999999999999999999 zones"),
        ("--zones 4 --zone-size 99999999999999999999T", "more than 1 EiB"),
        ("--zones 4 --zone-size 1M --conventional 99999999999999999999", "99999999999999999999 conventional"),
        ("--zones 4 --zone-size 1M --max-open 99999999999999999999", "max open zones 99999999999999999999"),
        ("--zones 4 --zone-size 1M --max-open 3 --max-active 2", "max open zones 3"),
    ],
)
def test_create_refuses_what_no_device_can_be(options: str, words: str, tmp_path: Path) -> None:
    assert words in refused("create", tmp_path / "d", *options.split())
    assert list(tmp_path.iterdir()) == []


def test_create_refuses_a_directory_that_is_not_empty(device: Path) -> None:
    with unchanged(device):
        assert "not empty" in refused("create", device, *SMALL)


def test_create_force_replaces_a_device(formatted: Path) -> None:
    run("create", formatted, "-f", "--zones", 4, "--zone-size", "64K")
    assert sorted(path.name for path in formatted.iterdir()) == ["device.json"] + [f"seq-{n:06d}" for n in range(4)]
    assert json.loads(run("info", formatted, "--format", "json").out)["format"] is None


def make_directory(path: Path) -> None:
    path.mkdir()


def make_symlink(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_file(path: Path) -> None:
    path.write_text("mine")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("thesis.txt", make_file),
        ("seq-1", make_file),
        ("seq-00000x", make_file),
        ("cnv-000000.bak", make_file),
        ("subdirectory", make_directory),
        ("seq-000077", make_directory),
        ("seq-000077", make_symlink),
    ],
)
def test_create_force_never_removes_what_is_foreign(name: str, make: Callable[[Path], None], device: Path) -> None:
    make(device / name)
    with unchanged(device):
        assert name in refused("create", device, "-f", *SMALL)


def test_create_refuses_a_device_in_use(device: Path) -> None:
    with open_device(device), unchanged(device):
        assert f"in use by pid {os.getpid()}" in refused("create", device, "-f", *SMALL)


def test_create_refuses_places_where_nothing_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with unchanged(tmp_path):
        assert "not a directory" in refused("create", tmp_path / "file", *SMALL).lower()
        assert "not a directory" in refused("create", tmp_path / "file" / "d", *SMALL).lower()
        assert "No such file" in refused("create", tmp_path / "none" / "d", *SMALL)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "stream", "shown"), [(2, Terminal(), True), (2, io.StringIO(), False), (0, Terminal(), False)]
)
def test_progress_is_shown_on_a_terminal_after_a_second(seconds: int, stream: io.StringIO, shown: bool) -> None:
    with contextlib.redirect_stderr(stream), SlowProgress(1000, "creating zones", spent=seconds) as progress:
        for done in (400, 600, 1000):
            progress(done)
    assert ("creating zones" in stream.getvalue()) == shown
    assert ("100%" in stream.getvalue()) == shown


# mkfs and mkzonefs


def test_mkfs_writes_the_superblock(device: Path) -> None:
    assert run("mkfs", device).out == ""
    superblock = Superblock.unpack((device / "cnv-000000").read_bytes())
    assert superblock.features == 0
    assert superblock.label == b""


def test_mkfs_takes_every_option(device: Path) -> None:
    out = run("mkfs", device, "-v", "-L", "my disk", "-o", "aggr_cnv,uid=5", "-o", "gid=6,perm=600").out
    for words in ("my disk", "aggr_cnv, uid, gid, perm", "5:6", "0600", "8 of 256K, 2 of them conventional"):
        assert words in out
    superblock = Superblock.unpack((device / "cnv-000000").read_bytes())
    assert superblock.aggregate_conventional
    assert (superblock.label, superblock.uid, superblock.gid, superblock.perm) == (b"my disk", 5, 6, 0o600)


def test_mkfs_resets_sequential_zones_and_finishes_zone_0(tmp_path: Path) -> None:
    path = tmp_path / "d"
    run("create", path, "--zones", 4, "--zone-size", "64K")
    (path / "seq-000002").write_bytes(bytes(8192))
    run("mkfs", "-f", path)
    assert conditions(path) == "fu em em em"
    assert (path / "seq-000000").stat().st_size == 64 * KIB


def test_mkfs_refuses_a_device_that_holds_something(device: Path) -> None:
    run("mkfs", device, "-L", "precious")
    (device / "seq-000003").write_bytes(bytes(4096))
    with unchanged(device):
        assert "zonefs file system (label 'precious'" in refused("mkfs", device)
    run("mkfs", device, "-f")
    assert (device / "seq-000003").stat().st_size == 0


@pytest.mark.parametrize(
    ("conventional", "written", "words"),
    [
        (2, {3: 4096}, "holds data in zone 3; -f"),
        (2, {3: 4096, 5: 64 * KIB, 7: 4096}, "holds data in 3 sequential zones, of which 3 is the first; -f"),
        (0, {0: 4096}, "holds data in zone 0; -f"),
    ],
)
def test_mkfs_refuses_data_in_any_zone(conventional: int, written: dict[int, int], words: str, tmp_path: Path) -> None:
    """Even if nothing but zeros is at the start of the device."""
    path = tmp_path / "d"
    run("create", path, "--zones", 8, "--conventional", conventional, "--zone-size", "64K")
    for number, size in written.items():
        (path / f"seq-{number:06d}").write_bytes(bytes(size))
    with unchanged(path):
        assert words in refused("mkfs", path)
    result = call(mkzonefs_module.main, path)
    assert (result.status, result.err) == (0, ""), "as zonefs-tools' command"
    assert set(conditions(path).split()[1:]) <= {"nw", "em"}


def test_mkfs_takes_a_device_with_broken_zones(device: Path) -> None:
    """It leaves them alone, whatever is in them."""
    (device / "seq-000004").write_bytes(bytes(4096))
    run("zone", "readonly", device, 4)
    run("zone", "offline", device, 5)
    run("mkfs", device)
    assert (device / "seq-000004").stat().st_size == 4096


@pytest.mark.parametrize(
    ("offset", "content", "words"), [(0, b"XFSB", "xfs"), (99999, b"x", None), (5000, b"x", "unknown data")]
)
def test_mkfs_looks_at_foreign_content(offset: int, content: bytes, words: str | None, device: Path) -> None:
    with (device / "cnv-000000").open("r+b") as file:
        file.seek(offset)
        file.write(content)
    if words is None:  # too far out for any signature
        run("mkfs", device)
        return
    with unchanged(device):
        assert words in refused("mkfs", device)
    run("mkfs", "-f", device)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "bogus"], "'bogus'"),
        (["-o", "uid=nobody"], "uid=nobody"),
        (["-o", "uid=4294967295"], "uid=4294967295"),
        (["-o", "perm=999"], "perm=999"),
        (["-o", "aggr_cnv", "-o", "gid"], "gid"),
    ],
)
@pytest.mark.parametrize("program", ["zonefs-py", "mkzonefs"])
def test_mkfs_refuses_wrong_options(program: str, options: list[str], words: str, device: Path) -> None:
    command = ["mkfs"] if program == "zonefs-py" else []
    with unchanged(device):
        assert words in refused(*command, *options, device, program=program, status=2)


@pytest.mark.parametrize("program", ["zonefs-py", "mkzonefs"])
def test_mkfs_refuses_a_label_that_is_too_long(program: str, device: Path) -> None:
    command = ["mkfs"] if program == "zonefs-py" else []
    with unchanged(device):
        assert "64 bytes" in refused(*command, "-L", "x" * 64, device, program=program)


@pytest.mark.parametrize("condition", ["readonly", "offline"])
def test_mkfs_refuses_a_broken_zone_0(condition: str, device: Path) -> None:
    run("zone", condition, device, 0)
    with unchanged(device):
        assert "zone 0 is" in refused("mkfs", "-f", device)
        assert "zone 0 is" in refused("mkfs", device)


def test_mkzonefs_is_mkfs_with_the_options_of_upstream(device: Path) -> None:
    result = call(mkzonefs_module.main, "-v", "-o", "aggr_cnv,perm=644", "-L", "up", device)
    assert (result.status, result.err) == (0, "")
    assert "aggr_cnv, perm" in result.out
    with unchanged(device):
        assert "label 'up'" in refused(device, program="mkzonefs")
    assert call(mkzonefs_module.main, "-f", device) == Result(0, "", "")
    assert "DEVICE" in refused(status=2, program="mkzonefs")


# report


def test_report_json_is_the_documented_one(formatted: Path) -> None:
    (formatted / "seq-000003").write_bytes(bytes(8192))
    (formatted / "seq-000004").write_bytes(bytes(192 * KIB))
    run("zone", "offline", formatted, 5)
    run("zone", "readonly", formatted, 6)
    document = json.loads(run("report", formatted, "--format", "json").out)
    assert {key: document[key] for key in ("schema", "version", "device")} == {
        "schema": "zonefs-py/report",
        "version": 1,
        "device": str(formatted),
    }
    size, capacity = 256 * KIB, 192 * KIB
    sequential = {"type": "sequential-write-required", "size": size, "capacity": capacity}
    assert document["zones"] == [
        {
            "number": number,
            "type": "conventional",
            "condition": "not-write-pointer",
            "start": number * size,
            "size": size,
            "capacity": size,
            "write_pointer": None,
            "file": file,
        }
        for number, file in ((0, None), (1, "cnv/0"))
    ] + [
        {
            "number": number,
            "condition": condition,
            "start": number * size,
            "write_pointer": wp,
            "file": f"seq/{number - 2}",
            **sequential,
        }
        for number, condition, wp in (
            (2, "empty", 2 * size),
            (3, "closed", 3 * size + 8192),
            (4, "full", None),
            (5, "offline", None),
            (6, "read-only", None),
            (7, "empty", 7 * size),
        )
    ]


def test_report_csv_says_the_same_as_json(formatted: Path) -> None:
    (formatted / "seq-000003").write_bytes(bytes(8192))
    rows = list(csv.DictReader(io.StringIO(run("report", formatted, "--format", "csv").out)))
    expected = [{key: "" if value is None else str(value) for key, value in zone.items()} for zone in zones(formatted)]
    assert rows == expected


def test_report_blkzone_has_the_lines_of_util_linux(formatted: Path) -> None:
    (formatted / "seq-000003").write_bytes(bytes(8192))
    (formatted / "seq-000004").write_bytes(bytes(192 * KIB))
    run("zone", "offline", formatted, 5)
    run("zone", "readonly", formatted, 6)
    sequential = "len 0x000200, cap 0x000180, wptr {} reset:0 non-seq:0, zcond:{} [type: 2(SEQ_WRITE_REQUIRED)]"
    conventional = "len 0x000200, cap 0x000200, wptr 0x000000 reset:0 non-seq:0, zcond: 0(nw) [type: 1(CONVENTIONAL)]"
    assert run("report", formatted, "--format", "blkzone").out.splitlines() == [
        f"  start: 0x000000000, {conventional}",
        f"  start: 0x000000200, {conventional}",
        "  start: 0x000000400, " + sequential.format("0x000000", " 1(em)"),
        "  start: 0x000000600, " + sequential.format("0x000010", " 4(cl)"),
        "  start: 0x000000800, " + sequential.format("0x000200", "14(fu)"),
        "  start: 0x000000a00, " + sequential.format("0x000000", "15(of)"),
        "  start: 0x000000c00, " + sequential.format("0x000000", "13(ro)"),
        "  start: 0x000000e00, " + sequential.format("0x000000", " 1(em)"),
    ]


def test_report_table_is_aligned(formatted: Path) -> None:
    (formatted / "seq-000003").write_bytes(bytes(8192))
    lines = run("report", formatted).out.splitlines()
    assert len(lines) == 9
    assert len({line.rindex("  ") for line in lines}) == 1
    assert lines[4].split() == ["3", "sequential-write-required", "closed", "768K", "256K", "192K", "776K", "seq/1"]
    assert lines[1].split()[-2:] == ["-", "-"]


def test_report_of_an_unformatted_device_has_no_files(device: Path) -> None:
    assert {zone["file"] for zone in zones(device)} == {None}


def test_report_of_an_aggregated_device_names_one_conventional_file(device: Path) -> None:
    run("create", "-f", device, *SMALL[:2], "--conventional", 4, "--zone-size", "256K")
    run("mkfs", device, "-o", "aggr_cnv")
    assert [zone["file"] for zone in zones(device)] == [None] + ["cnv/0"] * 3 + [f"seq/{n}" for n in range(4)]


# info


def test_info_json_is_the_documented_one(device: Path) -> None:
    run("mkfs", device, "-L", "my disk", "-o", "aggr_cnv,perm=600")
    document = json.loads(run("info", device, "--format", "json").out)
    assert list(document) == ["schema", "version", "device", "format", "mount", "versions", "capabilities", "copy"]
    assert (document["schema"], document["version"]) == ("zonefs-py/info", 1)
    assert len(document["device"].pop("serial")) == 16
    assert document["device"] == {
        "kind": "emulated",
        "name": str(device),
        "size": 8 * 256 * KIB,
        "nr_zones": 8,
        "nr_conventional_zones": 2,
        "zone_size": 256 * KIB,
        "zone_capacity": 192 * KIB,
        "block_size": 4096,
        "max_open_zones": None,
        "max_active_zones": None,
        "read_only": False,
        "profile": "",
    }
    assert len(document["format"].pop("uuid")) == 36
    assert document["format"] == {
        "label": "my disk",
        "features": ["aggr_cnv", "perm"],
        "uid": 0,
        "gid": 0,
        "perm": "0600",
        "aggr_cnv": True,
    }
    assert document["mount"] is None
    assert document["versions"]["zonefs_py"] == __version__


def test_info_of_an_unformatted_device(device: Path) -> None:
    assert json.loads(run("info", device, "--format", "json").out)["format"] is None
    out = run("info", device).out
    assert "format: no zonefs" in out
    assert "mount: not mounted" in out


@pytest.mark.parametrize("condition", ["readonly", "offline"])
def test_info_and_report_work_when_zone_0_is_broken(condition: str, formatted: Path) -> None:
    run("zone", condition, formatted, 0)
    assert len(zones(formatted)) == 8
    document = json.loads(run("info", formatted, "--format", "json").out)
    assert (document["format"] is None) == (condition == "offline")


def test_info_text_shows_sizes_both_ways(formatted: Path) -> None:
    out = run("info", formatted).out
    assert re.search(r"^  zone size: +256K \(262144 bytes\)$", out, re.MULTILINE)
    assert re.search(r"^  max open zones: +no limit$", out, re.MULTILINE)
    assert re.search(r"^  features: +none$", out, re.MULTILINE)


@pytest.mark.parametrize("command", ["info", "report"])
def test_looking_changes_nothing_and_can_be_done_together(command: str, formatted: Path) -> None:
    (formatted / "seq-000003").write_bytes(bytes(5000))
    with open_device(formatted, read_only=True), unchanged(formatted):
        run(command, formatted)


@pytest.mark.parametrize("command", ["info", "report"])
def test_looking_at_what_is_no_device(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    assert "neither an emulated device" in refused(command, tmp_path / "file")
    assert "neither an emulated device" in refused(command, tmp_path / "empty")
    assert "No such file" in refused(command, tmp_path / "none")
    assert refused(command, tmp_path / ("x" * 300))
    assert refused(command, tmp_path / "file" / "d")


# zone


def test_zone_operations(formatted: Path) -> None:
    (formatted / "seq-000003").write_bytes(bytes(8192))
    run("zone", "finish", formatted, 4, "6-7")
    assert conditions(formatted) == "nw nw em cl fu em fu fu"
    run("zone", "reset", formatted, "3-4")
    assert conditions(formatted) == "nw nw em em em em fu fu"
    run("zone", "open", formatted, "2", "2-3")  # forgotten when the device is closed
    run("zone", "close", formatted, "--all")
    assert conditions(formatted) == "nw nw em em em em fu fu"
    run("zone", "reset", formatted, "--all")
    assert conditions(formatted) == "nw nw em em em em em em"
    run("zone", "finish", "--all", formatted)
    assert conditions(formatted) == "nw nw fu fu fu fu fu fu"


def test_all_leaves_broken_zones_and_the_superblock_alone(tmp_path: Path) -> None:
    path = tmp_path / "d"
    run("create", path, "--zones", 5, "--zone-size", "64K")
    run("mkfs", path)
    run("zone", "offline", path, 2)
    run("zone", "finish", path, "--all")
    assert conditions(path) == "fu fu of fu fu"
    run("zone", "reset", path, "--all")
    assert conditions(path) == "fu em of em em"
    assert Superblock.unpack((path / "seq-000000").read_bytes())


def test_the_zone_of_the_superblock_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "d"
    run("create", path, "--zones", 3, "--zone-size", "64K")
    run("zone", "finish", path, 0)
    run("zone", "reset", path, 0)  # nothing is in it yet
    run("mkfs", path)
    with unchanged(path):
        assert "superblock" in refused("zone", "reset", path, 1, 0)
    run("zone", "reset", "-f", path, 0)
    assert conditions(path) == "em em em"


def test_open_respects_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "d"
    run("create", path, "--zones", 6, "--zone-size", "64K", "--max-open", 2)
    run("zone", "open", path, "1-2")
    message = refused("zone", "open", path, "1-4")
    assert "zone 3" in message
    assert "2 of 4 zones were done before" in message


@pytest.mark.parametrize("operation", ["reset", "open", "close", "finish"])
@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (["3", "1"], "zone 1 is conventional"),
        (["3", "8"], "no zone 8"),
        (["3-8"], "no zone 3-8"),
        (["99999999999999999999999999"], "no zone"),
        (["5-3"], "backwards"),
        (["3", "x"], "'x' is not a zone"),
        (["3-"], "'3-' is not a zone"),
        (["٣"], "is not a zone"),
        (["3.0"], "is not a zone"),
        (["3", "5"], "zone 5 is offline"),
        (["3", "6"], "zone 6 is read-only"),
    ],
)
def test_all_zones_are_checked_before_any_is_touched(
    operation: str, selection: list[str], words: str, formatted: Path
) -> None:
    (formatted / "seq-000003").write_bytes(bytes(8192))
    run("zone", "offline", formatted, 5)
    run("zone", "readonly", formatted, 6)
    status = 2 if words == "backwards" or "is not a zone" in words else 1
    with unchanged(formatted):
        assert words in refused("zone", operation, formatted, *selection, status=status)


@pytest.mark.parametrize("operation", ["reset", "offline"])
def test_zones_must_be_chosen_one_way(operation: str, formatted: Path) -> None:
    with unchanged(formatted):
        refused("zone", operation, formatted, status=2)
        refused("zone", operation, formatted, 3, "--all", status=2)


def test_broken_zones_stay_broken_until_they_are_put_back(formatted: Path) -> None:
    (formatted / "seq-000003").write_bytes(bytes(8192))
    run("zone", "readonly", formatted, 3, 4)
    run("zone", "offline", formatted, "4-5", 1)
    assert conditions(formatted) == "nw of em ro of of em em"
    with open_device(formatted) as device:
        assert device.report_zones(4, 1)[0].condition is ZoneCondition.OFFLINE
    run("zone", "online", formatted, "--all")
    assert conditions(formatted) == "nw nw em cl em em em em"


@pytest.mark.parametrize("operation", ["readonly", "offline", "online"])
def test_forcing_checks_all_zones_first(operation: str, formatted: Path) -> None:
    with unchanged(formatted):
        assert "no zone 8" in refused("zone", operation, formatted, 3, 8)


# Devices that are damaged, foreign, in use


ALL_ON_A_DEVICE = [
    ("mkfs", "-f"),
    ("report",),
    ("info",),
    ("zone", "reset", "--all"),
    ("zone", "offline", "--all"),
]


def remove(path: Path) -> None:
    path.unlink()


def link_elsewhere(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(elsewhere)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def grow(path: Path) -> None:
    os.truncate(path, 10 << 20)


def shrink(path: Path) -> None:
    os.truncate(path, 4096)


@pytest.mark.parametrize("command", ALL_ON_A_DEVICE, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in ("cnv-000000", "cnv-000001", "seq-000002", "seq-000007")
        for damage in (remove, link_elsewhere, link_to_nothing, become_directory, become_fifo, grow)
    ]
    + [("cnv-000000", shrink), ("cnv-000001", shrink)],
)
def test_damaged_zone_files(
    command: tuple[str, ...], name: str, damage: Callable[[Path], None], formatted: Path, tmp_path: Path
) -> None:
    damage(formatted / name)
    with unchanged(tmp_path):
        assert name in refused(*command, formatted)


@pytest.mark.parametrize("command", ALL_ON_A_DEVICE, ids=" ".join)
@pytest.mark.parametrize("damage", [link_to_nothing, become_directory, become_fifo])
def test_a_description_that_is_no_file(
    command: tuple[str, ...], damage: Callable[[Path], None], formatted: Path, tmp_path: Path
) -> None:
    damage(formatted / "device.json")
    with unchanged(tmp_path):
        assert "device.json" in refused(*command, formatted)


@pytest.mark.parametrize("command", ALL_ON_A_DEVICE, ids=" ".join)
def test_a_device_in_use(command: tuple[str, ...], formatted: Path) -> None:
    with open_device(formatted), unchanged(formatted):
        assert f"in use by pid {os.getpid()}" in refused(*command, formatted)


@contextlib.contextmanager
def plain_user() -> Iterator[None]:
    """Let root, who may write everything, be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def protected() -> Iterator[Path]:
    """A formatted device that may be read, but not written, in a place where everybody gets to."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = Path(directory) / "d"
        Path(directory).chmod(0o755)
        run("create", path, *SMALL)
        run("mkfs", path)
        run("report", path)  # loads all modules, in whosesoever home they are
        for file in path.iterdir():
            file.chmod(0o444)
        path.chmod(0o555)
        yield path
        path.chmod(0o755)


def test_a_device_that_may_not_be_written(protected: Path) -> None:
    with unchanged(protected), plain_user():
        for command in ALL_ON_A_DEVICE:
            if command[0] in ("mkfs", "zone"):
                assert "permission" in refused(*command, protected).lower()
        assert "permission" in refused("create", "-f", protected, *SMALL).lower()
        assert len(zones(protected)) == 8
        assert json.loads(run("info", protected, "--format", "json").out)["device"]["read_only"]


def test_a_device_that_may_not_even_be_seen(protected: Path) -> None:
    protected.chmod(0o000)
    with plain_user():
        for command in ALL_ON_A_DEVICE:
            assert "permission denied" in refused(*command, protected).lower()


def test_a_torn_block_is_cut_off_and_reported(formatted: Path) -> None:
    (formatted / "seq-000003").write_bytes(bytes(5000))
    command = [sys.executable, "-m", "zonefs_py.cli.main", "zone", "finish", str(formatted), "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"zonefs-py: .*seq-000003: cut from 5000 to 4096 bytes[^\n]*\n", done.stderr)
    assert (formatted / "seq-000003").stat().st_size == 4096


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format": "something else"}',
        "\x00\x01\x02",
        "[" * 100_000,
        '{"a": ' * 950 + "1" + "}" * 950,
        "1" * 10_000,
        "\ufeff{}",
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize("command", ALL_ON_A_DEVICE, ids=" ".join)
def test_a_description_that_is_none(command: tuple[str, ...], text: str, formatted: Path) -> None:
    (formatted / "device.json").write_text(text)
    with unchanged(formatted):
        assert "device.json" in refused(*command, formatted)


@pytest.mark.parametrize("field", ["serial", "nr_zones", "conditions", "version", "extra"])
def test_a_description_that_is_nested_deeply(field: str, formatted: Path) -> None:
    content = json.loads((formatted / "device.json").read_text())
    content[field] = "HERE"
    text = json.dumps(content)
    # Somewhere below Python's limit, what can be read in can not be shown any more.
    for depth in [100, *range(700, 1000, 5)]:
        (formatted / "device.json").write_text(text.replace('"HERE"', "[" * depth + "]" * depth))
        assert "device.json" in refused("info", formatted)


def test_a_newer_description_is_refused_by_its_version(formatted: Path) -> None:
    path = formatted / "device.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    assert "version" in refused("info", formatted)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([10**400, -1, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "format",
    "version",
    "block_size",
    "zone_size",
    "zone_capacity",
    "nr_zones",
    "nr_conventional_zones",
    "last_zone_size",
    "max_open_zones",
    "max_active_zones",
    "serial",
    "profile",
    "conditions",
]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A formatted device whose description gets damaged again and again."""
    path = tmp_path_factory.mktemp("victim") / "d"
    run("create", path, *SMALL)
    run("mkfs", path)
    return path


@pytest.fixture(scope="module")
def description(victim: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((victim / "device.json").read_text())
    assert list(content) == FIELDS
    return content


def check_any_description(victim: Path, content: bytes) -> None:
    (victim / "device.json").write_bytes(content)
    for command in ("info", "report"):
        result = call(main_module.main, command, victim)
        if result.status:
            assert result.status == 1
            assert re.fullmatch(r"zonefs-py: [^\n]+\n", result.err)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1, max_size=3))
@example(changes={"conditions": {"3": "offline", "03": "read-only", "٣": "offline"}})
@example(changes={"conditions": {"0": ["offline"]}})
@example(changes={"version": True})
@example(changes={"version": 1.0})
@example(changes={"nr_zones": 10_000_000})
@example(changes={"nr_zones": 2, "nr_conventional_zones": 2})
@example(changes={"serial": "\ud800", "profile": "a\nb"})
@example(changes={"zone_size": 1 << 60, "zone_capacity": 1 << 60})
def test_a_description_with_wrong_values(victim: Path, description: dict[str, Any], changes: dict[str, Any]) -> None:
    check_any_description(victim, json.dumps(description | changes).encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(missing=st.sets(st.sampled_from(FIELDS), min_size=1), extra=st.dictionaries(st.text(max_size=9), json_values))
def test_a_description_with_missing_and_unknown_fields(
    victim: Path, description: dict[str, Any], missing: set[str], extra: dict[str, Any]
) -> None:
    content = {key: value for key, value in description.items() if key not in missing} | extra
    check_any_description(victim, json.dumps(content).encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_description_with_damaged_bytes(victim: Path, description: dict[str, Any], data: st.DataObject) -> None:
    content = bytearray(json.dumps(description, indent=2).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.sampled_from([0, 0, 1, 1, 5, 10_000])))
        content[start:end] = data.draw(st.binary(max_size=4) | st.sampled_from([b"0", b"9", b"-", b'"', b"{", b"]"]))
    check_any_description(victim, bytes(content))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_a_description_of_anything(victim: Path, content: bytes) -> None:
    check_any_description(victim, content)
