"""Finding cargo-nextest."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from vmrunner.errors import HostError
from vmrunner.host.deadline import Deadline
from vmrunner.nextest.tool import NextestTool, find_nextest


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH; nothing else on this computer can be found."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (tmp_path / "python").mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "cargo"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python3"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path / "scripts"))
    return directory


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def not_found() -> HostError:
    with pytest.raises(HostError) as caught:
        find_nextest(deadline=Deadline.after(60))
    assert caught.value.exit_code == 20
    return caught.value


@pytest.mark.usefixtures("empty_machine")
def test_none_at_all_says_how_to_get_it() -> None:
    error = not_found()
    assert error.message == "`cargo-nextest` is not installed"
    assert error.hint
    assert "pip install 'vmrunner[nextest]'" in error.hint
    assert "cargo install cargo-nextest --locked" in error.hint


def test_a_script_could_not_run_in_a_guest(empty_machine: Path) -> None:
    script(empty_machine / "cargo-nextest", "echo cargo-nextest 9.9.9")
    error = not_found()
    assert "does not work" in error.message
    assert error.details
    assert str(empty_machine / "cargo-nextest") in error.details


def test_a_program_that_is_not_nextest(empty_machine: Path) -> None:
    shutil.copy("/bin/true", empty_machine / "cargo-nextest")
    error = not_found()
    assert error.details
    assert "`--version` ended with 0" in error.details


def test_a_file_that_cannot_be_started_is_passed_over(empty_machine: Path) -> None:
    shutil.copy("/bin/true", empty_machine / "cargo-nextest")
    (empty_machine / "cargo-nextest").chmod(0o644)
    assert "is not installed" in not_found().message


REAL = next(
    (
        path
        for path in (shutil.which("cargo-nextest"), str(Path(sys.executable).parent / "cargo-nextest"))
        if path and Path(path).is_file()
    ),
    None,
)


@pytest.mark.skipif(REAL is None, reason="there is no cargo-nextest on this computer")
@pytest.mark.parametrize("place", ["bin", "cargo/bin", "python", "scripts"])
def test_found_on_path_in_cargos_directory_and_beside_python(
    empty_machine: Path, tmp_path: Path, place: str
) -> None:
    assert REAL
    script(empty_machine / "other", "true")
    directory = tmp_path / place
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cargo-nextest").symlink_to(REAL)
    tool = find_nextest(deadline=Deadline.after(60))
    assert tool.path == directory / "cargo-nextest"
    assert tool.version.startswith("0.9.")
    assert tool.architecture


@pytest.mark.skipif(REAL is None, reason="there is no cargo-nextest on this computer")
def test_one_that_works_is_found_behind_one_that_does_not(empty_machine: Path, tmp_path: Path) -> None:
    assert REAL
    script(empty_machine / "cargo-nextest", "exit 1")
    (tmp_path / "python" / "cargo-nextest").symlink_to(REAL)
    assert find_nextest(deadline=Deadline.after(60)).path == tmp_path / "python" / "cargo-nextest"


def test_the_identity_changes_with_the_program_though_its_version_is_the_same(tmp_path: Path) -> None:
    tool = NextestTool(tmp_path / "cargo-nextest", "0.9.148", "x86_64", None, None)
    identities = []
    for text, changed in (("one", 1), ("one", 2), ("other", 2)):
        script(tool.path, text)
        os.utime(tool.path, ns=(changed, changed))
        identities.append(tool.identity)
    assert len(set(identities)) == 3
    assert all(identity.startswith("0.9.148-") and "/" not in identity for identity in identities)


def test_the_identity_is_that_of_the_program_behind_a_link(tmp_path: Path) -> None:
    script(tmp_path / "program", "one")
    (tmp_path / "cargo-nextest").symlink_to(tmp_path / "program")
    direct, linked = (
        NextestTool(tmp_path / name, "0.9.148", "x86_64", None, None) for name in ("program", "cargo-nextest")
    )
    assert direct.identity == linked.identity
