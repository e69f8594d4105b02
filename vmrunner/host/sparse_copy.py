"""Copies of big files that take no more room and time than they must: shared blocks where that goes, else holes kept."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

# ioctl_ficlone(2): _IOW(0x94, 9, int)
_FICLONE: Final = 0x40049409
_CHUNK_BYTES: Final = 16 << 20


def copy_sparse(source: Path, destination: Path) -> None:
    """Copy to the new file `destination`, private to its user; it is not synced.

    Raises OSError, and then leaves nothing.
    """
    try:
        with source.open("rb") as file:
            fd = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if not _cloned(file.fileno(), fd):
                    _copy_data(file.fileno(), fd)
            finally:
                os.close(fd)
    except FileExistsError:
        raise
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def link_or_copy(source: Path, destination: Path) -> None:
    """A second name for a file that nobody writes to; a copy where that is on another file system.

    One that is already there stays.
    """
    with contextlib.suppress(FileExistsError):
        try:
            os.link(source, destination)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            temporary = destination.with_name(f".{destination.name}.{os.getpid()}")
            copy_sparse(source, temporary)
            temporary.rename(destination)


def _cloned(source: int, destination: int) -> bool:
    """Let the copy share the blocks of the source, on file systems that can do that."""
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError:
        return False
    return True


def _copy_data(source: int, destination: int) -> None:
    size = os.fstat(source).st_size
    position = 0
    while position < size:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        end = os.lseek(source, position, os.SEEK_HOLE)
        while position < end:
            copied = _copy_chunk(source, destination, position, min(_CHUNK_BYTES, end - position))
            if not copied:
                break
            position += copied
    os.ftruncate(destination, size)


def _copy_chunk(source: int, destination: int, position: int, count: int) -> int:
    """In the kernel, without a buffer of ours. Returns how many bytes were copied."""
    os.lseek(destination, position, os.SEEK_SET)
    return os.sendfile(destination, source, position, count)
