"""What limits of a run are written as: the phases that can have one."""

from __future__ import annotations

import difflib
from typing import Final

PHASES: Final = (
    "image", "build", "archive", "extract", "stage", "template", "start", "connect", "mount", "unit", "collect",
)  # fmt: skip
"""The phases of a test run that can have a limit, as they are named in its output and in report.json.

Those that are not here end by themselves: probing for an accelerator and stopping the machine.
"""


def phase_name(value: str) -> str:
    """The name of a phase. Raises ValueError with the one that was meant, or all."""
    name = value.strip()
    if name not in PHASES:
        near = difflib.get_close_matches(name, PHASES, n=1)
        meant = f"did you mean {near[0]}?" if near else f"want one of {', '.join(PHASES)}"
        raise ValueError(f"not a phase of a test run: {value!r} ({meant})")
    return name
