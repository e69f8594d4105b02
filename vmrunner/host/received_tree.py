"""Writing files that a guest sends: nothing is followed, and nothing lands outside the directory that was asked for.

Every name is used relative to the descriptor of the directory it belongs in, and never as a path (openat(2),
O_NOFOLLOW), so a link that lies there, or that the guest sent a moment ago, leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vmrunner.errors import GuestError, HostError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o777
"""What is taken over of a mode: a guest has no say in which programs run as somebody else here (setuid, setgid)."""


class ReceivingDirectory:
    """An open directory of this computer that takes what a guest sends. Made by `receive_into` and `directory`."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self.path = path
        """For messages only."""

    @contextmanager
    def directory(self, name: str, *, mode: int | None, mtime: float | None) -> Iterator[ReceivingDirectory]:
        """The directory `name` in this one; where it is new, it gets `mode` and `mtime` (seconds) at the end.

        Raises HostError where something else has that name, a link to a directory included.
        """
        path = self.path / _checked(name)
        with on_host(path):
            made = _made_directory(self._fd, name)
            fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._fd)
        try:
            yield ReceivingDirectory(fd, path)
            if made:
                with on_host(path):
                    _set_attributes(fd, 0o755 if mode is None else mode, mtime)
        finally:
            os.close(fd)

    @contextmanager
    def file(self, name: str, *, mode: int | None, mtime: float | None) -> Iterator[BinaryIO]:
        """A new file to write, which takes the name when the block ends well, in place of a file or link there."""
        path = self.path / _checked(name)
        temporary = _temporary_name()
        with on_host(path):
            fd = os.open(temporary, _NEW_FILE, 0o600, dir_fd=self._fd)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
                with on_host(path):
                    file.flush()
                    _set_attributes(file.fileno(), 0o644 if mode is None else mode, mtime)
            with on_host(path):
                os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._fd)
            raise

    def link(self, name: str, target: str) -> None:
        """A symbolic link, as it is, in place of a file or link of that name; nobody looks where it leads."""
        path = self.path / _checked(name)
        if "\0" in target or not target:
            raise GuestError(
                f"the guest sent a symbolic link that no link can be: {path.name!r} -> {target!r}"
            )
        temporary = _temporary_name()
        with on_host(path):
            os.symlink(target, temporary, dir_fd=self._fd)
            try:
                os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                os.unlink(temporary, dir_fd=self._fd)
                raise


@contextmanager
def receive_into(path: Path) -> Iterator[ReceivingDirectory]:
    """Open the directory that the person named; links on the way to it are theirs and are followed."""
    with on_host(path):
        fd = os.open(path, _DIRECTORY)
    try:
        yield ReceivingDirectory(fd, path)
    finally:
        os.close(fd)


@contextmanager
def on_host(path: Path | str) -> Iterator[None]:
    """Turn an OSError about a file of this computer into a HostError that names it."""
    try:
        yield
    except OSError as error:
        raise HostError(f"`{path}` on this computer: {error.strerror}", hint=_hint(error)) from error


def _hint(error: OSError) -> str | None:
    hints = {
        errno.ENOSPC: "free some space, or copy to another file system",
        errno.EDQUOT: "the disk quota is used up; copy to another file system",
        errno.EACCES: "its owner and mode do not let you",
        errno.ENOTDIR: "a file or a symbolic link has the name of a directory; nothing is copied through links",
        errno.ELOOP: "a symbolic link is in the way; nothing is copied through links",
        errno.EISDIR: "a directory has the name of a file; remove it first",
    }
    return hints.get(error.errno or 0)


def _checked(name: str) -> str:
    """Refuse a name that is a path: only a guest that lies sends one."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise GuestError(
            f"the guest lists a file name that no file can have: {name!r}",
            hint="its SFTP server cannot be trusted; nothing was written under that name",
        )
    return name


def _made_directory(parent: int, name: str) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def _set_attributes(fd: int, mode: int, mtime: float | None) -> None:
    os.fchmod(fd, stat.S_IMODE(mode) & _PERMISSIONS)
    if mtime is not None:
        os.utime(fd, (mtime, mtime))


def _temporary_name() -> str:
    return f".vmrunner-{secrets.token_hex(8)}"
