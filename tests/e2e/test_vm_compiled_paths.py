"""Absolute paths that the compiler wrote into the tests hold in the guest, and the host's sources stay as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from crate_copies import CopyCrate, archive_crate, copy_crate
from run_record import assert_guest_ran

ALL_TESTS = {
    "own_binary",
    "own_binary_at_run_time",
    "output_of_the_build_script",
    "file_of_the_sources",
    "hidden_file_of_the_sources",
    "works_in_the_package_directory",
    "file_in_the_temporary_directory",
    "file_in_the_sources",
}
AT_RUN_TIME = """\
//! Finds its files from what nextest says when it runs.

#[test]
fn program_at_run_time() {
    let program = std::env::var("NEXTEST_BIN_EXE_compiled-paths").expect("nextest names the program");
    let output = std::process::Command::new(program).arg("one").output().expect("it starts");
    assert_eq!(output.stdout, b"one\\n");
}

#[test]
fn fixture_at_run_time() {
    let text = std::fs::read_to_string("data/fixture.txt").expect("the package is the working directory");
    assert_eq!(text, "a file of the sources\\n");
}
"""


def tree_state(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file below `directory`."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not {".git", "target"} & set(path.parts)
    }


def test_paths_hold_and_the_host_is_not_touched(
    vmrunner_in_place: CommandLine, copied_crate: CopyCrate
) -> None:
    crate = copied_crate("compiled-paths")
    before = tree_state(crate)
    finished = vmrunner_in_place.run("test", crate)
    assert finished.code == 0, finished.stderr
    run = vmrunner_in_place.only_run
    assert_guest_ran(run)
    assert run.outcomes == dict.fromkeys(ALL_TESTS, "passed")
    assert "remap" not in finished.stderr
    after = tree_state(crate)
    after.pop("Cargo.lock")  # cargo makes it, on the host
    assert after == before
    assert list((crate / "target" / "tmp").iterdir()) == []


def test_archive_from_elsewhere_runs_with_sources_from_another_directory(
    vmrunner: CommandLine, copied_crate: CopyCrate, tmp_path: Path
) -> None:
    """As in CI: one machine builds, and another has the archive and a checkout at another path."""
    built = copied_crate("compiled-paths")
    archive = archive_crate(built, tmp_path / "archive.tar.zst")
    checkout = tmp_path / "checkout"
    built.rename(checkout)
    before = tree_state(checkout)
    finished = vmrunner.run("test", checkout, "--archive", archive)
    assert finished.code == 0, finished.stderr
    assert_guest_ran(vmrunner.only_run)
    assert vmrunner.only_run.outcomes == dict.fromkeys(ALL_TESTS, "passed")
    assert "archive" not in vmrunner.only_run.phases
    assert tree_state(checkout) == before


@pytest.fixture
def crate_below_usr() -> Iterator[Path]:
    """A crate at a path that no guest can have: its own /usr is there."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory below /usr")
    place = Path("/usr/src") / f"vmrunner-test-{os.getpid()}"
    try:
        yield copy_crate("compiled-paths", place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_remap_where_the_path_cannot_be_had(
    vmrunner: CommandLine, crate_below_usr: Path, tmp_path: Path
) -> None:
    (crate_below_usr / "tests" / "at_run_time.rs").write_text(AT_RUN_TIME)
    archive = archive_crate(crate_below_usr, tmp_path / "archive.tar.zst")
    finished = vmrunner.run("test", crate_below_usr, "--archive", archive, "--", "--no-fail-fast")
    warning = finished.line("remaps").text
    assert warning.startswith("warning: ")
    assert str(crate_below_usr) in warning
    assert finished.code == 100, finished.stderr
    run = vmrunner.only_run
    assert_guest_ran(run)
    can_pass = {"program_at_run_time", "fixture_at_run_time"}
    assert run.outcomes == {**dict.fromkeys(ALL_TESTS, "failed"), **dict.fromkeys(can_pass, "passed")}
