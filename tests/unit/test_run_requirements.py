"""Settings that do not fit together, or not this computer: two values and a way out, before anything is started."""

from __future__ import annotations

import os
from typing import Any

import pytest

from vmrunner.config.model import Config
from vmrunner.errors import ConfigError
from vmrunner.host.limits import HostLimits, free_huge_pages, io_uring_obstacle, read_limits
from vmrunner.run.requirements import check_limits, check_together

HOST = HostLimits(
    cpus=(0, 1), nice_floor=0, free_huge_pages=lambda _size: 7, cpu_share_obstacle=lambda: "mount cgroup v2",
    io_uring_obstacle=lambda: "io_uring works from Linux 5.1 on, and this is 4.19.0",
)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said", "way_out"),
    [
        ({"cpus": 4, "cpus_max": 2}, ("cpus-max` is 2", "`cpus`, 4"), "leave it out"),
        ({"cpus": 2, "cpu_topology": "2x2x2"}, ("2x2x2 makes 8", "`cpus` is 2"), "sockets x cores"),
        ({"cpus": 2, "cpus_max": 4, "cpu_topology": "1x2x1"}, ("makes 2", "`cpus-max` is 4"), "just as many"),
        ({"disk_aio": "native"}, ("native", "auto"), "none or directsync"),
        ({"hugepages": "1G", "memory": "1536M"}, ("1536M", "1G"), "smaller pages"),
        ({"hugepages": "2M", "start": "restored"}, ("restored", "2M"), "leave one"),
        ({"memory": "2G", "memory_max": "1G"}, ("memory-max` is 1G", "`memory`, 2G"), "leave it out"),
        ({"memory": "2G", "memory_max": "3073M"}, ("3073M", "2G", "multiple of 2M"), "blocks"),
        ({"memory_max": "4G", "hugepages": "2M"}, ("4G", "`hugepages` is 2M"), "leave one"),
        ({"numa_nodes": {"0": "1G", "1": "2G"}}, ("3G together", "`memory` is 2G"), "just as much"),
        ({"numa_nodes": {"0": "1G", "2": "1G"}}, ("virtual CPUs 0,2", "has 0-1"), "in one node"),
        (
            {"numa_nodes": {"0-1": "2G"}, "numa_distances": {"0-1": 20}},
            ("names node 1", "has 1"),
            "count from 0",
        ),
        ({"numa_nodes": {"0-1": "2G"}, "start": "restored"}, ("restored", "`numa-nodes` is 1"), "leave one"),
        (
            {"numa_nodes": {"0": "1G", "1": "1025M"}, "memory": "2049M", "hugepages": "1G"},
            ("2049M", "1G"),
            "smaller",
        ),
        ({"kernel": "/no/such/kernel"}, ("kernel` is /no/such/kernel", "no file"), "name one"),
        ({"initrd": "/"}, ("initrd` is /", "no file"), "name one"),
        ({"forwards": ["80:80", "80:81"]}, ("port 80", "2 times"), "leave all but one"),
        ({"dns": "192.0.2.53"}, ("192.0.2.53", "restricted"), "--network user"),
        ({"network": "none", "forwards": ["0:80"]}, ("`forwards` has 0:80", "none"), "restricted"),
        ({"network": "none", "host_forwards": ["80:80"]}, ("`host-forwards` has 80:80", "none"), "leave"),
        ({"overlay_disks": ["/no/such.img"]}, ("/no/such.img", "No such file"), "name a disk image"),
        ({"readonly_disks": ["/"]}, ("`readonly-disks` has /", "no regular file"), "name a disk image"),
        ({"empty_disks": ["1G"] * 12, "nics": 6}, ("12 disks", "`nics` is 6"), "leave some out"),
        ({"forwards": ["80:80"], "shards": 2}, ("shards` is 2", "forwards"), "port 0"),
    ],
    ids=str,
)
def test_settings_that_contradict_each_other(
    settings: dict[str, Any], said: tuple[str, ...], way_out: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_together(Config(**settings))
    assert all(text in caught.value.message for text in said), caught.value.message
    assert caught.value.hint is not None and way_out in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "said", "way_out"),
    [
        ({"cpu_pin": {"0": "0-2"}}, ("CPU 2", "0-1"), "taskset"),
        ({"cpu_pin": {"2": "0"}, "cpus": 2}, ("virtual CPU 2", "has 2"), "--cpus"),
        ({"nice": -5}, ("-5", "0"), "root"),
        ({"cpu_weight": 50}, ("cpu-weight` is 50",), "cgroup v2"),
        ({"cpu_quota": "50%"}, ("cpu-quota` is 50%",), "cgroup v2"),
        ({"disk_aio": "io_uring"}, ("io_uring", "5.1", "4.19"), "threads"),
        ({"hugepages": "2M", "memory": "16M".replace("16M", "128M")}, ("64 huge pages", "7"), "nr_hugepages"),
    ],
    ids=str,
)
def test_settings_that_this_computer_cannot_give(
    settings: dict[str, Any], said: tuple[str, ...], way_out: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_limits(Config(**settings), HOST)
    assert all(text in caught.value.message for text in said), caught.value.message
    assert caught.value.hint is not None and way_out in caught.value.hint


def test_settings_that_fit() -> None:
    config = Config(cpus=2, cpus_max=4, cpu_topology="1x4x1", cpu_pin={"0-3": "0-1"}, nice=3)
    check_together(config)
    check_limits(config, HOST)


def test_this_computer_can_be_looked_at() -> None:
    limits = read_limits()
    assert limits.cpus
    assert limits.free_huge_pages("2M") >= 0


def test_huge_pages_that_are_promised_are_not_free(tmp_path: Any) -> None:
    directory = tmp_path / "hugepages-2048kB"
    directory.mkdir()
    (directory / "free_hugepages").write_text("10\n")
    (directory / "resv_hugepages").write_text("4\n")
    assert free_huge_pages("2M", tmp_path) == 6
    assert free_huge_pages("1G", tmp_path) == 0


def test_io_uring(tmp_path: Any) -> None:
    disabled = tmp_path / "io_uring_disabled"
    assert io_uring_obstacle("5.1.0-x", disabled) is None
    assert "from Linux 5.1 on" in str(io_uring_obstacle("4.19.0", disabled))
    disabled.write_text("2\n")
    assert "is off" in str(io_uring_obstacle("6.8.0", disabled))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("a.img", b"QFI\xfb and so on", "is qcow2, and is taken for raw"), ("a.qcow2", b"raw", "is no qcow2")],
)
def test_an_image_that_is_not_what_its_name_says(tmp_path: Any, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        check_together(Config(overlay_disks=[tmp_path / name]))
    with pytest.raises(ConfigError, match=said) as caught:
        check_together(Config(readonly_disks=[tmp_path / name]))
    assert "qemu-img convert" in (caught.value.hint or "")


def test_a_pipe_is_no_disk_and_nobody_waits_for_it(tmp_path: Any) -> None:
    os.mkfifo(tmp_path / "pipe.img")
    with pytest.raises(ConfigError, match="no regular file"):
        check_together(Config(overlay_disks=[tmp_path / "pipe.img"]))
