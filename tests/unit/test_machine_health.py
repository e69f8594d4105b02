"""What ended a machine: every event and exit code has its sentence, error and exit code."""

from __future__ import annotations

import pytest

from vmrunner.errors import BootCrashed, BootError, GuestLost, GuestPanicked, exit_code_of
from vmrunner.machine.health import Demise, demise_by_events, demise_by_exit, halt_by_events
from vmrunner.machine.monitor import MachineEvent


def shutdown(reason: str) -> MachineEvent:
    return MachineEvent("SHUTDOWN", {"guest": reason.startswith("guest"), "reason": reason})


@pytest.mark.parametrize(
    ("event", "sentence", "panicked"),
    [
        (MachineEvent("GUEST_PANICKED", {"action": "pause"}), "the guest's kernel panicked", True),
        (shutdown("guest-panic"), "the guest's kernel panicked", True),
        (shutdown("guest-shutdown"), "the guest shut itself down", False),
        (shutdown("guest-reset"), "the guest rebooted itself", False),
        (shutdown("host-signal"), "QEMU was told to end by a signal from outside", False),
        (shutdown("host-qmp-quit"), "QEMU was told to quit from outside", False),
        (shutdown("something-new"), "the machine shut down (something-new)", False),
        (MachineEvent("SHUTDOWN", {}), "the machine shut down (unknown)", False),
        (MachineEvent("WATCHDOG", {"action": "pause"}), "the guest hung and its watchdog fired", False),
    ],
)
def test_events(event: MachineEvent, sentence: str, panicked: bool) -> None:
    found = demise_by_events([event])
    assert found == Demise(sentence, panicked, crashed=sentence == "the guest rebooted itself")


def test_other_events_say_nothing() -> None:
    assert demise_by_events([]) is None
    quiet = [MachineEvent(name, {}) for name in ("RESUME", "STOP", "NIC_RX_FILTER_CHANGED", "RTC_CHANGE")]
    assert demise_by_events(quiet) is None


def test_the_first_event_that_says_anything_counts() -> None:
    found = demise_by_events(
        [MachineEvent("RESUME", {}), MachineEvent("GUEST_PANICKED", {}), shutdown("host-signal")]
    )
    assert found is not None
    assert found.panicked


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (0, "QEMU ended with exit code 0"),
        (1, "QEMU ended with exit code 1"),
        (-9, "QEMU was killed by SIGKILL (out of memory on this host?)"),
        (-11, "QEMU was killed by SIGSEGV"),
        (-6, "QEMU was killed by SIGABRT"),
        (-99, "QEMU was killed by 99"),
    ],
)
def test_exit_codes(code: int, sentence: str) -> None:
    assert demise_by_exit(code) == Demise(sentence, crashed=code in {-6, -11})


@pytest.mark.parametrize(
    ("demise", "booting", "kind", "code", "message"),
    [
        (Demise("it ended"), True, BootError, 22, "it ended while it booted"),
        (Demise("it ended"), False, GuestLost, 23, "it ended in the middle of the run"),
        (Demise("it fell", crashed=True), True, BootCrashed, 22, "it fell while it booted"),
        (Demise("it panicked", panicked=True), True, BootCrashed, 22, "it panicked while it booted"),
        (Demise("it panicked", panicked=True), False, GuestPanicked, 23, "it panicked"),
    ],
)
def test_the_error_depends_on_how_far_the_guest_was(
    demise: Demise, booting: bool, kind: type, code: int, message: str
) -> None:
    error = demise.as_error(booting=booting, serial_tail="")
    assert type(error) is kind
    assert exit_code_of(error) == code
    assert error.message == message
    assert error.details is None


def test_a_run_that_was_under_way_gets_a_hint() -> None:
    assert Demise("x").as_error(booting=False, serial_tail="").hint == "did a test do that?"
    hint = Demise("x", panicked=True).as_error(booting=False, serial_tail="").hint
    assert hint is not None
    assert "a test crashed the guest's kernel" in hint


