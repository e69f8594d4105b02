"""Tables on standard output: aligned columns for people."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows with their columns aligned; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(seconds: float) -> str:
    """A time since the epoch, as this computer's clocks show it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def age(since: float) -> str:
    """How long ago a time since the epoch was, in its largest unit: `3h`."""
    seconds = max(0.0, time.time() - since)
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"
