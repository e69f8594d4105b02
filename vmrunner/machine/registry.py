"""The long-lived VMs of this user: found by name, locked while a command changes one, held while tests run in one.

Locks are beside the VMs, not in them, so that a VM can be made and removed under its own lock::

    vms/.locks/<name>   held (flock) by a command that changes the VM; the holder's process id is in it
    vms/.holds/<name>   held (flock) by a test run in the VM; who that is, is in it as JSON
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.errors import RunTimeout, UsageError, VmBusy, VmDamaged, VmNotRunning
from vmrunner.events import Emit, Note
from vmrunner.host.cpu_share import drop_group
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import locked, remove_tree, try_lock, write_atomically
from vmrunner.host.paths import private, vms_dir
from vmrunner.host.process_identity import processes_with_argument
from vmrunner.machine import templates
from vmrunner.machine.vm_record import VmDirectory, VmRecord, VmState, check_name, read_record

CHANGE_SECONDS: Final = 30.0
"""How long a command waits for another that changes the same VM."""

# Names are short, and one letter of two that is wrong is still a likely slip.
_NEAR: Final = 0.5


@dataclass(frozen=True)
class Holder:
    """A test run that has a VM; `since` is in seconds since the epoch."""

    pid: int
    since: float
    run_id: str

    def __str__(self) -> str:
        when = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"the test run {self.run_id} (process {self.pid}, since {when})"


def exists(name: str) -> bool:
    """Whether there is a VM of that name, damaged ones included."""
    return VmDirectory(check_name(name)).record.exists()


def names() -> list[str]:
    """The names of all VMs, damaged ones included, in order."""
    return sorted(
        path.name for path in vms_dir().iterdir() if path.name[0] != "." and (path / "vm.json").exists()
    )


def find(name: str) -> VmRecord:
    """The VM of that name. Raises UsageError naming the nearest one where there is none, VmDamaged."""
    check_name(name)
    try:
        return read_record(VmDirectory(name))
    except FileNotFoundError:
        pass
    near = difflib.get_close_matches(name, names(), n=1, cutoff=_NEAR)
    raise UsageError(
        f"there is no VM `{name}`" + (f"; did you mean `{near[0]}`?" if near else ""),
        hint=f"`vmrunner ps` lists the VMs there are, `vmrunner up {name}` makes this one",
    )


def find_running(name: str) -> VmRecord:
    """The VM of that name, which runs. Raises as `find` does, and VmNotRunning."""
    record = find(name)
    match record.state:
        case VmState.RUNNING:
            return record
        case VmState.STOPPED:
            raise VmNotRunning(f"the VM `{name}` is stopped", hint=f"`vmrunner up {name}` starts it")
        case VmState.DIED:
            raise VmNotRunning(
                f"the VM `{name}` died: {record.end}",
                hint=f"`vmrunner up {name}` boots it again from its disk; `vmrunner logs {name}` may say why",
            )


def readable() -> list[VmRecord]:
    """The records of all VMs that can be read."""
    records = []
    for name in names():
        with contextlib.suppress(VmDamaged, FileNotFoundError):
            records.append(read_record(VmDirectory(name)))
    return records


def references() -> set[Path]:
    """The images and templates that VMs need: not to be pruned."""
    records = readable()
    keys = {record.template_key for record in records if record.template_key}
    return {record.image_directory for record in records} | {templates.path_of(key) for key in keys}


@contextmanager
def changing(name: str, *, emit: Emit) -> Iterator[None]:
    """Hold the right to change the VM; another command that has it is waited for, with a note. Raises VmBusy."""
    path = private(vms_dir() / ".locks") / check_name(name)

    def tell() -> None:
        emit(Note(f"waiting for another command on `{name}`{_by(path)}"))

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, deadline=Deadline.after(CHANGE_SECONDS), on_wait=tell))
        except RunTimeout as error:
            raise VmBusy(
                f"another command on the VM `{name}`{_by(path)} did not end in {CHANGE_SECONDS:g} s",
                hint="try again when it has",
            ) from error
        path.write_text(str(os.getpid()))
        try:
            yield
        finally:
            if not VmDirectory(name).path.exists():
                path.unlink(missing_ok=True)


@contextmanager
def holding(name: str, *, wait: bool, run_id: str, emit: Emit, deadline: Deadline) -> Iterator[None]:
    """Have the VM for a test run. Where another run has it, wait with one note, or with `wait=False` raise VmBusy.

    Raises RunTimeout where the deadline passes first.
    """
    path = _hold_path(name)

    def tell() -> None:
        holder = holder_of(name)
        if holder is None:  # it has just ended, or somebody only looked
            return
        if not wait:
            raise VmBusy(
                f"the VM `{name}` is taken by {holder}",
                hint="leave out `--no-wait` to wait for its end, or use another VM",
            )
        emit(Note(f"waiting for {holder}, which has the VM `{name}`"))

    with locked(path, deadline=deadline, on_wait=tell):
        path.write_text(json.dumps({"pid": os.getpid(), "since": time.time(), "run_id": run_id}))
        yield


def holder_of(name: str) -> Holder | None:
    """The test run that has the VM now, if one does."""
    path = _hold_path(name)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if try_lock(fd, shared=True):
            return None
        found = json.loads(os.read(fd, 4096) or b"{}")
        return Holder(found.get("pid", 0), found.get("since", time.time()), found.get("run_id", "?"))
    finally:
        os.close(fd)


def refuse_held(name: str, *, doing: str, way_out: str) -> None:
    """Raise VmBusy where a test run has the VM. `doing` is what cannot be done meanwhile (`stopped`)."""
    holder = holder_of(name)
    if holder:
        raise VmBusy(f"the VM `{name}` cannot be {doing}: {holder} has it", hint=way_out)


def note_run(name: str, run_directory: Path) -> None:
    """Remember the directory of a test run in the VM, for `logs`."""
    write_atomically(VmDirectory(name).last_run, f"{run_directory}\n")


def last_run(name: str) -> Path | None:
    """The directory of the last test run in the VM, where there was one."""
    try:
        return Path(VmDirectory(name).last_run.read_text().rstrip("\n"))
    except FileNotFoundError:
        return None


def erase(name: str) -> None:
    """Remove the VM with all it has: its process, its disk, its shares, its sockets. Call it under `changing`."""
    directory = VmDirectory(check_name(name))
    record = None
    with contextlib.suppress(VmDamaged, FileNotFoundError):
        record = read_record(directory)
    end_process(directory, record)
    remove_tree(directory.sockets)
    # Without its record it is no VM any more, however much of the rest is still there.
    directory.record.unlink(missing_ok=True)
    remove_tree(directory.inbox)
    remove_tree(directory.path)
    _hold_path(name).unlink(missing_ok=True)


def end_process(directory: VmDirectory, record: VmRecord | None) -> None:
    """End the VM's QEMU at once, also one that its record does not know (whoever started it was killed just then)."""
    if record and record.process:
        record.process.end(grace=0)
    # Commas in the value of a QEMU option are doubled.
    for stray in processes_with_argument(f"filename={directory.disk}".replace(",", ",,")):
        stray.end(grace=0)
    if record:
        drop_group(record.plan.name)


def reap_abandoned(emit: Emit) -> None:
    """Remove the VMs that existed for one process only, which is dead."""
    for record in readable():
        if record.owner and not record.owner.alive():
            with changing(record.name, emit=emit):
                erase(record.name)
            emit(Note(f"removed the VM `{record.name}`: the test run that made it was killed"))


def _hold_path(name: str) -> Path:
    return private(vms_dir() / ".holds") / check_name(name)


def _by(path: Path) -> str:
    try:
        pid = path.read_text()
    except OSError:
        pid = ""
    return f" (process {pid})" if pid else ""
