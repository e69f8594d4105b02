"""Markdown tables, and the computer they were made on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, align: str = "") -> str:
    """A Markdown table; `align` has an `r` for each column of numbers, the others are flushed left."""
    rules = ["---:" if side == "r" else "---" for side in align.ljust(len(header), "l")]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (header, rules, *rows))


def spread_table(series: Mapping[str, Sequence[float]]) -> str:
    """Least, median and greatest of each series of seconds."""
    rows = [
        (name, *(f"{figure:.2f}" for figure in (min(values), statistics.median(values), max(values))))
        for name, values in series.items()
        if values
    ]
    return markdown_table(("what", "min", "median", "max"), rows, align="lrrr")


def host(*, cpuinfo: Path = _CPUINFO) -> str:
    """This computer in a few words: distribution, kernel, processor."""
    model = "unknown processor"
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    cpus = len(os.sched_getaffinity(0))
    return f"{distribution}, Linux {platform.release()}, {cpus} CPUs of {model}"