@pytest.mark.parametrize("booting", [True, False])
@pytest.mark.parametrize(
    ("demise", "named"),
    [
        (Demise("x", panicked=True), True),
        (Demise("x", crashed=True), True),
        (Demise("the guest shut itself down"), False),
    ],
)
def test_a_qemu_that_breaks_guests_is_named_where_that_may_be_it(
    demise: Demise, named: bool, booting: bool
) -> None:
    sound = demise.as_error(booting=booting, serial_tail="").hint or ""
    assert "this QEMU has a defect" not in sound
    hint = demise.as_error(booting=booting, serial_tail="", defective=True).hint or ""
    assert hint.startswith(sound)
    assert ("this QEMU has a defect" in hint) is named
    assert ("QEMU 8.1" in hint) is named


@pytest.mark.parametrize("booting", [True, False])
def test_the_end_of_the_serial_log_is_in_the_details(booting: bool) -> None:
    error = Demise("x").as_error(booting=booting, serial_tail="Kernel panic - not syncing\n---[ end ]---")
    assert error.details == "last lines of the serial console:\nKernel panic - not syncing\n---[ end ]---"


def test_a_long_panic_is_shown_from_its_beginning() -> None:
    trace = "".join(f"[ 1.{number}]  frame {number}\n" for number in range(100))
    console = f"before\n[ 1.0] Kernel panic - not syncing: sysrq triggered crash\n{trace}"
    demise = demise_by_events([MachineEvent("GUEST_PANICKED", {})])
    assert demise is not None
    details = demise.as_error(booting=False, serial_tail=console).details
    assert details is not None
    assert details.splitlines()[1] == "[ 1.0] Kernel panic - not syncing: sysrq triggered crash"
    assert len(details.splitlines()) == 41


def test_of_a_long_console_the_end_is_shown() -> None:
    demise = demise_by_events([MachineEvent("SHUTDOWN", {"reason": "guest-reset"})])
    assert demise is not None
    details = demise.as_error(booting=False, serial_tail="".join(f"{n}\n" for n in range(100))).details
    assert details is not None
    assert details.splitlines()[1:] == [str(n) for n in range(60, 100)]


@pytest.mark.parametrize(("booting", "kind"), [(True, BootCrashed), (False, GuestPanicked)])
def test_a_kernel_that_panics_before_its_driver_for_that_only_reboots(booting: bool, kind: type) -> None:
    found = demise_by_events([shutdown("guest-reset")])
    assert found is not None
    console = "Freeing memory\nKernel panic - not syncing: No working init found.\nRebooting in 1 seconds.."
    error = found.as_error(booting=booting, serial_tail=console)
    assert type(error) is kind
    assert error.message.startswith("the guest's kernel panicked")
    assert "No working init found" in (error.details or "")
    plain = found.as_error(booting=booting, serial_tail="Freeing memory\nRestarting system")
    assert plain.message.startswith("the guest rebooted itself")


def test_a_shutdown_is_one_whatever_the_console_says() -> None:
    found = demise_by_events([shutdown("guest-shutdown")])
    assert found is not None
    error = found.as_error(booting=False, serial_tail="a test printed: Kernel panic")
    assert error.message == "the guest shut itself down in the middle of the run"


def disk_error(**fields: object) -> MachineEvent:
    told = {"device": "", "operation": "write", "action": "stop", "nospace": True, "reason": "No space left"}
    return MachineEvent("BLOCK_IO_ERROR", told | fields)


def test_a_guest_that_qemu_stopped_for_want_of_room() -> None:
    error = halt_by_events(
        [MachineEvent("RESUME", {}), disk_error(), MachineEvent("STOP", {})], way_out="free"
    )
    assert error is not None
    assert exit_code_of(error) == 20
    assert "no room on this computer for what the guest writes" in error.message
    assert error.hint == "free"
    other = halt_by_events([disk_error(nospace=False, reason="Input/output error")], way_out="")
    assert other is not None
    assert "failed to write the guest's disk (Input/output error)" in other.message


@pytest.mark.parametrize(
    "events",
    [
        [],
        [MachineEvent("STOP", {})],
        # The guest was told, as QEMU does with what is not a matter of room.
        [disk_error(action="report")],
        [disk_error(), MachineEvent("STOP", {}), MachineEvent("RESUME", {})],
    ],
)
def test_a_guest_that_runs_or_was_stopped_by_somebody_is_not_halted(events: list[MachineEvent]) -> None:
    assert halt_by_events(events, way_out="") is None
