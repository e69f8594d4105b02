"""The end of a log that somebody else writes: raw for a parser, cleaned for a person."""

from __future__ import annotations

import re
from pathlib import Path

_TAIL_BYTES = 16384
# Colours and cursor movements (ECMA-48 control sequences).
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def read_end(path: Path, *, size: int) -> str:
    """The last `size` bytes of a file as text; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, without what a terminal would act on; empty where there is none."""
    return "\n".join(cleaned(read_end(path, size=_TAIL_BYTES)).splitlines()[-lines:])


def cleaned(text: str) -> str:
    """Text without what a terminal would act on; a guest may have printed anything."""
    plain = _CONTROL_SEQUENCE.sub("", text)
    return "".join(char for char in plain if char in "\n\t" or char.isprintable())
