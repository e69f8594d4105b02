"""A whole machine, with a program in QEMU's place that speaks QMP: opening, watching and stopping it."""

from __future__ import annotations

import contextlib
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fake_qmp import write_fake_qemu
from sample_plans import sample_plan

from vmrunner.config.units import Size
from vmrunner.errors import (
    BootError,
    BootTimeout,
    GuestLost,
    GuestPanicked,
    HostError,
    ImageError,
    QemuExited,
    exit_code_of,
)
from vmrunner.guest.key import make_login_key
from vmrunner.host.deadline import Deadline
from vmrunner.machine.machine import Machine, MachineState, open_machine
from vmrunner.machine.plan import RootDisk

KEY = make_login_key()
PANICS = 'serve(stop=EventThen("GUEST_PANICKED", {"action": "pause"}, {}))'


@contextlib.contextmanager
def machine(directory: Path, body: str = "serve()") -> Iterator[Machine]:
    """A machine over a fake QEMU with this body."""
    plan = sample_plan(
        qemu=write_fake_qemu(directory, body),
        disk=RootDisk(directory / "overlay.qcow2", directory / "root.img", "raw", Size.parse("8G")),
        serial_log=directory / "serial.log",
    )
    with open_machine(
        plan, login_key=KEY, qemu_log=directory / "qemu.log", deadline=Deadline.after(10)
    ) as live:
        yield live


def eventually_dead(live: Machine) -> None:
    """Ask until the machine is found dead; what says so is raised."""
    patience = Deadline.after(5)
    while patience.pause(0.005):
        live.check_alive()


def test_a_machine_lives_while_its_block_runs(tmp_path: Path) -> None:
    with machine(tmp_path) as live:
        states = [live.state]
        assert live.ssh_port == 40123
        assert psutil.pid_exists(live.pid)
        live.check_alive()
        assert stat.S_IMODE((tmp_path / "overlay.qcow2").stat().st_mode) == 0o600
    assert [*states, live.state] == [MachineState.STARTED, MachineState.STOPPED]
    assert not psutil.pid_exists(live.pid)


def test_stopping_is_quick_where_qemu_quits_and_may_be_repeated(tmp_path: Path) -> None:
    with machine(tmp_path) as live:
        began = time.monotonic()
        live.stop()
        live.stop()
        assert time.monotonic() - began < 5
        assert not psutil.pid_exists(live.pid)


def test_it_is_stopped_when_the_block_fails(tmp_path: Path) -> None:
    pids = []

    def fail() -> None:
        with machine(tmp_path) as live:
            pids.append(live.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not psutil.pid_exists(pids[0])


def test_qemu_that_dies_at_once_says_why(tmp_path: Path) -> None:
    body = 'print("qemu-system-x86_64: -m: bad size", flush=True); sys.exit(1)'
    with pytest.raises(QemuExited) as caught, machine(tmp_path, body):
        pass
    error = caught.value
    assert error.message == "QEMU exited with code 1 before the machine started"
    assert exit_code_of(error) == 22
    assert error.details is not None
    assert "-nodefaults" in error.details
    assert error.details.endswith("qemu-system-x86_64: -m: bad size")


def test_a_network_without_the_forward_is_the_hosts_fault(tmp_path: Path) -> None:
    body = "serve(human_monitor_command=\"unknown command: 'info usernet'\")"
    with (
        pytest.raises(HostError, match="no forward to the guest's SSH port") as caught,
        machine(tmp_path, body),
    ):
        pass
    assert exit_code_of(caught.value) == 20
    assert caught.value.details == "unknown command: 'info usernet'"
    assert "slirp" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("state", "kind"), [(MachineState.STARTED, BootError), (MachineState.READY, GuestPanicked)]
)
def test_a_panic_is_found_with_the_end_of_the_serial_log(
    tmp_path: Path, state: MachineState, kind: type[Exception]
) -> None:
    (tmp_path / "serial.log").write_text("Kernel panic - not syncing: Attempted to kill init!\n")
    with machine(tmp_path, PANICS) as live:
        live.state = state
        live.monitor.execute("stop", deadline=Deadline.after(5))
        with pytest.raises(kind, match="the guest's kernel panicked") as caught:
            eventually_dead(live)
        assert "Attempted to kill init" in str(caught.value.details)  # type: ignore[attr-defined]  # a VmrunnerError


def test_a_killed_qemu_is_found(tmp_path: Path) -> None:
    with machine(tmp_path) as live:
        live.state = MachineState.READY
        psutil.Process(live.pid).kill()
        with pytest.raises(GuestLost, match="QEMU was killed by SIGKILL"):
            eventually_dead(live)


def test_the_last_event_says_more_than_the_exit_code(tmp_path: Path) -> None:
    body = 'serve(stop=EventThen("SHUTDOWN", {"guest": True, "reason": "guest-reset"}, {}), cont=HangUp())'
    with machine(tmp_path, body) as live:
        live.state = MachineState.READY
        live.monitor.execute("stop", deadline=Deadline.after(5))
        with contextlib.suppress(Exception):
            live.monitor.execute("cont", deadline=Deadline.after(5))
        assert live._process.wait(5)
        with pytest.raises(GuestLost, match="the guest rebooted itself in the middle of the run"):
            live.check_alive()


def test_a_guest_that_never_answers_is_a_boot_timeout_with_the_serial_log(tmp_path: Path) -> None:
    (tmp_path / "serial.log").write_text("Booting...\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        usernet = f"Hub -1 (net0):\\n  TCP[HOST_FORWARD]  12 127.0.0.1 {silent.getsockname()[1]} 10.0.2.15 22 0 0\\n"
        with machine(tmp_path, f'serve(human_monitor_command="{usernet}")') as live:
            with pytest.raises(BootTimeout) as caught:
                live.wait_ready(Deadline.after(0.1))
            assert live.state is MachineState.STARTED
    assert exit_code_of(caught.value) == 22
    assert "boot-timeout" in str(caught.value.hint)
    assert caught.value.details == (
        "last seen on the SSH port: nothing\nlast lines of the serial console:\nBooting..."
    )


def test_an_overlay_that_cannot_be_made_names_the_image(tmp_path: Path) -> None:
    plan = sample_plan(
        qemu=write_fake_qemu(tmp_path),
        disk=RootDisk(tmp_path / "overlay.qcow2", tmp_path / "root.img", "raw", Size.parse("8G")),
    )
    (tmp_path / "qemu-img").write_text("#!/bin/sh\necho 'Could not open root.img' >&2; exit 1\n")
    with (
        pytest.raises(ImageError, match="could not be made over") as caught,
        open_machine(plan, login_key=KEY, qemu_log=tmp_path / "log", deadline=Deadline.after(5)),
    ):
        pass
    assert str(tmp_path / "root.img") in caught.value.message
    assert "Could not open root.img" in str(caught.value.details)
    assert exit_code_of(caught.value) == 21
