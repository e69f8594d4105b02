"""The Nix store of this computer: where it is, and what of it a program names."""

from __future__ import annotations

import os
import posixpath
import shutil
from dataclasses import dataclass
from pathlib import Path

STORE = "/nix/store"
"""Where programs expect the store: store paths are compiled into them."""

# Whoever builds with one of these gets programs that point into the store it lies in.
_BUILD_PROGRAMS = ("cargo", "cc")


@dataclass(frozen=True)
class HostStore:
    """A store on this computer; its `directory` is what `store_directory` says."""

    directory: Path

    def has(self, path: str) -> bool:
        """Whether it holds `path`, an absolute path below `/nix/store`; what a link there leads to is not asked."""
        return os.path.lexists(self.directory / posixpath.relpath(path, STORE))


def store_directory() -> Path:
    """Where Nix keeps its paths on this computer, as Nix itself decides it (store-dir)."""
    return Path(os.environ.get("NIX_STORE_DIR") or os.environ.get("NIX_STORE") or STORE)


def find_host_store() -> HostStore | None:
    """This computer's store, where it has one."""
    directory = store_directory()
    return HostStore(directory) if directory.is_dir() else None


def store_path_of(path: str) -> str | None:
    """The store path that an absolute path lies in (`/nix/store/<hash>-<name>`); None for one outside the store."""
    if not path.startswith("/"):
        return None
    below = posixpath.normpath(path).removeprefix(STORE + "/")
    return None if below.startswith("/") else f"{STORE}/{below.split('/', 1)[0]}"


def builds_into_store(store: HostStore) -> bool:
    """Whether the tools that would build a project here come from the store, so that what they make points into it."""
    found = (shutil.which(name) for name in _BUILD_PROGRAMS)
    return any(Path(path).resolve().is_relative_to(store.directory.resolve()) for path in found if path)
