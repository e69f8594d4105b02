"""`vmrunner doctor` as a person and a program see it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from vmrunner.cli import doctor
from vmrunner.errors import HostError
from vmrunner.host.deadline import Deadline
from vmrunner.host.doctor import Check, Question

FINE = Check("python", "ok", "3.11.2 (/usr/bin/python3)")
SLOW = Check("accelerator", "warning", "tcg, CPU model max\ntried kvm host: fails", "use another computer")
MISSING = Check("qemu", "problem", "`qemu-system-x86_64` is not on PATH", "sudo apt install qemu-system-x86")


def run(monkeypatch: pytest.MonkeyPatch, checks: list[Check], *arguments: str) -> Result:
    """Run the verb with these findings instead of this computer's."""
    monkeypatch.setattr(doctor, "all_questions", lambda: (Question("all", lambda _: checks),))
    return CliRunner().invoke(doctor.command, arguments)


def test_warnings_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [FINE, SLOW]).exit_code == 0


def test_problem_is_exit_code_20(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [FINE, MISSING]).exit_code == 20


def test_text_has_a_line_per_check_and_advice_below(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(monkeypatch, [FINE, SLOW, MISSING]).stdout.splitlines()
    assert lines == [
        "ok       python       3.11.2 (/usr/bin/python3)",
        "warning  accelerator  tcg, CPU model max",
        "                      tried kvm host: fails",
        "                      → use another computer",
        "problem  qemu         `qemu-system-x86_64` is not on PATH",
        "                      → sudo apt install qemu-system-x86",
    ]


def test_long_lines_and_brackets_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Check("x", "ok", "[bold] " + "word " * 60 + "end")
    (line,) = run(monkeypatch, [long]).stdout.splitlines()
    assert line.endswith("word end")
    assert "[bold]" in line


def test_json_is_one_document_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, [FINE, MISSING], "--json")
    assert result.exit_code == 20
    assert json.loads(result.stdout) == {
        "problems": 1,
        "checks": [
            {"name": "python", "status": "ok", "found": "3.11.2 (/usr/bin/python3)", "advice": None},
            {
                "name": "qemu",
                "status": "problem",
                "found": "`qemu-system-x86_64` is not on PATH",
                "advice": "sudo apt install qemu-system-x86",
            },
        ],
    }


def test_broken_check_is_shown_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Deadline) -> list[Check]:
        raise RuntimeError("oops")

    monkeypatch.setattr(doctor, "all_questions", lambda: (Question("space", broken),))
    result = CliRunner().invoke(doctor.command)
    assert result.exit_code == 20
    assert "RuntimeError: oops" in result.stdout


def test_missing_nextest_is_a_problem_with_its_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*, deadline: Deadline) -> None:
        raise HostError("`cargo-nextest` is not installed", hint="pip install 'vmrunner[nextest]'")

    monkeypatch.setattr("vmrunner.nextest.tool.find_nextest", find)
    (question,) = (one for one in doctor.all_questions() if one.name == "cargo-nextest")
    monkeypatch.setattr(doctor, "all_questions", lambda: (question,))
    result = CliRunner().invoke(doctor.command)
    assert result.exit_code == 20
    assert "→ pip install 'vmrunner[nextest]'" in result.stdout


def test_everything_a_run_needs_is_asked_about() -> None:
    names = [question.name for question in doctor.all_questions()]
    assert len(names) == len(set(names))
    assert {"python", "qemu", "qemu-img", "accelerator", "port forwarding", "shares", "nix"} <= set(names)
    assert {"memory and disk", "directories", "cargo-nextest", "debian images", "nixos images"} <= set(names)


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(doctor.command, ["--help"])
    assert result.exit_code == 0
    assert "Example:\n    vmrunner doctor" in result.stdout
