"""The unit in the guest: starting it, and staying with it through broken connections."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
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


@pytest.fixture
def computer(tmp_path: Path) -> Path:
    """A directory of programs that stand for a guest's; what they were told is in the file `told` beside it."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def install_systemctl(computer: Path, *, start: int) -> None:
    """A systemctl whose `start` ends with that code, and whose `show` prints SHOWN."""
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


def test_a_start_that_went_well_needs_no_second_program(computer: Path) -> None:
    install_systemctl(computer, start=0)
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        status = poll_to_the_end(UnitRun(guest, deadline=soon()), soon())
    assert status == UnitStatus("active", "loaded", "success", 1, 0, None)
    assert status.ended and status.exited and not status.cut_short
    assert (computer.parent / "told").read_text() == "start cargo-nextest.service\n"


def test_after_a_start_that_failed_systemd_is_asked(computer: Path) -> None:
    install_systemctl(computer, start=1)
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        assert poll_to_the_end(UnitRun(guest, deadline=soon()), soon()) == UnitStatus.parse(FAILED.decode())
    told = (computer.parent / "told").read_text().splitlines()
    assert told == ["start cargo-nextest.service", "show cargo-nextest.service"]


def test_what_must_go_before_the_start_is_run_first(computer: Path) -> None:
    install_systemctl(computer, start=0)
    prelude = f"echo prepare >>{computer.parent / 'told'}"
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, prelude=prelude, deadline=soon())
        assert poll_to_the_end(run, soon()).main_status == 0
        assert len(sshd.commands) == 1
    assert (computer.parent / "told").read_text() == "prepare\nstart cargo-nextest.service\n"


@pytest.mark.parametrize("start", [0, 1])
def test_an_empty_prelude_is_nothing_to_do(computer: Path, start: int) -> None:
    install_systemctl(computer, start=start)
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        status = poll_to_the_end(UnitRun(guest, prelude="", deadline=soon()), soon())
    assert status.result == ("exit-code" if start else "success")
    assert (computer.parent / "told").read_text().splitlines()[0] == "start cargo-nextest.service"


def test_a_preparation_that_fails_is_an_error_and_the_unit_is_not_started(computer: Path) -> None:
    install_systemctl(computer, start=0)
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, prelude="echo 'no such clock' >&2; false", way_out="wind it up", deadline=soon())
        with pytest.raises(GuestError, match="could not be prepared for the run") as caught:
            poll_to_the_end(run, soon())
    assert exit_code_of(caught.value) == 23
    assert (caught.value.details, caught.value.hint) == ("no such clock", "wind it up")
    assert not (computer.parent / "told").exists()


@pytest.fixture
def armed(computer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer whose unit waits at a gate; its `start` ends with the code in a file `ended`, when that is there."""
    gate, told, ended = (computer.parent / name for name in ("gate", "told", "ended"))
    os.mkfifo(gate)
    monkeypatch.setattr("vmrunner.guest.unit._GATE", str(gate))
    write_program(
        computer / "systemctl",
        f"""if [ $1 = show ]; then echo show >>{told}; printf %s "$SHOWN"; exit; fi
trap 'echo killed >>{told}; exit 143' TERM
echo "$1" >>{told}
for _ in $(seq 500); do [ ! -s {ended} ] || exit $(cat {ended}); sleep 0.01; done
exit 99""",
    )
    return computer


def waits_for_the_start(armed: Path, then: str) -> str:
    """A prelude that sees that the unit's start was joined before it does this."""
    told = armed.parent / "told"
    script = f"until [ -e {told} ]; do sleep 0.01; done; echo prelude >>{told}; {then}"
    return shlex.join(["sh", "-c", script])


@pytest.mark.parametrize(("code", "shown"), [(0, []), (1, ["show"])])
def test_the_start_of_an_armed_unit_is_joined_before_it_is_let_go(
    armed: Path, code: int, shown: list[str]
) -> None:
    prelude = waits_for_the_start(armed, f"echo {code} >{armed.parent / 'ended'}")
    with running_sshd(in_local_shell(armed)) as sshd, guest_of(sshd) as guest:
        status = poll_to_the_end(UnitRun(guest, prelude=prelude, deadline=soon()), soon())
    assert status.main_status == (100 if code else 0)
    assert (armed.parent / "told").read_text().split() == ["start", "prelude", *shown]


def test_an_armed_unit_whose_preparation_fails_is_not_waited_for(armed: Path) -> None:
    """The server's side of the command ends only when nothing holds its output any more."""
    prelude = waits_for_the_start(armed, "echo 'no such share' >&2; exit 16")
    with running_sshd(in_local_shell(armed)) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, prelude=prelude, way_out="reset it", deadline=soon())
        with pytest.raises(GuestError, match="could not be prepared for the run") as caught:
            poll_to_the_end(run, soon())
    assert exit_code_of(caught.value) == 23
    assert (caught.value.details, caught.value.hint) == ("no such share", "reset it")
    assert (armed.parent / "told").read_text().split() == ["start", "prelude", "killed"]


def test_what_comes_afterwards_is_not_waited_for(computer: Path) -> None:
    install_systemctl(computer, start=0)
    told, released = (computer.parent / name for name in ("told", "released"))
    script = f"until [ -e {released} ]; do sleep 0.01; done; echo to nobody; cat; echo afterwards >>{told}"
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, afterwards=shlex.join(["timeout", "10", "sh", "-c", script]), deadline=soon())
        assert poll_to_the_end(run, soon()).main_status == 0
    assert told.read_text() == "start cargo-nextest.service\n"
    released.touch()
    patience = soon()
    while "afterwards" not in told.read_text():
        assert patience.pause(0.01)


@pytest.mark.parametrize(("start", "prelude"), [(1, ":"), (0, "false")])
def test_after_a_failure_all_stays_as_it_is(computer: Path, start: int, prelude: str) -> None:
    install_systemctl(computer, start=start)
    afterwards = f"touch {computer.parent / 'afterwards'}"
    with running_sshd(in_local_shell(computer)) as sshd, guest_of(sshd) as guest:
        run = UnitRun(guest, prelude=prelude, afterwards=afterwards, deadline=soon())
        with contextlib.suppress(GuestError):
            poll_to_the_end(run, soon())
    time.sleep(0.1)
    assert not (computer.parent / "afterwards").exists()


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
