"""Completion: a script for each shell, and the answers that such a script asks for."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from vmrunner.cli import COMPLETION_VARIABLE, run


@pytest.mark.parametrize(
    ("shell", "mark"),
    [("bash", "complete -o nosort -F"), ("zsh", "#compdef vmrunner"), ("fish", "complete --no-files")],
)
def test_a_script_for_each_shell(capsys: pytest.CaptureFixture[str], shell: str, mark: str) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert mark in script
    assert f"{COMPLETION_VARIABLE}={shell}_complete" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_reads_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    run(["completion", "bash"])
    checked = subprocess.run(
        ["bash", "-n"], input=capsys.readouterr().out, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_another_shell_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err


def test_the_script_gets_its_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COMPLETION_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "vmrunner d")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit) as caught:
        run([])
    assert caught.value.code == 0
    assert capsys.readouterr().out == "plain,doctor\n"
