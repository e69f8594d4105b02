"""The key of a template: another one for all that must match at restore, the same for all that may differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fake_qemu import write_program
from sample_plans import sample_plan

from vmrunner.config.cpu_values import Topology
from vmrunner.config.memory_values import NumaNode
from vmrunner.config.network_values import Forward, HostForward
from vmrunner.config.units import Size
from vmrunner.machine import template_key as module
from vmrunner.machine.plan import (
    DiskOptions,
    ExtraDisk,
    KernelBoot,
    LongLived,
    MachinePlan,
    MemoryFile,
    Placement,
    RootDisk,
    Share,
)
from vmrunner.machine.template_key import template_key

BOOT = sample_plan().boot
DISK = sample_plan().disk
SHARES = sample_plan().shares


@pytest.fixture
def qemu(tmp_path: Path) -> Path:
    """A program in QEMU's place."""
    return write_program(tmp_path / "qemu-system-x86_64", "exit 1")


def key_of(plan: MachinePlan, *, image: str = "i" * 64, **tools: str) -> str:
    return template_key(plan, image_digest=image, guest_tools=tools)


def test_a_key_is_a_name_for_a_directory(qemu: Path) -> None:
    key = key_of(sample_plan(qemu=qemu))
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "changes",
    [
        {"machine_type": "pc-q35-8.0"},
        {"accelerator": "tcg"},
        {"cpu_model": "host,-arch-capabilities"},
        {"cpus": 3},
        {"memory": Size.parse("1025M")},
        {"boot": KernelBoot(Path("/img/other"), BOOT.initrd, BOOT.command_line)},
        {"boot": KernelBoot(BOOT.kernel, None, BOOT.command_line)},
        {"boot": KernelBoot(BOOT.kernel, BOOT.initrd, (*BOOT.command_line, "quiet"))},
        {"disk": RootDisk(DISK.overlay, Path("/other/root.img"), "raw", DISK.size)},
        {"disk": RootDisk(DISK.overlay, DISK.backing_file, "qcow2", DISK.size)},
        {"disk": RootDisk(DISK.overlay, DISK.backing_file, "raw", Size.parse("16G"))},
        {"shares": SHARES[:1]},
        {"shares": tuple(reversed(SHARES))},
        {"shares": (*SHARES, Share("more", Path("/more"), readonly=True))},
        {"credentials": ()},
        {"extra_arguments": ("-device", "i6300esb")},
        {"cpus_max": 4},
        {"cpu_topology": Topology(1, 1, 2)},
        {"cpu_features": ("pcid=off",)},
        {"hugepages": "2M"},
        {"memory_max": Size.parse("2G")},
        {"numa_nodes": (NumaNode((0, 1), Size.parse("1G")),)},
        {
            "numa_nodes": (NumaNode((0,), Size.parse("1G")), NumaNode((1,), Size(0))),
            "numa_distances": ((0, 1, 30),),
        },
        {"disk_options": DiskOptions(cache="writethrough")},
        {"mac": "52:54:00:00:00:01"},
        {"watchdog": "reset"},
        {"rng": "off"},
        {"rtc": "localtime"},
        {"rtc_drift": "slew"},
    ],
    ids=str,
)
def test_what_must_match_makes_another_key(qemu: Path, changes: dict[str, Any]) -> None:
    assert key_of(sample_plan(qemu=qemu, **changes)) != key_of(sample_plan(qemu=qemu))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "vmrunner-2"},
        {"network": "user"},
        {"shares": tuple(Share(share.tag, Path("/elsewhere"), share.readonly) for share in SHARES)},
        {"credentials": (("ssh.authorized_keys.root", "ssh-ed25519 BBBB vmrunner\n"),)},
        {"serial_log": Path("/elsewhere/serial.log")},
        {"disk": RootDisk(Path("/elsewhere/overlay"), DISK.backing_file, "raw", DISK.size)},
        {"long_lived": LongLived(Path("/vm/monitor"), Path("/vm/console"))},
        {"memory_file": MemoryFile(Path("/ram"), shared=True)},
        {"incoming": True},
        {"placement": Placement(((0, (1,)),), weight=50, quota=150, nice=5)},
        {"prealloc": True},
        {"balloon": True},
        {"disk_options": DiskOptions("none", "native", "ignore", iothread=True)},
        {"disk_limits": (("bps-total", 1 << 20),)},
        {"forwards": (Forward("127.0.0.1", 8080, 80),)},
        {"rng": "urandom"},
        {"extra_disks": (ExtraDisk("empty-0", Path("/e.qcow2"), size=Size.parse("1G")),)},
        {"nics": 2},
        {"network": "none"},
        {"dns": "192.0.2.53"},
        {"host_access": False},
        {"may_break_booting": True},
        {"host_forwards": (HostForward(1, "127.0.0.1", 2),)},
    ],
    ids=str,
)
def test_what_may_differ_from_run_to_run_does_not(qemu: Path, changes: dict[str, Any]) -> None:
    assert key_of(sample_plan(qemu=qemu, **changes)) == key_of(sample_plan(qemu=qemu))


def test_what_a_watchdog_does_is_no_part_of_the_shape(qemu: Path) -> None:
    assert key_of(sample_plan(qemu=qemu, watchdog="reset")) == key_of(
        sample_plan(qemu=qemu, watchdog="pause")
    )


def test_every_field_of_a_plan_was_thought_of() -> None:
    """A new field is in the key unless it is a machine's own; then it belongs in one of the two lists above."""
    assert set(MachinePlan.__dataclass_fields__) == {
        "name", "qemu", "machine_type", "accelerator", "cpu_model", "cpus", "memory", "boot", "disk", "network",
        "shares", "credentials", "serial_log", "extra_arguments", "memory_file", "incoming", "long_lived",
            "cpus_max", "cpu_topology", "cpu_features", "placement", "memory_max", "numa_nodes", "numa_distances", "hugepages", "prealloc", "balloon", "disk_options",
            "disk_limits", "extra_disks", "forwards", "host_forwards", "dns", "host_access", "nics", "mac", "watchdog", "rng",
            "rtc", "rtc_drift", "may_break_booting",
    }  # fmt: skip


def test_another_image_or_another_tool_in_the_guest_makes_another_key(qemu: Path) -> None:
    plan = sample_plan(qemu=qemu)
    keys = {
        key_of(plan),
        key_of(plan, image="j" * 64),
        key_of(plan, nextest="0.9.1"),
        key_of(plan, nextest="0.9.2"),
    }
    assert len(keys) == 4


def test_qemu_of_another_build_makes_another_key_though_its_path_is_the_same(qemu: Path) -> None:
    plan = sample_plan(qemu=qemu)
    before = key_of(plan)
    os.utime(qemu, ns=(1, 1))
    replaced = key_of(plan)
    write_program(qemu, "exit 12")
    os.utime(qemu, ns=(1, 1))
    assert len({before, replaced, key_of(plan)}) == 3


def test_qemu_behind_a_link_is_known_by_what_the_link_leads_to(qemu: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for link in (first, second):
        link.symlink_to(qemu)
    before = key_of(sample_plan(qemu=first))
    other = write_program(tmp_path / "other", "exit 123")
    first.unlink()
    first.symlink_to(other)
    assert key_of(sample_plan(qemu=first)) != before


def test_the_version_of_the_format_is_in_the_key(qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(sample_plan(qemu=qemu))
    monkeypatch.setattr(module, "FORMAT_VERSION", module.FORMAT_VERSION + 1)
    assert key_of(sample_plan(qemu=qemu)) != before
