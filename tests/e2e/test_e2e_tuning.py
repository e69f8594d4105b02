"""Settings that the guest can see, read in the guest; and each change of a running machine, read before and after.

One VM serves all tests of this file, so that they boot nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import pytest
from command_line import CommandLine
from long_lived import LongLivedVm
from shared_vm import shared_vm

from vmrunner.host.cpu_share import CpuShare, obstacle, read_cpu_share

README = Path(__file__).parents[2] / "README.md"
SETTINGS = (
    "--cpus", "1", "--cpus-max", "2", "--cpu-topology", "1x1x2", "--memory", "1G", "--disk-limit", "bps=4M",
    "--watchdog", "none", "--rtc", "2030-01-01T00:00:00", "--sysctl", "vm.swappiness=11", "--kernel-module", "dummy",
    "--kernel-arg", "vmrunner.test=1", "--mac", "52:54:00:00:00:77", "--cpu-pin", "0=0", "--nice", "3",
)  # fmt: skip
# A write that goes past the guest's cache, and how long it took by the guest's clock.
# A server that echoes lines, takes bytes (and says how many seconds that took it) or gives them.
SERVER = r"""use Socket;
sub now { open(my $file, q(<), q(/proc/uptime)); return (split / /, readline($file))[0] }
socket(L, PF_INET, SOCK_STREAM, 0); setsockopt(L, SOL_SOCKET, SO_REUSEADDR, 1);
bind(L, sockaddr_in(80, INADDR_ANY)) or die; listen(L, 5);
while (accept(C, L)) {
    my $line = ''; 1 while sysread(C, $line, 1, length($line)) && $line !~ /\n/;
    if ($line =~ /^echo/) { do { syswrite(C, $line) } while sysread(C, $line, 64); }
    if ($line =~ /^give (\d+)/) { my $left = $1; while ($left > 0) { $left -= syswrite(C, "\0" x ($left < 65536 ? $left : 65536)) } }
    if ($line =~ /^take (\d+)/) {
        my ($left, $began) = ($1, now());
        while ($left > 0) { $left -= sysread(C, my $bytes, 65536) || last }
        syswrite(C, now() - $began);
    }
    close(C);
}"""
WRITE = "s=$(date +%s%N); dd if=/dev/zero of=/root/written bs=1M count=24 oflag=direct 2>/dev/null; e=$(date +%s%N); echo $((e-s))"


@pytest.fixture(scope="module")
def port() -> int:
    """A port of this host's that nobody listens on, for the forward to the guest's port 80."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        chosen: int = free.getsockname()[1]
        return chosen


@pytest.fixture(scope="module")
def tuned(image: Path, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongLivedVm]:
    """A VM with all the settings."""
    flags = (*SETTINGS, "--forward", f"{port}:80")
    with shared_vm("tuned", image=image, state=tmp_path_factory.mktemp("state"), flags=flags) as vm:
        yield vm


def changes(vm: LongLivedVm, *flags: str) -> dict[str, Any]:
    """What `vmrunner tune` says came of it, by setting."""
    done = vm.run("tune", *flags, "--json")
    assert done.code == 0, done.stderr
    return {change["setting"]: change for change in json.loads(done.stdout)}


def test_the_guest_is_what_the_settings_say(tuned: LongLivedVm) -> None:
    assert tuned.shell("nproc") == "1\n"
    assert tuned.shell("cat /sys/devices/system/cpu/possible") == "0-1\n"
    assert tuned.shell("cat /sys/devices/system/cpu/cpu0/topology/thread_siblings_list").strip() in {
        "0",
        "0-1",
        "0,1",
    }
    assert 900_000 < int(tuned.shell("awk '/MemTotal/ { print $2 }' /proc/meminfo || :") or "0") <= 1 << 20
    assert "vmrunner.test=1" in tuned.shell("cat /proc/cmdline").split()
    assert tuned.shell("cat /proc/sys/vm/swappiness") == "11\n"
    assert "dummy" in tuned.shell("cat /proc/modules")
    assert tuned.shell("cat /sys/class/net/eth0/address") == "52:54:00:00:00:77\n"
    assert "i6300ESB timer" in tuned.shell("cat /sys/class/watchdog/*/identity")
    assert tuned.shell("date -u +%Y-%m-%d") == "2030-01-01\n"


def test_this_host_runs_it_as_the_settings_say(tuned: LongLivedVm) -> None:
    assert psutil.Process(tuned.pid).nice() == 3
    affinities = [os.sched_getaffinity(task.id) for task in psutil.Process(tuned.pid).threads()]
    assert {0} in affinities


