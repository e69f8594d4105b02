"""What each setting of the machine adds to QEMU's argument list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_plans import sample_plan

from vmrunner.config.cpu_values import Topology
from vmrunner.config.memory_values import NumaNode
from vmrunner.config.network_values import Forward, HostForward
from vmrunner.config.units import Size
from vmrunner.machine.arguments import qemu_arguments
from vmrunner.machine.plan import DiskOptions, ExtraDisk


def words_of(**changes: Any) -> list[str]:
    return qemu_arguments(sample_plan(**changes), monitor_fd=3)


def added(**changes: Any) -> list[str]:
    """The words that are there with the changes and not without; an option's name only where it is new too."""
    plain = words_of()
    return [word for word in words_of(**changes) if word not in plain]


def after(option: str, words: list[str]) -> str:
    return words[words.index(option) + 1]


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({"cpus": 2, "cpus_max": 4}, "2,maxcpus=4"),
        ({"cpus": 2, "cpus_max": 2}, "2"),
        ({"cpus": 4, "cpu_topology": Topology(1, 2, 2)}, "4,sockets=1,cores=2,threads=2"),
        ({"cpus": 1, "cpus_max": 4, "accelerator": "tcg"}, "4"),
        (
            {"cpus": 1, "cpus_max": 4, "accelerator": "tcg", "cpu_topology": Topology(2, 2, 1)},
            "4,sockets=2,cores=2,threads=1",
        ),
        (
            {"cpus": 1, "cpus_max": 4, "cpu_topology": Topology(2, 2, 1)},
            "1,maxcpus=4,sockets=2,cores=2,threads=1",
        ),
    ],
    ids=str,
)
def test_cpus(changes: dict[str, Any], written: str) -> None:
    assert after("-smp", words_of(**changes)) == written


def test_cpu_features_follow_the_model() -> None:
    assert after("-cpu", words_of(cpu_features=("avx2=off", "+pcid"))) == "host,avx2=off,+pcid"


def test_huge_pages_are_a_memfd_of_the_same_name() -> None:
    assert added(hugepages="2M") == [
        "memory-backend-memfd,id=ram,size=1G,share=off,hugetlb=on,hugetlbsize=2M"
    ]


def test_preallocation() -> None:
    assert added(prealloc=True) == ["memory-backend-ram,id=ram,size=1G,prealloc=on"]


def test_numa_nodes_have_a_backend_each() -> None:
    nodes = (NumaNode((0, 1), Size.parse("256M")), NumaNode((2,), Size.parse("768M")))
    words = words_of(cpus=3, numa_nodes=nodes, numa_distances=((0, 1, 30),))
    start = words.index("-m")
    assert words[start : start + 12] == [
        "-m", "size=1G",
        "-object", "memory-backend-ram,id=ram-node0,size=256M",
        "-numa", "node,nodeid=0,cpus=0,cpus=1,memdev=ram-node0",
        "-object", "memory-backend-ram,id=ram-node1,size=768M",
        "-numa", "node,nodeid=1,cpus=2,memdev=ram-node1",
        "-numa", "dist,src=0,dst=1,val=30",
    ]  # fmt: skip
    assert after("-machine", words) == "pc-q35-7.2,vmport=off"


def test_numa_nodes_of_huge_pages() -> None:
    words = words_of(numa_nodes=(NumaNode((0, 1), Size.parse("1G")),), hugepages="2M", prealloc=True)
    assert (
        "memory-backend-memfd,id=ram-node0,size=1G,share=off,hugetlb=on,hugetlbsize=2M,prealloc=on" in words
    )


def test_memory_that_can_be_added_comes_before_the_balloon() -> None:
    words = words_of(memory_max=Size.parse("2G"), balloon=True)
    assert after("-m", words) == "size=1G,maxmem=2G"
    assert added(memory_max=Size.parse("2G")) == [
        "size=1G,maxmem=2G",
        "memory-backend-ram,id=more-memory,size=1073741824B,reserve=off",
        "virtio-mem-pci,id=more-memory0,memdev=more-memory,requested-size=0",
    ]
    devices = [words[index + 1] for index, word in enumerate(words) if word == "-device"]
    assert devices[-2].startswith("virtio-mem-pci")


def test_a_balloon_is_the_last_device() -> None:
    assert added(balloon=True) == ["virtio-balloon-pci,id=balloon0"]
    words = words_of(balloon=True, watchdog="pause")
    devices = [words[index + 1] for index, word in enumerate(words) if word == "-device"]
    assert devices[-2:] == ["i6300esb,id=watchdog0", "virtio-balloon-pci,id=balloon0"]


@pytest.mark.parametrize(
    ("cache", "on_nodes", "on_device"),
    [
        ("auto", "cache.no-flush=on", ""),
        ("unsafe", "cache.no-flush=on", ""),
        ("writeback", "cache.no-flush=off", ""),
        ("none", "cache.no-flush=off,cache.direct=on", ""),
        ("writethrough", "cache.no-flush=off", ",write-cache=off"),
        ("directsync", "cache.no-flush=off,cache.direct=on", ",write-cache=off"),
    ],
)
def test_cache_modes(cache: Any, on_nodes: str, on_device: str) -> None:
    words = words_of(disk_options=DiskOptions(cache=cache))
    nodes = [word for word in words if "cache.no-flush" in word]
    assert len(nodes) == 3
    assert all(word.endswith(f"discard=unmap,{on_nodes}") for word in nodes)
    assert f"virtio-blk-pci,id=disk0,drive=root-throttle,serial=root{on_device}" in words


