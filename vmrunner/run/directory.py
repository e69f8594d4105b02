"""Where one run lives on the host: what is kept of it, and the scratch space that is gone when it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from vmrunner.events import Emit, Note
from vmrunner.guest import inbox
from vmrunner.host.files import remove_tree, try_lock, write_atomically
from vmrunner.host.paths import cache_dir, private, runs_dir
from vmrunner.host.process_identity import ProcessIdentity, identity_of
from vmrunner.host.signals import shielded
from vmrunner.run.planning import Places

KEPT_RUNS = 50
"""How many runs' reports and logs stay; the oldest go first."""

_OWNER_LOCK = "owner.lock"
_QEMU_RECORD = "qemu.json"
_YOUNG_SECONDS = 60.0


@dataclass(frozen=True)
class RunDirectory:
    """The places of one run. `path` holds what is kept; `scratch` what only the machine needs.

    `share_of_vm` is where the guest writes while the run goes on in a long-lived VM, which has a share of its own.
    """

    id: str
    path: Path
    scratch: Path
    share_of_vm: Path | None = None

    @property
    def out(self) -> Path:
        """The share that the guest writes to; nothing in it is to be trusted."""
        return self.share_of_vm or self.path / "out"

    @property
    def inbox(self) -> Path:
        """The share that the guest reads."""
        return self.scratch / "in"

    @property
    def overlay(self) -> Path:
        """The machine's disk."""
        return self.scratch / "overlay.qcow2"

    @property
    def places(self) -> Places:
        """Where a machine of this run has its files."""
        return Places(f"vmrunner-{self.id}", self.overlay, self.inbox, self.out, self.serial_log)

    @property
    def serial_log(self) -> Path:
        """All that the guest printed on its console."""
        return self.path / "serial.log"

    @property
    def qemu_log(self) -> Path:
        """All that QEMU printed."""
        return self.path / "qemu.log"

    @property
    def events_log(self) -> Path:
        """The run's events, one JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def nextest_log(self) -> Path:
        """All that nextest printed; the guest appends to the same file under another name."""
        return self.path / inbox.NEXTEST_LOG

    @property
    def stdout_log(self) -> Path:
        """What the tests printed past nextest (`--no-capture`)."""
        return self.path / inbox.STDOUT_LOG

    @property
    def junit(self) -> Path:
        """The checked copy of nextest's report."""
        return self.path / "junit.xml"

    @property
    def report(self) -> Path:
        """The report of the whole run."""
        return self.path / "report.json"

    def shard(self, index: int) -> RunDirectory:
        """The places of one shard of this run, made below its own."""
        name = f"shard-{index}"
        shard = RunDirectory(f"{self.id}-{index}", private(self.path / name), private(self.scratch / name))
        _make_places(shard)
        return shard

    def remember_qemu(self, pid: int) -> None:
        """Note which process belongs to this run, for whoever clears up after it."""
        identity = identity_of(pid)
        if identity:
            write_atomically(self.scratch / _QEMU_RECORD, json.dumps(asdict(identity)))


@contextmanager
def open_run_directory(emit: Emit) -> Iterator[RunDirectory]:
    """Make the directories of a new run, after clearing up what killed runs have left; scratch goes at the end."""
    scratches = private(cache_dir() / "scratch")
    reap_leftovers(scratches, emit)
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    run = RunDirectory(run_id, private(runs_dir() / run_id), private(scratches / run_id))
    lock = _take_owner_lock(run.scratch)
    try:
        _forget_old_runs(scratches, keep=KEPT_RUNS)
        _make_places(run)
        yield run
    finally:
        with shielded():
            remove_tree(run.scratch)
            os.close(lock)


def _make_places(run: RunDirectory) -> None:
    private(run.out)
    private(run.inbox)
    for log in (run.serial_log, run.events_log):
        log.touch(0o600)
    for log in (run.nextest_log, run.stdout_log):
        log.touch(0o600)
        # The guest writes through this second name; whatever it does to the name, ours stays the file.
        os.link(log, run.out / log.name)


def _take_owner_lock(scratch: Path) -> int:
    """Make the lock under another name first: a reaper must never see it unlocked."""
    new = scratch / f"{_OWNER_LOCK}.new"
    lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    new.rename(scratch / _OWNER_LOCK)
    return lock


def reap_leftovers(scratches: Path, emit: Emit) -> None:
    """Remove the scratch space of runs whose vmrunner is dead, and end a QEMU that outlived it."""
    for scratch in sorted(scratches.iterdir()):
        with _abandoned(scratch) as abandoned:
            if abandoned:
                for place in (scratch, *scratch.glob("shard-*")):
                    _end_leftover_qemu(place)
                remove_tree(scratch)
                emit(Note(f"cleared up after the run {scratch.name}, which was killed"))


@contextmanager
def _abandoned(scratch: Path) -> Iterator[bool]:
    """Whether nobody holds the run's lock; held meanwhile, so that two reapers do not meet."""
    try:
        lock = os.open(scratch / _OWNER_LOCK, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield _is_old_directory(scratch)  # a young one is just being made
        return
    try:
        yield try_lock(lock)
    finally:
        os.close(lock)


def _is_old_directory(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and time.time() - found.st_mtime > _YOUNG_SECONDS


def _end_leftover_qemu(scratch: Path) -> None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        ProcessIdentity(**json.loads((scratch / _QEMU_RECORD).read_text())).end(grace=0)


def _forget_old_runs(scratches: Path, *, keep: int) -> None:
    """Remove all but the `keep` newest runs; one that still has its scratch space is under way and stays."""
    runs = sorted((path for path in runs_dir().iterdir() if path.is_dir()), key=lambda path: path.name)
    for path in runs[:-keep]:
        if not (scratches / path.name).exists():
            remove_tree(path)
