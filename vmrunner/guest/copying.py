"""Copy files and directories into a guest and out of it, over SFTP, as `cp -r` does between two directories.

Permissions and modification times are kept; a directory that is there already keeps its own. Symbolic links below the source are copied as links and never followed;
devices, sockets and FIFOs are left out, and a note says so. SFTP has no way to set the time of a link.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vmrunner.config.units import Size
from vmrunner.errors import GuestError, HostError, UsageError
from vmrunner.events import Emit, Note, Phase, phase
from vmrunner.guest.sftp import in_guest, open_sftp
from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline
from vmrunner.host.received_tree import ReceivingDirectory, on_host, receive_into

if TYPE_CHECKING:
    import paramiko

_CHUNK_BYTES = 1 << 18
_AHEAD_BYTES = 1 << 22
"""How much of a file is asked for before the first of it has come: what hides the guest's reaction time."""
_DEEPEST = 200
_CONTENTS = frozenset(["", ".", ".."])
"""Last parts of a source path that stand for what is in the directory, not for the directory."""


def upload(guest: Guest, source: str, destination: str, *, emit: Emit, deadline: Deadline) -> None:
    """Copy `source` of this computer to the guest's path `destination`: into it where that is a directory.

    The contents alone where `source` ends in `/.`. A relative destination starts in the login's home.
    `deadline` is for the start; the copy itself may take what it takes, but each answer only so long.

    Raises UsageError where a path does not exist or does not fit, HostError where a file here cannot be read,
    GuestError where the guest cannot write (23), GuestLost where it is gone.
    """
    destination = destination or "."
    try:
        root = Path(source).stat()
    except FileNotFoundError as error:
        raise UsageError(f"there is no `{source}` on this computer") from error
    except OSError as error:
        raise HostError(f"`{source}` cannot be read: {error.strerror}") from error
    with phase(emit, "copy", f"copying {source} into the guest") as current:
        with open_sftp(guest, deadline=deadline) as sftp:
            copy = _Upload(guest, sftp, _Tally(current, total=_bytes_in(source, root)))
            copy.start(source, root, destination)
        current.text = copy.tally.summary()


def download(guest: Guest, source: str, destination: str, *, emit: Emit, deadline: Deadline) -> None:
    """Copy the guest's path `source` to `destination` on this computer; otherwise as `upload`.

    The guest is not trusted: nothing it sends is written outside `destination` or through a link, and setuid and
    setgid bits are dropped. A file appears under its name when it is complete.
    """
    source = source or "."
    with phase(emit, "copy", f"copying {source} out of the guest") as current:
        with open_sftp(guest, deadline=deadline) as sftp:
            copy = _Download(guest, sftp, _Tally(current))
            copy.start(source, destination)
        current.text = copy.tally.summary()


class _Tally:
    """What has been copied so far, and telling it."""

    def __init__(self, current: Phase, *, total: int | None = None) -> None:
        self._phase = current
        self._files = 0
        self._bytes = 0
        self.total = total

    def count(self, path: str | Path, amount: int) -> None:
        self._bytes += amount
        self._phase.progress(self._bytes, self.total, "bytes", str(path))

    def file_done(self) -> None:
        self._files += 1

    def skipped(self, path: str | Path) -> None:
        self._phase.emit(Note(f"left out `{path}`: not a file, a directory or a link", "warning"))

    def summary(self) -> str:
        plural = "" if self._files == 1 else "s"
        return f"{self._files} file{plural}, {Size(self._bytes).for_people()}"


class _Upload:
    def __init__(self, guest: Guest, sftp: paramiko.SFTPClient, tally: _Tally) -> None:
        self._guest = guest
        self._sftp = sftp
        self.tally = tally

    def start(self, source: str, root: os.stat_result, destination: str) -> None:
        """Find out what `destination` means, and copy."""
        there = self._mode_of(destination)
        into_directory = there is not None and stat.S_ISDIR(there)
        is_directory = stat.S_ISDIR(root.st_mode)
        if not is_directory and not stat.S_ISREG(root.st_mode):
            raise UsageError(f"`{source}` is neither a file nor a directory")
        if not is_directory and not into_directory and destination.endswith("/"):
            raise UsageError(f"there is no directory `{destination}` in the guest")
        name = posixpath.basename(source.rstrip("/"))
        target = destination
        if into_directory and name not in _CONTENTS:
            target = posixpath.join(destination, name)
        self._send(Path(source), root, target.rstrip("/") or "/", depth=0)

    def _mode_of(self, path: str) -> int | None:
        """Type and permissions of the guest's `path`, links followed; None where there is nothing."""
        with in_guest(self._guest, path):
            try:
                return self._sftp.stat(path).st_mode
            except FileNotFoundError:
                return None

    def _send(self, path: Path, found: os.stat_result, target: str, *, depth: int) -> None:
        if depth > _DEEPEST:
            raise UsageError(f"`{path}` lies more than {_DEEPEST} directories deep")
        if stat.S_ISDIR(found.st_mode):
            self._send_directory(path, found, target, depth)
        elif stat.S_ISREG(found.st_mode):
            self._send_file(path, found, target)
        elif stat.S_ISLNK(found.st_mode):
            self._send_link(path, target)
        else:
            self.tally.skipped(path)

    def _send_directory(self, path: Path, found: os.stat_result, target: str, depth: int) -> None:
        there = self._mode_of(target)
        if there is not None and not stat.S_ISDIR(there):
            raise UsageError(f"`{path}` is a directory, and `{target}` in the guest is not")
        if there is None:
            with in_guest(self._guest, target):
                self._sftp.mkdir(target, 0o700)
        with on_host(path):
            entries = sorted(path.iterdir())
        for entry in entries:
            with on_host(entry):
                status = entry.lstat()
            self._send(entry, status, posixpath.join(target, entry.name), depth=depth + 1)
        if there is None:
            with in_guest(self._guest, target):
                self._sftp.chmod(target, stat.S_IMODE(found.st_mode))
                self._sftp.utime(target, (found.st_atime, found.st_mtime))

    def _send_file(self, path: Path, found: os.stat_result, target: str) -> None:
        with (
            on_host(path),
            path.open("rb") as source,
            in_guest(self._guest, target),
            self._sftp.open(target, "wb") as file,
        ):
            file.set_pipelined(True)
            chunk = self._read(source.read, path)
            while chunk:
                following = self._read(source.read, path)
                # Unpipelined, the last write waits for the answers to all before it, and raises their errors.
                file.set_pipelined(bool(following))
                file.write(chunk)
                self.tally.count(path, len(chunk))
                chunk = following
            file.chmod(stat.S_IMODE(found.st_mode))
            file.utime((found.st_atime, found.st_mtime))
        self.tally.file_done()

    @staticmethod
    def _read(read: Callable[[int], bytes], path: Path) -> bytes:
        with on_host(path):
            return read(_CHUNK_BYTES)

    def _send_link(self, path: Path, target: str) -> None:
        with on_host(path):
            leads_to = str(path.readlink())
        with in_guest(self._guest, target):
            with contextlib.suppress(FileNotFoundError):
                self._sftp.remove(target)
            self._sftp.symlink(leads_to, target)
        self.tally.file_done()


