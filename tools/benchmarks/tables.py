"""Markdown from a result. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tools.benchmarks.common import KIB, MIB
from tools.benchmarks.copies import WAYS
from tools.benchmarks.fio import DIRECTIONS, ENGINES, OPERATIONS, PERCENTILES
from tools.benchmarks.goals import Measure, Outcome, outcomes, rates
from tools.benchmarks.machine import sentence
from tools.benchmarks.scale import STEPS
from tools.benchmarks.summary import Spread, ratio, spread

NONE = "-"
OURS = ("ours", "passthrough", "device")
"""Kinds of targets that this project answers for."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> list[str]:
    """Return the lines of a table; the first *words* columns are words, the others figures."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return [line(head), line(rule), *map(line, rows)]


def figure(value: float) -> str:
    """A number with about three digits that count."""
    # A value just below 100 would be rounded to a hundred with a point behind it.
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def with_spread(value: Spread) -> str:
    """``0.91 (0.90-0.95)``; of a single run there is no spread."""
    if value.low == value.high:
        return figure(value.median)
    return f"{figure(value.median)} ({figure(value.low)}-{figure(value.high)})"


def block_name(block: int) -> str:
    """``64 KiB``"""
    return f"{block // KIB} KiB" if block < MIB else f"{block // MIB} MiB"


def rate(operations_per_second: float, block: int) -> str:
    """A rate in the unit that suits the block: operations for small ones, bytes for others."""
    if block < 64 * KIB:
        return f"{operations_per_second:,.0f}/s"
    bytes_per_second = operations_per_second * block
    return f"{bytes_per_second / 1e9:.2f} GB/s" if bytes_per_second >= 1e8 else f"{figure(bytes_per_second / 1e6)} MB/s"


def comparisons(targets: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Which targets are shown as ratios: each of ours to the raw file and to each peer."""
    ours = [target for target in targets if target["kind"] in OURS]
    others = [target for target in targets if target["kind"] not in OURS]
    return [(mine, other) for other in others for mine in ours]


def cell_words(cell: dict[str, Any]) -> list[str]:
    """The cell in words, without its operation."""
    depth = ENGINES[cell["engine"]]
    engine = cell["engine"] if depth == 1 else f"{cell['engine']}, depth {depth}"
    return [block_name(cell["block"]), str(cell["jobs"]), engine]


def rate_table(io: dict[str, Any], cells: Sequence[dict[str, Any]], first: Sequence[str] = ()) -> list[str]:
    """Rates of all targets in which any of *cells* was measured, and ratios with their spread."""
    targets = [target for target in io["targets"] if any(target["name"] in cell["runs"] for cell in cells)]
    pairs = comparisons(targets)
    head = [*first, "block", "jobs", "engine", *(target["label"] for target in targets)]
    head += [f"{mine['label']} / {other['label']}" for mine, other in pairs]
    rows = []
    for cell in cells:
        row = ([OPERATIONS[cell["operation"]]] if first else []) + cell_words(cell)
        for target in targets:
            measured = target["name"] in cell["runs"]
            row.append(rate(spread(rates(cell, target["name"])).median, cell["block"]) if measured else NONE)
        for mine, other in pairs:
            both = mine["name"] in cell["runs"] and other["name"] in cell["runs"]
            row.append(with_spread(ratio(rates(cell, mine["name"]), rates(cell, other["name"]))) if both else NONE)
        rows.append(row)
    return table(head, rows, words=3 + len(first))


def latencies(cell: dict[str, Any], name: str, direction: str) -> list[float]:
    """The medians of the percentiles of a target's latency, in microseconds; empty if there is none."""
    runs = [run["latency_us"][direction] for run in cell["runs"].get(name, ()) if direction in run["latency_us"]]
    return [spread([run[percentile] for run in runs]).median for percentile in PERCENTILES] if runs else []


def latency_table(io: dict[str, Any], cells: Sequence[dict[str, Any]]) -> list[str]:
    """Percentiles of latency of all targets."""
    targets = io["targets"]
    rows = []
    for cell in cells:
        for direction in DIRECTIONS[cell["operation"]]:
            operation = OPERATIONS[cell["operation"]]
            row = [f"{operation}: {direction}s" if cell["operation"] == "mixed" else operation, *cell_words(cell)]
            for target in targets:
                values = latencies(cell, target["name"], direction)
                row.append(" / ".join(map(figure, values)) or NONE)
            rows.append(row)
    return table(["operation", "block", "jobs", "engine", *(target["label"] for target in targets)], rows, words=4)


def io_lines(io: dict[str, Any]) -> list[str]:
    """Everything about I/O."""
    lines = [
        f"Files of {io['file_bytes'] // MIB} MiB on {io['filesystem']}. {runs_text(io)} Ratios are those of runs made "
        "one after the other: median (lowest-highest).",
    ]
    for operation, name in OPERATIONS.items():
        lines += ["", f"### {name.capitalize()}", ""]
        lines += rate_table(io, [cell for cell in io["cells"] if cell["operation"] == operation])
    lines += ["", "### Latency", "", f"Microseconds from call to answer, {' / '.join(PERCENTILES)}.", ""]
    return lines + latency_table(io, io["cells"])


