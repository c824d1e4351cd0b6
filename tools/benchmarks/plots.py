"""SVG plots of a result. The only module that needs matplotlib; run as a program: ``plots.py RESULT.json DIRECTORY``.

Colours are those of Okabe and Ito, which people with colour-vision deficiency can tell apart; markers differ as well.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from tools.benchmarks.common import MIB
from tools.benchmarks.copies import WAYS
from tools.benchmarks.fio import BLOCKS, ENGINES, FILES, OPERATIONS
from tools.benchmarks.goals import rates
from tools.benchmarks.scale import STEPS
from tools.benchmarks.summary import spread
from tools.benchmarks.tables import block_name, latencies, memory_per_zone, per_zone

GREY, BLUE, SKY, VERMILION, GREEN, PURPLE, ORANGE = (
    "#595959",
    "#0072B2",
    "#56B4E9",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
)
STYLES = {"raw": (GREY, "s"), "ours": (BLUE, "o"), "passthrough": (SKY, "D"), "device": (PURPLE, "P")}
PEER_STYLES = ((VERMILION, "^"), (GREEN, "v"), (ORANGE, "X"))
# Any: newer versions of matplotlib list the names of all settings in their types, older ones do not.
SETTINGS: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E0E0E0",
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#808080",
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "legend.frameon": False,
    # The same result gives the same file, and looks the same whatever fonts the reader has.
    "svg.hashsalt": "zonefs-py",
    "svg.fonttype": "path",
}


def short(value: float, _position: object = None) -> str:
    """A tick label: plain numbers."""
    return f"{value:,.10g}"


def logarithmic(axis: Any, steps: tuple[int, ...] = (1,)) -> None:
    """Make an axis logarithmic, with labels in plain numbers at *steps* of each decade."""
    axis.axes.set_xscale("log") if axis.axis_name == "x" else axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(short))
    axis.set_minor_formatter(NullFormatter())


def styles(targets: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each target."""
    peers = iter(PEER_STYLES * len(targets))
    return {target["name"]: STYLES.get(target["kind"]) or next(peers) for target in targets}


def save(figure: Figure, path: Path) -> None:
    """Write the file without the date, which would change it every time."""
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


