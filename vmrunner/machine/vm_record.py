"""What a long-lived VM keeps on this computer: its directory, and the record that finds and starts it again.

::

    $XDG_STATE_HOME/vmrunner/vms/<name>/
        vm.json             the record; written last, so a directory without it is no VM
        login-key           the private key that opens the guest's sshd
        disk.qcow2          all that the guest wrote
        base-*.qcow2        what its template had written before that (a second name of the template's own disk)
        serial.log qemu.log what the guest's console and QEMU printed, over all starts
        out/                the share that the guest writes to; `in` lies in the cache, beside what it is linked from
        snapshots/<tag>/    saved states
        last-run            the directory of the last test run in it
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from vmrunner.errors import HostError, UsageError, VmDamaged
from vmrunner.guest.key import LoginKey
from vmrunner.host.files import write_atomically
from vmrunner.host.log_end import read_end, tail
from vmrunner.host.paths import cache_dir, private, runtime_dir, vms_dir
from vmrunner.host.process_identity import ProcessIdentity
from vmrunner.machine.plan import LongLived, MachinePlan

FORMAT_VERSION: Final = 1
DEFAULT_NAME: Final = "default"

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
# unix(7): sun_path has 108 bytes, the last one a zero.
_LONGEST_SOCKET_PATH = 107
_DIGEST_DIGITS = 12
_POWERED_OFF = "reboot: Power down"
_SERIAL_END_BYTES = 4096


class VmState(enum.Enum):
    """Where a long-lived VM is in its life. `DIED`: it should run, and its QEMU is gone."""

    RUNNING = "running"
    STOPPED = "stopped"
    DIED = "died"


class VmRecord(BaseModel, frozen=True, extra="forbid"):
    """All it takes to find a VM and to start it again.

    `plan` is the machine as it boots from its own disk. `settings` are the options it was made with, as JSON.
    `template_key` names the template that `reset` goes back to. `hostname` and `machine_id` are given to the guest after
    each start; empty: the image's. `forwards` are those in force, with the ports that QEMU chose. Times are seconds since the epoch. `serial_start` is how many bytes of the serial log
    are from before this start. `owner` is the process for which alone it exists,
    as long as there is one.
    """

    format_version: int = FORMAT_VERSION
    name: str
    created: float
    settings: dict[str, Any]
    image: str
    image_directory: Path
    image_digest: str
    public_key: str
    qemu_version: str
    accelerator_reason: str
    plan: MachinePlan
    hostname: str = ""
    machine_id: str = ""
    template_key: str | None
    wanted: Literal["running", "stopped"]
    start: Literal["restored", "booted"]
    started_at: float
    serial_start: int = 0
    process: ProcessIdentity | None
    ssh_port: int
    forwards: tuple[str, ...] = ()
    owner: ProcessIdentity | None = None

    @property
    def directory(self) -> VmDirectory:
        """Where its files are."""
        return VmDirectory(self.name)

    @property
    def state(self) -> VmState:
        """Where it is in its life, by a look at its process."""
        if self.process is not None and self.process.alive():
            return VmState.RUNNING
        return VmState.STOPPED if self.wanted == "stopped" else VmState.DIED

    @property
    def end(self) -> str:
        """What became of one that died, as a part of a sentence."""
        if self.process is not None and not self.process.from_this_boot():
            return "this computer was restarted"
        if self._serial_end().rstrip().endswith(_POWERED_OFF):
            return "its guest shut itself down"
        said = tail(self.directory.qemu_log, lines=1)
        return f"its QEMU is gone (last words: {said})" if said else "its QEMU is gone"

    def _serial_end(self) -> str:
        log = self.directory.serial_log
        size = log.stat().st_size - self.serial_start if log.exists() else 0
        return read_end(log, size=min(size, _SERIAL_END_BYTES)) if size > 0 else ""

    @property
    def login_key(self) -> LoginKey:
        """The key pair that opens its guest. Raises VmDamaged."""
        path = self.directory.login_key
        try:
            return LoginKey(path.read_text(), self.public_key)
        except OSError as error:
            raise _damaged(self.name, path, error.strerror or "") from error

    def changed(self, **fields: object) -> VmRecord:
        """The same record with other fields."""
        return self.model_copy(update=fields)


@dataclass(frozen=True)
class VmDirectory:
    """The places of one VM on the host; nothing is made by looking them up."""

    name: str

    @property
    def path(self) -> Path:
        """The directory itself."""
        return vms_dir() / self.name

    @property
    def record(self) -> Path:
        """The record."""
        return self.path / "vm.json"

    @property
    def login_key(self) -> Path:
        """The private key."""
        return self.path / "login-key"

    @property
    def disk(self) -> Path:
        """The overlay that the guest writes to."""
        return self.path / "disk.qcow2"

    @property
    def serial_log(self) -> Path:
        """All that the guest printed on its console."""
        return self.path / "serial.log"

    @property
    def qemu_log(self) -> Path:
        """All that QEMU printed."""
        return self.path / "qemu.log"

    @property
    def out(self) -> Path:
        """The share that the guest writes to; nothing in it is to be trusted."""
        return self.path / "out"

    @property
    def inbox(self) -> Path:
        """The share that the guest reads; in the cache, so that it can hold hard links to what is cached.

        A cache may serve several state directories, each with a VM of this name.
        """
        return cache_dir() / "inboxes" / f"{self.name}-{self._digest}"

    @property
    def sockets(self) -> Path:
        """Where its sockets are while it runs; found without its record, and another for each state directory."""
        return runtime_dir() / self._digest

    @property
    def _digest(self) -> str:
        return hashlib.sha256(bytes(self.path)).hexdigest()[:_DIGEST_DIGITS]

    @property
    def snapshots(self) -> Path:
        """Saved states, one directory a tag."""
        return self.path / "snapshots"

    @property
    def last_run(self) -> Path:
        """A text file with the directory of the last test run in this VM."""
        return self.path / "last-run"

    def base(self, template_key: str) -> Path:
        """The disk of that template, kept for as long as this VM's disk is laid over it."""
        return self.path / f"base-{template_key[:16]}.qcow2"