def headline_lines(io: dict[str, Any]) -> list[str]:
    """The few cells that say most: one job, synchronous, smallest and largest block."""
    wanted = [
        cell
        for cell in io["cells"]
        if cell["jobs"] == 1
        and cell["engine"] == "sync"
        and (cell["operation"], cell["block"])
        in {("randread", 4 * KIB), ("read", MIB), ("write", 4 * KIB), ("write", MIB)}
    ]
    return rate_table(io, wanted, first=["operation"])


def copy_lines(copy: dict[str, Any]) -> list[str]:
    """Everything about copies."""
    rows = copy["rows"]
    head = ["way", *(f"{row['place']}, {row['size'] // MIB} MiB" for row in rows)]
    body = []
    for way, name in WAYS.items():
        found = [row["seconds"].get(way) for row in rows]
        if any(found):
            body.append([name, *(figure(spread(times).median * 1000) if times else NONE for times in found)])
    return [f"Milliseconds. {runs_text(copy)}", "", *table(head, body)]


def per_zone(row: dict[str, Any], smallest: dict[str, Any], step: str) -> float:
    """Microseconds of *step* for each zone more than the smallest device has: its time is fixed costs."""
    seconds = spread([run["seconds"][step] for run in row["runs"]]).median
    fixed = spread([run["seconds"][step] for run in smallest["runs"]]).median
    zones: int = row["zones"] - smallest["zones"]
    return (seconds - fixed) * 1e6 / zones


def memory_per_zone(row: dict[str, Any], smallest: dict[str, Any]) -> float:
    """Bytes of resident memory for each zone more than the smallest device has, after ``ls -l``."""
    name = "after ls -l"
    here = spread([run["memory_bytes"][name] for run in row["runs"]]).median
    fixed = spread([run["memory_bytes"][name] for run in smallest["runs"]]).median
    zones: int = row["zones"] - smallest["zones"]
    return (here - fixed) / zones


def cost(value: float) -> str:
    """What each zone costs, or a dash if that is less than the fixed costs vary."""
    return figure(value) if value > 0 else NONE


def scale_lines(scale: dict[str, Any]) -> list[str]:
    """Everything about many zones."""
    smallest, *rows = scale["rows"]
    head = ["", *(f"{row['zones']:,} zones" for row in rows)]
    seconds = [
        [f"{step}, s", *(figure(spread([run["seconds"][step] for run in row["runs"]]).median) for row in rows)]
        for step in STEPS
    ]
    memory = [
        [
            f"resident {name}, MiB",
            *(figure(spread([run["memory_bytes"][name] for run in row["runs"]]).median / MIB) for row in rows),
        ]
        for name in rows[0]["runs"][0]["memory_bytes"]
    ]
    each = [[f"{step}, µs a zone", *(cost(per_zone(row, smallest, step)) for row in rows)] for step in STEPS]
    each.append(["memory, bytes a zone", *(cost(memory_per_zone(row, smallest)) for row in rows)])
    text = (
        f"Devices on {scale['filesystem']}. {runs_text(scale)} What each zone costs is without the fixed costs, which "
        f"a device of {smallest['zones']} zones shows; a dash is less than these vary."
    )
    return [text, "", *table(head, [*seconds, *memory]), "", *table(head, each)]


def measure_text(measure: Measure | None) -> str:
    """``14,200/s``, ``1.10 GB/s``, ``0.160 ms``"""
    if measure is None:
        return NONE
    if measure.unit == "/s":
        return rate(measure.value, measure.block)
    return f"{figure(measure.value * 1000)} ms" if measure.unit == "s" else f"{figure(measure.value)} {measure.unit}"


def goal_lines(found: Sequence[Outcome]) -> list[str]:
    """The goals, and whether they are reached."""
    rows = []
    for outcome in found:
        goal = (
            f">= {figure(outcome.at_least)}" if outcome.at_least is not None else f"<= {figure(outcome.at_most or 0)}"
        )
        unit = "" if outcome.unit == "times" else f" {outcome.unit}"
        measures = [measure_text(outcome.ours), measure_text(outcome.other)]
        if outcome.value is None:
            rows.append([outcome.what, *measures, "not measured", goal + unit, NONE])
        else:
            reached = "yes" if outcome.met else "**no**"
            rows.append([outcome.what, *measures, with_spread(outcome.value) + unit, goal + unit, reached])
    return table(["", "zonefs-py", "the other", "measured", "goal", "reached"], rows)


def runs_text(section: dict[str, Any]) -> str:
    """``Medians of 3 runs.``"""
    return f"Medians of {section['runs']} runs." if section["runs"] > 1 else "One run."


def machine_lines(result: dict[str, Any], *, left_out: bool = True) -> list[str]:
    """What was measured on, what to keep in mind and, if wanted, what was left out."""
    lines = [sentence(result["machine"])]
    if result["quick"]:
        lines += ["", "**A quick run: it shows that everything works, its figures are rough.**"]
    lines += [f"\n**Warning:** {text}." for text in result["warnings"]]
    lines += [f"\nLeft out: {text}." for text in result["skipped"] if left_out]
    return lines


def document(result: dict[str, Any]) -> str:
    """The whole result as one page."""
    lines = ["# tools/bench", "", *machine_lines(result)]
    lines += ["", "## Goals", "", *goal_lines(outcomes(result))]
    for name, title, render in (
        ("io", "I/O", io_lines),
        ("copy", "Copies", copy_lines),
        ("scale", "Scale", scale_lines),
    ):
        if name in result:
            lines += ["", f"## {title}", "", *render(result[name])]
    return "\n".join(lines) + "\n"
