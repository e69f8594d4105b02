"""The accelerator probe: a tiny ROM that QEMU must bring through 64-bit mode, as proof that a guest can run.

That /dev/kvm opens proves little. Where KVM is software (the module kvm_pvm of some cloud machines), virtual
processors are made and then stop at the first instruction nobody emulates; elsewhere `-cpu host` makes QEMU
abort on a register (MSR) the kernel refuses. Only code that ran to its end shows that code runs.
"""

from __future__ import annotations

import base64
import re
import signal
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from vmrunner.errors import RunTimeout
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command
from vmrunner.host.qemu import Qemu

Kind = Literal["kvm", "tcg"]

PROBE_SECONDS = 2.0
"""How long one probe may take; about 0.1 s where the accelerator works."""

PROVEN_EXIT_CODE = 33
"""What isa-debug-exit makes of the 0x10 that the ROM writes last: `(value << 1) | 1`."""

_HOPELESS = "KVM internal error"
_KEPT_LINES = 20

_STAGES = {
    "": "before the first instruction",
    "1": "in real mode",
    "2": "in 32-bit mode",
    "3": "in 64-bit mode, at the first SSE instructions",
    "4": "at an exception in 64-bit mode",
    "5": "at the end",
}
"""Where the guest was, by the last digit it wrote to the debug port."""

_ROM_SIZE = 0x10000
_RESET_VECTOR = 0xFFF0
_JUMP_TO_START = b"\xe9\x0d\x00"
_CODE = base64.b64decode(
    "+rAx5ukuZg8BFngBDyDAZoPIAQ8iwGbqHgD//wgAZrgQAI7YjsCO0LwAgAAAsDLm6b8AEAAAMcC5ABQAAPzzq8cFABAAAAMgAADHBQAg"
    "AAADMAAAxwUYIAAAA0AAAMcFADAAAIMAAADHBfhPAACDAOD/DyDgDSAGAAAPIuC4ABAAAA8i2LmAAADADzINAQEAAA8wDyDADQIAAICD"
    "4PsPIsDqqAD//xgAsDPm6Ui48N68mnhWNBJmSA9uwGZID37DSDnDD4WJAAAAuUBCDwDw/wQlAHAAAOL2sDTm6bhFAf//ZokEJTBgAABm"
    "xwQlMmAAABgAZscEJTRgAAAAjsHoEGaJBCU2YAAAxwQlOGAAAAAAAABmxwQl8F8AAP8BSMcEJfJfAAAAYAAADwEcJfBfAADMgzwlEHAA"
    "AHd1FrA15umwEOb09McEJRBwAAB3AAAASM+wEeb09JAAAAAAAAAAAP//AAAAm88A//8AAACTzwD//wAAAJuvAB8AWAH//w=="
)


@dataclass(frozen=True)
class Attempt:
    """One probe: what was tried, whether it is proven to work, how long it took, what was seen (for people)."""

    kind: Kind
    cpu_model: str
    works: bool
    seconds: float
    saw: str


class _GuestStuckError(Exception):
    """QEMU said that the guest will never go on."""


@cache
def probe_rom() -> bytes:
    """The 64 KiB ROM: it maps just below 4 GiB, its last 16 bytes are where an x86 processor starts.

    The code writes a digit to the debug port (0xe9) at each stage: `1` real mode; `2` 32-bit mode with a GDT;
    page tables of 2 MiB pages, PAE, long mode; `3` 64-bit mode; a value through an SSE register and back, one
    million `lock inc` of a word in memory; `4`, an IDT, `int3`, its handler and `iretq`; `5`. Then it writes
    0x10 to isa-debug-exit, or 0x11 where a value came out wrong. It needs no firmware, disk or interrupt.
    """
    rom = bytearray(_ROM_SIZE)
    rom[: len(_CODE)] = _CODE
    rom[_RESET_VECTOR : _RESET_VECTOR + len(_JUMP_TO_START)] = _JUMP_TO_START
    return bytes(rom)


def run_probe(qemu: Qemu, kind: Kind, cpu_model: str, *, deadline: Deadline) -> Attempt:
    """Start QEMU once on the probe's ROM and tell what happened; its process is gone on return.

    Takes PROBE_SECONDS at most. Raises RunTimeout only where `deadline` passed, HostError where QEMU does not
    start at all.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vmrunner-probe-") as name:
        directory = Path(name)  # also QEMU's working directory: an abort may leave a core file there
        (directory / "rom.bin").write_bytes(probe_rom())
        errors: deque[str] = deque(maxlen=_KEPT_LINES)
        code = _run(_arguments(qemu, kind, cpu_model), directory, errors, deadline)
        stages = directory / "stages"
        digits = stages.read_text(errors="replace") if stages.exists() else ""
    works = code == PROVEN_EXIT_CODE
    seconds = time.monotonic() - began
    return Attempt(kind, cpu_model, works, round(seconds, 3), _describe(code, digits, errors))


def _arguments(qemu: Qemu, kind: Kind, cpu_model: str) -> list[str | Path]:
    return [
        *("setpriv", "--pdeathsig", "KILL", qemu.path),  # a stuck guest must not outlive a killed vmrunner
        *("-M", "q35", "-accel", kind, "-cpu", cpu_model, "-m", "16"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-bios", "rom.bin"),
        *("-debugcon", "file:stages", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
    ]


def _run(argv: list[str | Path], directory: Path, errors: deque[str], deadline: Deadline) -> int | None:
    """QEMU's exit code; None where it had to be killed."""

    def watch(line: str) -> None:
        errors.append(line)
        if _HOPELESS in line:
            raise _GuestStuckError

    limit = deadline.within(PROBE_SECONDS)
    try:
        return run_command(
            argv,
            deadline=limit,
            check=False,
            cwd=directory,
            on_line=watch,
            stop_grace=0,
            hint="sudo apt install util-linux",
        ).code
    except _GuestStuckError:
        return None
    except RunTimeout:
        if deadline.passed:
            raise
        return None


def _describe(code: int | None, digits: str, errors: deque[str]) -> str:
    """What was seen, in one sentence without a full stop."""
    if code == PROVEN_EXIT_CODE:
        return "a test guest ran through real, 32-bit and 64-bit mode, SSE and an exception"
    where = _STAGES.get(digits[-1:], f"after writing {digits!r}")
    said = _telling_line(errors)
    if code is None:
        what = f"the guest stopped {where}" if said else f"the guest hung {where} for {PROBE_SECONDS:g} s"
    elif code < 0:
        what = f"QEMU died of {signal.Signals(-code).name} with the guest {where}"
    elif digits:
        what = f"QEMU ended with exit code {code} with the guest {where}"
    else:
        what = f"QEMU refused with exit code {code}"
    return f"{what}: {said}" if said else what


def _telling_line(errors: deque[str]) -> str:
    """The line of QEMU's standard error that explains most: KVM's own, an error, or else the last one."""
    lines = [re.sub(r"^qemu-system-\w+: ", "", line.strip()) for line in errors]
    for sign in (_HOPELESS, "error:", "failed"):
        for line in lines:
            if sign in line:
                return line
    return lines[-1] if lines else ""
