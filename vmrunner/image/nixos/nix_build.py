"""Call Nix: `nix-build`, `nix-instantiate --eval`, `nix-store --add-root`, with live progress and nothing left behind.

Neither `nix build` nor flakes nor any experimental feature is used, and NIX_PATH is emptied: what an expression gets,
it is given by argument.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vmrunner.errors import HostError, ImageBuildFailed, RunTimeout
from vmrunner.events import Note, Phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.nix_store import store_directory
from vmrunner.host.process import run_command
from vmrunner.host.program_version import version_output
from vmrunner.image.nixos.build_log import BuildLog
from vmrunner.image.nixos.ended import Ended
from vmrunner.image.nixos.failure import nix_failure

# `-vv` is the level of "evaluating file" and "copied source"; positions of errors need the trace.
_OPTIONS: Final = ("--log-format", "internal-json", "-vv", "--show-trace")
_ENVIRONMENT: Final = {"NIX_PATH": ""}
# At SIGTERM Nix kills its builders and ends, 2.8 and 2.26 within 20 ms; a busy computer may take longer.
_STOP_SECONDS: Final = 10.0
_SECONDS_BETWEEN_NEWS: Final = 0.1
_VERSION: Final = re.compile(r"\(([^)]*)\) (?:Nix )?v?(\d+(?:\.\d+)*)\S*\s*$")
# What Lix says to `builtins.nixVersion`, whatever its own version.
_LIX_COMPATIBLE: Final = (2, 18, 3)


@dataclass(frozen=True)
class NixVersion:
    """The Nix on PATH. `numbers` are those that nixpkgs compares; `text` is as it says it."""

    program: Path
    text: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class BuildResult:
    """What `nix-build` made. `files_read` is None where it is not known which files the evaluation read."""

    path: Path
    files_read: frozenset[Path] | None


@dataclass
class _News:
    """Hands what Nix says to a phase, so often that a person can follow."""

    current: Phase
    log: BuildLog = field(default_factory=BuildLog)
    told_at: float = 0.0
    warned: int = 0

    def __call__(self, line: str) -> None:
        """Take a line of Nix's standard error."""
        self.log.take(line)
        for warning in self.log.warnings[self.warned :]:
            self.current.emit(Note(f"Nix: {warning}", level="warning"))
        self.warned = len(self.log.warnings)
        if time.monotonic() - self.told_at > _SECONDS_BETWEEN_NEWS:
            self.told_at = time.monotonic()
            done = self.log.builds.done + self.log.copies.done
            expected = self.log.builds.expected + self.log.copies.expected
            self.current.progress(done, expected or None, "paths", self.log.now or "evaluating")


def program(name: str) -> Path:
    """The full path of one of Nix's programs. Raises HostError where it is not on PATH."""
    found = shutil.which(name)
    if found is None:
        raise HostError(
            f"`{name}` is not on PATH, which the nixos image needs",
            hint="install Nix (nixos.org/download, or your distribution's `nix-bin`), or use `--image debian`",
        )
    return Path(found).absolute()


def nix_version(*, deadline: Deadline) -> NixVersion:
    """The version of the `nix-build` on PATH. Raises HostError where there is none, or it does not say."""
    path = program("nix-build")
    answer = version_output(path, ["--version"], deadline=deadline)
    match = _VERSION.search(answer.stdout)
    if answer.code or match is None:
        raise HostError(
            f"`{path} --version` does not say which version it is",
            details=f"exit code: {answer.code}\n{answer.stdout}{answer.stderr}".rstrip(),
        )
    numbers = tuple(int(number) for number in match[2].split("."))
    return NixVersion(path, match[2], _LIX_COMPATIBLE if "Lix" in match[1] else numbers)


def build(
    expression: Path,
    *,
    attribute: str,
    arguments: Mapping[str, str],
    out_link: Path,
    current: Phase,
    deadline: Deadline,
    foreign: tuple[Path, ...] = (),
) -> BuildResult:
    """Build `attribute` of the expression, which takes `arguments`; `out_link` becomes a link to it and a GC root.

    `foreign` are directories of expressions that are not the user's: an error's places in them are not shown.
    The link is there only when the build succeeded. Raises ImageBuildFailed with what Nix's messages mean, HostError
    where there is no Nix, RunTimeout where the deadline passed; Nix and its builders have ended then.
    """
    out_link.unlink(missing_ok=True)
    command: list[str | Path] = [
        program("nix-build"),
        expression,
        "-A",
        attribute,
        *_strings(arguments),
        "-o",
        out_link,
    ]
    try:
        output, log = _run(command, current=current, deadline=deadline, foreign=foreign)
        paths = output.split()
        if len(paths) != 1:
            raise ImageBuildFailed(
                f"nix-build made {len(paths)} store paths out of `{attribute}` instead of one", details=output
            )
    except BaseException:
        out_link.unlink(missing_ok=True)
        raise
    known = log.files_read if log.files_complete and _says_what_it_reads(log) else None
    return BuildResult(Path(paths[0]), frozenset(known) if known is not None else None)


def evaluate(file: Path, *, arguments: Mapping[str, str], current: Phase, deadline: Deadline) -> object:
    """The value of an expression, as JSON has it. Raises as `build` does."""
    # Read and write: what is fetched while evaluating must be in the store afterwards.
    mode = ("--eval", "--strict", "--json", "--read-write-mode")
    command: list[str | Path] = [program("nix-instantiate"), *mode, file, *_strings(arguments)]
    output, _ = _run(command, current=current, deadline=deadline)
    try:
        value: object = json.loads(output)
    except ValueError as error:
        raise ImageBuildFailed(
            f"nix-instantiate did not print JSON for {file}", details=output[-2000:]
        ) from error
    return value


def add_root(path: Path, link: Path, *, deadline: Deadline) -> None:
    """Make `link` a link to the store path that keeps it from being garbage-collected until the link is removed.

    Raises ImageBuildFailed, also where the path is not in the store any more.
    """
    command: list[str | Path] = [program("nix-store"), "--add-root", link, "--indirect", "--realise", path]
    _run(command, current=Phase("root", lambda _: None), deadline=deadline)


def _strings(arguments: Mapping[str, str]) -> list[str]:
    return [word for name, value in arguments.items() for word in ("--argstr", name, value)]


def _says_what_it_reads(log: BuildLog) -> bool:
    """Whether this Nix logs the files that it evaluates: Lix does not, and an expression without imports has none."""
    return bool(log.files_read)


def _run(
    command: Sequence[str | Path], *, current: Phase, deadline: Deadline, foreign: tuple[Path, ...] = ()
) -> tuple[str, BuildLog]:
    news = _News(current)
    argv = [*command, *_OPTIONS]
    try:
        result = run_command(
            argv,
            deadline=deadline,
            check=False,
            env=_ENVIRONMENT,
            on_line=news,
            stop_grace=_STOP_SECONDS,
            keep_lines=False,
        )
    except RunTimeout as error:
        name = Path(command[0]).name
        raise RunTimeout(
            f"{name} did not finish in time; it was {news.log.now or 'evaluating'}",
            hint="`--timeout` gives more; what is built already stays in the Nix store and is not built again",
        ) from error
    if result.code:
        known = (store_directory(), *foreign)
        raise nix_failure(Ended(tuple(map(str, argv)), result.code, known), news.log)
    return result.stdout, news.log
