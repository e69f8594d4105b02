"""The image store: images by digest, which of them are in use, and what may be removed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmrunner.errors import ImageError, ImageNotFound
from vmrunner.host.deadline import Deadline
from vmrunner.host.keyed_store import IN_USE, EntryGone, KeyedStore, bytes_on_disk, held, is_held
from vmrunner.host.paths import images_dir
from vmrunner.image.manifest import MANIFEST_NAME, Image, Manifest


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
    return _store().entry(digest)


def build_lock(
    digest: str, *, deadline: Deadline, on_wait: Callable[[], None]
) -> AbstractContextManager[None]:
    """Hold the right to build the image `digest`; `on_wait` is called where another process has it."""
    return _store().making_lock(digest, deadline=deadline, on_wait=on_wait)


def build_directory(digest: str) -> AbstractContextManager[Path]:
    """A directory to build in: the image when the block ends well, gone when it does not."""
    return _store().making(digest)


def remove_leftovers() -> list[Path]:
    """Remove build directories whose process is dead; those of live ones are locked and stay."""
    return _store().remove_leftovers()


@contextmanager
def hold(image: Image) -> Iterator[None]:
    """Keep the image from being pruned while the block runs, and note that it was used.

    Raises ImageNotFound where it was removed meanwhile.
    """
    try:
        with held(image.directory):
            yield
    except EntryGone as error:
        raise ImageNotFound(
            f"the image {image.directory} was removed meanwhile", hint="run the command again"
        ) from error


def list_images() -> list[StoredImage]:
    """The images of the store, the one used last first.

    A directory without a readable manifest has the name `?`.
    """
    found = [_describe(path) for path in _store().entries()]
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
    if not _store().remove(stored.directory):
        raise ImageError(
            f"the image {stored.digest[:12]} is in use by a running machine",
            hint="`vmrunner ps` shows it; stop it first",
        )
    return stored


def prune(
    *, unused_for: float = 0.0, dry_run: bool = False, keep: Collection[Path] = ()
) -> list[StoredImage]:
    """Remove the images that nobody used in the last `unused_for` seconds, and leftovers of dead builds.

    Images of running machines stay, and those whose directories are in `keep`. Returns those that were removed, or
    with `dry_run` would be.
    """
    now = time.time()
    candidates = [
        stored
        for stored in list_images()
        if now - stored.last_used >= unused_for and stored.directory not in keep
    ]
    if dry_run:
        return [stored for stored in candidates if not is_held(stored.directory)]
    remove_leftovers()
    return [stored for stored in candidates if _store().remove(stored.directory)]


def _store() -> KeyedStore:
    return KeyedStore(images_dir())


def _describe(directory: Path) -> StoredImage:
    name = "?"
    with contextlib.suppress(OSError, ValueError):
        name = Manifest.model_validate_json((directory / MANIFEST_NAME).read_text()).name
    created = directory.stat().st_mtime
    with contextlib.suppress(OSError):
        created = (directory / MANIFEST_NAME).stat().st_mtime
    last_used = created
    with contextlib.suppress(OSError):
        last_used = max(created, (directory / IN_USE).stat().st_mtime)
    size = bytes_on_disk(directory)
    return StoredImage(directory, directory.name, name, size, created, last_used)
