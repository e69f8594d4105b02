"""The unit in the guest: what systemd says of it, and staying with it through broken connections."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from fake_qemu import write_program
from fake_sshd import FakeSshd, Run, answer, keep_running, running_sshd

from vmrunner.errors import GuestError, GuestLost, RunTimeout, exit_code_of
from vmrunner.guest.ssh import ConnectionLost, Guest
from vmrunner.guest.unit import UnitRun, UnitStatus, journal_of_unit
from vmrunner.host.deadline import Clock, Deadline

ENDED = (
    b"ActiveState=active\nSubState=exited\nLoadState=loaded\nResult=success\n"
    b"ExecMainCode=1\nExecMainStatus=0\nMemoryPeak=123456\n"
)
FAILED = (
    b"ActiveState=failed\nSubState=failed\nLoadState=loaded\nResult=exit-code\n"
    b"ExecMainCode=1\nExecMainStatus=100\nMemoryPeak=4096\n"
)
RUNNING = ENDED.replace(b"ActiveState=active", b"ActiveState=activating")


def soon(seconds: float = 5.0) -> Deadline:
    return Deadline.after(seconds)


@contextlib.contextmanager
def guest_of(sshd: FakeSshd) -> Iterator[Guest]:
    guest = Guest(sshd.endpoint, alive=lambda: None)
    guest.connect(soon())
    try:
        yield guest
    finally:
        guest.close()


def poll_to_the_end(run: UnitRun, patience: Deadline) -> UnitStatus:
    while (status := run.poll()) is None:
        assert patience.pause(0.005)
    return status


def test_what_systemctl_shows() -> None:
    assert UnitStatus.parse(ENDED.decode()) == UnitStatus("active", "loaded", "success", 1, 0, 123456)


@pytest.mark.parametrize(
    ("state", "ended"),
    [("active", True), ("inactive", True), ("failed", True), ("activating", False), ("deactivating", False),
     ("reloading", False), ("unknown", False)],
)  # fmt: skip
def test_which_states_are_an_end(state: str, ended: bool) -> None:
    assert UnitStatus.parse(f"ActiveState={state}").ended is ended


@pytest.mark.parametrize(("code", "exited"), [("0", False), ("1", True), ("2", False), ("3", False)])
def test_only_a_main_process_that_ended_by_itself_exited(code: str, exited: bool) -> None:
    assert UnitStatus.parse(f"ExecMainCode={code}").exited is exited


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "Failed to connect to bus: No such file or directory",
        "=\n==\n=x",
        "ExecMainCode=\nExecMainStatus=-1\nMemoryPeak=[not set]",
        "ExecMainCode=one\nExecMainStatus=0x10\nMemoryPeak=infinity",
        "ExecMainCode=\u00b2\nExecMainStatus=\u2460",
        "\x00\ufffd\x1b[31mExecMainCode\x00=1",
    ],
)
def test_garbage_counts_as_never_run(text: str) -> None:
    assert UnitStatus.parse(text) == UnitStatus("unknown", "unknown", "unknown", 0, 0, None)


def test_a_value_may_hold_an_equals_sign() -> None:
    assert UnitStatus.parse("Result=a=b").result == "a=b"


@pytest.fixture
def computer(tmp_path: Path) -> Path:
    """A directory of programs that stand for a guest's; what they were told is in the file `told` beside it."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def install_systemctl(computer: Path, *, start: int) -> None:
    """A systemctl whose `restart` ends with that code, and whose `show` prints SHOWN."""
    body = f'echo "$1 $2" >>{computer.parent / "told"}\n[ "$1" = show ] && printf %s "$SHOWN"\n'
    write_program(computer / "systemctl", f"{body}[ $1 = show ] || exit {start}")


def in_local_shell(computer: Path) -> Run:
    """Every command is run by this computer's sh, with the programs of `computer` first."""

    def run(command: str, channel: paramiko.Channel) -> None:
        environment = {"PATH": f"{computer}:/usr/bin:/bin", "SHOWN": FAILED.decode()}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
        answer(done.returncode, done.stdout, done.stderr)(command, channel)

    return run


def test_the_unit_is_started_and_shown_by_one_command() -> None:
    with running_sshd(answer(0, ENDED)) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, deadline=soon())
        assert poll_to_the_end(run, soon()) == UnitStatus.parse(ENDED.decode())
        assert run.reconnections == 0
        assert len(sshd.commands) == 1
        assert sshd.commands[0].startswith("if systemctl restart cargo-nextest.service; then ")


def test_a_start_that_went_well_needs_no_second_program(computer: Path) -> None:
    install_systemctl(computer, start=0)
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        status = poll_to_the_end(UnitRun(guest, deadline=soon()), soon())
    assert status == UnitStatus("active", "loaded", "success", 1, 0, None)
    assert status.ended and status.exited and not status.cut_short
    assert (computer.parent / "told").read_text() == "restart cargo-nextest.service\n"


