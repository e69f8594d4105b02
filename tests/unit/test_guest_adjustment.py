"""The script that makes a guest what the host asks for; a real shell reads it."""

from __future__ import annotations

import subprocess

import pytest

from vmrunner.guest.adjustment import Adjustment, CutOff

CUT_OFF = Adjustment(cut_off=CutOff((("tcp", 22), ("udp", 53)), ("192.0.2.7",)))


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
        (Adjustment(rate=1000000), "tc qdisc add dev ifb0 root handle 30: netem rate 1000000bit"),
        (Adjustment(delay=0.1), "ip link del ifb0"),
        (Adjustment(name_server="192.0.2.53"), "mv -f /etc/resolv.conf.vmrunner /etc/resolv.conf"),
        (CUT_OFF, "rule add pref 100 ipproto 6 sport 22 lookup main"),
        (CUT_OFF, "rule add pref 100 ipproto 17 sport 53 lookup main"),
        (CUT_OFF, "rule add pref 110 to 10.0.2.2/32 prohibit"),
        (CUT_OFF, "rule add pref 110 to 192.0.2.7/32 prohibit"),
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


def test_a_batch_has_a_line_for_each_rule() -> None:
    assert CUT_OFF.cut_off
    batch = CUT_OFF.cut_off.script().replace("ip -batch -", "cat")
    ran = subprocess.run(["sh", "-c", batch], capture_output=True, text=True, check=True)
    assert len(ran.stdout.splitlines()) == 4
    assert ran.stdout.splitlines()[0] == "rule add pref 100 ipproto 6 sport 22 lookup main"
