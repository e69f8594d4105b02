"""Run a program to its end and take its time."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_SECONDS = 900.0
"""Longest time that one command of a benchmark may take; the first one may install something."""

_TAIL_LINES = 20


class NotMeasured(Exception):
    """Something could not be measured here; its text says what and why. `exit_code`: of the command that failed."""

    def __init__(self, text: str, *, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Timed:
    """A program that ended as it should: seconds from its start to its end, what it printed."""

    seconds: float
    stdout: str
    stderr: str


def timed(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit: float = LIMIT_SECONDS,
    codes: frozenset[int] = frozenset({0}),
) -> Timed:
    """Run `argv` without input; `env` is added to this process's environment.

    It has its own process group, which is killed whole after `limit` seconds or when this process is interrupted.

    Raises NotMeasured, with the end of what it printed, where it cannot be started, is not done in time, or ends with
    an exit code that is not one of `codes`.
    """
    words = [os.fspath(word) for word in argv]
    began = time.monotonic()
    try:
        child = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise NotMeasured(f"`{words[0]}` cannot be started: {error.strerror}") from error
    try:
        stdout, stderr = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"`{shlex.join(words)}` was not done after {limit:.0f} s") from error
    finally:
        _end_group(child)
    seconds = time.monotonic() - began
    if child.returncode not in codes:
        tail = "\n".join((stdout + stderr).splitlines()[-_TAIL_LINES:])
        raise NotMeasured(
            f"`{shlex.join(words)}` ended with exit code {child.returncode}\n{tail}",
            exit_code=child.returncode,
        )
    return Timed(seconds, stdout, stderr)


def _end_group(child: subprocess.Popen[str]) -> None:
    """Kill what is left where the child did not end by itself."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
