"""Reading files that a guest wrote: it may have put a link, a FIFO or a flood where a report should be.

A share is walked from its root by directory descriptors without following any link, so what the guest changes
meanwhile cannot lead out of it (openat(2), O_NOFOLLOW).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO

from vmrunner.errors import UnitFailed
from vmrunner.host.files import write_atomically

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HINT = "a test replaced it; nothing was read from it"


@contextmanager
def open_regular(root: Path, relative: PurePath, *, what: str) -> Iterator[BinaryIO]:
    """Open the regular file `relative` below `root`, following no link on the way.

    `what` names the file in errors ("the JUnit report"). Raises FileNotFoundError where there is none, and
    UnitFailed where something else stands in its place.
    """
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise UnitFailed(f"{what} lies outside the share: {relative}")
    directory = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for part in relative.parts[:-1]:
            inner = _open_at(directory, part, _DIRECTORY, what)
            os.close(directory)
            directory = inner
        fd = _open_at(directory, relative.parts[-1], _FILE, what)
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnitFailed(f"{what} is not a regular file", hint=_HINT)
    with os.fdopen(fd, "rb") as file:
        yield file


def read_regular(root: Path, relative: PurePath, *, limit: int, what: str) -> bytes:
    """All of the regular file `relative` below `root`, as `open_regular` finds it.

    Raises FileNotFoundError where there is none, and UnitFailed where it has more than `limit` bytes.
    """
    with open_regular(root, relative, what=what) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnitFailed(f"{what} has more than {limit} bytes", hint="it was left where it is")
    return data


def copy_regular(root: Path, relative: PurePath, destination: Path, *, limit: int, what: str) -> None:
    """Copy the regular file `relative` below `root` to `destination` (0600, atomically); raises as `read_regular`."""
    write_atomically(destination, read_regular(root, relative, limit=limit, what=what))


def _open_at(directory: int, name: str, flags: int, what: str) -> int:
    try:
        return os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP or _is_link(directory, name):
            raise UnitFailed(
                f"{what} is a symbolic link, or lies behind one: `{name}`", hint=_HINT
            ) from error
        if error.errno in {errno.ENOTDIR, errno.ENXIO, errno.EACCES, errno.EPERM}:
            raise UnitFailed(f"{what} cannot be read: `{name}`: {error.strerror}", hint=_HINT) from error
        raise


def _is_link(directory: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False
