"""The QEMU process: started so that it dies with us or so that it outlives us, and how each is ended and asked after."""

from __future__ import annotations

import logging
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vmrunner.errors import HostError, QemuExited
from vmrunner.host.log_end import tail
from vmrunner.host.process import stop_group
from vmrunner.host.process_identity import ProcessIdentity

log = logging.getLogger(__name__)


class Process(Protocol):
    """What a machine needs of its QEMU, whoever started it."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and where nobody can know; negative where a signal ended it."""

    def wait(self, seconds: float) -> bool:
        """Wait for it to end by itself; False where it did not."""

    def terminate(self, grace: float) -> None:
        """End it: SIGTERM, `grace` seconds, SIGKILL, wait. Does nothing where it has ended."""

    def exited_error(self, when: str) -> QemuExited:
        """An error that carries what QEMU said, for a process that ended `when` it should not have."""


class QemuProcess:
    """A started QEMU, our child. `start_qemu` and `start_detached_qemu` make one; `kill` or `wait` ends it."""

    def __init__(self, child: subprocess.Popen[bytes], arguments: Sequence[str], log_path: Path) -> None:
        self._child = child
        self.arguments = tuple(arguments)
        self.log_path = log_path

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._child.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        return self._child.poll()

    def wait(self, seconds: float) -> bool:
        """Wait for it to end by itself; False where it did not."""
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def terminate(self, grace: float) -> None:
        """End it: SIGTERM, `grace` seconds, SIGKILL, wait. Does nothing where it has ended."""
        if self._child.poll() is None:
            stop_group(self._child, grace)

    def kill(self) -> None:
        """End it at once, and wait."""
        self._child.kill()
        self._child.wait()

    def release(self) -> None:
        """Have no more to do with it: it runs on, and is reaped where it ends before this process does."""
        threading.Thread(target=self._child.wait, name="reaper", daemon=True).start()

    def exited_error(self, when: str) -> QemuExited:
        """An error that carries what QEMU said, for a process that ended `when` it should not have."""
        said = tail(self.log_path)
        return QemuExited(
            f"QEMU exited with code {self._child.wait()} {when}",
            hint=_hint_for(said),
            details=f"command: {shlex.join(self.arguments)}\n{said}".rstrip(),
        )


class ForeignQemu:
    """A QEMU that an earlier command started; how it ends is all that can be known of it."""

    def __init__(self, identity: ProcessIdentity, log_path: Path) -> None:
        self.identity = identity
        self.log_path = log_path

    @property
    def pid(self) -> int:
        """The process id."""
        return self.identity.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return not self.identity.alive()

    @property
    def exit_code(self) -> None:
        """Its parent's to know."""
        return

    def wait(self, seconds: float) -> bool:
        """Wait for it to end by itself; False where it did not."""
        return self.identity.wait(seconds)

    def terminate(self, grace: float) -> None:
        """End it: SIGTERM, `grace` seconds, SIGKILL, wait. Does nothing where it has ended."""
        self.identity.end(grace=grace)

    def exited_error(self, when: str) -> QemuExited:
        """An error that carries what QEMU said, for a process that ended `when` it should not have."""
        return QemuExited(f"QEMU ended {when}", details=tail(self.log_path) or None)


def start_detached_qemu(arguments: Sequence[str], *, log_path: Path) -> QemuProcess:
    """Start a QEMU that outlives this process, its terminal and its login, both its streams at the end of `log_path`.

    It has a session of its own, and no directory of anybody's as its working directory. Raises HostError where QEMU
    cannot be started.
    """
    log.debug("run: %s", shlex.join(arguments))
    with log_path.open("ab") as output:
        log_path.chmod(0o600)
        try:
            child = subprocess.Popen(
                arguments,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"`{arguments[0]}` cannot be started: {error.strerror}") from error
    return QemuProcess(child, arguments, log_path)


def start_qemu(arguments: Sequence[str], *, monitor_end: socket.socket, log_path: Path) -> QemuProcess:
    """Start QEMU with `monitor_end` inherited and both its streams in `log_path`.

    The kernel kills it when this process dies, by SIGKILL too (prctl(2), PR_SET_PDEATHSIG, set by setpriv(1)). That
    signal is sent when the *thread* that forked ends, so this is called from the main thread. A session of its own keeps
    the terminal's Ctrl-C from it.

    Raises HostError where setpriv or QEMU is missing.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise HostError("`setpriv` is not installed", hint="install util-linux")
    command = [setpriv, "--pdeathsig", "KILL", *arguments]
    log.debug("run: %s", shlex.join(command))
    with log_path.open("wb") as output:
        log_path.chmod(0o600)
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[monitor_end.fileno()],
            start_new_session=True,
        )
    return QemuProcess(child, arguments, log_path)


def _hint_for(said: str) -> str | None:
    if "annot allocate memory" in said or "cannot set up guest memory" in said:
        return "give the machine less `memory`, or free some on this host"
    if "Permission denied" in said and "/dev/kvm" in said:
        return "add yourself to the group `kvm`, or use `--accel tcg`"
    if "No space left" in said:
        return "free some disk space"
    return None
