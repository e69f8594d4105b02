"""The image store: one directory per digest, builds that nobody takes for an image, what may be removed.

::

    images/<digest>/           an image; `.in-use` in it is held (shared flock) by each machine on it
    images/.tmp-<digest>-<pid>/ a build under way; its process holds an exclusive flock on the directory
    images/.locks/<digest>     held (exclusive flock) by who builds that image
    images/.locks/store        held for a moment while a build directory appears or leftovers are looked at
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.errors import ImageError, ImageNotFound
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import locked, remove_tree, try_lock
from vmrunner.host.paths import images_dir, private
from vmrunner.image.manifest import MANIFEST_NAME, Image, Manifest

_IN_USE: Final = ".in-use"
_BUILD_PREFIX: Final = ".tmp-"
_STORE_LOCK_SECONDS: Final = 30.0
_BLOCK_BYTES: Final = 512


@dataclass(frozen=True)
class StoredImage:
    """One image of the store.

    `size` is bytes on disk; `created` and `last_used` are seconds since the epoch.
    """

    directory: Path
    digest: str
    name: str
    size: int
    created: float
    last_used: float


def image_directory(digest: str) -> Path:
    """Where the image of that digest is, or will be."""
    return images_dir() / digest


def build_lock(
    digest: str, *, deadline: Deadline, on_wait: Callable[[], None]
) -> AbstractContextManager[None]:
    """Hold the right to build the image `digest`; `on_wait` is called where another process has it."""
    return locked(_locks_dir() / digest, deadline=deadline, on_wait=on_wait)


@contextmanager
def build_directory(digest: str) -> Iterator[Path]:
    """A directory to build in: the image when the block ends well, gone when it does not."""
    directory = images_dir() / f"{_BUILD_PREFIX}{digest}-{os.getpid()}"
    with _store_locked():
        remove_tree(directory)
        directory.mkdir(mode=0o700)
        fd = _flocked(directory, exclusive=True)
    try:
        yield directory
        directory.rename(image_directory(digest))
    finally:
        remove_tree(directory)
        if fd is not None:
            os.close(fd)


def remove_leftovers() -> list[Path]:
    """Remove build directories whose process is dead; those of live ones are locked and stay."""
    removed = []
    with _store_locked():
        for directory in images_dir().glob(f"{_BUILD_PREFIX}*"):
            fd = _flocked(directory, exclusive=True)
            if fd is None:
                continue
            try:
                remove_tree(directory)
            finally:
                os.close(fd)
            removed.append(directory)
    return removed


@contextmanager
def hold(image: Image) -> Iterator[None]:
    """Keep the image from being pruned while the block runs, and note that it was used.

    Raises ImageNotFound where it was removed meanwhile. Other users may hold it too. An image in a directory
    that cannot be written to is nobody's to prune, and is held without a lock.
    """
    path = image.directory / _IN_USE
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:
        yield
        return
    except OSError as error:
        if not image.directory.is_dir():
            raise _gone(image.directory) from error
        yield  # a read-only file system
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        if not path.exists():
            raise _gone(image.directory)
        os.utime(fd)
        yield
    finally:
        os.close(fd)


def list_images() -> list[StoredImage]:
    """The images of the store, the one used last first.

    A directory without a readable manifest has the name `?`.
    """
    found = [_describe(path) for path in images_dir().iterdir() if path.is_dir() and path.name[0] != "."]
    return sorted(found, key=lambda stored: stored.last_used, reverse=True)


def find(start: str) -> StoredImage:
    """The one image whose digest starts with `start`.

    Raises ImageNotFound where there is none, or more than one.
    """
    matches = [stored for stored in list_images() if start and stored.digest.startswith(start)]
    if len(matches) != 1:
        raise ImageNotFound(
            f"{'several images have' if matches else 'no image has'} a digest that starts with {start!r}",
            hint="`vmrunner image list` shows the images there are",
        )
    return matches[0]


def remove(start: str) -> StoredImage:
    """Remove the one image whose digest starts with `start`, and return what it was.

    Raises ImageNotFound as `find` does, ImageError where a machine runs on it.
    """
    stored = find(start)
    if not _remove_unused(stored.directory):
        raise ImageError(
            f"the image {stored.digest[:12]} is in use by a running machine",
            hint="`vmrunner ps` shows it; stop it first",
        )
    return stored


def prune(*, unused_for: float = 0.0, dry_run: bool = False) -> list[StoredImage]:
    """Remove the images that nobody used in the last `unused_for` seconds, and leftovers of dead builds.

    Images of running machines stay. Returns those that were removed, or with `dry_run` would be.
    """
    now = time.time()
    candidates = [stored for stored in list_images() if now - stored.last_used >= unused_for]
    if dry_run:
        return [stored for stored in candidates if not _is_held(stored.directory)]
    remove_leftovers()
    return [stored for stored in candidates if _remove_unused(stored.directory)]


def _locks_dir() -> Path:
    return private(images_dir() / ".locks")


def _store_locked() -> AbstractContextManager[None]:
    return locked(_locks_dir() / "store", deadline=Deadline.after(_STORE_LOCK_SECONDS))


def _gone(directory: Path) -> ImageNotFound:
    return ImageNotFound(f"the image {directory} was removed meanwhile", hint="run the command again")


def _flocked(path: Path, *, exclusive: bool) -> int | None:
    """An open descriptor that holds a flock on `path`, or None where another process's lock is in the way."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if try_lock(fd, shared=not exclusive):
        return fd
    os.close(fd)
    return None


def _is_held(directory: Path) -> bool:
    path = directory / _IN_USE
    if not path.exists():
        return False
    fd = _flocked(path, exclusive=True)
    if fd is None:
        return True
    os.close(fd)
    return False


def _remove_unused(directory: Path) -> bool:
    """Remove an image unless it is held.

    It is renamed first, so that no half of it can be taken for an image.
    """
    path = directory / _IN_USE
    path.touch(mode=0o600)
    fd = _flocked(path, exclusive=True)
    if fd is None:
        return False
    try:
        doomed = directory.with_name(f"{_BUILD_PREFIX}{directory.name}-removed-{os.getpid()}")
        directory.rename(doomed)
        remove_tree(doomed)
    finally:
        os.close(fd)
    return True


def _describe(directory: Path) -> StoredImage:
    name = "?"
    with contextlib.suppress(OSError, ValueError):
        name = Manifest.model_validate_json((directory / MANIFEST_NAME).read_text()).name
    created = directory.stat().st_mtime
    with contextlib.suppress(OSError):
        created = (directory / MANIFEST_NAME).stat().st_mtime
    last_used = created
    with contextlib.suppress(OSError):
        last_used = max(created, (directory / _IN_USE).stat().st_mtime)
    size = sum(path.stat().st_blocks for path in directory.iterdir()) * _BLOCK_BYTES
    return StoredImage(directory, directory.name, name, size, created, last_used)
