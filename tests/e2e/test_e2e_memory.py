"""Memory that comes and goes, NUMA nodes, and a machine of another type: read in the guest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from long_lived import LongLivedVm
from shared_vm import shared_vm

TOTAL = "awk '/MemTotal/ { print $2 }' /proc/meminfo"


@pytest.fixture
def growing(image: Path, tmp_path: Path) -> Iterator[LongLivedVm]:
    """A VM that can have more memory than it starts with."""
    flags = ("--memory", "512M", "--memory-max", "2G")
    with shared_vm("growing", image=image, state=tmp_path, flags=flags) as vm:
        yield vm


def tuned(vm: LongLivedVm, memory: str) -> tuple[str, str, int]:
    """What `tune` says of it, and the mebibytes that the guest's kernel then says."""
    done = vm.run("tune", "--memory", memory, "--json")
    assert done.code == 0, done.stderr
    (change,) = json.loads(done.stdout)
    total = int(vm.shell(TOTAL)) >> 10
    assert f"{total} MiB" in change["remark"] or "GiB" in change["remark"]
    return change["before"], change["after"], total


def test_memory_beyond_that_of_the_start(growing: LongLivedVm) -> None:
    assert growing.listing["start"] == "restored"
    start = int(growing.shell(TOTAL)) >> 10
    assert tuned(growing, "1G") == ("512M", "1G", start + 512)
    statistics = json.loads(growing.run("stats", "--json").stdout)
    assert statistics["guest_memory"]["actual"] == 1 << 30
    # More than it had at the start is really there: 600 MB of it are written to.
    assert (
        growing.shell("perl -e 'my @all; push(@all, q(x) x 1000000) for 1 .. 600; print scalar(@all)'")
        == "600"
    )
    assert growing.vmrunner.run("snapshot", "save", growing.name, "large").code == 0
    assert tuned(growing, "400M") == ("1G", "400M", start - 112)
    assert growing.vmrunner.run("snapshot", "restore", growing.name, "large").code == 0
    assert int(growing.shell(TOTAL)) >> 10 == start + 512
    refused = growing.run("tune", "--memory", "3G")
    assert (refused.code, "3G, but the machine was started with 2G at most" in refused.message) == (2, True)
    assert "--memory-max 3G --persist" in refused.hint


@pytest.fixture
def nodes_of_pc(image: Path, tmp_path: Path) -> Iterator[LongLivedVm]:
    """A VM with NUMA nodes, and the older PC at that."""
    flags = (
        "--machine-type", "pc", "--memory", "512M", "--numa-node", "0=192M", "--numa-node", "1=320M",
        "--numa-distance", "0-1=30", "--cpus", "1", "--cpus-max", "2", "--empty-disk", "64M", "--nics", "2",
    )  # fmt: skip
    with shared_vm("nodes", image=image, state=tmp_path, flags=flags) as vm:
        yield vm


def test_nodes_of_another_type_of_machine(nodes_of_pc: LongLivedVm) -> None:
    assert nodes_of_pc.listing["start"] == "booted"
    assert "i440FX" in nodes_of_pc.shell("cat /sys/class/dmi/id/product_name")
    nodes = "/sys/devices/system/node"
    assert nodes_of_pc.shell(f"cat {nodes}/online") == "0-1\n"
    assert nodes_of_pc.shell(f"cat {nodes}/node0/distance {nodes}/node1/distance") == "10 30\n30 10\n"
    sizes = nodes_of_pc.shell(
        f"awk '/MemTotal/ {{ print $4 }}' {nodes}/node0/meminfo {nodes}/node1/meminfo"
    ).split()
    assert 100 < int(sizes[0]) >> 10 <= 192
    assert 250 < int(sizes[1]) >> 10 <= 320
    assert nodes_of_pc.shell(f"cat {nodes}/node0/cpulist") == "0\n"
    assert nodes_of_pc.run("tune", "--cpus", "2").code == 0
    assert nodes_of_pc.shell(f"cat {nodes}/node1/cpulist") == "1\n"
    assert int(nodes_of_pc.shell("cat /sys/class/block/vdb/size")) * 512 == 64 << 20
    assert nodes_of_pc.shell("ls -d /sys/class/net/eth1") == "/sys/class/net/eth1\n"


def test_a_machine_type_that_qemu_has_not(vmrunner: CommandLine) -> None:
    refused = vmrunner.run("up", "none", "--machine-type", "pc-q35-99.0")
    assert (refused.code, "which QEMU" in refused.message) == (2, True)
    assert "-machine help" in refused.hint
