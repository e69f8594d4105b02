"""The error tree: the drawing in the docstring, the classes and the exit codes are one."""

from __future__ import annotations

import inspect
import re
import signal

import pytest

from vmrunner import errors
from vmrunner.errors import (
    CommandFailed,
    HostError,
    Interrupted,
    NextestFailed,
    UsageError,
    VmrunnerError,
    exit_code_of,
    in_full,
)

_DRAWN = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)\s.*?(?P<code>\d+|\*)(?: |$)")


def drawing() -> dict[str, tuple[str | None, str]]:
    """Name -> (parent, exit code) of every class drawn below VmrunnerError."""
    drawn: dict[str, tuple[str | None, str]] = {}
    path: list[str] = ["VmrunnerError"]
    for line in (errors.__doc__ or "").splitlines():
        match = _DRAWN.match(line)
        if match and match["branch"]:
            depth = len(match["branch"]) // 4
            path = [*path[:depth], match["name"]]
            drawn[match["name"]] = (path[depth - 1], match["code"])
    return drawn


def classes() -> dict[str, type[VmrunnerError]]:
    """Every error class of the module but the root."""
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: one for name, one in found if issubclass(one, VmrunnerError) and one is not VmrunnerError}


def test_drawing_has_every_class_and_no_other() -> None:
    assert drawing().keys() == classes().keys()
    assert len(drawing()) > 15


@pytest.mark.parametrize("name", sorted(classes()))
def test_class_is_as_drawn(name: str) -> None:
    parent, code = drawing()[name]
    one = classes()[name]
    assert one.__bases__[0].__name__ == parent
    if code != "*":
        assert one.exit_code == int(code)


def test_interrupted_is_drawn_with_its_codes() -> None:
    (line,) = (line for line in (errors.__doc__ or "").splitlines() if line.strip().startswith("Interrupted"))
    assert str(Interrupted(signal.SIGINT).exit_code) in line
    assert str(Interrupted(signal.SIGTERM).exit_code) in line


def test_message_hint_and_details_are_kept() -> None:
    error = UsageError("`--x` is unknown", hint="did you mean `--y`?", details="argv: --x")
    assert (error.message, error.hint, error.details) == (
        "`--x` is unknown",
        "did you mean `--y`?",
        "argv: --x",
    )
    assert str(error) == "`--x` is unknown"
    assert (UsageError("m").hint, UsageError("m").details) == (None, None)


def test_command_failed_tells_command_code_and_output() -> None:
    error = CommandFailed(["qemu-img", "create"], 1, "No space left on device\n", hint="free some")
    assert isinstance(error, HostError)
    assert error.message == "`qemu-img` failed with exit code 1"
    assert error.details == "command: qemu-img create\nexit code: 1\nNo space left on device"
    assert (error.argv, error.code, error.hint) == (["qemu-img", "create"], 1, "free some")
    assert exit_code_of(error) == 20


def test_command_failed_without_output_has_no_empty_tail() -> None:
    assert CommandFailed(["x"], 1, "").details == "command: x\nexit code: 1"


@pytest.mark.parametrize("code", [4, 94, 101])
def test_nextests_own_code_passes_through(code: int) -> None:
    assert exit_code_of(NextestFailed("the archive was not built", code=code)) == code


def test_interrupted_is_no_error_that_a_handler_of_errors_catches() -> None:
    assert not issubclass(Interrupted, Exception)
    assert issubclass(Interrupted, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted_has_the_shells_code(number: int, code: int) -> None:
    assert Interrupted(number).exit_code == code


def test_codes_of_vmrunner_never_meet_nextests() -> None:
    ours = {one.exit_code for one in classes().values() if one is not NextestFailed}
    assert ours == {2, 20, 21, 22, 23, 24, 25}


def test_an_error_that_is_the_reason_for_something_else_is_told_with_its_details() -> None:
    assert in_full(HostError("no room", details="one\ntwo")) == "no room\n  one\n  two"
    assert in_full(HostError("no room")) == "no room"
    assert in_full(OSError("gone")) == "gone"
