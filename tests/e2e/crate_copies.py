"""Copies of the crates of this repository, and nextest archives made of them without vmrunner."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from command_line import CRATES

from vmrunner.host.deadline import Deadline
from vmrunner.nextest.tool import find_nextest

CopyCrate = Callable[[str], Path]
"""Copies the crate of that name into a git repository of its own, and returns where that is."""


def copy_crate(name: str, destination: Path) -> Path:
    """Copy one crate to `destination`, without what cargo built, and make that a git repository."""
    shutil.copytree(CRATES / name, destination, ignore=shutil.ignore_patterns("target", "Cargo.lock"))
    (destination / ".gitignore").write_text("target/\n")
    subprocess.run(["git", "init", "--quiet", destination], check=True)
    subprocess.run(["git", "-C", destination, "add", "--all"], check=True)
    return destination


def archive_crate(crate: Path, destination: Path, target_directory: Path | None = None) -> Path:
    """Make an archive as a CI job does, with `cargo nextest archive`."""
    nextest = find_nextest(deadline=Deadline.after(60))
    command: list[str | Path] = [nextest.path, "nextest", "archive", "--archive-file", destination]
    if target_directory:
        command += ["--target-dir", target_directory]
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
    subprocess.run(command, cwd=crate, env=environment, check=True, capture_output=True)
    return destination
