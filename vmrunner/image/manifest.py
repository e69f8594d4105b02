"""An image on disk: `manifest.json` beside the files it names, and the proof that they are the ones it names.

The manifest is the host's half of the guest contract: any directory that has one is an image, whoever built
it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, Field, ValidationError

from vmrunner.errors import ImageDamaged, ImageNotFound
from vmrunner.host.files import write_atomically
from vmrunner.host.paths import images_dir

FORMAT_VERSION: Final = 2
MANIFEST_NAME: Final = "manifest.json"
_VERIFIED_NAME: Final = "verified.json"
_CHUNK_BYTES: Final = 1 << 20
_ZERO_CHUNK: Final = bytes(_CHUNK_BYTES)


class FileRecord(BaseModel, frozen=True, extra="forbid"):
    """What one file of the image must be: its apparent size in bytes, the SHA-256 of its content in hex."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """What the image is and holds. File names are relative to the manifest's directory."""

    format_version: int = FORMAT_VERSION
    name: str
    digest: str
    architecture: str
    kernel: str
    initrd: str | None
    kernel_command_line: str
    root_disk: str
    root_disk_format: Literal["raw", "qcow2"]
    root_disk_size: int = Field(gt=0, description="bytes that the guest sees")
    init: str
    systemd_version: str
    glibc: str | None
    nextest: str | None = Field(description="the image's own cargo-nextest; null: the host's is carried in")
    interpreters: tuple[str, ...] = Field(description="dynamic loaders that exist in the guest")
    libraries: tuple[str, ...] = Field((), description="sonames that the default dynamic loader finds")
    store_paths: tuple[str, ...] = Field((), description="what the guest's own /nix/store holds")
    built_from: dict[str, str]
    created: str = Field(description="UTC, ISO 8601")
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Image:
    """An image whose files were found to be what its manifest says."""

    directory: Path
    manifest: Manifest

    @property
    def label(self) -> str:
        """What a person is told that it is: its name, and enough of its digest to tell it from the others."""
        return f"{self.manifest.name} {self.manifest.digest[:12]}"

    @property
    def kernel(self) -> Path:
        """The kernel, as QEMU's `-kernel` takes it."""
        return self.directory / self.manifest.kernel

    @property
    def initrd(self) -> Path | None:
        """The initrd, where the image has one."""
        return self.directory / self.manifest.initrd if self.manifest.initrd else None

    @property
    def root_disk(self) -> Path:
        """The root disk; nobody writes to it, machines put an overlay on it."""
        return self.directory / self.manifest.root_disk


