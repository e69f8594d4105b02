"""Making an archive: `cargo nextest archive` in a workspace, its output shown as it comes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vmrunner.errors import CommandFailed, HostError, NextestFailed, UsageError
from vmrunner.events import Emit, Output, phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import CommandResult, run_command
from vmrunner.nextest.exit_codes import USAGE_ERROR, is_published, meaning
from vmrunner.nextest.tool import NextestTool

_KEPT_LINES = 20


def make_archive(
    workspace: Path,
    *,
    tool: NextestTool,
    cargo_args: Sequence[str],
    destination: Path,
    emit: Emit,
    deadline: Deadline,
    color: bool,
) -> Path:
    """Build the tests of `workspace` into the nextest archive `destination` (a `.tar.zst`) and return it.

    What cargo and nextest print goes out as `Output` events on stderr, line by line. The file appears whole or
    not at all. Raises UsageError where there is no Cargo.toml, NextestFailed (nextest's own exit code: 101 where
    the build failed) where nextest says why, HostError where cargo is missing or nextest was killed.
    """
    _require_workspace(workspace)
    _require_cargo()
    partial = destination.with_name(f".{os.getpid()}-{destination.name}")
    argv: list[str | Path] = [tool.path, "nextest", "archive", "--color", "always" if color else "never"]
    argv += ["--archive-file", partial, *cargo_args]

    def show(line: str) -> None:
        emit(Output("stderr", f"{line}\n".encode()))

    try:
        with phase(emit, "archive", f"building the tests of {workspace}") as current:
            result = run_command(argv, cwd=workspace, deadline=deadline, check=False, on_line=show)
            _require_success(result, workspace)
            partial.rename(destination)
            current.text = f"{destination.stat().st_size / 2**20:.1f} MiB"
    finally:
        partial.unlink(missing_ok=True)
    return destination


def _require_workspace(workspace: Path) -> None:
    """Look for a Cargo.toml where cargo does: in the directory and all above it."""
    directory = workspace.absolute()
    if not directory.is_dir():
        raise UsageError(
            f"{workspace} is not a directory", hint="name the directory of a Cargo workspace or package"
        )
    if not any((place / "Cargo.toml").is_file() for place in (directory, *directory.parents)):
        raise UsageError(
            f"there is no Cargo.toml in {directory}",
            hint="name the directory of a Cargo workspace, or an archive with `--archive FILE`",
        )


def _require_cargo() -> None:
    cargo = os.environ.get("CARGO", "cargo")
    if shutil.which(cargo) is None:
        raise HostError(
            f"`{cargo}` is not installed, so the tests cannot be built",
            hint="install Rust (https://rustup.rs), or give an archive built elsewhere with `--archive FILE`",
        )


def _require_success(result: CommandResult, workspace: Path) -> None:
    if result.code == 0:
        return
    tail = "\n".join(result.stderr.splitlines()[-_KEPT_LINES:])
    if not is_published(result.code) and result.code != USAGE_ERROR:
        raise CommandFailed(result.argv, result.code, tail)
    raise NextestFailed(
        f"the tests of {workspace} could not be archived: {meaning(result.code)}",
        code=result.code,
        details=f"command: {' '.join(result.argv)}\nexit code: {result.code}\n{tail}",
    )
