"""Commands with this process's own streams, over a real SSH server that runs real programs."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_sshd import FakeSshd, answer, keep_running
from local_guest import local_guest

from vmrunner.errors import GuestLost, GuestPanicked, HostError, Interrupted, exit_code_of
from vmrunner.guest.session import run_session, shell_line
from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline

SOON = 10.0


@pytest.fixture
def guest() -> Iterator[Guest]:
    with local_guest() as (guest, _):
        yield guest


@contextmanager
def opened(path: Path | str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def run(
    guest: Guest, line: str, directory: Path, *, stdin: Path | str = os.devnull
) -> tuple[int, bytes, bytes]:
    out, err = directory / "out", directory / "err"
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with opened(stdin, os.O_RDONLY) as source, opened(out, write) as stdout, opened(err, write) as stderr:
        code = run_session(
            guest, line, tty=False, stdin=source, stdout=stdout, stderr=stderr, deadline=Deadline.after(SOON)
        )
    return code, out.read_bytes(), err.read_bytes()


def run_into(guest: Guest, line: str, stdout: int) -> int:
    """Run it with nothing to read, and with `stdout` as all that it can be seen in."""
    with opened(os.devnull, os.O_RDWR) as null:
        return run_session(
            guest, line, tty=False, stdin=null, stdout=stdout, stderr=null, deadline=Deadline.after(SOON)
        )


def run_unread(guest: Guest, line: str) -> None:
    """Run it with a standard output that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run_into(guest, line, writer)
    finally:
        os.close(writer)


def kill_when_ready(output: Path, number: signal.Signals, *, times: int = 1) -> threading.Thread:
    """Send this process a signal once the command has printed something."""

    def work() -> None:
        patience = Deadline.after(SOON)
        while not (output.exists() and output.stat().st_size) and patience.pause(0.01):
            pass
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def running(marker: str) -> bool:
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return any(marker.encode() in line.split(b"\0") for line in lines)


def gone(marker: str) -> bool:
    patience = Deadline.after(3)
    while running(marker) and patience.pause(0.02):
        pass
    return not running(marker)


def test_code_and_both_streams_are_the_commands_own(guest: Guest, tmp_path: Path) -> None:
    assert run(guest, "printf 'out\\0\\377'; printf err >&2; exit 7", tmp_path) == (7, b"out\0\xff", b"err")