def test_a_limit_in_bytes_a_second_is_kept_and_can_be_changed(tuned: LongLivedVm) -> None:
    seconds = int(tuned.shell(WRITE)) / 1e9
    assert 24 / seconds == pytest.approx(4, rel=0.2)
    change = changes(tuned, "--disk-limit", "bps=12M")["disk-limits"]
    assert (change["before"], change["after"]) == ("bps=4M", "bps=12M")
    seconds = int(tuned.shell(WRITE)) / 1e9
    assert 24 / seconds == pytest.approx(12, rel=0.2)
    assert changes(tuned, "--disk-limit", "iops=40")["disk-limits"]["after"] == "iops=40"
    seconds = int(tuned.shell(WRITE.replace("bs=1M count=24", "bs=4k count=160"))) / 1e9
    assert 160 / seconds == pytest.approx(40, rel=0.2)
    assert changes(tuned, "--disk-limit", "bps=0")["disk-limits"]["after"] == "none"


def test_cpus_come_and_go(tuned: LongLivedVm) -> None:
    assert changes(tuned, "--cpus", "2")["cpus"]["after"] == "2"
    assert tuned.shell("nproc") == "2\n"
    assert changes(tuned, "--cpus", "1")["cpus"]["before"] == "2"
    assert tuned.shell("nproc") == "1\n"
    refused = tuned.run("tune", "--cpus", "3")
    assert (refused.code, "at most" in refused.message) == (2, True)
    assert "--cpus-max 3 --persist" in refused.hint


def test_memory_is_taken_and_given_back(tuned: LongLivedVm) -> None:
    template = sorted(tuned.vmrunner.cache_home.glob("vmrunner/templates/*/ram"))
    stamps = [path.stat().st_mtime_ns for path in template]
    total = "awk '/MemTotal/ { print $2 }' /proc/meminfo"
    before = int(tuned.shell(total))
    change = changes(tuned, "--memory", "600M")["memory"]
    assert (change["before"], change["after"]) == ("1G", "600M")
    assert before - int(tuned.shell(total)) == pytest.approx((1024 - 600) << 10, rel=0.01)
    statistics = json.loads(tuned.run("stats", "--json").stdout)
    assert statistics["guest_memory"]["actual"] == 600 << 20
    assert 0 < statistics["guest_memory"]["available-memory"] < 600 << 20
    assert changes(tuned, "--memory", "1G")["memory"]["after"] == "1G"
    assert int(tuned.shell(total)) == before
    assert [path.stat().st_mtime_ns for path in template] == stamps


def test_the_disk_grows_and_its_file_system_with_it(tuned: LongLivedVm) -> None:
    change = changes(tuned, "--disk", "10G")["disk"]
    assert (change["before"], change["after"]) == ("8G", "10G")
    assert int(tuned.shell("cat /sys/class/block/vda/size")) * 512 == 10 << 30
    assert int(tuned.shell("stat -f -c %b /")) * 4096 > 9.5 * (1 << 30)
    assert tuned.run("tune", "--disk", "9G").code == 2


def ask(port: int, command: str) -> str:
    """What the guest's server answers to a line."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as there:
        there.sendall(f"{command}\n".encode())
        name, _, number = command.partition(" ")
        if name == "take":
            there.sendall(bytes(int(number)))
        return b"".join(iter(lambda: there.recv(1 << 16), b"")).decode().strip("\0")


def rates(port: int, count: int) -> tuple[float, float]:
    """Megabits per second of so many bytes that the guest receives and sends, by its own clock and by ours."""
    taken = 8e-6 * count / float(ask(port, f"take {count}"))
    began = time.monotonic()
    ask(port, f"give {count}")
    return taken, 8e-6 * count / (time.monotonic() - began)


def round_trip(port: int) -> float:
    """Seconds from a line to its echo, the shortest of some."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as there:
        there.sendall(b"echo\n")
        there.recv(16)
        times = []
        for _ in range(5):
            began = time.monotonic()
            there.sendall(b"again\n")
            there.recv(16)
            times.append(time.monotonic() - began)
        return min(times)


def test_delay_and_rate_are_those_of_the_network_card(tuned: LongLivedVm, port: int) -> None:
    tuned.shell(
        f"cat >/run/server <<'EOF'\n{SERVER}\nEOF\nperl /run/server </dev/null >/dev/null 2>&1 & sleep 2"
    )
    assert round_trip(port) < 0.08
    assert changes(tuned, "--net-rate", "4mbit")["net-rate"]["after"] == "4mbit"
    taken, given = rates(port, 1 << 20)
    assert taken == pytest.approx(4, rel=0.3)
    assert given == pytest.approx(4, rel=0.3)
    assert changes(tuned, "--net-delay", "100ms", "--net-rate", "1mbit")["net-delay"]["after"] == "100ms"
    assert "delay 100ms rate 1Mbit" in tuned.shell("tc qdisc show dev eth0")
    assert round_trip(port) == pytest.approx(0.1, abs=0.05)
    began = time.monotonic()
    tuned.shell("true")
    assert time.monotonic() - began < 5
    assert changes(tuned, "--net-delay", "0", "--net-rate", "0")["net-rate"]["after"] == "0"


