"""Memory templates on disk: a booted, idle machine as files, from which any number of machines are restored.

::

    templates/<key>/
        template.json   what it is, and the size and time of change of each file below; written last
        ram             the guest's memory, sparse; mapped privately by every machine that is restored
        state           the state of its devices
        disk.qcow2      what the guest wrote while it booted, over the image's root disk; frozen
        overlay.qcow2   an empty overlay over disk.qcow2; every machine takes a copy
        login-key       the private key that opens the guest's sshd
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from vmrunner.guest.key import LoginKey
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import write_atomically
from vmrunner.host.keyed_store import IN_USE, EntryGone, KeyedStore, bytes_on_disk, held
from vmrunner.host.paths import templates_dir
from vmrunner.machine.device_state import SavedState
from vmrunner.machine.template_key import FORMAT_VERSION

KEPT_BYTES: Final = 8 << 30
"""Bytes on disk that templates may take together; those used longest ago go first."""

_RECORD: Final = "template.json"
_FILES: Final = ("ram", "state", "disk.qcow2", "overlay.qcow2", "login-key")


class TemplateUnusable(Exception):
    """The template is damaged, of another version, or gone; a new one has to be made."""


class FileStamp(BaseModel, frozen=True, extra="forbid"):
    """A file as it was when the template was finished: bytes, and nanoseconds since the epoch.

    Nobody writes to a finished template, so another time of change means another content.
    """

    size: int
    modified_ns: int


class TemplateRecord(BaseModel, frozen=True, extra="forbid"):
    """What a template is. `guest_clock` is what the guest's clock showed when it was stopped, seconds since the epoch."""

    format_version: int = FORMAT_VERSION
    key: str
    image: str
    image_directory: Path
    accelerator: str
    qemu_version: str
    cpus: int
    memory: int
    public_key: str
    guest_clock: float
    files: dict[str, FileStamp]


@dataclass(frozen=True)
class Template:
    """A template whose files were found to be what its record says."""

    directory: Path
    record: TemplateRecord

    @property
    def ram(self) -> Path:
        """The guest's memory."""
        return self.directory / "ram"

    @property
    def state(self) -> Path:
        """The state of its devices."""
        return self.directory / "state"

    @property
    def saved(self) -> SavedState:
        """The state as what it takes to load it."""
        return SavedState(self.state, memory_apart=True, guest_clock=self.record.guest_clock)

    @property
    def disk(self) -> Path:
        """The frozen disk."""
        return self.directory / "disk.qcow2"

    @property
    def overlay(self) -> Path:
        """The empty overlay over the frozen disk, to be copied."""
        return self.directory / "overlay.qcow2"

    @property
    def login_key(self) -> LoginKey:
        """The key pair that opens its machines."""
        return LoginKey((self.directory / "login-key").read_text(), self.record.public_key)


@dataclass(frozen=True)
class StoredTemplate:
    """One template of the store. `size` is bytes on disk; the times are seconds since the epoch."""

    directory: Path
    key: str
    record: TemplateRecord | None
    size: int
    last_used: float


def finish_template(directory: Path, record: TemplateRecord) -> None:
    """Write the record of a template whose files are complete."""
    stamped = record.model_copy(update={"files": {name: _stamp(directory / name) for name in _FILES}})
    write_atomically(directory / _RECORD, stamped.model_dump_json(indent=2))


def directory() -> Path:
    """Where all templates are."""
    return templates_dir()


def path_of(key: str) -> Path:
    """Where the template of that key is, or will be."""
    return _store().entry(key)


def find_template(key: str) -> Template | None:
    """The template of that key, or None where there is none.

    Raises TemplateUnusable where there is something, but not what a template must be; `discard` it.
    """
    directory = _store().entry(key)
    if not directory.exists():
        return None
    return Template(directory, _checked_record(directory, key))


def discard(key: str) -> None:
    """Remove the template of that key. Machines that run on it go on: they have its files open."""
    _store().discard(key)


def making_lock(key: str, *, deadline: Deadline, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
    """Hold the right to make the template `key`; `on_wait` is called where another process has it."""
    return _store().making_lock(key, deadline=deadline, on_wait=on_wait)


def making(key: str) -> AbstractContextManager[Path]:
    """A directory to make a template in: the template when the block ends well, gone when it does not."""
    return _store().making(key)


@contextmanager
def hold(template: Template) -> Iterator[None]:
    """Keep the template from being pruned while the block runs. Raises TemplateUnusable where it is gone."""
    try:
        with held(template.directory):
            yield
    except EntryGone as error:
        raise TemplateUnusable("it was removed meanwhile") from error


def list_templates() -> list[StoredTemplate]:
    """The templates of the store, the one used last first; one that cannot be read has no record."""
    return sorted(map(_describe, _store().entries()), key=lambda stored: stored.last_used, reverse=True)


def prune(
    *,
    keep_bytes: int = KEPT_BYTES,
    keep: Collection[Path] = (),
    unused_for: float = 0.0,
    dry_run: bool = False,
) -> list[StoredTemplate]:
    """Remove the templates used longest ago until the rest takes at most `keep_bytes`, and what killed makers left.

    Those in `keep` (directories that long-lived VMs need), those in use and those used in the last `unused_for` seconds
    stay. Returns those that were removed, or with `dry_run` would be tried.
    """
    if not dry_run:
        _store().remove_leftovers()
    removed, total, now = [], 0, time.time()
    for stored in list_templates():
        total += stored.size
        spared = stored.directory in keep or now - stored.last_used < unused_for
        if total > keep_bytes and not spared and (dry_run or _store().remove(stored.directory)):
            removed.append(stored)
            total -= stored.size
    return removed


def _store() -> KeyedStore:
    return KeyedStore(templates_dir())


def _checked_record(directory: Path, key: str) -> TemplateRecord:
    try:
        record = TemplateRecord.model_validate_json((directory / _RECORD).read_bytes())
    except OSError as error:
        raise TemplateUnusable(f"its record cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise TemplateUnusable("its record is of another version or damaged") from error
    if record.format_version != FORMAT_VERSION or record.key != key:
        raise TemplateUnusable("it is of another version")
    for name in _FILES:
        try:
            found = _stamp(directory / name)
        except OSError as error:
            raise TemplateUnusable(f"its file `{name}` is missing") from error
        if found != record.files.get(name):
            raise TemplateUnusable(f"its file `{name}` was changed ({found.size} bytes)")
    return record


def _stamp(path: Path) -> FileStamp:
    found = path.stat()
    return FileStamp(size=found.st_size, modified_ns=found.st_mtime_ns)


def _describe(directory: Path) -> StoredTemplate:
    record = None
    with suppress(OSError, ValidationError):
        record = TemplateRecord.model_validate_json((directory / _RECORD).read_bytes())
    used = [path.stat().st_mtime for path in (directory, directory / IN_USE) if path.exists()]
    return StoredTemplate(directory, directory.name, record, bytes_on_disk(directory), max(used, default=0.0))
