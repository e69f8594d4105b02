"""Unpacking an archive that nobody vouches for: nothing in it may reach outside its directory.

Python's own tar filters (PEP 706) are missing from some supported versions (Debian 12 has 3.11.2), and they
do not count bytes, so every member is looked at here. nextest follows symbolic links when it makes an archive,
so honest archives hold directories and regular files only.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import IO

from vmrunner.errors import ArchiveError, HostError, RunTimeout
from vmrunner.host.deadline import Deadline
from vmrunner.nextest.tar_stream import open_tar_stream

_TOP = "target"
_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 64 * 2**20
"""Left free on the disk of the cache, whatever an archive wants."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Unpacker:
    """Writes the members of one archive below `root`, an empty directory of our own.

    It remembers what it made, so that no member is ever written through a link that another one left.
    """

    source: Path
    root: Path
    deadline: Deadline
    bytes_written: int = 0
    _directories: set[PurePosixPath] = field(default_factory=lambda: {PurePosixPath()})
    _files: set[PurePosixPath] = field(default_factory=set)
    _links: set[PurePosixPath] = field(default_factory=set)

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write one member; raises ArchiveError for anything that does not belong into a nextest archive."""
        name = self._checked_name(member.name)
        if member.isdir():
            self._make_directory(name)
            return
        self._make_directory(name.parent)
        if name in self._directories:
            raise self._refused(member.name, "it is a directory and a file at once")
        if name in self._files | self._links:
            (self.root / name).unlink()
            self._files.discard(name)
            self._links.discard(name)
        if member.isreg():
            file = tar.extractfile(member)
            assert file is not None
            self._write(file, member, name)
        elif member.issym():
            self._link(name, member)
        elif member.islnk():
            self._hard_link(name, member)
        else:
            raise self._refused(member.name, "it is a device or FIFO")

    def _checked_name(self, text: str) -> PurePosixPath:
        name = PurePosixPath(text)
        if name.is_absolute() or ".." in name.parts or name.parts[:1] != (_TOP,):
            raise self._refused(text, f"it is not below `{_TOP}/`")
        return name

    def _make_directory(self, name: PurePosixPath) -> None:
        for directory in [*reversed(name.parents), name]:
            if directory in self._files or directory in self._links:
                raise self._refused(str(name), f"`{directory}` is not a directory")
            if directory not in self._directories:
                (self.root / directory).mkdir()
                (self.root / directory).chmod(0o755)
                self._directories.add(directory)

    def _write(self, file: IO[bytes], member: tarfile.TarInfo, name: PurePosixPath) -> None:
        self._require_space(member)
        mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
        with os.fdopen(os.open(self.root / name, _NEW_FILE, mode), "wb") as out:
            while chunk := file.read(_CHUNK_BYTES):
                if self.deadline.passed:
                    raise RunTimeout(f"the time was up while {self.source} was unpacked")
                out.write(chunk)
                self.bytes_written += len(chunk)
            os.fchmod(out.fileno(), mode)
        os.utime(self.root / name, (member.mtime, member.mtime))
        self._files.add(name)

    def _link(self, name: PurePosixPath, member: tarfile.TarInfo) -> None:
        steps = PurePosixPath(member.linkname).parts
        upwards = len(list(takewhile(lambda step: step == "..", steps)))
        # A `..` after another link would start from that link's target, so only leading ones can be judged.
        stays = upwards < len(name.parts) - 1 and ".." not in steps[upwards:] and "/" not in steps
        if not stays:
            raise self._refused(member.name, f"it is a link out of the archive, to {member.linkname}")
        (self.root / name).symlink_to(member.linkname)
        self._links.add(name)

    def _hard_link(self, name: PurePosixPath, member: tarfile.TarInfo) -> None:
        origin = self._checked_name(member.linkname)
        if origin not in self._files:
            raise self._refused(
                member.name, f"it is a link to {member.linkname}, which is not in the archive"
            )
        (self.root / name).hardlink_to(self.root / origin)
        self._files.add(name)

    def _require_space(self, member: tarfile.TarInfo) -> None:
        free = shutil.disk_usage(self.root).free - _SPARE_BYTES
        if member.size > free:
            raise HostError(
                f"{self.source} does not fit on the disk: `{member.name}` needs {member.size} bytes, "
                f"{max(free, 0)} are free below {self.root.parent}",
                hint="free some space, or set XDG_CACHE_HOME to a directory on a larger disk",
            )

    def _refused(self, name: str, why: str) -> ArchiveError:
        return ArchiveError(
            f"{self.source} holds `{name}`, which no nextest archive does: {why}",
            hint="nothing was kept of it; make the archive again with `cargo nextest archive`",
        )


def unpack(
    source: Path, root: Path, *, deadline: Deadline, on_bytes: Callable[[int], None] = lambda _: None
) -> int:
    """Unpack the archive `source` below the empty directory `root`; returns the bytes written.

    `on_bytes` is told how many compressed bytes have been taken. Raises ArchiveError for anything that is not a
    whole and honest archive, HostError where it does not fit on the disk, RunTimeout where the time is up, and
    OSError where the disk fails.
    """
    unpacker = Unpacker(source, root, deadline)
    with open_tar_stream(source) as (tar, reader):
        for member in tar:
            unpacker.add(tar, member)
            on_bytes(reader.taken)
        reader.drain()
        on_bytes(reader.taken)
    return unpacker.bytes_written
