"""Machines that outlive who started them, with a program in QEMU's place that speaks QMP."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fake_qmp import write_fake_qemu
from sample_vms import dead_process, sample_record, use_home

from vmrunner.errors import BootError, GuestHalted, HostError, QemuExited, VmBusy, VmNotRunning, exit_code_of
from vmrunner.guest.key import make_login_key
from vmrunner.host.deadline import Deadline
from vmrunner.host.process_identity import ProcessIdentity, identity_of
from vmrunner.machine import detached
from vmrunner.machine.detached import machine_of, start_detached, wake
from vmrunner.machine.device_state import SavedState
from vmrunner.machine.machine import Machine, MachineState
from vmrunner.machine.plan import MachinePlan
from vmrunner.machine.qemu_process import ForeignQemu
from vmrunner.machine.vm_record import VmRecord

KEY = make_login_key()
LOADS = 'serve(query_migrate={"status": "completed"}, cont={}, getfd={}, migrate_incoming={}, migrate_set_capabilities={})'


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="vm-") as directory:
        use_home(Path(directory), monkeypatch)
        yield Path(directory)


def plan_over(home: Path, body: str = "serve()") -> MachinePlan:
    plan = sample_record().plan
    plan.host_key_file.parent.mkdir(parents=True, exist_ok=True)
    return replace(plan, qemu=write_fake_qemu(home, body), serial_log=home / "serial.log")


def identity(machine: Machine) -> ProcessIdentity:
    found = identity_of(machine.pid)
    assert found
    return found


@contextmanager
def running(home: Path, body: str = "serve()") -> Iterator[VmRecord]:
    """A VM over a fake QEMU with this body, which nobody speaks with any more; it is ended when the block is."""
    plan = plan_over(home, body)
    with start_detached(plan, login_key=KEY, qemu_log=home / "log", deadline=Deadline.after(10)) as machine:
        qemu = identity(machine)
    record = sample_record(process=qemu, wanted="running", plan=plan)
    record.directory.login_key.write_text("a key")
    try:
        yield record
    finally:
        qemu.end(grace=0)


def test_it_runs_on_when_the_block_ends_and_is_found_again(home: Path) -> None:
    with running(home) as record:
        assert record.process is not None
        assert record.process.alive()
        with machine_of(record, deadline=Deadline.after(10)) as machine:
            assert (machine.pid, machine.ssh_port) == (record.process.pid, 40123)
            assert machine.state is MachineState.READY
            machine.check_alive()
        assert record.process.alive()


HALTED = 'query_status={"status": "io-error"}'
FULL = '{"action": "stop", "nospace": True, "operation": "write"}'


def test_a_guest_that_qemu_stopped_for_want_of_room_is_let_go_on(home: Path) -> None:
    with running(home, f'serve({HALTED}, cont=EventThen("RESUME", {{}}, {{}}))') as record:
        wake(record, deadline=Deadline.after(10))


def test_a_guest_for_which_there_still_is_no_room(home: Path) -> None:
    with running(home, f'serve({HALTED}, cont=EventThen("BLOCK_IO_ERROR", {FULL}, {{}}))') as record:
        with pytest.raises(GuestHalted, match="there is no room on this computer") as caught:
            wake(record, deadline=Deadline.after(10))
        assert str(record.plan.disk.overlay.parent) in (caught.value.hint or "")
        assert "any command for the VM lets it go on" in (caught.value.hint or "")


def test_a_guest_that_runs_is_left_alone(home: Path) -> None:
    with running(home, 'serve(cont=HangUp(), query_status={"status": "paused"})') as record:
        wake(record, deadline=Deadline.after(10))


def test_it_has_a_session_of_its_own_and_nobodys_directory(home: Path) -> None:
    with running(home) as record:
        assert record.process is not None
        pid = record.process.pid
        assert os.getsid(pid) == pid
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        assert Path(f"/proc/{pid}/fd/0").readlink() == Path(os.devnull)
        assert {Path(f"/proc/{pid}/fd/{fd}").readlink() for fd in (1, 2)} == {home / "log"}
        assert stat.S_IMODE((home / "log").stat().st_mode) == 0o600


def test_it_is_ended_when_the_block_fails(home: Path) -> None:
    pids = []

    def fail() -> None:
        with start_detached(
            plan_over(home), login_key=KEY, qemu_log=home / "log", deadline=Deadline.after(10)
        ) as machine:
            pids.append(machine.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert identity_of(pids[0]) is None


def test_qemu_that_dies_at_once_says_why_and_its_log_is_kept(home: Path) -> None:
    (home / "log").write_text("from an earlier start\n")
    body = 'print("qemu-system-x86_64: -m: bad size", flush=True); sys.exit(1)'
    with (
        pytest.raises(QemuExited, match="QEMU exited with code 1 before the machine started") as caught,
        start_detached(
            plan_over(home, body), login_key=KEY, qemu_log=home / "log", deadline=Deadline.after(10)
        ),
    ):
        pass
    assert str(caught.value.details).endswith("qemu-system-x86_64: -m: bad size")
    assert (home / "log").read_text().startswith("from an earlier start\n")


def test_qemu_that_cannot_be_started(home: Path) -> None:
    plan = replace(plan_over(home), qemu=home / "missing")
    with (
        pytest.raises(HostError, match="cannot be started") as caught,
        start_detached(plan, login_key=KEY, qemu_log=home / "log", deadline=Deadline.after(5)),
    ):
        pass
    assert exit_code_of(caught.value) == 20


def test_qemu_that_never_listens_is_ended(home: Path) -> None:
    plan = plan_over(home, "import time; time.sleep(60)")
    with (
        pytest.raises(BootError, match="does not answer on its monitor"),
        start_detached(plan, login_key=KEY, qemu_log=home / "log", deadline=Deadline.after(0.3)),
    ):
        pass


def test_sockets_that_a_killed_qemu_left_are_no_obstacle(home: Path) -> None:
    plan = plan_over(home)
    assert plan.long_lived is not None
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(plan.long_lived.monitor_socket))
    with start_detached(plan, login_key=KEY, qemu_log=home / "log", deadline=Deadline.after(10)) as machine:
        qemu = identity(machine)
    qemu.end(grace=0)


def test_a_saved_state_is_loaded_and_the_clock_is_late_by_its_age(home: Path) -> None:
    (home / "saved").write_text("a state")
    saved = SavedState(home / "saved", memory_apart=False, guest_clock=1000.0)
    with start_detached(
        plan_over(home, LOADS), login_key=KEY, qemu_log=home / "log", deadline=Deadline.after(10), saved=saved
    ) as machine:
        assert machine.clock_shift > 1e9
        qemu = identity(machine)
    qemu.end(grace=0)


def test_a_vm_that_does_not_run_has_no_machine() -> None:
    for process in (None, dead_process()):
        with (
            pytest.raises(VmNotRunning, match="the VM `db` does not run") as caught,
            machine_of(sample_record(process=process), deadline=Deadline.after(1)),
        ):
            pass
        assert caught.value.hint == "`vmrunner up db` starts it"


def test_a_monitor_that_is_taken_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(home) as record, machine_of(record, deadline=Deadline.after(20)):
        monkeypatch.setattr(detached, "_CONNECT_SECONDS", 0.3)
        with (
            pytest.raises(VmBusy, match="does not answer on its monitor") as caught,
            machine_of(record, deadline=Deadline.after(10)),
        ):
            pass
        assert "another command" in str(caught.value.hint)
        assert exit_code_of(caught.value) == 20


def test_a_foreign_qemu_tells_what_can_be_known(home: Path) -> None:
    (home / "log").write_text("it hurts\n")
    with running(home) as record:
        assert record.process is not None
        qemu = ForeignQemu(record.process, home / "log")
        assert (qemu.ended, qemu.exit_code, qemu.wait(0)) == (False, None, False)
        qemu.terminate(1)
        assert (qemu.ended, qemu.exit_code, qemu.wait(1)) == (True, None, True)
        error = qemu.exited_error("while it was looked at")
    assert error.message == "QEMU ended while it was looked at"
    assert "it hurts" in str(error.details)
