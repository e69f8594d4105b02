"""How a word of QEMU's command line is written."""

from __future__ import annotations

from pathlib import Path

from vmrunner.config.units import Size


def option(first: str, **properties: str | Path) -> str:
    """Render `first,key=value,...`, with commas in values doubled as QEMU wants them."""
    return ",".join([first, *(f"{key}={escape(str(value))}" for key, value in properties.items())])


def escape(value: str) -> str:
    """A value in which QEMU sees no separator."""
    return value.replace(",", ",,")


def memory_size(size: Size) -> str:
    """QEMU takes a number without a unit for mebibytes."""
    text = str(size)
    return f"{text}B" if text.isdecimal() else text