def check_name(name: str) -> str:
    """`name`, where a VM can be called so. Raises UsageError."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} cannot be the name of a VM",
            hint="use up to 63 of a-z, 0-9, `-`, `_` and `.`, the first a letter or digit",
        )
    return name


def read_record(directory: VmDirectory) -> VmRecord:
    """The record of a VM. Raises FileNotFoundError where there is none, VmDamaged where it cannot be understood."""
    path = directory.record
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _damaged(directory.name, path, error.strerror or "") from error
    try:
        record = VmRecord.model_validate_json(text)
    except ValidationError as error:
        raise _damaged(directory.name, path, str(error)) from error
    if record.format_version != FORMAT_VERSION or record.name != directory.name:
        raise _damaged(directory.name, path, "it was written by another version, or for another VM")
    return record


def write_record(record: VmRecord) -> None:
    """Write the record; readers see the old one or the new."""
    write_atomically(record.directory.record, record.model_dump_json(indent=2))


def with_sockets(plan: MachinePlan, directory: VmDirectory) -> MachinePlan:
    """The plan with sockets in a directory that is there now: it may be gone after a logout or a restart of this computer.

    Raises HostError where their paths would be too long.
    """
    sockets_directory = private(directory.sockets)
    sockets = LongLived(sockets_directory / "monitor", sockets_directory / "console")
    for path in (sockets.monitor_socket, sockets.console_socket):
        if len(bytes(path)) > _LONGEST_SOCKET_PATH:
            raise HostError(
                f"the path of a socket would be too long: {path}",
                hint=f"set XDG_RUNTIME_DIR to a shorter path; {_LONGEST_SOCKET_PATH} bytes is all there can be",
            )
    return replace(plan, long_lived=sockets)


def _damaged(name: str, path: Path, why: str) -> VmDamaged:
    return VmDamaged(
        f"the VM `{name}` cannot be used: {path} cannot be read",
        hint=f"`vmrunner rm --force {name}` removes the VM with all that is in it",
        details=why or None,
    )