def test_after_a_start_that_failed_systemd_is_asked(computer: Path) -> None:
    install_systemctl(computer, start=1)
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        assert poll_to_the_end(UnitRun(guest, deadline=soon()), soon()) == UnitStatus.parse(FAILED.decode())
    told = (computer.parent / "told").read_text().splitlines()
    assert told == ["restart cargo-nextest.service", "show cargo-nextest.service"]


def test_what_must_go_before_the_start_is_run_first(computer: Path) -> None:
    install_systemctl(computer, start=0)
    prelude = f"echo prepare >>{computer.parent / 'told'}; true # set up"
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, prelude=prelude, deadline=soon())
        assert poll_to_the_end(run, soon()).main_status == 0
        assert len(sshd.commands) == 1
    assert (computer.parent / "told").read_text() == "prepare\nrestart cargo-nextest.service\n"


def test_a_preparation_that_fails_is_an_error_and_the_unit_is_not_started(computer: Path) -> None:
    install_systemctl(computer, start=0)
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, prelude="echo 'no such clock' >&2; false", way_out="wind it up", deadline=soon())
        with pytest.raises(GuestError, match="could not be prepared for the run") as caught:
            poll_to_the_end(run, soon())
    assert exit_code_of(caught.value) == 23
    assert (caught.value.details, caught.value.hint) == ("no such clock", "wind it up")
    assert not (computer.parent / "told").exists()


def test_a_broken_connection_is_made_again_and_the_unit_is_only_looked_at() -> None:
    with running_sshd(keep_running) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, deadline=soon())
        assert run.poll() is None
        sshd.run = answer(0, ENDED)
        sshd.drop_connections()
        assert poll_to_the_end(run, soon()).ended
        assert run.reconnections == 1
        assert [command.startswith("systemctl show ") for command in sshd.commands] == [False, True]


def test_a_unit_that_still_runs_after_a_reconnection_is_asked_again() -> None:
    shown = iter([RUNNING, ENDED])

    def show_next(command: str, channel: paramiko.Channel) -> None:
        if command.startswith("systemctl show"):
            answer(0, next(shown))(command, channel)

    restless = Clock(sleep=lambda _seconds: None)  # the pause between two looks is half a second
    with running_sshd(show_next) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, deadline=Deadline.after(5, restless))
        sshd.drop_connections()
        assert poll_to_the_end(run, soon()).ended
        assert next(shown, None) is None


def test_a_guest_that_does_not_come_back_before_the_time_is_up_is_a_timeout_of_the_run() -> None:
    with running_sshd(keep_running) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, deadline=soon(0.3))
        sshd.close()
        with pytest.raises(RunTimeout, match="did not answer over SSH") as caught:
            poll_to_the_end(run, soon())
    assert exit_code_of(caught.value) == 25


def test_a_guest_that_does_not_come_back_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrunner.guest.unit._RECONNECT_SECONDS", 0.1)
    with running_sshd(keep_running) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, deadline=soon())
        sshd.close()
        with pytest.raises(GuestLost, match="stopped answering over SSH while the tests ran") as caught:
            poll_to_the_end(run, soon())
    assert exit_code_of(caught.value) == 23
    assert "last seen on the SSH port" in str(caught.value.details)
    assert "did a test stop sshd" in str(caught.value.hint)


def test_a_connection_that_breaks_before_the_start_is_made_again() -> None:
    with running_sshd(answer(0, ENDED)) as sshd, guest_of(sshd) as guest:
        guest.disconnect()
        run = UnitRun(guest, deadline=soon())
        assert poll_to_the_end(run, soon()).ended
        assert run.reconnections == 1


def test_interrupt_asks_nextest_itself_to_stop() -> None:
    def run_or_kill(command: str, channel: paramiko.Channel) -> None:
        if "kill" in command:
            answer()(command, channel)

    with running_sshd(run_or_kill) as sshd, guest_of(sshd) as guest:
        UnitRun(guest, deadline=soon(0.1)).interrupt(deadline=soon())
        assert sshd.commands[-1] == "systemctl kill --kill-whom=main --signal=SIGINT cargo-nextest.service"


def test_interrupt_of_a_guest_that_is_gone() -> None:
    with running_sshd(keep_running) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, deadline=soon())
        sshd.close()
        with pytest.raises(ConnectionLost):
            run.interrupt(deadline=soon())


def test_the_journal_is_a_help_and_never_an_error() -> None:
    with running_sshd(answer(0, b"line 1\nline 2\n")) as sshd, guest_of(sshd) as guest:
        assert journal_of_unit(guest, deadline=soon(), lines=2) == "line 1\nline 2"
        assert "--lines=2" in sshd.commands[0]
        guest.disconnect()
        text = journal_of_unit(guest, deadline=soon())
        assert text == "(the guest's journal could not be read: there is no connection)"
