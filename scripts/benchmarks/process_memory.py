"""How much memory of the host one process takes for itself, and with others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import NotMeasured

_PROC = Path("/proc")
_FIELD = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes. `private` is in no other process; `proportional` adds to each shared page the process's part of it."""

    private: int
    proportional: int


def process_memory(pid: int, *, proc: Path = _PROC) -> ProcessMemory:
    """What the kernel sums up for the process `pid` (proc(5), `smaps_rollup`).

    A page of a file counts as private as long as no other process has it mapped: what one more machine of a template
    costs shows only beside a machine that has touched the same pages.

    Raises NotMeasured where there is no such process, or it is somebody else's.
    """
    path = proc / str(pid) / "smaps_rollup"
    try:
        fields = {name: int(kibibytes) << 10 for name, kibibytes in _FIELD.findall(path.read_text())}
    except OSError as error:
        raise NotMeasured(f"{path} cannot be read: {error.strerror}") from error
    try:
        return ProcessMemory(fields["Private_Clean"] + fields["Private_Dirty"], fields["Pss"])
    except KeyError as error:
        raise NotMeasured(f"{path} has no line {error}") from error
