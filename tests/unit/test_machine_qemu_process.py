"""The process that QEMU is, with small programs in its place: how it starts, dies and is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from vmrunner.errors import HostError, exit_code_of
from vmrunner.host.deadline import Deadline
from vmrunner.host.log_end import tail
from vmrunner.machine.qemu_process import QemuProcess, start_qemu


@contextlib.contextmanager
def started(directory: Path, *arguments: str) -> Iterator[QemuProcess]:
    """A child in QEMU's place; gone at the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start_qemu(arguments, monitor_end=theirs, log_path=directory / "qemu.log")
        try:
            yield process
        finally:
            process.kill()


def wait_for_text(path: Path, text: str) -> None:
    patience = Deadline.after(5)
    while text not in path.read_text():
        assert patience.pause(0.005), f"{text!r} did not appear in {path}"


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_runs_with_its_output_in_a_private_log(tmp_path: Path) -> None:
    with started(tmp_path, "sh", "-c", "echo out; echo err >&2; exec sleep 60") as process:
        wait_for_text(process.log_path, "out\nerr\n")
        assert process.exit_code is None
        assert process.arguments[0] == "sh"
        assert psutil.Process(process.pid).name() == "sleep"
        assert stat.S_IMODE(process.log_path.stat().st_mode) == 0o600


def test_it_inherits_the_monitor_and_nothing_else(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "secret").open("w") as other:
        os.set_inheritable(other.fileno(), True)
        # Not in sh, which takes no descriptors above 9.
        code = f"import os; os.write({theirs.fileno()}, b'hello'); os.write({other.fileno()}, b'x')"
        process = start_qemu(
            [sys.executable, "-SEc", code], monitor_end=theirs, log_path=tmp_path / "qemu.log"
        )
        assert process.wait(5)
        ours.setblocking(False)
        assert ours.recv(100) == b"hello"
        assert "Bad file descriptor" in tail(tmp_path / "qemu.log")
    assert (tmp_path / "secret").read_text() == ""


def test_it_has_no_terminal_and_a_session_of_its_own(tmp_path: Path) -> None:
    with started(tmp_path, "sh", "-c", "readlink /proc/self/fd/0; exec sleep 60") as process:
        wait_for_text(process.log_path, "/dev/null")
        assert os.getsid(process.pid) == process.pid != os.getsid(0)


def test_it_dies_with_the_process_that_started_it_even_by_sigkill(tmp_path: Path) -> None:
    parent_code = (
        "import socket, sys, time; from pathlib import Path\n"
        "from vmrunner.machine.qemu_process import start_qemu\n"
        "ours, theirs = socket.socketpair()\n"
        f"process = start_qemu(['sleep', '60'], monitor_end=theirs, log_path=Path({str(tmp_path / 'log')!r}))\n"
        "print(process.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # setpriv has asked for the signal once it has become the program.
        patience = Deadline.after(5)
        while psutil.Process(pid).name() != "sleep":
            assert patience.pause(0.005)
        parent.kill()
        killed = time.monotonic()
    while not is_gone(pid):
        assert time.monotonic() - killed < 2, "the child outlived its parent"
        time.sleep(0.005)


def test_wait_says_whether_it_has_ended(tmp_path: Path) -> None:
    with started(tmp_path, "sleep", "60") as process:
        assert not process.wait(0.01)
        assert process.exit_code is None
    assert process.wait(0)
    assert process.exit_code == -signal.SIGKILL


def test_terminate_is_heard(tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    with started(tmp_path, "sh", "-c", script) as process:
        wait_for_text(process.log_path, "ready")
        process.terminate(2)
        assert process.exit_code == 3
        assert "asked" in tail(process.log_path)
        process.terminate(2)  # a second time does nothing


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done") as process:
        wait_for_text(process.log_path, "ready")
        began = time.monotonic()
        process.terminate(0.1)
        assert time.monotonic() - began < 5
        assert process.exit_code == -signal.SIGKILL


def test_exited_error_carries_the_command_the_code_and_what_was_said(tmp_path: Path) -> None:
    script = "echo 'qemu: bad -m'; exit 7"
    with started(tmp_path, "sh", "-c", script) as process:
        assert process.wait(5)
        error = process.exited_error("before the machine started")
    assert error.message == "QEMU exited with code 7 before the machine started"
    assert exit_code_of(error) == 22
    assert error.hint is None
    assert error.details is not None
    command, said = error.details.split("\n", 1)
    assert command == """command: sh -c 'echo '"'"'qemu: bad -m'"'"'; exit 7'"""
    assert said == "qemu: bad -m"


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory",
            "give the machine less `memory`",
        ),
        ("Could not access KVM kernel module: /dev/kvm: Permission denied", "group `kvm`"),
        ("write error: No space left on device", "free some disk space"),
    ],
)
def test_known_complaints_come_with_a_hint(tmp_path: Path, said: str, hint: str) -> None:
    with started(tmp_path, "sh", "-c", 'echo "$1"; exit 1', "sh", said) as process:
        assert process.wait(5)
        error = process.exited_error("early")
    assert error.hint is not None
    assert hint in error.hint


def test_a_program_that_does_not_exist_ends_at_once_and_says_so(tmp_path: Path) -> None:
    with started(tmp_path, str(tmp_path / "no-qemu")) as process:
        assert process.wait(5)
        error = process.exited_error("before the machine started")
    assert error.details is not None
    assert "No such file" in error.details


def test_without_setpriv_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="`setpriv` is not installed") as caught, started(tmp_path, "sh"):
        pass
    assert caught.value.hint == "install util-linux"
    assert not (tmp_path / "qemu.log").exists()
