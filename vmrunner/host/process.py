"""Child processes: run a host command to its end, with a deadline, its output, and nothing left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shlex
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vmrunner.errors import CommandFailed, HostError, RunTimeout
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import shielded

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 5.0
_STOP_POLL_SECONDS = 0.02
_KEPT_LINES = 40


@dataclass(frozen=True)
class CommandResult:
    """What a finished command left: exit status and all it printed on either stream."""

    argv: list[str]
    code: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text; what is not UTF-8 is shown as U+FFFD."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text; what is not UTF-8 is shown as U+FFFD."""
        return self.stderr_bytes.decode(errors="replace")


def run_command(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline,
    check: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Path = Path(os.devnull),
    on_line: Callable[[str], None] | None = None,
    hint: str | None = None,
    stop_grace: float = STOP_GRACE_SECONDS,
    keep_lines: bool = True,
) -> CommandResult:
    """Run `argv` to its end and return what it printed.

    `env` is added to this process's environment. `on_line` gets every line of standard error as it comes; without
    `keep_lines` those are not in the result, however many they are.
    The child has its own process group and no standard input but the file `stdin`; when the deadline passes or an exception
    (Ctrl-C, or one from `on_line`) arrives, the whole group is terminated, killed after `stop_grace` seconds,
    and waited for.

    Raises CommandFailed where `check` and the exit code is not 0, HostError where the program cannot be
    started, RunTimeout where the deadline passed.
    """
    words = [os.fspath(word) for word in argv]
    log.debug("run: %s", shlex.join(words))
    with stdin.open("rb") as source, _start(words, cwd, env, source, hint) as child:
        try:
            stdout, stderr = _communicate(child, deadline, on_line, keep_lines=keep_lines)
        except BaseException:
            with shielded():
                stop_group(child, stop_grace)
            raise
    if check and child.returncode:
        tail = "\n".join(deque((stdout + stderr).decode(errors="replace").splitlines(), maxlen=_KEPT_LINES))
        raise CommandFailed(words, child.returncode, tail, hint=hint)
    return CommandResult(words, child.returncode, stdout, stderr)


def _start(
    words: list[str], cwd: Path | None, env: Mapping[str, str] | None, stdin: IO[bytes], hint: str | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        if cwd is not None and not cwd.is_dir():
            raise HostError(f"`{words[0]}` cannot be started in {cwd}: no such directory") from error
        # An unreadable directory on PATH makes a missing program look like a forbidden one.
        nowhere = "/" not in words[0] and shutil.which(words[0]) is None
        if nowhere or isinstance(error, FileNotFoundError):
            raise HostError(
                f"`{words[0]}` is not installed", hint=hint or "`vmrunner doctor` lists what is needed"
            ) from error
        raise HostError(f"`{words[0]}` cannot be started: {error.strerror}", hint=hint) from error


def _communicate(
    child: subprocess.Popen[bytes],
    deadline: Deadline,
    on_line: Callable[[str], None] | None,
    *,
    keep_lines: bool,
) -> tuple[bytes, bytes]:
    """Read both pipes side by side, so that neither can fill up and block the child."""
    assert child.stdout is not None and child.stderr is not None
    kept: dict[int, bytearray] = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    told = 0
    with selectors.DefaultSelector() as selector:
        for fd in kept:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            _take_what_is_there(selector, kept, min(deadline.remaining, 1.0))
            if on_line:
                told = _tell_lines(kept[child.stderr.fileno()], told, on_line, keep=keep_lines)
            if deadline.passed and selector.get_map():
                raise RunTimeout(f"`{child.args[0]!s}` did not finish in time")  # type: ignore[index]  # args is our list
    _wait(child, deadline)
    out, err = kept.values()
    if on_line and told < len(err):
        on_line(err[told:].decode(errors="replace"))
    return bytes(out), bytes(err)


def _take_what_is_there(selector: selectors.BaseSelector, kept: dict[int, bytearray], seconds: float) -> None:
    """Wait for that long at most; a pipe that has ended is watched no longer."""
    for key, _ in selector.select(seconds):
        chunk = os.read(key.fd, 65536)
        if not chunk:
            selector.unregister(key.fd)
        kept[key.fd] += chunk


def _tell_lines(buffer: bytearray, told: int, on_line: Callable[[str], None], *, keep: bool) -> int:
    """Tell the whole lines behind the first `told` bytes; returns how many bytes of the buffer are told now."""
    end = buffer.rfind(b"\n") + 1
    if end > told:
        for line in bytes(buffer[told:end]).decode(errors="replace").splitlines():
            on_line(line)
        told = end
    if keep:
        return told
    del buffer[:told]
    return 0


def _wait(child: subprocess.Popen[bytes], deadline: Deadline) -> None:
    try:
        child.wait(max(deadline.remaining, 0.1))
    except subprocess.TimeoutExpired as error:
        raise RunTimeout(f"`{child.args[0]!s}` closed its output but did not end in time") from error  # type: ignore[index]  # args is our list


def stop_group(child: subprocess.Popen[bytes], grace: float = STOP_GRACE_SECONDS) -> None:
    """End a child and its process group: SIGTERM, up to `grace` seconds, SIGKILL for whoever is left, wait.

    The child is not reaped before its group is dead, so the group's number cannot have gone to a stranger.
    """
    _signal_group(child, signal.SIGTERM)
    until = Deadline.after(grace)
    while not _has_ended(child) and until.pause(_STOP_POLL_SECONDS):
        pass
    _signal_group(child, signal.SIGKILL)
    child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child is dead, leaving its exit status to be read."""
    if child.returncode is not None:
        return True
    state = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return state is not None
