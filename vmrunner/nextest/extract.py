"""Extracted archives on the host: once per content, shared by all runs, never removed while one of them uses it.

::

    <cache>/<sha256 of the archive>/target/...         what the archive holds, and an empty target/tmp
    <cache>/<sha256 of the archive>/extracted.json     its size; written last
    <cache>/<sha256 of the archive>.lock               shared lock of every run that uses it
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vmrunner.errors import ArchiveError, HostError, RunTimeout
from vmrunner.events import Emit, Phase, phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import directory_made_atomically, locked, remove_tree, try_lock, write_atomically
from vmrunner.nextest.metadata import (
    BINARIES_METADATA,
    CARGO_METADATA,
    ArchiveInfo,
    parse_metadata,
    read_archive,
)
from vmrunner.nextest.unpack import unpack

KEPT_ARCHIVES = 8
KEPT_BYTES = 8 * 2**30

_STATUS = "extracted.json"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ExtractedArchive:
    """An archive's content on the host. `digest` is the SHA-256 of the archive file, in hexadecimal."""

    directory: Path
    digest: str
    info: ArchiveInfo

    @property
    def target(self) -> Path:
        """What stands for `info.target_directory` (and `info.build_directory`) in the guest."""
        return self.directory / "target"

    @property
    def binaries_metadata(self) -> Path:
        """The metadata as archived; `guest_binaries_metadata` gives what nextest needs in a guest."""
        return self.directory / BINARIES_METADATA

    @property
    def cargo_metadata(self) -> Path:
        """The output of `cargo metadata` on the build host."""
        return self.directory / CARGO_METADATA


@contextmanager
def extract_archive(path: Path, *, cache: Path, emit: Emit, deadline: Deadline) -> Iterator[ExtractedArchive]:
    """Extract the archive at `path` below `cache`, or find it there; it stays for as long as the block runs.

    Raises ArchiveError where it is no whole and honest archive of nextest, HostError where the disk is too
    small, RunTimeout.
    """
    read_archive(path)
    digest = _digest(path, deadline)
    directory = cache / digest
    # `prune_archives` removes nothing that is held so.
    with locked(cache / f"{digest}.lock", deadline=deadline, shared=True):
        if not (directory / _STATUS).is_file():
            with (
                phase(emit, "extract", f"extracting {path.name}") as current,
                locked(cache / f"{digest}.making", deadline=deadline),
            ):
                _make(path, directory, current, deadline)
        os.utime(directory)
        info = parse_metadata(
            (directory / BINARIES_METADATA).read_bytes(),
            (directory / CARGO_METADATA).read_bytes(),
            source=path,
        )
        yield ExtractedArchive(directory, digest, info)


def _make(path: Path, directory: Path, current: Phase, deadline: Deadline) -> None:
    """Extract, unless another process did so while this one waited for the lock."""
    if (directory / _STATUS).is_file():
        return
    try:
        for leftover in directory.parent.glob(f".tmp-{directory.name}-*"):
            remove_tree(leftover)
        remove_tree(directory)
        size = _fill(path, directory, current, deadline)
    except OSError as error:
        raise HostError(
            f"{path} could not be extracted into {directory.parent}: {error.strerror or error}",
            hint="`vmrunner doctor` shows how much space is free",
        ) from error
    current.text = f"{size / 2**20:.1f} MiB"


def _fill(path: Path, directory: Path, current: Phase, deadline: Deadline) -> int:
    total = path.stat().st_size
    with directory_made_atomically(directory) as temporary:
        size = unpack(
            path, temporary, deadline=deadline, on_bytes=lambda done: current.progress(done, total, "bytes")
        )
        for metadata in (BINARIES_METADATA, CARGO_METADATA):
            if (temporary / metadata).is_symlink() or not (temporary / metadata).is_file():
                raise ArchiveError(f"{path} is not a nextest archive: its {metadata} is no ordinary file")
        (temporary / "target" / "tmp").mkdir(exist_ok=True)
        write_atomically(temporary / _STATUS, json.dumps({"bytes": size}))
    return size


def _digest(path: Path, deadline: Deadline) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
            if deadline.passed:
                raise RunTimeout(f"the time was up while {path} was read")
    return state.hexdigest()


def guest_binaries_metadata(extracted: ExtractedArchive, *, target_directory: PurePosixPath) -> str:
    """The binaries metadata for a guest that has the extracted target directory at `target_directory`.

    Run from metadata, nextest looks for the standard library where the build host's toolchain had it, not in
    the archive (nextest 0.9.148). So the library directories are replaced by those that the archive carries.
    """
    document: dict[str, Any] = json.loads(extracted.binaries_metadata.read_bytes())
    platforms = document["rust-build-meta"].get("platforms") or {}
    libdirs = {"host": platforms.get("host")}
    libdirs |= {f"target/{number}": entry for number, entry in enumerate(platforms.get("targets", []))}
    for name, entry in libdirs.items():
        place = PurePosixPath("nextest/libdirs") / name
        if entry is not None and (extracted.target / place).is_dir():
            entry["libdir"] = {"status": "available", "path": str(target_directory / place)}
    return json.dumps(document)


def prune_archives(
    cache: Path, *, deadline: Deadline, keep: int = KEPT_ARCHIVES, keep_bytes: int = KEPT_BYTES
) -> tuple[str, ...]:
    """Remove extracted archives, the ones used longest ago first, until `keep` and `keep_bytes` hold.

    One that is in use stays; what an interrupted extraction left goes. Returns the digests of those that were
    removed. Raises RunTimeout where another process prunes until the deadline passes.
    """
    removed: list[str] = []
    total = 0
    with locked(cache / "prune.lock", deadline=deadline):
        for leftover in cache.glob(".tmp-*"):
            digest = leftover.name.removeprefix(".tmp-").split("-")[0]
            _remove_unless_used(leftover, cache / f"{digest}.lock")
        found = sorted(
            cache.glob("*/" + _STATUS), key=lambda status: status.parent.stat().st_mtime, reverse=True
        )
        for position, status in enumerate(found):
            directory = status.parent
            total += json.loads(status.read_text())["bytes"]
            too_many = position >= keep or total > keep_bytes
            if too_many and _remove_unless_used(directory, cache / f"{directory.name}.lock"):
                removed.append(directory.name)
    return tuple(removed)


def _remove_unless_used(directory: Path, lock: Path) -> bool:
    """Remove `directory`. Its lock file stays: without it two runs could hold two different ones."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(fd):
            return False
        # The status goes first, so that an interrupted removal does not look like an extraction.
        (directory / _STATUS).unlink(missing_ok=True)
        remove_tree(directory)
        return True
    finally:
        os.close(fd)