def throughput(io: dict[str, Any], engine: str, path: Path) -> None:
    """Bytes a second over block sizes: a column for each operation, a row for one and for many jobs."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    axes = figure.subplots(2, len(OPERATIONS), sharex=True, sharey=True)
    chosen = styles(io["targets"])
    for column, (operation, name) in enumerate(OPERATIONS.items()):
        for row, jobs in enumerate((2 if operation == "mixed" else 1, FILES)):
            panel = axes[row][column]
            panel.set_title(f"{name}, {jobs} job{'s' * (jobs > 1)}")
            for target in io["targets"]:
                points = [
                    (
                        BLOCKS.index(cell["block"]),
                        spread([rate * cell["block"] / MIB for rate in rates(cell, target["name"])]),
                    )
                    for cell in io["cells"]
                    if (cell["operation"], cell["jobs"], cell["engine"]) == (operation, jobs, engine)
                    and target["name"] in cell["runs"]
                ]
                if not points:
                    continue
                medians = [value.median for _, value in points]
                around = [
                    [value.median - value.low for _, value in points],
                    [value.high - value.median for _, value in points],
                ]
                colour, marker = chosen[target["name"]]
                panel.errorbar(
                    [x for x, _ in points],
                    medians,
                    yerr=around,
                    color=colour,
                    marker=marker,
                    markersize=5,
                    linewidth=1.4,
                    elinewidth=1,
                    capsize=2,
                )
            logarithmic(panel.yaxis)
            panel.set_xticks(range(len(BLOCKS)), [block_name(block) for block in BLOCKS])
            panel.set_xlim(-0.3, len(BLOCKS) - 0.7)
        axes[1][column].set_xlabel("block size")
    for row in range(2):
        axes[row][0].set_ylabel("throughput (MiB/s)")
    depth = ENGINES[engine]
    how = "one request at a time for each job" if depth == 1 else f"{depth} requests in flight for each job ({engine})"
    figure.suptitle(f"Throughput, {how} (higher is better)", fontsize=11, fontweight="bold")
    handles = [
        Line2D([], [], color=chosen[target["name"]][0], marker=chosen[target["name"]][1], label=target["label"])
        for target in io["targets"]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    save(figure, path)


def latency(io: dict[str, Any], path: Path) -> None:
    """Percentiles of the latency of the smallest block, one job, one request at a time."""
    operations = {"randread": "read", "read": "read", "write": "write"}
    targets, chosen = io["targets"][::-1], styles(io["targets"])
    figure = Figure(figsize=(11, 1.6 + 0.35 * len(targets)), layout="constrained")
    axes = figure.subplots(1, len(operations), sharex=True, sharey=True)
    for panel, (operation, direction) in zip(axes, operations.items(), strict=True):
        panel.set_title(f"{OPERATIONS[operation]}, {block_name(BLOCKS[0])}, 1 job")
        wanted = (operation, BLOCKS[0], 1, "sync")
        for cell in io["cells"]:
            if (cell["operation"], cell["block"], cell["jobs"], cell["engine"]) != wanted:
                continue
            for line, target in enumerate(targets):
                colour, _ = chosen[target["name"]]
                values = latencies(cell, target["name"], direction)
                if not values:
                    continue
                panel.plot([values[0], values[-1]], [line, line], color=colour, linewidth=1.4)
                for value, marker in zip(values, "o|D", strict=True):
                    panel.plot([value], [line], marker=marker, markersize=6, color=colour, markeredgewidth=1.6)
        logarithmic(panel.xaxis)
        panel.set_yticks(range(len(targets)), [target["label"] for target in targets])
        panel.set_ylim(-0.6, len(targets) - 0.4)
        panel.grid(axis="y", visible=False)
        panel.set_xlabel("latency (µs)")
    figure.suptitle("Latency, one request at a time (lower is better)", fontsize=11, fontweight="bold")
    handles = [
        Line2D([], [], color=GREY, marker=marker, linestyle="none", markeredgewidth=1.6, label=label)
        for marker, label in (("o", "median"), ("|", "99 %"), ("D", "99.9 %"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    save(figure, path)


def copies(copy: dict[str, Any], path: Path) -> None:
    """Milliseconds of each way to copy: a column for each place, a marker for each size."""
    places = list(dict.fromkeys(row["place"] for row in copy["rows"]))
    sizes = sorted({row["size"] for row in copy["rows"]})
    ways = [way for way in WAYS if any(way in row["seconds"] for row in copy["rows"])][::-1]
    figure = Figure(figsize=(max(7, 3.4 + 1.9 * len(places)), 1.9 + 0.27 * len(ways)), layout="constrained")
    axes = figure.subplots(1, len(places), sharex=True, sharey=True, squeeze=False)[0]
    for panel, name in zip(axes, places, strict=True):
        panel.set_title(name)
        for row in copy["rows"]:
            if row["place"] != name:
                continue
            largest = row["size"] == sizes[-1]
            for line, way in enumerate(ways):
                if way not in row["seconds"]:
                    continue
                value = spread([seconds * 1000 for seconds in row["seconds"][way]])
                colour = GREY if way.startswith("host ") else VERMILION if way in ("read+write", "buffered") else BLUE
                panel.plot([value.low, value.high], [line, line], color=colour, linewidth=1, alpha=0.6)
                panel.plot(
                    [value.median],
                    [line],
                    marker="o" if largest else "D",
                    markersize=6 if largest else 5,
                    # Where both meet, the hollow one stays visible.
                    zorder=2 if largest else 3,
                    color=colour,
                    markerfacecolor=colour if largest else "white",
                )
        logarithmic(panel.xaxis)
        panel.set_yticks(range(len(ways)), [WAYS[way] for way in ways])
        panel.set_ylim(-0.6, len(ways) - 0.4)
        panel.set_xlabel("time (ms)")
        panel.xaxis.set_minor_locator(NullLocator())
    figure.suptitle("Copy of a whole zone (lower is better)", fontsize=11, fontweight="bold")
    handles = [
        Line2D(
            [],
            [],
            color="black",
            linestyle="none",
            marker="o" if size == sizes[-1] else "D",
            markerfacecolor="black" if size == sizes[-1] else "white",
            label=f"{size // MIB:,} MiB",
        )
        for size in sizes
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    save(figure, path)


def scale(section: dict[str, Any], path: Path) -> None:
    """Time and memory for each zone over the number of zones: a flat line is linear growth."""
    smallest, *rows = section["rows"]
    zones = [row["zones"] for row in rows]
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    looks = zip((BLUE, SKY, VERMILION, ORANGE, GREEN, GREY, PURPLE), "osD^vPX", strict=True)
    for step, (colour, marker) in zip(STEPS, looks, strict=True):
        values = [per_zone(row, smallest, step) for row in rows]
        # Below the fixed costs there is nothing but noise, and no logarithm.
        points = [(x, value) for x, value in zip(zones, values, strict=True) if value > 0]
        left.plot([x for x, _ in points], [y for _, y in points], color=colour, marker=marker, markersize=5, label=step)
    left.set_title("time for each zone")
    left.set_ylabel("time for each zone (µs)")
    logarithmic(left.yaxis, (1, 2, 5))
    left.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    memory = [memory_per_zone(row, smallest) for row in rows]
    right.plot(zones, memory, color=BLUE, marker="o", markersize=5)
    right.set_title("memory of the daemon for each zone, after ls -l")
    right.set_ylabel("memory for each zone (bytes)")
    right.set_ylim(0, max([*memory, 1]) * 1.15)
    right.yaxis.set_major_formatter(FuncFormatter(short))
    for panel in (left, right):
        logarithmic(panel.xaxis)
        panel.set_xticks(zones, [f"{number:,}" for number in zones])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel("zones of the device")
    figure.suptitle("Many zones: a flat line is linear growth (lower is better)", fontsize=11, fontweight="bold")
    save(figure, path)


def draw(result: dict[str, Any], directory: Path) -> None:
    """Draw all plots that *result* has figures for."""
    with matplotlib.rc_context(SETTINGS):
        if "io" in result:
            for engine in dict.fromkeys(cell["engine"] for cell in result["io"]["cells"]):
                throughput(result["io"], engine, directory / f"io-{engine}.svg")
            latency(result["io"], directory / "latency.svg")
        if "copy" in result:
            copies(result["copy"], directory / "copies.svg")
        if "scale" in result:
            scale(result["scale"], directory / "scale.svg")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
