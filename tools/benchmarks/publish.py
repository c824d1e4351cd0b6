"""``--publish``: put a result into the documents, between markers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tools.benchmarks import tables
from tools.benchmarks.common import ROOT, BenchError
from tools.benchmarks.goals import outcomes

SCHEMA = "zonefs-py/bench"
VERSION = 3
PLOTS = {
    "io": {
        "io-sync.svg": "Throughput by block size, one request at a time: raw file, zonefs-py and peers",
        "io-libaio.svg": "Throughput by block size, 16 requests in flight: raw file, zonefs-py and peers",
        "latency.svg": "Latency of 4 KiB requests: median, 99th and 99.9th percentile",
    },
    "copy": {"copies.svg": "Time that a copy of a zone takes, by engine and file system"},
    "scale": {"scale.svg": "Time and memory for each zone, by number of zones"},
}
"""Plots of each section, and what they show to those who cannot see them."""
KERNEL_DIRECTORY = "kernel"
"""Where, below a result, lies that of a machine with kernel zonefs as the peer."""


def load(directory: Path) -> dict[str, Any]:
    """Read ``bench.json`` of *directory*. Raises BenchError."""
    path = directory / "bench.json"
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise BenchError(
            f"{path} does not exist; measure first, or name the directory of a result with --out"
        ) from None
    except ValueError as exc:
        raise BenchError(f"{path}: {exc}") from None
    if result.get("schema") != SCHEMA or result.get("version") != VERSION:
        raise BenchError(f"{path} is not a result of this version of tools/bench")
    return result


def replace_section(text: str, name: str, lines: list[str]) -> str:
    """Return *text* with *lines* between the markers of *name*. Raises BenchError unless it has both, once each."""
    begin, end = f"<!-- bench:{name} begin -->\n", f"<!-- bench:{name} end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended or begin in after or end in before:
        raise BenchError(f"the markers of bench:{name} are missing, out of order, or there twice")
    return before + begin + "\n".join(lines) + "\n" + end + after


def sections(result: dict[str, Any], images: str) -> dict[str, list[str]]:
    """The sections of docs/performance.md that *result* can fill; *images* is the directory of the plots."""
    found = {"machine": tables.machine_lines(result), "goals": tables.goal_lines(outcomes(result))}
    renderers = {"io": tables.io_lines, "copy": tables.copy_lines, "scale": tables.scale_lines}
    for name, render in renderers.items():
        if name in result:
            plots = [f"![{text}]({images}/{file})" for file, text in PLOTS[name].items()]
            found[name] = [*"\n\n".join(plots).splitlines(), "", *render(result[name])]
    return found


def publish(out: Path, root: Path = ROOT) -> list[Path]:
    """Put the result in *out* into README.md and docs/performance.md, and its plots into docs/images.

    Returns what was written. Raises BenchError, with nothing changed, if anything is missing.
    """
    result = load(out)
    page, readme, images = root / "docs/performance.md", root / "README.md", root / "docs/images"
    texts = {page: page.read_text(), readme: readme.read_text()}
    plots = [out / file for name in PLOTS if name in result for file in PLOTS[name]]
    for plot in plots:
        if not plot.exists():
            raise BenchError(f"{plot} does not exist: the result is partial, or made without matplotlib")
    for name, lines in sections(result, "images").items():
        texts[page] = replace_section(texts[page], name, lines)
    if "io" in result:
        lines = [*tables.headline_lines(result["io"]), "", *tables.machine_lines(result, left_out=False)]
        texts[readme] = replace_section(texts[readme], "headline", lines)
    kernel = out / KERNEL_DIRECTORY
    if (kernel / "bench.json").exists():
        beside = load(kernel)
        lines = [*tables.machine_lines(beside), "", *tables.io_lines(beside["io"])]
        texts[page] = replace_section(texts[page], "kernel", lines)
    images.mkdir(exist_ok=True)
    for plot in plots:
        shutil.copyfile(plot, images / plot.name)
    for path, text in texts.items():
        path.write_text(text)
    return [page, readme, *(images / plot.name for plot in plots)]