@dataclass(frozen=True)
class Located:
    """Where an image is or would be. While it is not built, its manifest says what it is made from promises."""

    image: Image
    built: bool


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest; its files were hashed a moment ago, so they count as verified."""
    write_atomically(directory / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
    _note_verified(directory, {name: _fingerprint(directory / name) for name in manifest.files})


def record(path: Path, on_bytes: Callable[[int], None] | None = None) -> FileRecord:
    """Size and digest of a file. `on_bytes` is told now and then how many bytes have been read so far.

    Holes of a sparse file count as the zeros they are, but are not read: a root disk is mostly holes.
    """
    digest = hashlib.sha256()
    size = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while done < size:
            data, end = _next_data(file.fileno(), done, size)
            for chunk in _zeros(data - done):
                digest.update(chunk)
            file.seek(data)
            while data < end and (block := file.read(min(_CHUNK_BYTES, end - data))):
                digest.update(block)
                data += len(block)
            done = end
            if on_bytes:
                on_bytes(done)
    return FileRecord(size=size, sha256=digest.hexdigest())


def _next_data(fd: int, start: int, size: int) -> tuple[int, int]:
    """The next stretch from `start` on that is not a hole, at most 64 chunks long: lseek(2), SEEK_DATA."""
    try:
        data = os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole is left
            return size, size
        raise
    return data, min(os.lseek(fd, data, os.SEEK_HOLE), data + 64 * _CHUNK_BYTES, size)


def _zeros(count: int) -> Iterator[bytes]:
    for _ in range(count // _CHUNK_BYTES):
        yield _ZERO_CHUNK
    yield _ZERO_CHUNK[: count % _CHUNK_BYTES]


def open_image(directory: Path) -> Image:
    """The image in `directory`, after a look at every file it names.

    Contents are hashed only where a file is not the one that was hashed last (size, modification time,
    inode), so that a run costs no hashing. Raises ImageNotFound where there is no such directory,
    ImageDamaged otherwise.
    """
    directory = directory.absolute()
    if not directory.is_dir():
        raise ImageNotFound(
            f"there is no image directory {directory}",
            hint="`vmrunner image list` shows the images there are",
        )
    manifest = _read_manifest(directory)
    _check_names(directory, manifest)
    seen = {name: _check_size(directory, name, want) for name, want in manifest.files.items()}
    verified = _read_verified(directory)
    doubtful = [name for name in manifest.files if verified.get(name) != seen[name]]
    for name in doubtful:
        _check_content(directory, name, manifest.files[name])
    if doubtful:
        _note_verified(directory, seen)
    return Image(directory, manifest)


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST_NAME
    hint = _way_out(directory)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ImageDamaged(f"{directory} is not an image: it has no {MANIFEST_NAME}", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ImageDamaged(f"{path} cannot be read: {error}", hint=hint) from error
    _check_format_version(path, text)
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        problems = [
            ": ".join(filter(None, (".".join(map(str, item["loc"])), item["msg"]))) for item in error.errors()
        ]
        raise ImageDamaged(
            f"{path} is not a manifest that this version reads: {problems[0]}",
            hint=hint,
            details="\n".join(problems),
        ) from error


def _way_out(directory: Path) -> str:
    """What to do about a bad image. One that is not vmrunner's own may be anything, and is not for us to remove."""
    if directory.is_relative_to(images_dir()):
        return f"remove the directory {directory}, then run `vmrunner image build`"
    return "name the directory of an image, or an image that vmrunner builds: `--image debian`"


def _check_format_version(path: Path, text: str) -> None:
    """Before the fields: another version may have others, and its number says more than they do."""
    with contextlib.suppress(json.JSONDecodeError):
        content = json.loads(text)
        found = content.get("format_version", FORMAT_VERSION) if isinstance(content, dict) else FORMAT_VERSION
        if found != FORMAT_VERSION:
            raise ImageDamaged(
                f"{path} has format version {found}, this vmrunner reads version {FORMAT_VERSION}",
                hint=_way_out(path.parent),
            )


def _check_names(directory: Path, manifest: Manifest) -> None:
    used = [name for name in (manifest.kernel, manifest.initrd, manifest.root_disk) if name]
    for name in used:
        if name not in manifest.files:
            raise ImageDamaged(
                f"the manifest of {directory} uses {name} but has no record of it",
                hint=_way_out(directory),
            )
    for name in manifest.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ImageDamaged(f"the manifest of {directory} names {name}, which lies outside of the image")


def _check_size(directory: Path, name: str, want: FileRecord) -> list[int]:
    hint = _way_out(directory)
    try:
        found = _fingerprint(directory / name)
    except OSError as error:
        raise ImageDamaged(f"{directory / name} cannot be used: {error.strerror}", hint=hint) from error
    if found[0] != want.size:
        raise ImageDamaged(
            f"{directory / name} has {found[0]} bytes, the manifest says {want.size}", hint=hint
        )
    return found


def _check_content(directory: Path, name: str, want: FileRecord) -> None:
    hint = _way_out(directory)
    try:
        found = record(directory / name)
    except OSError as error:
        raise ImageDamaged(f"{directory / name} cannot be read: {error.strerror}", hint=hint) from error
    if found != want:
        raise ImageDamaged(
            f"the digest of {directory / name} does not match the manifest",
            hint=hint,
            details=f"manifest: sha256 {want.sha256}\nfile:     sha256 {found.sha256}",
        )


def _fingerprint(path: Path) -> list[int]:
    """What changes when a file is written or replaced: size, modification time (ns), inode."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _read_verified(directory: Path) -> dict[str, list[int]]:
    try:
        content = json.loads((directory / _VERIFIED_NAME).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _note_verified(directory: Path, fingerprints: dict[str, list[int]]) -> None:
    """Remember for the next time; an image in a directory of someone else is hashed each time."""
    with contextlib.suppress(OSError):
        write_atomically(directory / _VERIFIED_NAME, json.dumps(fingerprints))
