"""How CPU, disk and network settings are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vmrunner.config.cpu_values import Topology, format_cpu_list, parse_cpu_list, pins_of
from vmrunner.config.disk_values import check_limits, image_format, limits_of_throttle, throttle_limits
from vmrunner.config.load import load_config
from vmrunner.config.memory_values import distances_of
from vmrunner.config.model import Config
from vmrunner.config.network_values import Forward, HostForward, bits_of, format_rate
from vmrunner.config.units import Duration


@pytest.mark.parametrize(
    ("text", "cpus", "shortest"),
    [("0", (0,), "0"), ("0-3,6", (0, 1, 2, 3, 6), "0-3,6"), ("3,1,2", (1, 2, 3), "1-3"), ("1-1", (1,), "1")],
)
def test_cpu_lists(text: str, cpus: tuple[int, ...], shortest: str) -> None:
    assert parse_cpu_list(text) == cpus
    assert format_cpu_list(cpus) == shortest


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-", "0,,1", "99999"])
def test_no_cpu_lists(text: str) -> None:
    with pytest.raises(ValueError, match="not a list of CPUs"):
        parse_cpu_list(text)


def test_topology_multiplies() -> None:
    assert Topology.parse("2X3x4").cpus == 24


def test_pins_by_vcpu() -> None:
    assert pins_of({"0-1": "2", "3": "0,1"}) == ((0, (2,)), (1, (2,)), (3, (0, 1)))


def test_limits_become_those_of_qemu_and_back() -> None:
    limits = check_limits({"bps": "10M", "bps-burst": "20M", "burst-seconds": "5", "iops-read": "100"})
    throttle = throttle_limits(limits)
    assert throttle == {
        "bps-total": 10485760, "bps-total-max": 20971520, "bps-total-max-length": 5, "iops-read": 100,
    }  # fmt: skip
    assert limits_of_throttle({**throttle, "iops-write": 0, "bps-read-max-length": 1}) == limits


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"disk_limits": {"bps": "1M", "bps-read": "1M"}}, "both ways together"),
        ({"disk_limits": {"bps-burst": "1M"}}, "without bps"),
        ({"disk_limits": {"bps": "2M", "bps-burst": "1M"}}, "is less than bps"),
        ({"disk_limits": {"speed": "1"}}, "not a disk limit"),
        ({"disk_limits": {"iops": "1M"}}, "not a whole number"),
        ({"disk_limits": {"bps": "1"}}, "impossible limit"),
        ({"cpu_pin": {"0-1": "0", "1": "1"}}, "vCPU 1 is pinned twice"),
        ({"cpu_quota": "half"}, "not a CPU quota"),
        ({"cpu_features": ["a b"]}, "not a CPU feature"),
        ({"cpu_topology": "2x2"}, "not a topology"),
        ({"forwards": ["80"]}, "not a forward"),
        ({"forwards": ["0:0"]}, "not a port"),
        ({"forwards": ["localhost:1:1"]}, "not a forward"),
        ({"host_forwards": ["5432"]}, "not a forward"),
        ({"host_forwards": ["1:a b:2"]}, "not a forward"),
        ({"dns": "::1"}, "not an IPv4 address"),
        ({"nics": 9}, "less than or equal to 8"),
        ({"empty_disks": ["1K"]}, "impossible size"),
        ({"numa_nodes": {"0-1": "1G", "1": "1G"}}, "vCPU 1 is in two NUMA nodes"),
        ({"numa_distances": {"0-0": "20"}}, "not two NUMA nodes"),
        ({"numa_distances": {"0-1": "10"}}, "greater than or equal to 11"),
        ({"machine_type": "microvm"}, "without a PCI bus"),
        ({"machine_type": "virt"}, "not a machine type"),
        ({"phase_timeouts": {"units": "1s"}}, "not a phase of a test run: 'units' .did you mean unit"),
        ({"phase_timeouts": {"xyz": "1s"}}, "want one of image, build, archive"),
        ({"phase_timeouts": {"unit": "721h"}}, "impossible duration"),
        ({"mac": "53:54:00:00:00:00"}, "not the MAC address"),
        ({"net_rate": "10"}, "not a rate"),
        ({"net_rate": "1bit"}, "impossible rate"),
        ({"net_delay": "11s"}, "10s at most"),
        ({"rtc": "tomorrow"}, "not a time"),
        ({"rtc": "2030-01-01T00:00:00+01:00"}, "not a time"),
        ({"kernel_modules": ["-r"]}, "not a kernel module"),
        ({"sysctls": {"../x": "1"}}, "not a kernel parameter"),
        ({"watchdog": "explode"}, "Input should be"),
    ],
    ids=str,
)
def test_what_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config(**settings)


def test_switches_take_what_yaml_has_for_them() -> None:
    assert [Config(prealloc=value).prealloc for value in ("on", "yes", "true", True)] == ["on"] * 4
    assert Config(prealloc=False).prealloc == "off"


def test_forwards() -> None:
    assert Forward.parse("8080:80") == Forward("127.0.0.1", 8080, 80)
    assert str(Forward.parse("0.0.0.0:53:5353/udp")) == "0.0.0.0:53:5353/udp"


def test_forwards_to_the_host() -> None:
    assert HostForward.parse("5432:5432") == HostForward(5432, "127.0.0.1", 5432)
    assert str(HostForward.parse("80:db.lan:8080")) == "80:db.lan:8080"
    assert str(HostForward.parse("80:127.0.0.1:8080")) == "80:8080"


def test_the_format_of_an_image_is_told_by_its_name() -> None:
    assert [image_format(Path(name)) for name in ("a.qcow2", "a.img", "a.iso", "a")] == [
        "qcow2",
        *["raw"] * 3,
    ]


def test_distances_of_all_nodes_or_none() -> None:
    assert distances_of({}, 3) == ()
    assert distances_of({"0-2": 40}, 3) == ((0, 1, 20), (0, 2, 40), (1, 2, 20))
    assert Config(numa_distances={"1-0": 30}).numa_distances == {"0-1": 30}


def test_rates() -> None:
    assert bits_of("1.5mbit") == 1_500_000
    assert (format_rate(1_500_000), format_rate(8_000), format_rate(0)) == ("1500kbit", "8kbit", "0")


def test_milliseconds() -> None:
    assert Duration.parse("250ms") == 0.25
    assert Duration.parse("1s500ms") == 1.5
    assert Duration.parse("1m30s") == 90.0
    assert Duration.parse(str(Duration.parse("250ms"))) == 0.25


def test_from_file_variable_and_flag(tmp_path: Any) -> None:
    (tmp_path / "vmrunner.yaml").write_text(
        "disk-limits: {bps: 10M, iops: 100}\ncpu-pin: {0: 0-1}\nwatchdog: off\nprealloc: yes\n"
        "sysctls: {vm.swappiness: 10}\nrtc: 2030-01-01 00:00:00\n"
    )
    environ = {"VMRUNNER_DISK_LIMITS": "iops=200", "VMRUNNER_CPU_PIN": "1=0"}
    flags = {"disk_limits": ("bps=20M",), "forwards": ("8080:80",)}
    loaded = load_config(directory=tmp_path, file=None, environ=environ, flags=flags)
    assert loaded.config.disk_limits == {"bps": "20M", "iops": "200"}
    assert loaded.config.cpu_pin == {"0": "0-1", "1": "0"}
    assert loaded.config.sysctls == {"vm.swappiness": "10"}
    assert (loaded.config.watchdog, loaded.config.prealloc) == ("off", "on")
    assert loaded.config.rtc == "2030-01-01T00:00:00"
    assert loaded.sources["disk-limits"] == "vmrunner.yaml:1, VMRUNNER_DISK_LIMITS, --disk-limit"
