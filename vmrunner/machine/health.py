"""Tell from QEMU's events and its process whether a machine is still alive, and if not, what ended or stopped it."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass

from vmrunner.errors import BootCrashed, BootError, GuestHalted, GuestLost, GuestPanicked, VmrunnerError
from vmrunner.host.qemu import SEVERAL_CPUS_DEFECT
from vmrunner.machine.monitor import MachineEvent

_PANIC_LINE = "Kernel panic"
_PANICKED = "the guest's kernel panicked"
_REBOOTED = "the guest rebooted itself"
_SHOWN_LINES = 40
_CRASHES = {signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
_HARMLESS_WATCHDOG_ACTIONS = {"none", "debug", "inject-nmi"}
_SHUTDOWN_SENTENCES = {
    "guest-shutdown": "the guest shut itself down",
    "guest-reset": _REBOOTED,
    "guest-panic": _PANICKED,
    "host-signal": "QEMU was told to end by a signal from outside",
    "host-qmp-quit": "QEMU was told to quit from outside",
}


@dataclass(frozen=True)
class Demise:
    """How a machine ended: a sentence, and whether it was a kernel panic, or something else that broke by itself."""

    sentence: str
    panicked: bool = False
    crashed: bool = False

    def as_error(self, *, booting: bool, serial_tail: str, defective: bool = False) -> VmrunnerError:
        """The error for it: a BootError while the guest was still coming up, a GuestError afterwards.

        Of a long `serial_tail` the telling part is kept: from a panic on its beginning, else the end. A kernel that panics
        before it has its driver for that (pvpanic) reboots without a word to QEMU, so that the console alone tells.
        `defective`: the QEMU is one that does such things by itself (`MachinePlan.may_break_booting`).
        """
        if self.sentence == _REBOOTED and _PANIC_LINE in serial_tail:
            return Demise(_PANICKED, panicked=True).as_error(
                booting=booting, serial_tail=serial_tail, defective=defective
            )
        shown = _telling_part(serial_tail)
        details = f"last lines of the serial console:\n{shown}" if shown else None
        broke = self.panicked or self.crashed
        why = SEVERAL_CPUS_DEFECT if defective and broke else None
        if booting:
            kind = BootCrashed if broke else BootError
            return kind(f"{self.sentence} while it booted", hint=why, details=details)
        if self.panicked:
            hint = _either("a test crashed the guest's kernel; see the log", why)
            return GuestPanicked(self.sentence, hint=hint, details=details)
        return GuestLost(
            f"{self.sentence} in the middle of the run",
            hint=_either("did a test do that?", why),
            details=details,
        )


def _either(likely: str, why: str | None) -> str:
    return f"{likely}; or {why}" if why else likely


def _telling_part(serial_tail: str) -> str:
    lines = serial_tail.splitlines()
    for number, line in enumerate(lines):
        if _PANIC_LINE in line:
            return "\n".join(lines[number : number + _SHOWN_LINES])
    return "\n".join(lines[-_SHOWN_LINES:])


def demise_by_events(events: Iterable[MachineEvent]) -> Demise | None:
    """What QEMU's events say about the machine's end; the first that says anything counts."""
    for event in events:
        if event.name == "GUEST_PANICKED":
            return Demise(_PANICKED, panicked=True)
        if event.name == "SHUTDOWN":
            reason = str(event.data.get("reason", "unknown"))
            sentence = _SHUTDOWN_SENTENCES.get(reason, f"the machine shut down ({reason})")
            return Demise(sentence, panicked=reason == "guest-panic", crashed=reason == "guest-reset")
        if event.name == "WATCHDOG" and event.data.get("action") not in _HARMLESS_WATCHDOG_ACTIONS:
            return Demise("the guest hung and its watchdog fired")
    return None


def halt_by_events(events: Iterable[MachineEvent], *, way_out: str) -> GuestHalted | None:
    """Why QEMU has stopped the guest and not let it go on since: this host's disk did not take or give what it should.

    QEMU does so by itself where there is no room left (the default of `werror`); what the guest asked for is done when it
    goes on, so it sees nothing of it.
    """
    error: GuestHalted | None = None
    for event in events:
        if event.name == "RESUME":
            error = None
        if event.name == "BLOCK_IO_ERROR" and event.data.get("action") == "stop":
            error = GuestHalted(_halted(event), hint=way_out)
    return error


def _halted(event: MachineEvent) -> str:
    if event.data.get("nospace"):
        return (
            "there is no room on this computer for what the guest writes to its disk, so QEMU has stopped it"
        )
    return f"this computer failed to {event.data.get('operation')} the guest's disk ({event.data.get('reason')}), so QEMU has stopped it"


def demise_by_exit(code: int | None) -> Demise:
    """What the exit code of a QEMU that said nothing before means; None: it was not our child to ask."""
    if code is None:
        return Demise("QEMU is gone")
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return Demise(
            f"QEMU was killed by {name}" + (" (out of memory on this host?)" if name == "SIGKILL" else ""),
            crashed=-code in _CRASHES,
        )
    return Demise(f"QEMU ended with exit code {code}")
