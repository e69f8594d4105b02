"""Snapshots of a running VM: its files and the programs in its memory come back, whatever happened since."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import CommandLine
from long_lived import LongLivedVm

COUNTER = "i=0; while :; do i=$((i + 1)); echo $i >/run/count; sleep 0.2; done >/dev/null 2>&1 & echo $! >/run/counter"
SMALL_DISK = "size=200m"
"""Room for a VM, and not for its memory."""


@pytest.fixture(scope="module")
def vm(
    tmp_path_factory: pytest.TempPathFactory, target_directory: Path, image: Path
) -> Iterator[LongLivedVm]:
    """One VM for all tests of this module, each of which begins with a `reset`."""
    with tempfile.TemporaryDirectory(prefix="vm-") as runtime:
        variables = {"VMRUNNER_IMAGE": str(image), "XDG_RUNTIME_DIR": runtime}
        command_line = CommandLine(
            tmp_path_factory.mktemp("vms"), image.parents[2], target_directory, variables
        )
        vm = LongLivedVm(command_line, "db")
        vm.up()
        yield vm
        assert vm.run("rm", "--force").code == 0
        vm.assert_nothing_left()


@pytest.fixture
def clean(vm: LongLivedVm) -> LongLivedVm:
    """The VM as it was when it was new, with a counter that runs in it, and no snapshots."""
    assert vm.run("reset").code == 0
    for snapshot in snapshots(vm):
        assert vm.vmrunner.run("snapshot", "rm", vm.name, snapshot).code == 0
    vm.shell(f"echo before >/root/state; {COUNTER}")
    return vm


def snapshots(vm: LongLivedVm) -> list[str]:
    listed = json.loads(vm.vmrunner.run("snapshot", "list", vm.name, "--json").stdout)
    return [entry["tag"] for entry in listed]


def count(vm: LongLivedVm) -> int:
    return int(vm.shell("cat /run/count"))


def save(vm: LongLivedVm, *tag: str) -> str:
    finished = vm.vmrunner.run("snapshot", "save", vm.name, *tag)
    assert finished.code == 0, finished.stderr
    assert "the guest stood still for" in finished.stderr
    return finished.stdout.strip()


def restore(vm: LongLivedVm, *tag: str) -> None:
    finished = vm.vmrunner.run("snapshot", "restore", vm.name, *tag)
    assert finished.code == 0, finished.stderr


def assert_as_saved(vm: LongLivedVm, counted: int) -> None:
    """The old file is back, the counter went on from where it was, and the time is right."""
    assert vm.shell("cat /root/state") == "before\n"
    first = count(vm)
    assert abs(first - counted) < 100
    time.sleep(0.5)
    assert count(vm) > first
    assert vm.clock_error() < 0.1


def test_files_and_programs_come_back(clean: LongLivedVm) -> None:
    assert save(clean, "one") == "one"
    assert clean.clock_error() < 0.1
    counted = count(clean)
    clean.shell("echo after >/root/state; kill $(cat /run/counter); echo -5000 >/run/count; sync")
    restore(clean, "one")
    assert_as_saved(clean, counted)


def test_they_survive_stop_reset_and_up(clean: LongLivedVm) -> None:
    save(clean, "one")
    counted = count(clean)
    clean.shell("echo after >/root/state; sync")
    assert clean.run("stop").code == 0
    restore(clean)
    assert_as_saved(clean, counted)
    assert clean.run("reset").code == 0
    assert "state" not in clean.shell("ls /root")
    restore(clean, "one")
    assert_as_saved(clean, counted)
    assert clean.run("stop").code == 0
    clean.up()
    assert clean.shell("cat /root/state") == "before\n"
    restore(clean, "one")
    assert_as_saved(clean, counted)


def test_names(clean: LongLivedVm) -> None:
    made = save(clean)
    assert save(clean, "two") == "two"
    assert snapshots(clean) == [made, "two"]
    again = clean.vmrunner.run("snapshot", "save", clean.name, "two")
    assert (again.code, again.message) == (2, "the VM `db` has a snapshot `two` already")
    assert clean.vmrunner.run("snapshot", "save", clean.name, "two", "--force").code == 0
    assert clean.vmrunner.run("snapshot", "rm", clean.name, made).code == 0
    assert snapshots(clean) == ["two"]
    missing = clean.vmrunner.run("snapshot", "restore", clean.name, made)
    assert missing.code == 2
    assert missing.hint == "it has two"


def test_mounted_shares_are_no_obstacle(clean: LongLivedVm) -> None:
    clean.shell("/usr/lib/vmrunner/prepare shares && mount | grep -q 9p")
    save(clean, "one")
    assert "9p" not in clean.shell("mount")
    clean.shell("/usr/lib/vmrunner/prepare shares && cd /run/vmrunner/out && (sleep 100 >/dev/null 2>&1 &)")
    busy = clean.vmrunner.run("snapshot", "save", clean.name, "two")
    assert busy.code == 23, busy.stderr
    assert "the shares with the host are in use in the guest" in busy.message
    assert clean.shell("echo here") == "here\n"


def test_a_damaged_snapshot_costs_the_memory_and_not_the_disk(clean: LongLivedVm) -> None:
    save(clean, "one")
    clean.shell("echo after >/root/state; sync")
    state = clean.directory / "snapshots" / "one" / "state"
    os.truncate(state, state.stat().st_size // 2)
    failed = clean.vmrunner.run("snapshot", "restore", clean.name, "one")
    assert failed.code == 22, failed.stderr
    assert clean.listing["state"] == "stopped"
    clean.up()
    assert clean.shell("cat /root/state") == "after\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_full_while_saving(clean: LongLivedVm, tmp_path: Path) -> None:
    """The state directory is on another file system than the templates, too."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL_DISK, "vmrunner-test", tmp_path], check=True)
    try:
        vm = LongLivedVm(replace(clean.vmrunner, state_home=tmp_path), "small")
        no_room = vm.run("up")
        assert (no_room.code, "no room for a copy of the template's memory" in no_room.message) == (20, True)
        assert "--balloon off" in no_room.hint
        vm.up("--balloon", "off")
        vm.shell(COUNTER)
        failed = vm.vmrunner.run("snapshot", "save", vm.name, "one")
        assert failed.code == 20, failed.stderr
        assert failed.message == "no snapshot of the VM `small` could be saved: the disk is full"
        assert "runs on" in failed.hint
        assert [path.name for path in (vm.directory / "snapshots").iterdir()] == []
        first = count(vm)
        time.sleep(0.5)
        assert count(vm) > first
        assert vm.run("rm", "--force").code == 0
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
