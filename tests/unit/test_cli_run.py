"""The command line as a whole: every way a verb can end, and what a person is told then."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import click
import pytest

from vmrunner import __version__, cli, errors
from vmrunner.cli import run, use_color

Verb = Callable[[], object]
Install = Callable[[Verb], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a verb's body in the place of `vmrunner schema`, where verbs are imported from."""

    def install(body: Verb) -> None:
        module = SimpleNamespace(command=click.command("schema")(body))
        monkeypatch.setitem(sys.modules, "vmrunner.cli.schema", module)

    return install


@pytest.fixture(autouse=True)
def no_colour_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "_VMRUNNER_COMPLETE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EACCES, "XDG_STATE_HOME"), (errno.EROFS, "XDG_"), (errno.ENOSPC, "image prune")],
)
def test_files_that_cannot_be_written_are_no_bug(
    install: Install, capsys: pytest.CaptureFixture[str], number: int, hint: str
) -> None:
    install(raising(OSError(number, os.strerror(number), "/there/vm.json")))
    assert run(["schema"]) == 20
    shown = capsys.readouterr().err
    assert f"error: /there/vm.json: {os.strerror(number)}\n" in shown
    assert hint in shown
    assert "bug" not in shown


def raising(error: BaseException) -> Verb:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.ConfigError("x"), 2),
        (errors.HostError("x"), 20),
        (errors.CommandFailed(["git"], 128, "x"), 20),
        (errors.ImageNotFound("x"), 21),
        (errors.ImageBuildFailed("x"), 21),
        (errors.ImageDamaged("x"), 21),
        (errors.QemuExited("x"), 22),
        (errors.BootTimeout("x"), 22),
        (errors.GuestLost("x"), 23),
        (errors.GuestPanicked("x"), 23),
        (errors.GuestOutOfMemory("x"), 23),
        (errors.UnitFailed("x"), 23),
        (errors.ArchiveError("x"), 24),
        (errors.RunTimeout("x"), 25),
        (errors.NextestFailed("x", code=101), 101),
        (errors.Interrupted(2), 130),
        (errors.Interrupted(15), 143),
        (errors.Interrupted(1), 129),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("x"), 2),
        (click.exceptions.Exit(7), 7),
        (ZeroDivisionError("x"), 1),
        (EOFError("x"), 1),
        (OSError(5, "Input/output error"), 1),
    ],
)
def test_exit_codes(
    install: Install, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    install(raising(error))
    assert run(["schema"]) == code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("result", "code"), [(0, 0), (None, 0), (100, 100), (104, 104), ("text", 0)])
def test_what_a_verb_returns_is_the_exit_code(install: Install, result: object, code: int) -> None:
    install(lambda: result)
    assert run(["schema"]) == code


def test_an_error_is_told_with_its_facts_and_what_to_do(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(errors.HostError("`qemu` is missing", hint="apt install qemu", details="one\ntwo")))
    run(["schema"])
    assert capsys.readouterr().err == "error: `qemu` is missing\n  one\n  two\nhint: apt install qemu\n"


def test_an_error_without_facts_is_one_line(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(raising(errors.HostError("it broke")))
    run(["schema"])
    assert capsys.readouterr().err == "error: it broke\n"


def test_a_bug_shows_where_it_is_and_asks_for_a_report(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(ZeroDivisionError("of our making")))
    assert run(["schema"]) == 1
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert "ZeroDivisionError: of our making" in told
    assert "bug in vmrunner" in told
    assert "Please report it" in told


def test_an_interruption_says_nothing_by_itself(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(raising(errors.Interrupted(15)))
    run(["schema"])
    assert capsys.readouterr().err == ""


def test_an_exit_of_the_interpreter_is_not_swallowed(install: Install) -> None:
    install(raising(SystemExit(3)))
    with pytest.raises(SystemExit):
        run(["schema"])


@pytest.mark.parametrize(("wish", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True)])
def test_errors_are_coloured_where_that_is_wanted(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    wish: dict[str, str], coloured: bool,
) -> None:  # fmt: skip
    for name, value in wish.items():
        monkeypatch.setenv(name, value)
    install(raising(errors.HostError("x")))
    run(["schema"])
    assert ("\x1b[" in capsys.readouterr().err) is coloured


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "on_terminal", "on_file"),
    [
        ({}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": ""}, True, False),
        ({"CLICOLOR_FORCE": "1"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
    ],
)
def test_when_colours_are_used(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], on_terminal: bool, on_file: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert use_color(Screen()) is on_terminal
    assert use_color(io.StringIO()) is on_file


@pytest.mark.parametrize(("typed", "meant"), [("tets", "test"), ("dcotor", "doctor"), ("images", "image")])
def test_an_unknown_verb_suggests_the_nearest(
    capsys: pytest.CaptureFixture[str], typed: str, meant: str
) -> None:
    assert run([typed]) == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in capsys.readouterr().err


def test_a_verb_like_no_other_suggests_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["xyzzy"]) == 2
    told = capsys.readouterr().err
    assert "No such command 'xyzzy'" in told
    assert "Did you mean" not in told


def test_an_unknown_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--verbos"]) == 2
    assert "--verbose" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_goes_to_stdout_and_lists_every_verb_without_importing_any(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    for verb in cli._VERBS:
        monkeypatch.setitem(sys.modules, f"vmrunner.cli.{verb}", None)  # an import of it would fail
    assert run([flag]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in cli._VERBS)
    assert "  Example:\n    vmrunner test" in shown


def test_version_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"vmrunner {__version__}\n"


def test_no_verb_shows_the_help_as_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["vmrunner", "--version"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0


def test_a_reader_that_has_gone_is_no_bug() -> None:
    command = [sys.executable, "-m", "vmrunner", "completion", "fish"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        told = child.stderr.read()
    assert told == b""
    assert child.returncode == 141
