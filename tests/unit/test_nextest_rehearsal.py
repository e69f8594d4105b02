"""The rehearsal: nextest takes the made-up package for a real one, lists its test and runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from defusedxml.ElementTree import parse

from vmrunner.errors import HostError
from vmrunner.host.deadline import Deadline
from vmrunner.nextest.arguments import GuestPaths, guest_command
from vmrunner.nextest.configuration import tool_config
from vmrunner.nextest.rehearsal import (
    BINARIES_METADATA,
    CARGO_METADATA,
    MANIFEST,
    TEST_BINARY,
    rehearsal_files,
)
from vmrunner.nextest.tool import find_nextest


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The files of the rehearsal, where they say they are."""
    directory = tmp_path / "ws"
    directory.mkdir()
    for name, text in rehearsal_files(PurePosixPath(directory)).items():
        (directory / name).write_text(text)
    (directory / TEST_BINARY).chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def nextest() -> Path:
    """The cargo-nextest of this computer."""
    try:
        return find_nextest(deadline=Deadline.after(60)).path
    except HostError as error:
        pytest.skip(error.message)


def answer(workspace: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [workspace / TEST_BINARY, *arguments], check=True, capture_output=True, text=True, env={}
    )
    return done.returncode, done.stdout


def test_it_is_four_files() -> None:
    files = rehearsal_files(PurePosixPath("/ws"))
    assert set(files) == {MANIFEST, TEST_BINARY, BINARIES_METADATA, CARGO_METADATA}
    assert files[TEST_BINARY].startswith("#!/bin/sh\n")


def test_nothing_in_it_is_of_this_computer() -> None:
    text = "".join(rehearsal_files(PurePosixPath("/in/the/guest")).values())
    assert str(Path.home()) not in text
    assert json.loads(rehearsal_files(PurePosixPath("/w"))[CARGO_METADATA])["workspace_root"] == "/w"


def test_the_test_binary_answers_as_libtest_does(workspace: Path) -> None:
    assert answer(workspace, "--list", "--format", "terse") == (0, "it_runs: test\n")
    assert answer(workspace, "--list", "--format", "terse", "--ignored") == (0, "")
    assert answer(workspace, "--exact", "it_runs", "--nocapture") == (0, "")


def test_nextest_runs_it_as_it_runs_an_archive(workspace: Path, nextest: Path, tmp_path: Path) -> None:
    (tmp_path / "tool.toml").write_text(tool_config(PurePosixPath(tmp_path / "store")))
    paths = GuestPaths(
        nextest=PurePosixPath(nextest),
        binaries_metadata=PurePosixPath(workspace / BINARIES_METADATA),
        cargo_metadata=PurePosixPath(workspace / CARGO_METADATA),
        tool_config=PurePosixPath(tmp_path / "tool.toml"),
        workspace_remap=None,
        target_dir_remap=None,
    )
    done = subprocess.run(
        guest_command([], paths=paths, color=False),
        cwd=workspace,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "1 test run: 1 passed, 0 skipped" in done.stderr
    (report,) = (tmp_path / "store").rglob("*.xml")
    (case,) = parse(report).iter("testcase")
    assert case.get("name") == "it_runs"