def test_aio_discard_and_io_thread() -> None:
    options = DiskOptions(cache="none", aio="native", discard="ignore", iothread=True)
    assert added(disk_options=options) == [
        "iothread,id=disk-thread",
        "file,node-name=root-file,filename=/run/overlay.qcow2,discard=ignore,aio=native,cache.no-flush=off,cache.direct=on",
        "qcow2,node-name=root,file=root-file,discard=ignore,cache.no-flush=off,cache.direct=on",
        "throttle,node-name=root-throttle,throttle-group=root-limits,file=root,discard=ignore,cache.no-flush=off,"
        "cache.direct=on",
        "virtio-blk-pci,id=disk0,drive=root-throttle,serial=root,iothread=disk-thread",
    ]


def test_disk_limits_are_those_of_the_throttle_group() -> None:
    (word,) = added(disk_limits=(("bps-total", 1048576), ("iops-total", 100)))
    assert json.loads(word) == {
        "qom-type": "throttle-group", "id": "root-limits", "limits": {"bps-total": 1048576, "iops-total": 100},
    }  # fmt: skip


def test_forwards_and_mac() -> None:
    forwards = (Forward("127.0.0.1", 8080, 80), Forward("0.0.0.0", 0, 53, "udp"))
    assert added(forwards=forwards, mac="52:54:00:aa:bb:cc") == [
        "user,id=net0,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:8080-:80,"
        "hostfwd=udp:0.0.0.0:0-:53",
        "virtio-net-pci,id=nic0,netdev=net0,romfile=,mac=52:54:00:aa:bb:cc",
    ]


def test_a_watchdog_and_what_it_does() -> None:
    assert added(watchdog="poweroff") == [
        "reboot=shutdown,shutdown=poweroff,panic=pause,watchdog=poweroff",
        "i6300esb,id=watchdog0",
    ]


def test_random_number_generator() -> None:
    assert added(rng="urandom") == [
        "rng-random,id=rng-source,filename=/dev/urandom", "virtio-rng-pci,id=rng0,rng=rng-source",
    ]  # fmt: skip
    assert "virtio-rng-pci,id=rng0" not in words_of(rng="off")


def test_real_time_clock() -> None:
    assert "-rtc" not in words_of()
    assert after("-rtc", words_of(rtc="2030-01-01T00:00:00", rtc_drift="slew")) == (
        "base=2030-01-01T00:00:00,driftfix=slew"
    )
    assert after("-rtc", words_of(rtc="localtime")) == "base=localtime"


def test_what_a_clock_shows_at_the_start() -> None:
    assert sample_plan().clock_at_start(5.0) == 5.0
    assert sample_plan(rtc="1970-01-02T00:00:00").clock_at_start(5.0) == 86400.0


def test_disks_besides_the_root() -> None:
    disks = (
        ExtraDisk("empty-0", Path("/run/e.qcow2"), size=Size.parse("1G")),
        ExtraDisk("overlay-0", Path("/run/o.qcow2"), backing_file=Path("/img/a.img")),
        ExtraDisk("readonly-0", Path("/img/b.img"), readonly=True),
    )
    assert added(extra_disks=disks) == [
        "file,node-name=empty-0-file,filename=/run/e.qcow2,discard=unmap,cache.no-flush=on",
        "qcow2,node-name=empty-0,file=empty-0-file,discard=unmap,cache.no-flush=on",
        "virtio-blk-pci,id=disk-empty-0,drive=empty-0,serial=empty-0",
        "file,node-name=overlay-0-file,filename=/run/o.qcow2,discard=unmap,cache.no-flush=on",
        "qcow2,node-name=overlay-0,file=overlay-0-file,discard=unmap,cache.no-flush=on",
        "virtio-blk-pci,id=disk-overlay-0,drive=overlay-0,serial=overlay-0",
        "file,node-name=readonly-0-file,filename=/img/b.img,read-only=on,cache.no-flush=on",
        "raw,node-name=readonly-0,file=readonly-0-file,read-only=on,cache.no-flush=on",
        "virtio-blk-pci,id=disk-readonly-0,drive=readonly-0,serial=readonly-0",
    ]


def test_more_network_cards() -> None:
    assert added(nics=3) == [
        "user,id=net1,ipv6=off,restrict=on,net=10.0.3.0/24",
        "virtio-net-pci,id=nic1,netdev=net1,romfile=",
        "user,id=net2,ipv6=off,restrict=on,net=10.0.4.0/24",
        "virtio-net-pci,id=nic2,netdev=net2,romfile=",
    ]


@pytest.mark.parametrize(("network", "restrict"), [("none", "on"), ("restricted", "on"), ("user", "off")])
def test_networks(network: Any, restrict: str) -> None:
    assert f"restrict={restrict}," in after("-netdev", words_of(network=network))


def test_what_the_guest_does_itself_is_not_in_the_arguments() -> None:
    assert added(dns="192.0.2.53", host_access=False, host_forwards=(HostForward(1, "127.0.0.1", 2),)) == []
