"""`exec`, `ssh`, `console` and `cp` as a person calls them; the guest is this computer."""

from __future__ import annotations

import os
import socket
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_sshd import FakeSshd
from local_guest import local_guest
from sample_plans import sample_plan

from vmrunner.cli import run
from vmrunner.errors import GuestLost, UsageError
from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline


class Attached:
    """What `vmrunner.machine.vm.attached` gives."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.record = types.SimpleNamespace(plan=sample_plan())


@pytest.fixture
def sshd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeSshd]:
    """One running VM, `db`; standard input is /dev/null."""
    with local_guest() as (guest, server), Path(os.devnull).open("rb") as null:

        @contextmanager
        def attached(name: str, *, deadline: Deadline) -> Iterator[Attached]:
            if name != "db":
                raise UsageError(f"there is no VM `{name}`")
            yield Attached(guest)

        def start_login_at_console(name: str, *, deadline: Deadline) -> None:
            """A guest that listens already."""

        module = types.ModuleType("vmrunner.machine.vm")
        vars(module).update(
            attached=attached,
            console_socket=lambda _name: tmp_path / "serial",
            start_login_at_console=start_login_at_console,
        )
        monkeypatch.setitem(sys.modules, "vmrunner.machine.vm", module)
        stdin = os.dup(0)
        os.dup2(null.fileno(), 0)
        yield server
        os.dup2(stdin, 0)
        os.close(stdin)


def test_exec_passes_streams_and_code_on(sshd: FakeSshd, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["exec", "db", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]) == 42
    assert capfd.readouterr() == ("out\n", "err\n")


def test_exec_runs_the_program_as_it_is(
    sshd: FakeSshd, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--workdir", str(tmp_path), "-e", "A=1 2", "--env", "B="]
    assert run(["exec", "db", *words, "--", "sh", "-c", 'echo "$PWD" "$A$B" "$1"', "sh", "$HOME; *"]) == 0
    assert capfd.readouterr().out == f"{tmp_path} 1 2 $HOME; *\n"


def test_exec_gives_a_terminal_when_asked(sshd: FakeSshd, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["exec", "db", "--", "test", "-t", "1"]) == 1
    assert run(["exec", "-t", "db", "--", "test", "-t", "1"]) == 0
    assert len(sshd.terminals) == 1


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["exec", "db"], "there is no program to run", "vmrunner exec db -- ls"),
        (["exec", "db", "--env", "A", "--", "true"], "`--env A` is not of the form KEY=VALUE", ""),
        (["exec", "other", "--", "true"], "there is no VM `other`", ""),
        (["cp", "a", "b"], "neither path is in a VM", "NAME:PATH"),
        (["cp", "db:a", "db:b"], "both paths are in a VM", "NAME:PATH"),
        (["cp", "./db:a", "b"], "neither path is in a VM", "NAME:PATH"),
        (["cp", "db:/no/such/file", "."], "there is no `/no/such/file` in the guest", ""),
    ],
)
def test_wrong_words(
    sshd: FakeSshd, capfd: pytest.CaptureFixture[str], words: list[str], message: str, hint: str
) -> None:
    assert run(words) == 2
    said = capfd.readouterr().err
    assert f"error: {message}" in said
    assert hint in said


def test_ssh_hands_a_line_to_the_shell(sshd: FakeSshd, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["ssh", "db", "--", "echo a b", "|", "tr a-b x-y; exit 3"]) == 3
    assert capfd.readouterr().out == "x y\n"
    assert sshd.commands == ["echo a b | tr a-b x-y; exit 3"]


def test_ssh_is_a_login_shell_without_a_terminal_where_there_is_none(sshd: FakeSshd) -> None:
    assert run(["ssh", "db"]) == 0
    assert sshd.commands == [""]
    assert sshd.terminals == {}


def test_ssh_has_a_terminal_where_there_is_one(sshd: FakeSshd, capfd: pytest.CaptureFixture[str]) -> None:
    keys, tty = os.openpty()
    os.dup2(tty, 0)
    os.write(keys, b"exit 5\n")
    assert run(["ssh", "db"]) == 5
    assert len(sshd.terminals) == 1
    os.close(keys)
    os.close(tty)


def test_cp_goes_both_ways(sshd: FakeSshd, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    assert run(["cp", f"{tmp_path}/a", f"db:{tmp_path}/b"]) == 0
    assert run(["cp", f"db:{tmp_path}/b", f"{tmp_path}/c"]) == 0
    assert (tmp_path / "c").read_text() == "hello"
    out, err = capfd.readouterr()
    assert out == ""
    assert "copy done" in err
    assert "1 file, 5 B" in err


def test_console_shows_the_serial_line(
    sshd: FakeSshd, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "serial"))
        listener.listen(1)

        def greet() -> None:
            with listener.accept()[0] as client:
                client.sendall(b"login: ")

        machine = threading.Thread(target=greet)
        machine.start()
        assert run(["console", "db"]) == 0
        machine.join()
    assert capfd.readouterr() == ("login: ", "note: the machine has ended\n")


def test_console_of_a_guest_that_cannot_be_asked_to_listen(
    sshd: FakeSshd, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a console all the same; here of a machine that has none."""

    def refuse(name: str, *, deadline: Deadline) -> None:
        raise GuestLost(f"{name} does not answer", hint=f"{deadline.remaining} s are over")

    monkeypatch.setattr(sys.modules["vmrunner.machine.vm"], "start_login_at_console", refuse)
    assert run(["console", "db"]) == 23
    told = capfd.readouterr().err
    assert told.startswith("warning: the guest could not be asked over SSH to listen here")
    assert "console does not answer" in told


def test_console_of_a_machine_that_does_not_answer(sshd: FakeSshd, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["console", "db"]) == 23
    assert "console does not answer" in capfd.readouterr().err


@pytest.mark.parametrize("verb", ["exec", "ssh", "console", "cp"])
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert f"vmrunner {verb} " in capsys.readouterr().out.partition("Example")[2]
