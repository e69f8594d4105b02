"""Child processes: run a host command to its end, with a deadline, its output, and nothing left behind."""

from __future__ import annotations

import logging
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmrunner.errors import CommandFailed, HostError, RunTimeout
from vmrunner.host.deadline import Deadline

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 5.0
_KEPT_LINES = 40


@dataclass(frozen=True)
class CommandResult:
    """What a finished command left: exit status and all it printed on either stream."""

    argv: list[str]
    code: int
    stdout: str
    stderr: str


def run_command(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline,
    check: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    hint: str | None = None,
) -> CommandResult:
    """Run `argv` to its end and return what it printed.

    `env` is added to this process's environment. `on_line` gets every line of standard error as it comes.
    The child has its own process group and no standard input; when the deadline passes or an exception
    (Ctrl-C) arrives, the whole group is terminated, then killed, and waited for.

    Raises CommandFailed where `check` and the exit code is not 0, HostError where the program does not exist,
    RunTimeout where the deadline passed.
    """
    words = [os.fspath(word) for word in argv]
    log.debug("run: %s", shlex.join(words))
    try:
        child = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostError(
            f"`{words[0]}` is not installed", hint=hint or "`vmrunner doctor` lists what is needed"
        ) from error
    except PermissionError as error:
        raise HostError(f"`{words[0]}` cannot be started: {error.strerror}", hint=hint) from error
    with child:
        try:
            stdout, stderr = _communicate(child, deadline, on_line)
        except BaseException:
            stop_group(child)
            raise
    if check and child.returncode:
        tail = "\n".join(deque((stdout + stderr).splitlines(), maxlen=_KEPT_LINES))
        raise CommandFailed(words, child.returncode, tail, hint=hint)
    return CommandResult(words, child.returncode, stdout, stderr)


def _communicate(
    child: subprocess.Popen[bytes], deadline: Deadline, on_line: Callable[[str], None] | None
) -> tuple[str, str]:
    """Read both pipes side by side, so that neither can fill up and block the child."""
    assert child.stdout is not None and child.stderr is not None
    kept: dict[int, bytearray] = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    told = 0
    with selectors.DefaultSelector() as selector:
        for fd in kept:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(min(deadline.remaining, 1.0))
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fd)
                kept[key.fd] += chunk
            if on_line:
                told = _tell_lines(kept[child.stderr.fileno()], told, on_line)
            if deadline.passed and selector.get_map():
                raise RunTimeout(f"`{child.args[0]!s}` did not finish in time")  # type: ignore[index]  # args is our list
    _wait(child, deadline)
    out, err = kept.values()
    return out.decode(errors="replace"), err.decode(errors="replace")


def _tell_lines(buffer: bytearray, told: int, on_line: Callable[[str], None]) -> int:
    end = buffer.rfind(b"\n") + 1
    if end > told:
        for line in bytes(buffer[told:end]).decode(errors="replace").splitlines():
            on_line(line)
    return max(told, end)


def _wait(child: subprocess.Popen[bytes], deadline: Deadline) -> None:
    try:
        child.wait(max(deadline.remaining, 0.1))
    except subprocess.TimeoutExpired as error:
        raise RunTimeout(f"`{child.args[0]!s}` closed its output but did not end in time") from error  # type: ignore[index]  # args is our list


def stop_group(child: subprocess.Popen[bytes], grace: float = STOP_GRACE_SECONDS) -> None:
    """End a child and its process group: SIGTERM, `grace` seconds, SIGKILL, wait."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        until = time.monotonic() + grace
        try:
            child.wait(until - time.monotonic())
        except subprocess.TimeoutExpired:
            continue
        break
    child.wait()
