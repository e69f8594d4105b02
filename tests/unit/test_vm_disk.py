"""The disk of a stopped VM grows: a real qcow2 file, and the record with it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from sample_vms import use_home, write_vm

from vmrunner.config.units import Size
from vmrunner.errors import ConfigError, HostError
from vmrunner.host.deadline import Deadline
from vmrunner.machine.vm_record import VmRecord, read_record
from vmrunner.run.vm_disk import grow_stopped


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VmRecord:
    use_home(tmp_path, monkeypatch)
    qemu_img = shutil.which("qemu-img")
    assert qemu_img
    written = write_vm()
    plan = replace(written.plan, qemu=Path(qemu_img).with_name("qemu-system-x86_64"))
    subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", plan.disk.overlay, "8G"], check=True)
    return written.changed(plan=plan)


def virtual_size(path: Path) -> int:
    shown = subprocess.run(
        ["qemu-img", "info", "--output=json", path], check=True, capture_output=True
    ).stdout
    return int(json.loads(shown)["virtual-size"])


def test_it_grows_and_the_guest_is_told_to_look(record: VmRecord) -> None:
    grown = grow_stopped(record, Size.parse("9G"), deadline=Deadline.after(20))
    assert virtual_size(record.plan.disk.overlay) == 9 << 30
    assert read_record(record.directory).plan.disk.size == 9 << 30
    assert grown.plan.boot.command_line[-1] == "vmrunner.grow"
    assert grown.settings["disk"] == "9G"
    again = grow_stopped(grown, Size.parse("10G"), deadline=Deadline.after(20))
    assert again.plan.boot.command_line.count("vmrunner.grow") == 1


def test_it_does_not_shrink(record: VmRecord) -> None:
    with pytest.raises(ConfigError, match="4G, but the disk of the VM `db` has 8G already"):
        grow_stopped(record, Size.parse("4G"), deadline=Deadline.after(20))
    assert virtual_size(record.plan.disk.overlay) == 8 << 30


def test_a_disk_that_cannot_grow_is_told(record: VmRecord) -> None:
    record.plan.disk.overlay.write_text("no qcow2 file")
    with pytest.raises(HostError, match="could not be made 9G large"):
        grow_stopped(record, Size.parse("9G"), deadline=Deadline.after(20))
