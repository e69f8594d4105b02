"""The QEMU process: started so that it dies with us, stopped by a ladder that always ends in a wait."""

from __future__ import annotations

import logging
import shlex
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vmrunner.errors import HostError, QemuExited
from vmrunner.host.log_end import tail
from vmrunner.host.process import stop_group

log = logging.getLogger(__name__)


class QemuProcess:
    """A started QEMU. `start_qemu` makes one; `kill` or `wait` ends it."""

    def __init__(self, child: subprocess.Popen[bytes], arguments: Sequence[str], log_path: Path) -> None:
        self._child = child
        self.arguments = tuple(arguments)
        self.log_path = log_path

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

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

    def exited_error(self, when: str) -> QemuExited:
        """An error that carries what QEMU said, for a process that ended `when` it should not have."""
        said = tail(self.log_path)
        return QemuExited(
            f"QEMU exited with code {self._child.wait()} {when}",
            hint=_hint_for(said),
            details=f"command: {shlex.join(self.arguments)}\n{said}".rstrip(),
        )


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
