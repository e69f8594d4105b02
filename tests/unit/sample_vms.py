"""Long-lived VMs on disk, and processes that stand in for their QEMU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_plans import sample_plan

from vmrunner.config.model import Config
from vmrunner.config.units import Size
from vmrunner.host.process_identity import ProcessIdentity, identity_of
from vmrunner.machine.plan import RootDisk
from vmrunner.machine.vm_record import VmDirectory, VmRecord, with_sockets, write_record
from vmrunner.run.vm_settings import kept_settings


def use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let vmrunner keep everything below `home`."""
    for name in ("state", "cache", "run"):
        (home / name).mkdir(exist_ok=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))


@contextmanager
def process(*arguments: str) -> Iterator[ProcessIdentity]:
    """A process that lasts as long as the block, with `arguments` on its command line."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)", *arguments])
    try:
        found = identity_of(child.pid)
        assert found
        yield found
    finally:
        child.kill()
        child.wait()


def dead_process() -> ProcessIdentity:
    """A process of this boot that has ended."""
    with process() as found:
        return found


def sample_record(name: str = "db", **changes: Any) -> VmRecord:
    """A stopped VM of that name, with other fields where they are given; nothing is written."""
    directory = VmDirectory(name)
    disk = RootDisk(directory.disk, Path("/images/debian/root.img"), "raw", Size.parse("8G"))
    plan = replace(
        sample_plan(), disk=disk, serial_log=directory.serial_log, accelerator="tcg", cpu_model="max"
    )
    record = VmRecord(
        name=name, created=1.0, settings=kept_settings(Config()), image="debian",
        image_directory=Path("/images/debian"), image_digest="0" * 64,
        public_key="ssh-ed25519 BBBB vmrunner\n", qemu_version="7.2.22", accelerator_reason="it is there",
        plan=with_sockets(plan, directory), template_key=None, wanted="stopped", start="booted", started_at=1.0,
        process=None, ssh_port=1,
    )  # fmt: skip
    return record.changed(**changes)


def write_vm(name: str = "db", **changes: Any) -> VmRecord:
    """The same on disk, with the files that every VM has."""
    record = sample_record(name, **changes)
    directory = record.directory
    directory.path.mkdir(mode=0o700, parents=True)
    directory.login_key.write_text("a key")
    directory.disk.write_text("a disk")
    directory.inbox.mkdir(parents=True)
    write_record(record)
    return record