def test_a_link_goes_down_and_comes_up_again(tuned: LongLivedVm) -> None:
    assert changes(tuned, "--link", "down")["link"]["after"] == "down"
    assert changes(tuned, "--link", "up")["link"]["after"] == "up"
    assert tuned.shell("cat /sys/class/net/eth0/carrier") == "1\n"


def test_threads_are_moved_on_this_host(tuned: LongLivedVm) -> None:
    last = max(os.sched_getaffinity(0))
    change = changes(tuned, "--cpu-pin", f"0={last}", "--nice", "5")
    assert (change["cpu-pin 0"]["after"], change["nice"]["after"]) == (str(last), "5")
    assert {last} in [os.sched_getaffinity(task.id) for task in psutil.Process(tuned.pid).threads()]
    assert psutil.Process(tuned.pid).nice() == 5


def test_its_share_of_this_hosts_cpus_is_changed(tuned: LongLivedVm) -> None:
    if reason := obstacle():
        refused = tuned.run("tune", "--cpu-quota", "80%")
        assert (refused.code, "cannot be set on this host" in refused.message) == (2, True)
        pytest.skip(reason)
    done = changes(tuned, "--cpu-weight", "50", "--cpu-quota", "80%")
    assert (done["cpu-weight"]["after"], done["cpu-quota"]["after"]) == ("50", "80%")
    assert read_cpu_share("vmrunner-tuned", tuned.pid) == CpuShare(50, 80)
    again = changes(tuned, "--cpu-quota", "160%")
    assert (again["cpu-quota"]["before"], again["cpu-quota"]["after"]) == ("80%", "160%")
    assert read_cpu_share("vmrunner-tuned", tuned.pid) == CpuShare(50, 160)


def test_stats_tell_what_it_uses(tuned: LongLivedVm) -> None:
    statistics = json.loads(tuned.run("stats", "--json").stdout)
    assert statistics["accelerator"] in {"tcg", "kvm"}
    assert set(statistics["vcpu_percent"]) == {"0", "1"}
    assert statistics["host_memory"]["rss"] >= statistics["host_memory"]["pss"] > 0
    assert statistics["disk"]["wr_bytes"] > 48 << 20
    assert statistics["network"]["tx_bytes"] > 0
    assert statistics["uptime_seconds"] > 0
    assert "guest memory" in tuned.run("stats").stdout


def test_a_run_has_the_vm_to_itself(tuned: LongLivedVm, copied_crate: Any) -> None:
    running = tuned.vmrunner.start(
        "test", copied_crate("scripted"), "--vm", tuned.name, "--env", "SCRIPT=sleep 8"
    )
    running.wait_for("Starting .* test")
    refused = tuned.run("tune", "--cpus", "2")
    statistics = json.loads(tuned.run("stats", "--json").stdout)
    assert running.finish().code == 0
    assert refused.code == 20
    assert "cannot be tuned: the test run" in refused.message
    assert refused.hint == "wait for its end"
    assert tuned.shell("nproc") == "1\n"
    assert "has QEMU's monitor" in statistics["remark"]
    assert statistics["host_memory"]["rss"] > 0


def test_two_at_once_come_one_after_the_other(tuned: LongLivedVm) -> None:
    both = [
        tuned.vmrunner.start("tune", tuned.name, "--nice", str(nice), "--net-rate", "0") for nice in (6, 7)
    ]
    ended = [one.finish() for one in both]
    assert [one.code for one in ended] == [0, 0]
    assert psutil.Process(tuned.pid).nice() in {6, 7}
    assert tuned.shell("echo alive") == "alive\n"


