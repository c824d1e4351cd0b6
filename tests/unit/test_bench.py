"""What tools/bench computes and shows, without measuring anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.benchmarks import fio, goals, machine, main, publish, scale, summary, tables, targets, vm
from tools.benchmarks.common import KIB, MIB, ROOT, BenchError, Notes, rotated

POSITIVE = st.floats(min_value=1e-3, max_value=1e9)


class TestSummary:
    @given(st.lists(POSITIVE, min_size=1))
    def test_spread_is_in_order_and_made_of_the_runs(self, values: list[float]) -> None:
        found = summary.spread(values)
        assert (found.low, found.high) == (min(values), max(values))
        assert found.low <= found.median <= found.high

    @given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1))
    def test_ratio_is_that_of_runs_which_followed_each_other(self, pairs: list[tuple[float, float]]) -> None:
        found = summary.ratio([a for a, _ in pairs], [b for _, b in pairs])
        assert found == summary.spread([a / b for a, b in pairs])

    def test_a_machine_that_slows_down_does_not_change_a_ratio(self) -> None:
        assert summary.ratio([100, 50, 10], [200, 100, 20]) == summary.Spread(0.5, 0.5, 0.5)

    def test_runs_without_a_partner_are_refused(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            summary.ratio([1.0, 2.0], [1.0])

    @given(st.lists(st.integers(), max_size=6), st.integers(0, 20))
    def test_rotation_keeps_everything_and_its_order(self, items: list[int], turn: int) -> None:
        found = rotated(items, turn)
        assert sorted(found) == sorted(items)
        assert not items or found[0] == items[turn % len(items)]


class TestMachine:
    def test_busy_is_more_than_half_the_processors(self) -> None:
        assert not machine.is_busy(1.0, 2)
        assert machine.is_busy(1.01, 2)

    def test_memory_is_read_in_bytes(self) -> None:
        assert machine.memory_bytes("MemTotal:       24 kB\nMemFree:  8 kB\n") == 24 * 1024
        with pytest.raises(BenchError, match="MemTotal"):
            machine.memory_bytes("MemFree:  8 kB\n")

    def test_processor_is_named(self) -> None:
        assert machine.processor_name("processor\t: 0\nmodel name\t: A   B 9000\n") == "A B 9000"
        assert machine.processor_name("") == "unknown processor"

    def test_what_is_left_out_is_counted_and_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        notes = Notes()
        notes.skip("copies on xfs", BenchError("only root can mount it"))
        notes.warn("the machine is busy")
        assert notes == Notes(["copies on xfs: only root can mount it"], ["the machine is busy"])
        assert capsys.readouterr().err == (
            "tools/bench: left out: copies on xfs: only root can mount it\ntools/bench: warning: the machine is busy\n"
        )


READ_FILES = tuple(Path(f"/r{number}") for number in range(fio.FILES))
WRITE_FILES = tuple(Path(f"/w{number}") for number in range(fio.FILES))


def job_sections(cell: fio.Cell) -> dict[str, dict[str, str]]:
    """The job file of *cell*, read back."""
    text = fio.job_file(cell, READ_FILES, WRITE_FILES, direct=True, direct_reads=False, size=MIB, seconds=0.4)
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            found[line[1:-1]] = {}
        else:
            name, _, value = line.partition("=")
            found[list(found)[-1]][name] = value
    return found


class TestFio:
    def test_all_combinations_are_there_once(self) -> None:
        found = fio.cells(single=False)
        assert len(set(found)) == len(found) == 4 * 2 * 3 * 2
        assert set(fio.cells(single=True)) < set(found)
        assert all(cell.jobs > 1 for cell in found if cell.operation == "mixed")

    @pytest.mark.parametrize("cell", fio.cells(single=False), ids=str)
    def test_no_two_jobs_share_a_zone_and_as_many_run_as_asked(self, cell: fio.Cell) -> None:
        jobs = job_sections(cell)
        common = jobs.pop("global")
        assert (common["bs"], common["iodepth"]) == (str(cell.block), "1" if cell.engine == "sync" else "16")
        assert len(jobs) == cell.jobs
        files = [file for job in jobs.values() for file in job["filename"].split(":")]
        assert len(set(files)) == len(files)
        writers = [job for job in jobs.values() if job["rw"] == "write"]
        assert bool(writers) == cell.writes
        # All zones that may be written are, whatever the number of writers.
        written = [file for job in writers for file in job["filename"].split(":")]
        assert sorted(written) == (sorted(map(str, WRITE_FILES)) if cell.writes else [])
        assert all(job["direct"] == str(int(job["rw"] == "write")) for job in jobs.values())
        for job in writers:
            assert int(job["size"]) == MIB * len(job["filename"].split(":"))
            assert "time_based" not in job

    def test_a_colon_in_a_path_is_no_separator(self) -> None:
        cell = fio.Cell("write", 4 * KIB, 1, "sync")
        text = fio.job_file(cell, READ_FILES, [Path("/a:b")], direct=True, direct_reads=True, size=MIB, seconds=1)
        assert "filename=/a\\:b\n" in text

    def printed(self, **parts: Any) -> str:
        idle = {"total_ios": 0, "iops": 0.0, "lat_ns": {}}
        return "fio: a line before\n" + json.dumps({"jobs": [{"error": 0, "read": idle, "write": idle, **parts}]})

    def part(self, iops: float) -> dict[str, Any]:
        percentiles = {"50.000000": 1500, "99.000000": 3000, "99.900000": 4000}
        return {"total_ios": 7, "iops": iops, "lat_ns": {"percentile": percentiles}}

    def test_both_directions_of_a_mixed_run_count(self) -> None:
        cell = fio.Cell("mixed", 64 * KIB, 2, "sync")
        found = fio.parse(self.printed(read=self.part(100.0), write=self.part(20.0)), cell)
        assert found["operations_per_second"] == 120
        assert found["bytes_per_second"] == 120 * 64 * KIB
        assert found["latency_us"] == {name: {"p50": 1.5, "p99": 3, "p99.9": 4} for name in ("read", "write")}

    def test_a_direction_that_did_nothing_has_no_latency(self) -> None:
        found = fio.parse(self.printed(read=self.part(100.0)), fio.Cell("mixed", 64 * KIB, 2, "sync"))
        assert list(found["latency_us"]) == ["read"]

    def test_a_run_that_did_nothing_is_an_error(self) -> None:
        with pytest.raises(BenchError, match="no request"):
            fio.parse(self.printed(), fio.Cell("read", MIB, 1, "sync"))

    def test_an_error_is_named(self) -> None:
        with pytest.raises(BenchError, match="Invalid argument"):
            fio.parse(self.printed(error=22), fio.Cell("write", MIB, 1, "sync"))


class TestTargets:
    MOUNTS = (
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 21 0:40 / /mnt rw shared:1 - tmpfs tmpfs rw\n"
        "31 30 0:41 / /mnt/a\\040b rw - zonefs /dev/nullb0 rw\n"
        "32 30 0:42 / /mnt/top rw - ext4 /dev/sdb rw\n"
        "33 32 0:43 / /mnt/top rw - fuse.zonefs-py disk rw\n"
    )

    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/home", "ext4"),
            ("/mnt", "tmpfs"),
            ("/mnt/other", "tmpfs"),
            ("/mntx", "ext4"),
            ("/mnt/a b/seq", "zonefs"),
            ("/mnt/top", "fuse.zonefs-py"),
        ],
    )
    def test_the_mount_that_holds_a_path_is_found(self, path: str, kind: str) -> None:
        assert targets.mount_of(self.MOUNTS, path)[0] == kind

    @pytest.mark.parametrize(
        ("text", "peer"),
        [
            ("/mnt/x", targets.Peer(Path("/mnt/x"))),
            ("C++=/mnt/x", targets.Peer(Path("/mnt/x"), "C++")),
            ("/mnt/a=b", targets.Peer(Path("/mnt/a=b"))),
        ],
    )
    def test_peers_can_be_named(self, text: str, peer: targets.Peer) -> None:
        assert targets.parse_peer(text) == peer

    @pytest.mark.parametrize("text", ["=/mnt", "name="])
    def test_half_a_name_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            targets.parse_peer(text)

    def test_zones_with_data_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "seq").mkdir()
        with pytest.raises(BenchError, match="8 sequential files"):
            targets.zone_files(tmp_path)
        for number in range(8):
            (tmp_path / f"seq/{number}").touch()
        assert len(targets.zone_files(tmp_path)) == 8
        (tmp_path / "seq/7").write_bytes(b"precious")
        with pytest.raises(BenchError, match="holds data"):
            targets.zone_files(tmp_path)
        assert (tmp_path / "seq/7").read_bytes() == b"precious"


def io_run(rate: float, *directions: str) -> dict[str, Any]:
    latency = {direction: {"p50": 1.5, "p99": 20.25, "p99.9": 4321.0} for direction in directions}
    return {"operations_per_second": rate, "bytes_per_second": rate, "latency_us": latency}


def scale_run(seconds: float, memory: int) -> dict[str, Any]:
    names = ("after mount", "after ls -l", "highest")
    return {"seconds": dict.fromkeys(scale.STEPS, seconds), "memory_bytes": dict.fromkeys(names, memory)}


@pytest.fixture
def result() -> dict[str, Any]:
    """A result with two runs of everything, of a raw file, both our mounts and one peer."""
    kinds = {"raw": "raw", "ours": "ours", "passthrough": "passthrough", "peer0": "files"}
    rates = {"raw": [1000.0, 2000.0], "ours": [100.0, 100.0], "passthrough": [950.0, 1900.0], "peer0": [125.0, 160.0]}
    cells = []
    for cell in fio.cells(single=False):
        runs = {
            name: [io_run(rate, *fio.DIRECTIONS[cell.operation]) for rate in values]
            for name, values in rates.items()
            if not (name == "passthrough" and cell.operation == "write")
        }
        described = {"operation": cell.operation, "block": cell.block, "jobs": cell.jobs, "engine": cell.engine}
        cells.append({**described, "runs": runs})
    machine_described = {
        "processor": "Abacus",
        "processors": 2,
        "memory_bytes": 24 << 30,
        "kernel": "Linux 6.18",
        "python": "3.11.7",
        "libfuse": "3.14.0",
        "zonefs_py": "0.1.0",
        "fio": "3.33",
        "date": "2026-11-23 21:00 UTC",
        "load_average": 1.5,
    }
    reflinked = {"reflink": [0.001] * 3, "read+write": [0.5, 2.0], "host reflink": [0.001] * 3}
    plain = {"host": [0.1, 0.1], "read+write": [0.15, 0.3], "host copy": [0.1, 0.1]}
    return {
        "schema": publish.SCHEMA,
        "version": publish.VERSION,
        "quick": False,
        "machine": machine_described,
        "warnings": ["the machine is busy"],
        "skipped": ["copies on btrfs: it is a bad day"],
        "io": {
            "runs": 2,
            "seconds": 0.4,
            "file_bytes": 256 * MIB,
            "filesystem": "tmpfs",
            "targets": [{"name": name, "label": name, "kind": kind, "direct": True} for name, kind in kinds.items()],
            "cells": cells,
        },
        "copy": {
            "runs": 2,
            "rows": [
                {"place": "XFS (loop)", "size": 256 * MIB, "reflinks": True, "seconds": reflinked},
                {"place": "tmpfs", "size": 256 * MIB, "reflinks": False, "seconds": plain},
                {"place": "tmpfs", "size": 64 * MIB, "reflinks": False, "seconds": plain},
            ],
        },
        "scale": {
            "runs": 2,
            "filesystem": "ext4",
            "smallest": 8,
            "rows": [
                {"zones": 8, "runs": [scale_run(0.5, 30 * MIB), scale_run(0.5, 30 * MIB)]},
                {"zones": 1008, "runs": [scale_run(0.6, 31 * MIB), scale_run(0.6, 31 * MIB)]},
                {"zones": 100_000, "runs": [scale_run(1.9, 160 * MIB), scale_run(2.3, 160 * MIB)]},
            ],
        },
    }


class TestTables:
    @pytest.mark.parametrize(
        ("value", "text"),
        [(0.0123456, "0.0123"), (0.5, "0.500"), (12.0, "12.0"), (99.96, "100"), (1234.5, "1,234"), (-474.4, "-474")],
    )
    def test_figures_have_the_digits_that_count(self, value: float, text: str) -> None:
        assert tables.figure(value) == text

    def test_a_single_run_has_no_spread(self) -> None:
        assert tables.with_spread(summary.Spread(0.5, 0.5, 0.5)) == "0.500"
        assert tables.with_spread(summary.Spread(0.5, 0.25, 1.0)) == "0.500 (0.250-1.00)"

    def test_small_blocks_are_counted_and_large_ones_weighed(self) -> None:
        assert tables.rate(14_200.4, 4 * KIB) == "14,200/s"
        assert tables.rate(1000, MIB) == "1.05 GB/s"
        assert tables.rate(50, 64 * KIB) == "3.28 MB/s"

    def test_every_row_of_every_table_has_all_columns(self, result: dict[str, Any]) -> None:
        columns = None
        for line in tables.document(result).splitlines():
            if not line.startswith("|"):
                columns = None
                continue
            columns = columns or line.count("|")
            assert line.count("|") == columns, line

    def test_ratios_have_their_spread_and_what_was_not_measured_a_dash(self, result: dict[str, Any]) -> None:
        lines = tables.headline_lines(result["io"])
        (line,) = [line for line in lines if line.startswith("| sequential write | 4 KiB")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[4:] == ["1,500/s", "100/s", "-", "142/s", "0.0750 (0.0500-0.100)", "-", "0.713 (0.625-0.800)", "-"]

    def test_what_was_measured_nowhere_has_no_column(self, result: dict[str, Any]) -> None:
        cells = [cell for cell in result["io"]["cells"] if cell["operation"] == "write"]
        assert not any("passthrough" in line or "| - |" in line for line in tables.rate_table(result["io"], cells))

    def test_the_headline_has_the_four_cells_that_say_most(self, result: dict[str, Any]) -> None:
        assert len(tables.headline_lines(result["io"])) == 2 + 4

    def test_costs_of_a_zone_are_without_fixed_costs(self, result: dict[str, Any]) -> None:
        smallest, row, _ = result["scale"]["rows"]
        assert tables.per_zone(row, smallest, "mount") == pytest.approx(100)
        assert tables.memory_per_zone(row, smallest) == pytest.approx(MIB / 1000)
        # A device that happened to be faster than the smallest tells nothing about its zones.
        result["scale"]["rows"][1]["runs"] = [scale_run(0.4, 31 * MIB)]
        assert "| mount, µs a zone | - | 16.0 |" in tables.scale_lines(result["scale"])

    def test_what_makes_figures_doubtful_is_shown(self, result: dict[str, Any]) -> None:
        text = "\n".join(tables.machine_lines(result))
        assert "Warning:** the machine is busy." in text
        assert "Left out: copies on btrfs: it is a bad day." in text
        assert "load average 1.50" in text
        assert "quick" not in text
        assert "quick" in "\n".join(tables.machine_lines(result | {"quick": True}))


class TestGoals:
    def test_each_goal_is_measured_by_its_own_cell(self, result: dict[str, Any]) -> None:
        found = {outcome.what: outcome for outcome in goals.outcomes(result)}
        assert len(found) == 6 + 4 + 4

        def median(what: str) -> float:
            value = found[what].value
            assert value is not None
            return value.median

        assert found["random read, 4 KiB: passthrough / raw"].met
        assert median("sequential read, 1 MiB: ours / peer0") == pytest.approx((0.8 + 0.625) / 2)
        assert not found["sequential read, 1 MiB: ours / peer0"].met
        reflink = found["copy of 256 MiB, XFS (loop): read+write / reflink"]
        assert reflink.met
        assert (reflink.ours, reflink.other) == (
            goals.Measure("copy=reflink", 0.001, "s"),
            goals.Measure("dd through the mount", 1.25, "s"),
        )
        assert found["copy of 256 MiB, tmpfs: host's own copy / host"].met
        assert median("copy of 256 MiB, tmpfs: read+write / host") == pytest.approx(2.25)
        assert not any("64 MiB," in what for what in found)
        assert not found["mount of 100,000 zones"].met
        assert found["ls -l of 100,000 zones"].met
        assert not found["memory with 100,000 zones, after ls -l"].met

    def test_what_is_measured_several_times_in_a_run_is_compared_run_by_run(self, result: dict[str, Any]) -> None:
        """The first run was slow for both: that says nothing about their ratio."""
        seconds = result["copy"]["rows"][0]["seconds"]
        seconds |= {"read+write": [2.0, 1.0], "reflink": [0.002, 0.002, 0.009, 0.001, 0.0005, 0.001]}
        (outcome,) = [one for one in goals.outcomes(result) if one.what.endswith("read+write / reflink")]
        assert outcome.value == summary.Spread(1000, 1000, 1000)

    def test_what_was_not_measured_is_said(self, result: dict[str, Any]) -> None:
        """Whatever is missing, every goal has a row."""
        io = result["io"]
        io["targets"] = [target for target in io["targets"] if target["kind"] in ("raw", "ours")]
        for part in ({"io": io}, {"copy": {**result["copy"], "rows": []}}, {}):
            found = goals.outcomes(part)
            assert len(found) == 6 + 4 + 4
            assert all(outcome.value is None and not outcome.met for outcome in found)
            assert len({outcome.what for outcome in found}) == len(found)
        text = "\n".join(tables.goal_lines(goals.outcomes({})))
        assert "| random read, 4 KiB: zonefs-py / passthrough_hp | - | - | not measured | >= 0.750 | - |" in text


class TestPublish:
    def pages(self, root: Path) -> tuple[Path, Path]:
        (root / "docs").mkdir()
        page, readme = root / "docs/performance.md", root / "README.md"
        names = ("machine", "goals", "io", "kernel", "copy", "scale")
        page.write_text(
            "\n".join(f"<!-- bench:{name} begin -->\nold {name}\n<!-- bench:{name} end -->" for name in names)
        )
        readme.write_text("# top\n<!-- bench:headline begin -->\n<!-- bench:headline end -->\nbottom\n")
        return page, readme

    def out(self, directory: Path, result: dict[str, Any]) -> Path:
        directory.mkdir()
        (directory / "bench.json").write_text(json.dumps(result))
        for name in (file for section in publish.PLOTS.values() for file in section):
            (directory / name).write_text(f"<svg>{name}</svg>")
        return directory

    def test_the_documents_of_this_project_have_the_markers(self, result: dict[str, Any]) -> None:
        page = (ROOT / "docs/performance.md").read_text()
        for name, lines in publish.sections(result, "images").items():
            assert "\n".join(lines) in publish.replace_section(page, name, lines)
        publish.replace_section(page, "kernel", [])
        publish.replace_section((ROOT / "README.md").read_text(), "headline", [])

    def test_all_sections_and_plots_are_put_in_place_twice_the_same(
        self, tmp_path: Path, result: dict[str, Any]
    ) -> None:
        page, readme = self.pages(tmp_path)
        out = self.out(tmp_path / "out", result)
        written = publish.publish(out, tmp_path)
        first = page.read_text(), readme.read_text()
        assert "old kernel" in first[0]
        assert not any(f"old {name}\n" in first[0] for name in ("machine", "goals", "io", "copy", "scale"))
        assert first[1].startswith("# top\n")
        assert first[1].endswith("bottom\n")
        assert "random read" in first[1]
        assert (tmp_path / "docs/images/copies.svg").read_text() == "<svg>copies.svg</svg>"
        assert publish.publish(out, tmp_path) == written
        assert (page.read_text(), readme.read_text()) == first

    def test_a_partial_result_leaves_the_other_sections(self, tmp_path: Path, result: dict[str, Any]) -> None:
        page, readme = self.pages(tmp_path)
        before = readme.read_text()
        del result["io"], result["copy"]
        publish.publish(self.out(tmp_path / "out", result), tmp_path)
        assert "old io" in page.read_text()
        assert "old scale" not in page.read_text()
        assert readme.read_text() == before

    def test_figures_beside_the_kernel_are_put_in_place(self, tmp_path: Path, result: dict[str, Any]) -> None:
        page, _ = self.pages(tmp_path)
        out = self.out(tmp_path / "out", result)
        self.out(out / publish.KERNEL_DIRECTORY, {**result, "machine": {**result["machine"], "processor": "Emulated"}})
        publish.publish(out, tmp_path)
        kernel = page.read_text().partition("bench:kernel begin")[2].partition("bench:kernel end")[0]
        assert "Emulated" in kernel
        assert "### Latency" in kernel

    @pytest.mark.parametrize("what", ["plot", "marker", "result", "version"])
    def test_nothing_is_changed_when_anything_is_missing(
        self, tmp_path: Path, result: dict[str, Any], what: str
    ) -> None:
        page, readme = self.pages(tmp_path)
        out = self.out(tmp_path / "out", result)
        if what == "plot":
            (out / "scale.svg").unlink()
        elif what == "marker":
            page.write_text(page.read_text().replace("<!-- bench:scale end -->", ""))
        elif what == "result":
            (out / "bench.json").unlink()
        else:
            (out / "bench.json").write_text(json.dumps(result | {"version": 1}))
        before = page.read_text(), readme.read_text()
        with pytest.raises(BenchError):
            publish.publish(out, tmp_path)
        assert (page.read_text(), readme.read_text()) == before
        assert not (tmp_path / "docs/images").exists()


class TestCommandLine:
    def test_without_a_suite_all_are_measured(self) -> None:
        assert main.parse([]).suites == main.parse(["--all"]).suites == ["io", "copy", "scale"]
        assert main.parse(["--scale"]).suites == ["scale"]
        assert main.parse(["--publish"]).suites == main.parse(["--vm"]).suites == []

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--runs", "0"], "--runs"),
            (["--runs", "many"], "--runs"),
            (["--copy", "--sizes", "256"], "--sizes"),
            (["--copy", "--sizes", "0M"], "--sizes"),
            (["--copy", "--places", "xfs,moon"], "--places"),
            (["--scale", "--zones", "8"], "--zones"),
            (["--io", "--zones", "1000"], "--zones belongs to --scale"),
            (["--scale", "--peer", "/"], "--peer belongs to --io"),
            (["--io", "--peer", "/nowhere"], "/nowhere: not a directory"),
            (["--io", "--kernel-device", "/dev/null"], "/dev/null is not a block device"),
            (["--directory", "/nowhere"], "/nowhere: not a directory"),
            (["--publish", "--quick"], "--quick: nothing is measured"),
            (["--vm", "--io"], "--vm"),
            (["--vm", "--quick"], "--quick: nothing is measured here"),
            (["--publish", "--command", "zonefs-py"], "--command: nothing is measured"),
            (["--fast"], "--fast"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
    ) -> None:
        with pytest.raises(SystemExit) as left:
            main.parse(arguments)
        assert left.value.code == 2
        assert complaint in capsys.readouterr().err.splitlines()[-1]

    def test_lists_are_sorted_and_without_doubles(self) -> None:
        assert main.sizes("1G,256m,256M") == [256 * MIB, 1024 * MIB]
        assert main.counts("5000,100") == [100, 5000]

    def test_the_machine_gets_devices_share_and_command(self) -> None:
        command = vm.command("/bin/zonefs-py", Path("/out"), runs=2, seconds=60, busy="it hums")
        assert command.count("--device") == 2
        assert command[command.index("--share") + 1] == "/out"
        inside = command[command.index("--") + 1 :]
        assert inside[:2] == ["bash", "-c"]
        options = main.parse(inside[inside.index(str(ROOT / "tools/bench")) + 1 :])
        assert (options.suites, options.single, options.runs) == (["io"], True, 2)
        assert options.warning == "outside, it hums"
        assert "--warning" not in vm.command("/bin/zonefs-py", Path("/out"), runs=2, seconds=60, busy=None)
