"""Whether an image can be used again without asking Nix: a record of all that went into it, and a look at that.

Nix says with `-vv` which files it evaluates and which it copies into the store; paths in the store never change. What it
does not say is `builtins.readFile`, `readDir` and `pathExists`: so the other files in the directories of the user's own
modules count as read too. What a module reads elsewhere in such a way is not noticed; `vmrunner image build` always asks
Nix. Fingerprints are size, modification time and inode: to stat a thousand files takes milliseconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from vmrunner.host.paths import data_dir
from vmrunner.image.recipe import GUEST_TREE, guest_files

FORMAT_VERSION: Final = 1
_MOST_ENTRIES: Final = 1000
# A file system's clock is that much behind at most: one tick of the kernel.
_CLOCK_GRAIN_SECONDS: Final = 0.02

Fingerprint = tuple[int, int, int]
"""Size in bytes, modification time in nanoseconds, inode."""

Listings = dict[str, dict[str, Fingerprint | None]]
"""By directory: its files, by name."""


class Inputs(BaseModel, frozen=True, extra="forbid"):
    """What an image was made from.

    `vmrunner` is `own_digest()` and `nix` the version as Nix says it. `files` has a fingerprint for each file outside
    the store, None for one that was not there; `listings` the same for each file of a directory.
    """

    format_version: int = FORMAT_VERSION
    vmrunner: str
    nix: str
    request: dict[str, object]
    nixpkgs: dict[str, str | None]
    files: dict[str, Fingerprint | None]
    listings: Listings


def record(
    *,
    nix: str,
    request: dict[str, object],
    nixpkgs: dict[str, str | None],
    files_read: frozenset[Path] | None,
    watched: Iterable[Path],
    store: Path,
    began: float,
) -> Inputs | None:
    """Note what an image was made from, after it was made.

    `files_read` is what Nix said that it read, `watched` are files that count as read too, `store` is where Nix keeps its
    paths, `began` is when Nix began to evaluate (seconds since the epoch). None where it is not known what was read,
    where it was changed since then, or where it is too much to look at each time.
    """
    if files_read is None:
        return None
    read = [path for path in sorted({*files_read, *watched}) if not path.is_relative_to(store)]
    own = data_dir("nix")
    files = {path for path in read if not path.is_dir() and not path.is_relative_to(own)}
    directories = _directories_to_list(read, files, nixpkgs.get("path"))
    listings = {str(path): _listing(path) for path in sorted(directories)}
    if _are_too_long(listings) or _any_changed_since(began, {*files, *directories}, listings):
        return None
    return Inputs(
        vmrunner=own_digest(),
        nix=nix,
        request=request,
        nixpkgs=nixpkgs,
        files={str(path): _fingerprint(path) for path in sorted(files)},
        listings=listings,
    )


def unchanged(inputs: Inputs, *, nix: str, request: dict[str, object]) -> bool:
    """Whether all that was recorded is as it was, and `nix` and `request` are those of the record."""
    return (
        inputs.format_version == FORMAT_VERSION
        and inputs.nix == nix
        and inputs.request == request
        and all(_fingerprint(Path(path)) == found for path, found in inputs.files.items())
        and all(_listing(Path(path)) == found for path, found in inputs.listings.items())
        and inputs.vmrunner == own_digest()
    )


def own_digest() -> str:
    """SHA-256 over vmrunner's own Nix expressions and the files that every guest gets: names, modes, contents."""
    digest = hashlib.sha256()
    for root in (data_dir("nix"), data_dir("images") / GUEST_TREE):
        for file in guest_files(root):
            content = hashlib.sha256(file.content).hexdigest()
            digest.update(f"{file.path}\0{file.mode:o}\0{content}\n".encode())
    return digest.hexdigest()


def _directories_to_list(read: Iterable[Path], files: Iterable[Path], nixpkgs: str | None) -> set[Path]:
    """The directories of `files`, without those in nixpkgs; directories that were read, and all that is below them."""
    found = {file.parent for file in files if nixpkgs is None or not file.is_relative_to(nixpkgs)}
    for path in read:
        if path.is_dir():
            found.update(islice(_with_all_below(path), _MOST_ENTRIES))
    return found


def _with_all_below(directory: Path) -> Iterator[Path]:
    for name, _, _ in os.walk(directory):
        yield Path(name)


def _are_too_long(listings: Listings) -> bool:
    return len(listings) >= _MOST_ENTRIES or any(len(found) >= _MOST_ENTRIES for found in listings.values())


def _any_changed_since(moment: float, paths: Iterable[Path], listings: Listings) -> bool:
    listed = {Path(directory) / name for directory, found in listings.items() for name in found}
    return any(_changed_since(path, moment) for path in {*paths, *listed})


def _listing(directory: Path) -> dict[str, Fingerprint | None]:
    """The first entries by name that are no directories, with their fingerprints; nothing where there is no directory."""
    try:
        names = sorted(
            entry.name for entry in os.scandir(directory) if not entry.is_dir(follow_symlinks=False)
        )
    except OSError:
        return {}
    return {name: _fingerprint(directory / name) for name in names[:_MOST_ENTRIES]}


def _fingerprint(path: Path) -> Fingerprint | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _changed_since(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_ctime > moment - _CLOCK_GRAIN_SECONDS
    except OSError:
        return False
