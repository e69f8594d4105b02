"""From what systemd says of the unit to nextest's verdict, or to the error that says why there is none."""

from __future__ import annotations

import signal

from vmrunner.config.units import Size
from vmrunner.errors import GuestOutOfMemory, UnitFailed, UsageError
from vmrunner.guest.unit import UNIT, UnitStatus
from vmrunner.nextest import exit_codes


def nextest_exit_code(status: UnitStatus, *, started: bool, log_tail: str, journal: str) -> int:
    """The exit code that nextest gave.

    `started` is whether the run script got as far as starting nextest. Raises GuestOutOfMemory, UnitFailed where the
    unit's end says nothing about the tests, UsageError where nextest did not take its arguments.
    """
    details = _details(status, log_tail, journal)
    if status.load_state != "loaded":
        raise UnitFailed(
            f"the guest has no usable {UNIT} (systemd says: {status.load_state})",
            hint="the image does not keep the guest contract",
            details=details,
        )
    if status.result == "oom-kill":
        peak = f"; its memory peaked at {Size(status.memory_peak).for_people()}" if status.memory_peak else ""
        raise GuestOutOfMemory(
            f"the guest ran out of memory and killed the tests{peak}",
            hint="give the machine more with `--memory`",
            details=details,
        )
    if not started:
        raise UnitFailed(
            f"{UNIT} ended without having run nextest ({_how_it_ended(status)})", details=details
        )
    if status.exited and status.main_status == exit_codes.USAGE_ERROR:
        raise UsageError("nextest did not take its arguments", hint="see what follows `--`", details=log_tail)
    if status.exited and exit_codes.is_published(status.main_status):
        return status.main_status
    raise UnitFailed(f"nextest did not end by itself: {_how_it_ended(status)}", details=details)


def _how_it_ended(status: UnitStatus) -> str:
    if status.main_code == 0:
        return f"its main process never ran; systemd says: {status.result}"
    if status.exited:
        return f"exit code {status.main_status}"
    known = status.main_status in set(signal.Signals)
    name = signal.Signals(status.main_status).name if known else f"signal {status.main_status}"
    return f"killed by {name}"


def _details(status: UnitStatus, log_tail: str, journal: str) -> str:
    parts = [
        f"{UNIT}: ActiveState={status.active_state} Result={status.result}"
        f" ExecMainCode={status.main_code} ExecMainStatus={status.main_status}"
    ]
    if log_tail:
        parts.append(f"last lines of nextest's log:\n{log_tail}")
    if journal:
        parts.append(f"last lines of the unit's journal:\n{journal}")
    return "\n".join(parts)
