"""Memory templates as files in a cache, for tests that look at them, copy them and damage them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = ("ram", "state", "disk.qcow2", "overlay.qcow2", "login-key")


@dataclass(frozen=True)
class StoredTemplate:
    """The directory of one template."""

    directory: Path

    @property
    def record(self) -> dict[str, Any]:
        """The content of template.json."""
        document: dict[str, Any] = json.loads((self.directory / "template.json").read_text())
        return document

    def rewrite_record(self, **changes: object) -> None:
        """Change fields of template.json."""
        (self.directory / "template.json").write_text(json.dumps(self.record | changes))

    def stamp(self, name: str) -> None:
        """Make the record say that the file `name` is as it has to be."""
        found = (self.directory / name).stat()
        stamps = self.record["files"] | {name: {"size": found.st_size, "modified_ns": found.st_mtime_ns}}
        self.rewrite_record(files=stamps)


@dataclass(frozen=True)
class TemplateCache:
    """The templates of one cache home."""

    cache_home: Path

    @property
    def root(self) -> Path:
        """Where they are."""
        return self.cache_home / "vmrunner" / "templates"

    @property
    def stored(self) -> list[StoredTemplate]:
        """The finished ones."""
        return [StoredTemplate(path) for path in sorted(self.root.glob("*")) if path.name[0] != "."]

    @property
    def only(self) -> StoredTemplate:
        """The only one there is."""
        (template,) = self.stored
        return template

    @property
    def unfinished(self) -> list[Path]:
        """Directories of templates in the making, or of makers that were killed."""
        return sorted(self.root.glob(".tmp-*"))

    def take_copy(self, template: StoredTemplate) -> StoredTemplate:
        """A copy of a template of another cache, with holes and times of change kept. Its disk stays that of the other."""
        for directory in (self.cache_home, self.root.parent, self.root):
            directory.mkdir(mode=0o700, exist_ok=True)
        copy = self.root / template.directory.name
        subprocess.run(["cp", "-a", "--sparse=always", template.directory, copy], check=True)
        return StoredTemplate(copy)

    def leave_half_made(self, key: str) -> Path:
        """What a maker leaves that was killed with the whole computer."""
        leftover = self.root / f".tmp-{key}-{_dead_process()}"
        (leftover / "in").mkdir(parents=True)
        (leftover / "ram").write_bytes(b"half")
        return leftover

    def fill(self, name: str, size: int, *, used_at: float) -> StoredTemplate:
        """Something that takes `size` bytes of the disk in a template's place, used last at that time."""
        directory = self.root / name
        directory.mkdir(mode=0o700, parents=True)
        with (directory / "ram").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        os.utime(directory, (used_at, used_at))
        return StoredTemplate(directory)


def take_all_room(directory: Path) -> None:
    """Make the tmpfs as small as what is in it."""
    found = os.statvfs(directory)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    subprocess.run(["mount", "-o", f"remount,size={used + (2 << 20)}", str(directory)], check=True)


def _dead_process() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid
