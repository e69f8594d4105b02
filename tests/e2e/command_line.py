"""The command line as a user runs it: a process of its own, with directories of its own, each line of output timed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from run_record import RunRecord

PROGRAM = Path(sys.executable).with_name("vmrunner")
CRATES = Path(__file__).resolve().parents[1] / "crates"

_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 240.0
"""More than any command here takes, on a slow host without KVM too."""
_INHERITED = ("VMRUNNER", "NEXTEST", "CARGO_TARGET", "CLICOLOR", "FORCE_COLOR", "NO_COLOR")
"""Variables that start so would change what a test sees, so none of them reaches the program."""


@dataclass(frozen=True)
class Line:
    """One line of standard error, and when it came: seconds after the start of the program."""

    seconds: float
    text: str


@dataclass(frozen=True)
class Finished:
    """A command that has ended. `seconds` is how long it took."""

    code: int
    stdout: str
    lines: tuple[Line, ...]
    seconds: float

    @property
    def stderr(self) -> str:
        """All of standard error."""
        return "".join(f"{line.text}\n" for line in self.lines)

    @property
    def message(self) -> str:
        """The error's own sentence; empty where no error was told."""
        return self._told("error: ")

    @property
    def hint(self) -> str:
        """What the error advises; empty where it advises nothing."""
        return self._told("hint: ")

    def line(self, pattern: str) -> Line:
        """The first line of standard error that `pattern` matches somewhere."""
        return next(line for line in self.lines if re.search(pattern, line.text))

    def _told(self, prefix: str) -> str:
        texts = [line.text for line in self.lines if line.text.startswith(prefix)]
        return texts[-1].removeprefix(prefix) if texts else ""


class Running:
    """A command under way, in a session of its own as in a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._began = time.monotonic()
        self._lines: list[Line] = []
        self._stdout = bytearray()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_stdout, args=[process.stdout], daemon=True),
            threading.Thread(target=self._read_stderr, args=[process.stderr], daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process id of vmrunner."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def wait_for(self, pattern: str, *, seconds: float = _PATIENCE_SECONDS) -> Line:
        """The first line of standard error that `pattern` matches, as soon as it is there."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended = self.ended
            for line in list(self._lines):
                if re.search(pattern, line.text):
                    return line
            if ended and not self._readers[1].is_alive():
                break
            time.sleep(_POLL_SECONDS)
        raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(line.text for line in self._lines))

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the whole process group."""
        os.killpg(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM to vmrunner alone, as a service manager or `timeout` does."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to vmrunner alone; it is gone when this returns."""
        self._process.kill()
        self._process.wait()

    def finish(self, *, seconds: float = _PATIENCE_SECONDS) -> Finished:
        """Wait for the end of the command; one that does not end is killed and fails the test."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.abandon()
            raise
        took = time.monotonic() - self._began
        for reader in self._readers:
            reader.join(10)
        return Finished(code, self._stdout.decode(), tuple(self._lines), took)

    def abandon(self) -> None:
        """End it, whatever state it is in."""
        if not self.ended:
            self.kill()
        for reader in self._readers:
            reader.join(10)

    def _read_stdout(self, pipe: IO[bytes]) -> None:
        with pipe:
            self._stdout += pipe.read()

    def _read_stderr(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                text = line.decode(errors="replace").rstrip("\n")
                self._lines.append(Line(time.monotonic() - self._began, text))


@dataclass(frozen=True)
class CommandLine:
    """vmrunner with directories of its own. `variables` are added to the environment, None takes one out.

    `target_directory` is where cargo builds; None leaves that to cargo. Copies of one crate at several places must not
    share one: cargo takes what it built of the one for what it would build of the other.
    """

    state_home: Path
    cache_home: Path
    target_directory: Path | None
    variables: Mapping[str, str | None] = field(default_factory=dict)
    program: tuple[str, ...] = (str(PROGRAM),)
    started: list[Running] = field(default_factory=list)

    def with_variables(self, **variables: str | None) -> CommandLine:
        """The same with more in its environment."""
        return replace(self, variables={**self.variables, **variables})

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of the program."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_INHERITED)}
        given: dict[str, str | None] = {
            **kept,
            "XDG_STATE_HOME": str(self.state_home),
            "XDG_CACHE_HOME": str(self.cache_home),
            "CARGO_TARGET_DIR": str(self.target_directory) if self.target_directory else None,
            **self.variables,
        }
        return {name: value for name, value in given.items() if value is not None}

    def start(self, *arguments: str | Path, cwd: Path | None = None) -> Running:
        """Start it and come back at once."""
        process = subprocess.Popen(
            [*self.program, *map(str, arguments)],
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        running = Running(process)
        self.started.append(running)
        return running

    def abandon_all(self) -> None:
        """End what a test that failed has left running."""
        for running in self.started:
            running.abandon()

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> Finished:
        """Run it to its end."""
        return self.start(*arguments, cwd=cwd).finish()

    @property
    def runs(self) -> list[RunRecord]:
        """What is left of every run so far, the oldest first."""
        directory = self.state_home / "vmrunner" / "runs"
        return [RunRecord(path) for path in sorted(directory.iterdir())] if directory.is_dir() else []

    @property
    def only_run(self) -> RunRecord:
        """What is left of the one run there was."""
        (record,) = self.runs
        return record

    def scratch(self, run: RunRecord) -> Path:
        """Where the machine of `run` had its disk and its shares while it lasted."""
        return self.cache_home / "vmrunner" / "scratch" / run.id

    def assert_nothing_left(self, run: RunRecord) -> None:
        """No process of the run is alive, and its scratch space is gone."""
        assert run.processes() == []
        assert not self.scratch(run).exists()
