"""A directory of directories, each named by the key of what it was made from: images, memory templates.

::

    <root>/<key>/            an entry; `.in-use` in it is held (shared flock) by each user of it
    <root>/.tmp-<key>-<pid>/ an entry in the making; its process holds an exclusive flock on the directory
    <root>/.locks/<key>      held (exclusive flock) by who makes that entry
    <root>/.locks/store      held for a moment while a directory in the making appears or leftovers are looked at
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.host.deadline import Deadline
from vmrunner.host.files import locked, remove_tree, try_lock
from vmrunner.host.paths import private

IN_USE: Final = ".in-use"
"""The file in an entry that its users hold; its modification time is that of the last use."""

_MAKING_PREFIX: Final = ".tmp-"
_STORE_LOCK_SECONDS: Final = 30.0
_BLOCK_BYTES: Final = 512


class EntryGone(Exception):
    """The entry was removed by another process before it could be held."""


@dataclass(frozen=True)
class KeyedStore:
    """The entries below `root`. Safe for many processes at once; a process that is killed holds nothing."""

    root: Path

    def entry(self, key: str) -> Path:
        """Where the entry of that key is, or will be."""
        return self.root / key

    def entries(self) -> list[Path]:
        """The finished entries, in no order."""
        return [path for path in self.root.iterdir() if path.is_dir() and path.name[0] != "."]

    def making_lock(
        self, key: str, *, deadline: Deadline, on_wait: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Hold the right to make the entry `key`; `on_wait` is called where another process has it."""
        return locked(self._locks() / key, deadline=deadline, on_wait=on_wait)

    @contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """A directory to make an entry in: the entry when the block ends well, gone when it does not."""
        directory = self.root / f"{_MAKING_PREFIX}{key}-{os.getpid()}"
        with self._locked():
            remove_tree(directory)
            directory.mkdir(mode=0o700)
            fd = _flocked(directory)
        try:
            yield directory
            directory.rename(self.entry(key))
        finally:
            remove_tree(directory)
            if fd is not None:
                os.close(fd)

    def remove_leftovers(self) -> list[Path]:
        """Remove directories in the making whose process is dead; those of live ones are locked and stay."""
        removed = []
        with self._locked():
            for directory in self.root.glob(f"{_MAKING_PREFIX}*"):
                fd = _flocked(directory)
                if fd is None:
                    continue
                try:
                    remove_tree(directory)
                finally:
                    os.close(fd)
                removed.append(directory)
        return removed

    def remove(self, directory: Path) -> bool:
        """Remove an entry unless it is held; whether it is gone.

        It is renamed first, so that no half of it can be taken for an entry.
        """
        path = directory / IN_USE
        path.touch(mode=0o600)
        fd = _flocked(path)
        if fd is None:
            return False
        try:
            self.discard(directory.name)
        finally:
            os.close(fd)
        return True

    def discard(self, key: str) -> None:
        """Remove an entry if there is one, held or not: for one that is no good. Open files of it stay readable."""
        directory = self.entry(key)
        doomed = directory.with_name(f"{_MAKING_PREFIX}{key}-removed-{os.getpid()}")
        try:
            directory.rename(doomed)
        except FileNotFoundError:
            return
        remove_tree(doomed)

    def _locks(self) -> Path:
        return private(self.root / ".locks")

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self._locks() / "store", deadline=Deadline.after(_STORE_LOCK_SECONDS))


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep an entry from being removed while the block runs, and note that it was used; others may hold it too.

    Raises EntryGone where it was removed meanwhile. A directory that cannot be written to is nobody's to remove, and
    is held without a lock.
    """
    path = directory / IN_USE
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:
        yield
        return
    except OSError as error:
        if not directory.is_dir():
            raise EntryGone(directory) from error
        yield  # a read-only file system
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        if not path.exists():
            raise EntryGone(directory)
        os.utime(fd)
        yield
    finally:
        os.close(fd)


def is_held(directory: Path) -> bool:
    """Whether some process holds the entry."""
    path = directory / IN_USE
    if not path.exists():
        return False
    fd = _flocked(path)
    if fd is None:
        return True
    os.close(fd)
    return False


def bytes_on_disk(directory: Path) -> int:
    """What the files directly in `directory`, or that it links to, take on the disk; holes take nothing."""
    return sum(path.stat().st_blocks for path in directory.iterdir() if path.exists()) * _BLOCK_BYTES


def _flocked(path: Path) -> int | None:
    """An open descriptor with an exclusive flock on `path`, or None where another's lock is in the way."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if try_lock(fd):
        return fd
    os.close(fd)
    return None
