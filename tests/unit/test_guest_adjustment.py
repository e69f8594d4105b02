"""The script that makes a guest what the host asks for; a real shell reads it."""

from __future__ import annotations

import subprocess

import pytest

from vmrunner.guest.adjustment import Adjustment


def test_nothing_to_do_is_no_script() -> None:
    assert Adjustment().script() == ""


@pytest.mark.parametrize(
    ("adjustment", "part"),
    [
        (Adjustment(rescan=True), "/sys/bus/pci/rescan"),
        (Adjustment(cpus=3), "-ge 3"),
        (Adjustment(modules=("dummy", "tun")), "modprobe -a -- dummy tun"),
        (Adjustment(sysctls=(("vm.swappiness", "10"),)), "printf '%s\\n' 10 >/proc/sys/vm/swappiness"),
        (Adjustment(sysctls=(("net/ipv4/conf/eth0.1/forwarding", "1"),)), "/conf/eth0.1/forwarding"),
        (Adjustment(rate=1000000, delay=0.1), "netem delay 100000us rate 1000000bit"),
        (Adjustment(rate=0, delay=0), "tc qdisc del"),
    ],
    ids=str,
)
def test_each_part(adjustment: Adjustment, part: str) -> None:
    assert part in adjustment.script()
    checked = subprocess.run(
        ["sh", "-n", "-c", adjustment.script()], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_part_that_fails_ends_it() -> None:
    adjustment = Adjustment(sysctls=(("no.such.parameter", "1"), ("no.other", "2")))
    ran = subprocess.run(["sh", "-c", adjustment.script()], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "no/other" not in ran.stderr


def test_a_value_is_never_a_command() -> None:
    script = Adjustment(sysctls=(("kernel.core_pattern", "|/bin/true $(touch /tmp/x)"),)).script()
    assert "'|/bin/true $(touch /tmp/x)'" in script
