"""A guest that is this computer: an SSH server that runs real commands and serves real files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import paramiko
from fake_sshd import FakeSshd, Run, Terminal, running_sshd
from paramiko.common import cMSG_CHANNEL_REQUEST
from paramiko.sftp import SFTP_OK
from paramiko.sftp_attr import SFTPAttributes
from paramiko.sftp_handle import SFTPHandle

from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline


def is_alive() -> None:
    """A machine that lives."""


@contextmanager
def local_guest(*, alive: Callable[[], None] = is_alive) -> Iterator[tuple[Guest, FakeSshd]]:
    """A connected guest whose commands run here, and its server."""
    with running_sshd() as sshd:
        sshd.run = _run_here(sshd.terminals)
        sshd.sftp = LocalFiles
        guest = Guest(sshd.endpoint, alive=alive)
        try:
            guest.connect(Deadline.after(10))
            yield guest, sshd
        finally:
            guest.close()


def _run_here(terminals: dict[int, Terminal]) -> Run:
    def run(command: str, channel: paramiko.Channel) -> None:
        terminal = terminals.get(channel.get_id())
        words = ["sh", "-c", command] if command else ["sh"]
        code = _with_pipes(words, channel) if terminal is None else _with_terminal(words, channel, terminal)
        if code < 0:
            _send_exit_signal(channel, signal.Signals(-code).name.removeprefix("SIG"))
        else:
            channel.send_exit_status(code)
        channel.close()

    return run


def _with_pipes(words: list[str], channel: paramiko.Channel) -> int:
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as child:
        assert child.stdin and child.stdout and child.stderr
        stdin, stdout, stderr = child.stdin, child.stdout, child.stderr

        def feed() -> None:
            with contextlib.suppress(OSError, ValueError):
                while chunk := channel.recv(65536):
                    stdin.write(chunk)
                    stdin.flush()
            with contextlib.suppress(OSError):
                stdin.close()

        def errors() -> None:
            _copy(lambda: os.read(stderr.fileno(), 65536), channel.sendall_stderr)

        threads = [threading.Thread(target=work, daemon=True) for work in (feed, errors)]
        for thread in threads:
            thread.start()
        _copy(lambda: os.read(stdout.fileno(), 65536), channel.sendall)
        threads[1].join()
        # As sshd does: a reader that has gone closes the pipes, which the next write meets.
        stdout.close()
        stderr.close()
        return child.wait()


def _with_terminal(words: list[str], channel: paramiko.Channel, terminal: Terminal) -> int:
    tty, fd = terminal.theirs, terminal.ours
    with subprocess.Popen(
        ["setsid", "--ctty", *words],
        stdin=tty,
        stdout=tty,
        stderr=tty,
        env={**os.environ, "TERM": terminal.kind, "PS1": "$ "},
    ) as child:
        os.close(tty)
        threading.Thread(
            target=lambda: _copy(lambda: channel.recv(1024), lambda data: os.write(fd, data)), daemon=True
        ).start()
        _copy(lambda: os.read(fd, 1024), channel.sendall)
        return child.wait()


def _copy(read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError):
        while chunk := read():
            write(chunk)


def _send_exit_signal(channel: paramiko.Channel, name: str) -> None:
    """What sshd sends where a signal ended the command (RFC 4254, 6.10)."""
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exit-signal")
    message.add_boolean(False)
    message.add_string(name)
    message.add_boolean(False)
    message.add_string("")
    message.add_string("")
    channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]  # left out of the stubs


def _attributes(path: str, *, follow: bool) -> SFTPAttributes | int:
    try:
        return SFTPAttributes.from_stat(Path(path).stat(follow_symlinks=follow), Path(path).name)
    except OSError as error:
        return paramiko.SFTPServer.convert_errno(error.errno or 0)


def _answer(operation: Callable[[], object]) -> int:
    try:
        operation()
    except OSError as error:
        return paramiko.SFTPServer.convert_errno(error.errno or 0)
    return SFTP_OK


class LocalFiles(paramiko.SFTPServerInterface):
    """The files of this computer, by their own paths."""

    def list_folder(self, path: str) -> list[SFTPAttributes] | int:
        found = [_attributes(str(inner), follow=False) for inner in Path(path).iterdir()]
        return [one for one in found if isinstance(one, SFTPAttributes)]

    def stat(self, path: str) -> SFTPAttributes | int:
        return _attributes(path, follow=True)

    def lstat(self, path: str) -> SFTPAttributes | int:
        return _attributes(path, follow=False)

    def open(self, path: str, flags: int, attr: SFTPAttributes) -> SFTPHandle | int:
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        handle = LocalFile(flags)
        file = os.fdopen(fd, "wb" if flags & os.O_WRONLY else "rb")
        handle.readfile = handle.writefile = file
        return handle

    def remove(self, path: str) -> int:
        return _answer(lambda: Path(path).unlink())

    def mkdir(self, path: str, attr: SFTPAttributes) -> int:
        return _answer(lambda: Path(path).mkdir(attr.st_mode or 0o777))

    def chattr(self, path: str, attr: SFTPAttributes) -> int:
        return _answer(lambda: paramiko.SFTPServer.set_file_attr(path, attr))

    def readlink(self, path: str) -> str | int:
        return str(Path(path).readlink())

    def symlink(self, target_path: str, path: str) -> int:
        return _answer(lambda: Path(path).symlink_to(target_path))


class LocalFile(SFTPHandle):
    """An open file of this computer."""

    readfile: BinaryIO
    writefile: BinaryIO

    def chattr(self, attr: SFTPAttributes) -> int:
        self.writefile.flush()
        return _answer(
            lambda: paramiko.SFTPServer.set_file_attr(f"/proc/self/fd/{self.writefile.fileno()}", attr)
        )
