"""Long-lived VMs: they outlive everything but `rm`, and every way they can break is told and mended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command_line import CommandLine
from long_lived import LongLivedVm

from vmrunner.host.qemu import find_qemu

UP_AND_GONE = '"$0" up "$1" && kill -HUP 0'
RESTORE_SECONDS = 15.0
"""Ten times what it takes, and half of what a boot takes, on a host that is busy with something else."""

BREAK_ONCE = """
cat >/etc/systemd/system/break.service <<'END'
[Unit]
DefaultDependencies=no
Before=vmrunner-ssh.service
ConditionPathExists=!/root/broke
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'touch /root/broke; sync; echo c >/proc/sysrq-trigger'
[Install]
WantedBy=multi-user.target
END
systemctl enable break.service
"""


@pytest.fixture
def vm(vmrunner: CommandLine) -> Iterator[LongLivedVm]:
    """A VM that is not there yet, and is gone in the end, in a short runtime directory of its own."""
    with tempfile.TemporaryDirectory(prefix="vm-") as runtime:
        vm = LongLivedVm(vmrunner.with_variables(XDG_RUNTIME_DIR=runtime), "db")
        yield vm
        assert vm.run("rm", "--force").code == 0
        vm.assert_nothing_left()


def test_it_outlives_the_shell_that_started_it(vm: LongLivedVm) -> None:
    shell = subprocess.run(
        ["sh", "-c", UP_AND_GONE, *vm.vmrunner.program, vm.name],
        env=vm.vmrunner.environment, start_new_session=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shell.returncode == -signal.SIGHUP, shell.stderr
    assert "db is up" in shell.stderr
    assert shell.stdout == ""
    qemu = psutil.Process(vm.pid)
    assert os.getsid(qemu.pid) == qemu.pid
    assert qemu.terminal() is None
    assert vm.shell("hostname") == "vmrunner\n"
    assert vm.listing["state"] == "running"
    assert vm.listing["start"] == "restored"
    assert vm.inbox.is_dir()
    assert vm.clock_error() < 0.1


def test_a_second_up_is_no_second_vm(vm: LongLivedVm) -> None:
    vm.up()
    pid = vm.pid
    again = vm.up()
    assert "running already" in again.stderr
    assert again.seconds < RESTORE_SECONDS
    other = vm.run("up", "--memory", "3G", "--network", "user")
    assert other.code == 2
    assert "the VM `db` has other settings" in other.message
    assert "memory: 3G (--memory), the VM has 2G" in other.stderr
    assert "network: user (--network), the VM has restricted" in other.stderr
    assert "vmrunner rm db" in other.hint
    assert vm.pid == pid
    assert len(vm.processes()) == 1


def test_killed_qemu_is_told_and_the_disk_is_kept(vm: LongLivedVm) -> None:
    vm.up()
    vm.shell("echo precious >/root/kept && sync")
    os.kill(vm.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(vm.pid)] if psutil.pid_exists(vm.pid) else [], timeout=10)
    assert vm.listing["state"] == "died"
    lost = vm.run("exec", "--", "true")
    assert (lost.code, lost.message) == (23, "the VM `db` died: its QEMU is gone")
    assert "vmrunner up db" in lost.hint
    booted = vm.up()
    assert "had died (its QEMU is gone)" in booted.stderr
    assert vm.shell("cat /root/kept") == "precious\n"
    assert vm.listing["start"] == "booted"


def test_a_process_that_has_its_id_now_is_not_touched(vm: LongLivedVm) -> None:
    vm.up()
    os.kill(vm.pid, signal.SIGKILL)
    with subprocess.Popen(["sleep", "100"]) as stranger:
        vm.edit_process(pid=stranger.pid)
        assert vm.listing["state"] == "died"
        assert vm.run("stop").code == 0
        assert vm.run("rm").code == 0
        assert stranger.poll() is None
        stranger.kill()


def test_a_restart_of_the_host_is_told(vm: LongLivedVm) -> None:
    vm.up()
    psutil.Process(vm.pid).kill()
    vm.edit_process(boot_id="00000000-0000-0000-0000-000000000000")
    assert vm.listing["end"] == "this computer was restarted"
    assert "this computer was restarted" in vm.run("exec", "--", "true").message


def test_stop_shuts_down_and_up_finds_the_disk(vm: LongLivedVm) -> None:
    vm.up()
    vm.shell("echo precious >/root/kept")
    stopped = vm.run("stop")
    assert stopped.code == 0, stopped.stderr
    assert "force" not in stopped.stderr
    assert vm.processes() == []
    assert vm.listing["state"] == "stopped"
    assert "stopped already" in vm.run("stop").stderr
    assert vm.run("exec", "--", "true").code == 23
    vm.up()
    assert vm.shell("cat /root/kept") == "precious\n"


def test_a_guest_that_breaks_while_it_boots_is_booted_once_more(vm: LongLivedVm) -> None:
    """Such QEMUs break guests by themselves, one or two in a hundred, and not when a test wants it: this guest does it itself."""
    if find_qemu().emulates_several_cpus:
        pytest.skip("this QEMU does not break guests")
    vm.up()
    vm.shell(BREAK_ONCE)
    assert vm.run("stop").code == 0
    up = vm.up()
    assert "the guest's kernel panicked while it booted, and it is started once more" in up.stderr
    assert "QEMU 8.1" in up.stderr
    assert vm.shell("ls /root") == "broke\n"
    assert "sysrq triggered crash" in vm.run("logs", "serial").stdout
    assert len(vm.processes()) == 1


def test_reset_is_as_clean_as_new_and_as_fast(vm: LongLivedVm) -> None:
    vm.up("--hostname", "tester")
    vm.shell("echo dirt >/root/dirt; hostname other")
    reset = vm.run("reset")
    assert reset.code == 0, reset.stderr
    assert reset.seconds < RESTORE_SECONDS
    assert vm.listing["start"] == "restored"
    assert vm.shell("ls /root; hostname") == "tester\n"
    assert vm.run("stop", "--timeout", "20s").code == 0
    assert vm.run("reset").code == 0
    assert vm.listing["state"] == "running"
    assert vm.clock_error() < 0.1


def test_a_guest_that_shuts_itself_down(vm: LongLivedVm) -> None:
    vm.up()
    vm.run("exec", "--", "systemctl", "poweroff")
    psutil.wait_procs(vm.processes(), timeout=60)
    assert vm.listing["end"] == "its guest shut itself down"
    assert "reboot: Power down" in vm.run("logs", "serial").stdout


def test_two_at_once_make_one_vm(vm: LongLivedVm) -> None:
    both = [vm.vmrunner.start("up", vm.name) for _ in range(2)]
    finished = [one.finish() for one in both]
    assert [one.code for one in finished] == [0, 0], [one.stderr for one in finished]
    waited = next(one for one in finished if "running already" in one.stderr)
    # The other one's process id is told too, once it has noted it.
    assert "waiting for another command on `db`" in waited.stderr
    assert len(vm.processes()) == 1


def test_up_that_is_killed_leaves_nothing_in_the_way(vm: LongLivedVm) -> None:
    killed = vm.vmrunner.start("up", vm.name)
    killed.wait_for("Restoring the VM")
    time.sleep(0.08)
    killed.kill()
    up = vm.vmrunner.run("up", vm.name)
    assert up.code == 0, up.stderr
    assert vm.shell("echo here") == "here\n"
    assert len(vm.processes()) == 1


def test_up_that_is_interrupted_leaves_nothing(vm: LongLivedVm) -> None:
    interrupted = vm.vmrunner.start("up", vm.name)
    interrupted.wait_for("Waiting for the guest")
    interrupted.press_ctrl_c()
    assert interrupted.finish().code == 130
    vm.assert_nothing_left()


def test_a_damaged_record_is_named_and_can_be_removed(vm: LongLivedVm) -> None:
    vm.up()
    (vm.directory / "vm.json").write_text("{")
    for verb in ("up", "stop", "reset", "rm"):
        finished = vm.run(verb)
        assert finished.code == 20, finished.stderr
        assert str(vm.directory / "vm.json") in finished.message
        assert "rm --force db" in finished.hint
    assert "damaged" in vm.vmrunner.run("ps").stdout
    assert vm.run("rm", "--force").code == 0
    assert vm.processes() == []


def test_prune_leaves_what_it_needs(vm: LongLivedVm, image: Path) -> None:
    vm.up()
    needed = (image.name[:12], vm.record["template_key"][:12])
    assert vm.run("stop").code == 0
    removed = vm.vmrunner.run("image", "prune", "--dry-run").stdout
    assert [word for word in needed if word in removed] == []
    listed = json.loads(vm.vmrunner.run("image", "list", "--json").stdout)
    templates = [template["key"] for entry in listed for template in entry["templates"]]
    assert vm.record["template_key"] in templates
    assert needed[1] in vm.vmrunner.run("image", "list").stdout


def test_logs_are_followed_until_ctrl_c(vm: LongLivedVm) -> None:
    vm.up()
    following = vm.vmrunner.start("logs", vm.name, "-f")
    vm.shell("echo over here >/dev/ttyS0")
    time.sleep(1)
    following.press_ctrl_c()
    finished = following.finish()
    assert finished.code == 130
    assert "serial | over here\n" in finished.stdout


def test_ps_shows_what_it_is(vm: LongLivedVm) -> None:
    vm.up("--cpus", "1", "--start", "booted")
    listing = vm.listing
    assert (listing["cpus"], listing["memory"], listing["accelerator"]) == (
        1,
        2 << 30,
        vm.record["plan"]["accelerator"],
    )
    assert 10 << 20 < listing["memory_used"] < 2 << 30
    assert listing["held_by"] is None
    row = vm.vmrunner.run("ps").stdout.splitlines()[1].split()
    assert row[:2] == ["db", "running"]
    assert f"127.0.0.1:{listing['ports']['ssh']}" in row
    assert vm.run("rm").code == 2
    assert vm.listing["state"] == "running"