def test_what_takes_a_restart_says_so_and_is_kept_for_it(tuned: LongLivedVm) -> None:
    refused = tuned.run("tune", "--watchdog", "reset")
    assert (refused.code, "cannot be changed while" in refused.message) == (2, True)
    assert "--persist" in refused.hint
    kept = tuned.run(
        "tune",
        "--cpus",
        "2",
        "--watchdog",
        "pause",
        "--net-delay",
        "50ms",
        "--empty-disk",
        "64M",
        "--persist",
    )
    assert kept.code == 0, kept.stderr
    assert tuned.run("stop").code == 0
    stopped = tuned.run("tune", "--cpus", "1")
    assert (stopped.code, "is stopped" in stopped.message) == (23, True)
    assert tuned.run("tune", "--disk", "11G", "--persist").code == 0
    assert tuned.run("up", "--disk", "12G").code == 0
    assert int(tuned.shell("cat /sys/class/block/vda/size")) * 512 == 12 << 30
    assert int(tuned.shell("stat -f -c %b /")) * 4096 > 11.5 * (1 << 30)
    assert tuned.shell("nproc") == "2\n"
    assert int(tuned.shell("cat /sys/class/block/vdb/size")) * 512 == 64 << 20
    assert "delay 50ms" in tuned.shell("tc qdisc show dev eth0")
    assert tuned.shell("cat /proc/sys/vm/swappiness") == "11\n"


def test_names_and_values_that_are_wrong(tuned: LongLivedVm) -> None:
    unknown = tuned.vmrunner.run("tune", "tuned2", "--cpus", "1")
    assert (unknown.code, "did you mean `tuned`" in unknown.message) == (2, True)
    assert tuned.run("tune").code == 2
    assert "not a whole number" in tuned.run("tune", "--cpus", "many").message
    pinned = tuned.run("tune", "--cpu-pin", "0=4000")
    assert (pinned.code, "names CPU 4000" in pinned.message) == (2, True)


def test_a_run_on_a_slow_disk_says_so(vmrunner: CommandLine, copied_crate: Any) -> None:
    script = "dd if=/dev/zero of=/root/written bs=1M count=40 oflag=direct"
    flags = ("--disk-limit", "bps=2M", "--env", f"SCRIPT={script}")
    done = vmrunner.run("test", copied_crate("scripted"), *flags)
    assert done.code == 0, done.stderr
    assert "bottleneck: the disk was at its limit (bps=2M)" in done.stderr
    usage = vmrunner.only_run.report["usage"]
    assert len(usage["samples"]) > 5
    written = [one["written_bytes_per_second"] for one in usage["samples"]]
    assert fmean(written[2:-2]) == pytest.approx(2 << 20, rel=0.3)
    assert all(len(one["vcpu_percent"]) == 2 and one["rss"] > 0 for one in usage["samples"])


def test_a_watchdog_that_is_not_fed_fires(vmrunner: CommandLine, copied_crate: Any) -> None:
    # WDIOC_SETTIMEOUT with two seconds, one write that starts it, and then nothing more.
    script = (
        "modprobe i6300esb; perl -e 'open(W, q(>), q(/dev/watchdog)) or die $!; "
        "ioctl(W, 0xC0045706, my $t = pack(q(i), 2)); syswrite(W, q(x)); sleep 60'"
    )
    flags = ("--watchdog", "reset", "--start", "booted", "--env", f"SCRIPT={script}")
    done = vmrunner.run("test", copied_crate("scripted"), *flags)
    assert (done.code, done.message) == (23, "the guest hung and its watchdog fired in the middle of the run")
    vmrunner.assert_nothing_left(vmrunner.only_run)


def recipes() -> list[list[str]]:
    """The commands of each recipe in README."""
    text = README.read_text().partition("<!-- recipes:begin -->")[2].partition("<!-- recipes:end -->")[0]
    blocks = text.split("```console")[1:]
    return [re.findall(r"^\$ vmrunner (.*)$", block, re.MULTILINE) for block in blocks]


@pytest.mark.parametrize("commands", recipes(), ids=lambda commands: str(commands[0]))
def test_recipes_of_the_readme(vmrunner: CommandLine, copied_crate: Any, commands: list[str]) -> None:
    crate = copied_crate("mydns")
    with tempfile.TemporaryDirectory(prefix="vm-") as runtime:
        there = vmrunner.with_variables(XDG_RUNTIME_DIR=runtime)
        for command in commands:
            done = there.run(*shlex.split(command), cwd=crate)
            assert done.code == 0, f"{command}\n{done.stderr}"
    assert any("test" in command for command in commands)


def test_a_run_that_writes_too_much_is_ended(vmrunner: CommandLine, copied_crate: Any) -> None:
    script = "dd if=/dev/zero of=/run/vmrunner/out/big bs=1M count=64; sleep 60"
    done = vmrunner.run("test", copied_crate("scripted"), "--output-limit", "8M", "--env", f"SCRIPT={script}")
    assert (done.code, done.message) == (23, "the guest wrote more than 8M to its share")
    assert "--output-limit" in done.hint
    assert done.seconds < 50
    vmrunner.assert_nothing_left(vmrunner.only_run)