class _Download:
    def __init__(self, guest: Guest, sftp: paramiko.SFTPClient, tally: _Tally) -> None:
        self._guest = guest
        self._sftp = sftp
        self.tally = tally

    def start(self, source: str, destination: str) -> None:
        """Find out what `destination` means, and copy."""
        with in_guest(self._guest, source):
            found = self._sftp.stat(source)
        is_directory = stat.S_ISDIR(found.st_mode or 0)
        if not is_directory:
            if not stat.S_ISREG(found.st_mode or 0):
                raise UsageError(f"`{source}` in the guest is neither a file nor a directory")
            self.tally.total = found.st_size
        target = Path(destination)
        name = posixpath.basename(source.rstrip("/"))
        if target.is_dir() and is_directory and name in _CONTENTS:
            with receive_into(target) as directory:
                self._take_entries(source, directory, depth=0)
            return
        if target.is_dir():
            parent = target
        else:
            self._check_new(target, destination, is_directory=is_directory)
            parent, name = target.parent, target.name
        with receive_into(parent) as directory:
            self._take(source, found, directory, name, depth=0)

    @staticmethod
    def _check_new(target: Path, destination: str, *, is_directory: bool) -> None:
        if not target.parent.is_dir():
            raise UsageError(f"there is no directory `{target.parent}` on this computer")
        if destination.endswith("/") and not is_directory:
            raise UsageError(f"there is no directory `{destination}` on this computer")
        if is_directory and target.exists():
            raise UsageError(f"`{destination}` is not a directory, and the source is one")

    def _take(
        self,
        path: str,
        found: paramiko.SFTPAttributes,
        into: ReceivingDirectory,
        name: str,
        *,
        depth: int,
    ) -> None:
        if depth > _DEEPEST:
            raise GuestError(f"`{path}` in the guest lies more than {_DEEPEST} directories deep")
        mode = found.st_mode or 0
        if stat.S_ISDIR(mode):
            with into.directory(name, mode=mode, mtime=found.st_mtime) as directory:
                self._take_entries(path, directory, depth=depth)
        elif stat.S_ISREG(mode):
            self._take_file(path, found, into, name)
        elif stat.S_ISLNK(mode):
            with in_guest(self._guest, path):
                leads_to = self._sftp.readlink(path)
            into.link(name, leads_to or "")
            self.tally.file_done()
        else:
            self.tally.skipped(path)

    def _take_entries(self, path: str, directory: ReceivingDirectory, *, depth: int) -> None:
        with in_guest(self._guest, path):
            entries = self._sftp.listdir_attr(path)
        for entry in sorted(entries, key=lambda entry: entry.filename):
            inner = posixpath.join(path, entry.filename)
            self._take(inner, entry, directory, entry.filename, depth=depth + 1)

    def _take_file(
        self, path: str, found: paramiko.SFTPAttributes, into: ReceivingDirectory, name: str
    ) -> None:
        with in_guest(self._guest, path):
            source = self._sftp.open(path, "rb")
        with source, into.file(name, mode=found.st_mode, mtime=found.st_mtime) as file:
            position = 0
            while True:
                with in_guest(self._guest, path):
                    if position % _AHEAD_BYTES == 0 and position < (found.st_size or 0):
                        source.prefetch(min(found.st_size or 0, position + _AHEAD_BYTES))
                    chunk = source.read(_CHUNK_BYTES)
                if not chunk:
                    break
                with on_host(into.path / name):
                    file.write(chunk)
                position += len(chunk)
                self.tally.count(path, len(chunk))
        self.tally.file_done()


def _bytes_in(source: str, root: os.stat_result) -> int:
    """How many bytes the regular files at and below `source` have; what cannot be read is met again later."""
    if not stat.S_ISDIR(root.st_mode):
        return root.st_size
    total = 0
    for directory, _, names in os.walk(source):
        for name in names:
            with contextlib.suppress(OSError):
                status = Path(directory, name).lstat()
                total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