@pytest.mark.parametrize(("name", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_a_signal_is_128_and_its_number(guest: Guest, tmp_path: Path, name: str, code: int) -> None:
    assert run(guest, f"kill -{name} $$", tmp_path)[0] == code


def test_megabytes_go_both_ways_unchanged(guest: Guest, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(6_000_000))
    assert run(guest, "cat", tmp_path, stdin=source) == (0, source.read_bytes(), b"")
    assert run(guest, "cat >&2", tmp_path, stdin=source) == (0, b"", source.read_bytes())


def test_a_command_that_ends_is_not_kept_waiting_by_open_input(guest: Guest, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    began = time.monotonic()
    assert run(guest, "echo done", tmp_path, stdin=f"/proc/self/fd/{reader}")[:2] == (0, b"done\n")
    assert time.monotonic() - began < 3
    os.close(reader)
    os.close(writer)


def test_a_command_that_does_not_read_its_input_ends_too(guest: Guest, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(5_000_000))
    assert run(guest, "exec 0<&-; echo done", tmp_path, stdin=source)[:2] == (0, b"done\n")


def test_closed_input_is_empty_input(guest: Guest, tmp_path: Path) -> None:
    with opened(os.devnull, os.O_WRONLY) as stdout:
        code = run_session(
            guest, "cat", tty=False, stdin=987, stdout=stdout, stderr=stdout, deadline=Deadline.after(SOON)
        )
    assert code == 0


def test_a_command_that_closes_its_output_is_waited_for(guest: Guest, tmp_path: Path) -> None:
    assert run(guest, "exec >&- 2>&-; sleep 0.3; exit 5", tmp_path)[0] == 5


def test_the_line_starts_the_program_itself() -> None:
    assert shell_line(["time", "it's"]) == """exec time 'it'"'"'s'"""
    line = shell_line(["pwd"], workdir="/a b", environment={"K": "x y"})
    assert line == "exec env '--chdir=/a b' -- 'K=x y' pwd"


def test_directory_and_variables(guest: Guest, tmp_path: Path) -> None:
    line = shell_line(["sh", "-c", 'echo "$PWD $K"'], workdir=str(tmp_path), environment={"K": "a  b"})
    assert run(guest, line, tmp_path)[:2] == (0, f"{tmp_path} a  b\n".encode())
    code, _, said = run(guest, shell_line(["true"], workdir="/nowhere"), tmp_path)
    assert code == 125
    assert b"/nowhere" in said
    assert run(guest, shell_line(["no-such-program"]), tmp_path)[0] == 127


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_here_ends_the_command_there(guest: Guest, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    thread = kill_when_ready(tmp_path / "out", number)
    with pytest.raises(Interrupted) as caught:
        run(guest, f"echo ready; sleep 100.0{int(number)}; echo never", tmp_path)
    thread.join()
    assert caught.value.exit_code == 128 + number
    assert gone(f"100.0{int(number)}")
    assert signal.getsignal(number) is before


def test_an_interrupted_command_may_clean_up(guest: Guest, tmp_path: Path) -> None:
    thread = kill_when_ready(tmp_path / "out", signal.SIGINT)
    with pytest.raises(Interrupted):
        run(guest, "trap 'echo cleaned; exit' INT; echo ready; while :; do sleep 0.05; done", tmp_path)
    thread.join()
    assert (tmp_path / "out").read_text() == "ready\ncleaned\n"


def test_a_signal_reaches_the_session_and_nobody_who_left_it(guest: Guest, tmp_path: Path) -> None:
    """A job with a process group of its own belongs to it, a daemon does not."""
    thread = kill_when_ready(tmp_path / "out", signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(
            guest,
            "setsid sleep 100.81 >/dev/null 2>&1 & set -m; sleep 100.82 & sleep 0.2; echo ready; wait",
            tmp_path,
        )
    thread.join()
    assert gone("100.82")
    daemons = subprocess.run(["pkill", "-fx", "sleep 100.81"], check=False)
    assert daemons.returncode == 0


def test_a_second_signal_kills_at_once(guest: Guest, tmp_path: Path) -> None:
    thread = kill_when_ready(tmp_path / "out", signal.SIGTERM, times=2)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        run(guest, "trap '' TERM; echo ready; while :; do sleep 0.0501; done", tmp_path)
    thread.join()
    assert time.monotonic() - began < 4
    assert gone("0.0501")


def test_a_reader_that_goes_away_ends_the_command(guest: Guest) -> None:
    with pytest.raises(BrokenPipeError):
        run_unread(guest, "echo a; sleep 100.5")
    assert gone("100.5")


def test_a_reader_that_goes_away_from_output_without_end(guest: Guest) -> None:
    """The server says that the command has ended when all it printed was taken."""
    began = time.monotonic()
    with pytest.raises(BrokenPipeError):
        run_unread(guest, "exec yes 100.6")
    assert time.monotonic() - began < 4
    assert gone("100.6")


def test_output_that_cannot_be_written_is_the_hosts_error(guest: Guest) -> None:
    with (
        opened("/dev/full", os.O_WRONLY) as full,
        pytest.raises(HostError, match="standard output cannot be written: No space left") as caught,
    ):
        run_into(guest, "echo a", full)
    assert exit_code_of(caught.value) == 20
    assert "disk full" in str(caught.value.hint)


def test_a_slow_reader_gets_everything(guest: Guest) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got = bytearray()

    def read_slowly() -> None:
        while chunk := os.read(reader, 65536):
            got.extend(chunk)
            time.sleep(0.005)

    thread = threading.Thread(target=read_slowly)
    thread.start()
    code = run_into(guest, "head -c 1000000 /dev/zero", writer)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert (code, len(got)) == (0, 1_000_000)


def broken_session(guest: Guest, sshd: FakeSshd, directory: Path) -> tuple[int, bytes, bytes]:
    threading.Timer(0.2, sshd.drop_connections).start()
    return run(guest, "sleep 100", directory)


def test_a_connection_that_breaks_is_a_lost_guest(tmp_path: Path) -> None:
    with local_guest() as (guest, sshd):
        sshd.run = keep_running
        with pytest.raises(GuestLost, match="broke while a command ran") as caught:
            broken_session(guest, sshd, tmp_path)
    assert exit_code_of(caught.value) == 23


def test_a_machine_that_dies_says_how(tmp_path: Path) -> None:
    dead = threading.Event()

    def alive() -> None:
        if dead.is_set():
            raise GuestPanicked("the guest's kernel panicked")

    with local_guest(alive=alive) as (guest, sshd):
        sshd.run = keep_running
        threading.Timer(0.2, dead.set).start()
        began = time.monotonic()
        with pytest.raises(GuestPanicked):
            run(guest, "sleep 100", tmp_path)
        assert time.monotonic() - began < 3


def test_no_connection_is_a_lost_guest(tmp_path: Path) -> None:
    with local_guest() as (guest, sshd):
        sshd.run = answer()
        guest.disconnect()
        with pytest.raises(GuestLost, match="could not be started: there is no connection"):
            run(guest, "true", tmp_path)
