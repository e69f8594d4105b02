"""An entry of the image store that points to what Nix made, and keeps it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Final

from vmrunner.errors import ImageBuildFailed, ImageError
from vmrunner.events import Note, Phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import write_atomically
from vmrunner.host.keyed_store import KeyedStore
from vmrunner.host.paths import images_dir
from vmrunner.host.signals import shielded
from vmrunner.image import store
from vmrunner.image.manifest import MANIFEST_NAME, Image, open_image
from vmrunner.image.nixos.nix_build import add_root

GC_ROOT: Final = "gc-root"
"""The link in an image's directory that keeps its store path from being garbage-collected."""

_STORE_NAME: Final = re.compile(r"([0-9a-z]{32})-.+")
_ROOT_SECONDS: Final = 60.0


def enter(path: Path, *, current: Phase, deadline: Deadline) -> Image:
    """The image that Nix made, as an entry of the image store: the one that is there, or a new one.

    The caller keeps `path` from being garbage-collected meanwhile. Raises ImageBuildFailed where it keeps no
    image of ours, ImageDamaged where its files are not as its manifest says, RunTimeout.
    """
    if not path.is_dir():
        raise ImageBuildFailed(
            f"nix-build made {path}, which is not there",
            hint="Nix keeps its store in another place (a `store` setting or NIX_REMOTE with a root); programs of the store"
            " cannot run from there, and vmrunner cannot read it",
        )
    match = _STORE_NAME.fullmatch(path.name)
    if match is None:
        raise ImageBuildFailed(f"nix-build made {path}, which is no path of its store")
    digest = match[1]

    def on_wait() -> None:
        current.emit(Note("another vmrunner is entering this image; waiting for it"))

    with store.build_lock(digest, deadline=deadline, on_wait=on_wait):
        if (image := sound(digest)) is not None:
            return image
        KeyedStore(images_dir()).discard(digest)
        current.progress(0, None, text="checking the image's files")
        with store.build_directory(digest) as directory:
            _link_all(path, directory)
            _check(open_image(directory), path, digest)
        # A root is known by where its link is, so it is made where it will stay. Until then nix-build's own link is one.
        try:
            add_root(path, store.image_directory(digest) / GC_ROOT, deadline=Deadline.after(_ROOT_SECONDS))
        except BaseException:
            with shielded():
                KeyedStore(images_dir()).discard(digest)
            raise
    return open_image(store.image_directory(digest))


def _link_all(path: Path, directory: Path) -> None:
    for file in path.iterdir():
        if file.name != MANIFEST_NAME:
            (directory / file.name).symlink_to(file)
    with contextlib.suppress(FileNotFoundError):  # open_image says it better
        write_atomically(directory / MANIFEST_NAME, (path / MANIFEST_NAME).read_bytes())


def _check(image: Image, path: Path, digest: str) -> None:
    if image.manifest.digest != digest:
        raise ImageBuildFailed(
            f"the manifest in {path} has the digest {image.manifest.digest!r} instead of {digest}",
            hint="vmrunner's nix/ directory is not as it was delivered; install vmrunner again",
        )


def sound(digest: str) -> Image | None:
    """The image with that digest, if it is there with all its files and its store path is kept."""
    directory = store.image_directory(digest)
    root = directory / GC_ROOT
    if not root.is_symlink() or not root.exists():
        return None
    try:
        return open_image(directory)
    except ImageError:
        return None
