"""Test runs in a long-lived VM: each finds it as if it were the first, and what is in the way is told."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CRATES, Finished, Running
from crate_copies import CopyCrate
from long_lived import LongLivedVm
from run_record import RunRecord, assert_broke_with
from shared_vm import ScriptedCrate, wait_until_gone

MYDNS = CRATES / "mydns"
VERDICTS = CRATES / "verdicts"
WAIT_FOR_RELEASE = "touch /run/vmrunner/out/waiting; until [ -e /run/vmrunner/out/go ]; do sleep 0.1; done"
TOLD_SOON_SECONDS = 5.0
"""How long it may take until a dead machine is told, where it would else be waited for, for minutes."""
LITTER = """\
touch src/left-in-workspace /var/lib/cargo-nextest/left-in-state /run/vmrunner/out/left-in-out
mkdir -p target left-mounted && touch target/left-in-target
mount -t tmpfs left-mounted left-mounted && touch left-mounted/file
setsid sleep 1000 </dev/null >/dev/null 2>&1 &
"""
LOOK_ROUND = """\
find . target /var/lib/cargo-nextest /run/vmrunner/in /run/vmrunner/out -xdev -name 'left-*'
grep -e left-mounted -e mydns /proc/mounts || :
grep nip.io /etc/hosts || :
pgrep -fx 'sleep 1000' || :
! [ -d "${MYDNS:-}" ] || find "$MYDNS" -type f
"""


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> ScriptedCrate:
    return ScriptedCrate.make(tmp_path_factory.mktemp("crates"))


@pytest.fixture
def spoilt(vm: LongLivedVm) -> Iterator[LongLivedVm]:
    """The same for a test after which other runs would not be possible."""
    yield vm
    assert vm.run("reset").code == 0


def last_run(vm: LongLivedVm) -> RunRecord:
    """The run that ended last, or is still going on; ids tell no order within a second."""
    return max(vm.vmrunner.runs, key=lambda run: run.directory.stat().st_mtime)


def printed(run: RunRecord, test: str = "script") -> str:
    """What a test that passed printed, without the lines of its harness."""
    text: str = run.junit(test).find("system-out").text
    return "".join(re.findall(r"running 1 test\n(.*)test tests::\w+ \.\.\. ok", text, re.DOTALL))


def waiting_run(crate: ScriptedCrate, vm: LongLivedVm) -> Running:
    """A run that has the VM until `release` is called."""
    running = crate.start(vm.vmrunner, WAIT_FOR_RELEASE, "--vm", vm.name)
    running.wait_for("Starting 1 test")
    until = time.monotonic() + 30
    while not (vm.directory / "out" / "waiting").exists():
        assert time.monotonic() < until, "its test never began"
        time.sleep(0.02)
    return running


def release(vm: LongLivedVm) -> None:
    (vm.directory / "out" / "go").touch()


def assert_passed(finished: Finished, vm: LongLivedVm) -> RunRecord:
    """The run passed, in the VM as it was; returns what it left."""
    assert finished.code == 0, finished.stderr
    run = last_run(vm)
    assert run.report["start"] == "reused"
    assert run.report["machine"]["name"] == vm.name
    assert "boot_seconds" not in run.report or run.report["boot_seconds"] is None
    return run


def test_a_second_suite_sees_nothing_of_the_first(
    crate: ScriptedCrate, vm: LongLivedVm, mydns_archive: Path
) -> None:
    first = vm.vmrunner.run("test", MYDNS, "--archive", mydns_archive, "--vm", vm.name)
    assert assert_passed(first, vm).outcomes == {"local_ip": "passed", "ip_for_nip_io": "passed"}
    second = crate.run(vm.vmrunner, LOOK_ROUND, "--vm", vm.name, "--env", f"MYDNS={MYDNS}")
    assert printed(assert_passed(second, vm)) == ""
    assert sorted(path.name for path in (last_run(vm).directory / "out").iterdir()) == [
        "nextest.log", "started", "stdout.log", "store",
    ]  # fmt: skip


@pytest.mark.parametrize("code", [0, 100])
def test_what_a_suite_leaves_behind_is_gone_before_the_next(
    code: int, crate: ScriptedCrate, vm: LongLivedVm
) -> None:
    """What a failed one left can be looked at until then."""
    littering = crate.run(vm.vmrunner, f"{LITTER}exit {code}", "--vm", vm.name)
    assert littering.code == code, littering.stderr
    assert (last_run(vm).directory / "out" / "left-in-out").exists()
    if code:
        assert "left-mounted" in vm.shell("cat /proc/mounts")
    assert printed(assert_passed(crate.run(vm.vmrunner, LOOK_ROUND, "--vm", vm.name), vm)) == ""


def test_changed_sources_are_seen(vm: LongLivedVm, copied_crate: CopyCrate) -> None:
    """Both the compiled and the staged ones: the guest's cache of them is not to be trusted from run to run."""
    crate = copied_crate("scripted")
    source = crate / "src" / "lib.rs"
    for edition in ("first edition", "later edition"):  # of the same length
        source.write_text(source.read_text().replace("first edition", edition))
        finished = vm.vmrunner.run("test", crate, "--vm", vm.name, "--", "-E", "test(/::edition$/)")
        shown = printed(assert_passed(finished, vm), "edition").splitlines()
        assert shown[0] == f"compiled: {edition}"
        assert f'"{edition}"' in shown[1]


def test_a_daemon_in_the_workspace_that_the_unit_does_not_know(
    crate: ScriptedCrate, spoilt: LongLivedVm
) -> None:
    """Nobody has the right to end it, so the way out is told."""
    daemon = 'systemd-run --quiet --working-directory="$PWD" sleep 1000'
    assert_passed(crate.run(spoilt.vmrunner, daemon, "--vm", spoilt.name), spoilt)
    refused = crate.run(spoilt.vmrunner, "true", "--vm", spoilt.name)
    assert refused.code == 23, refused.stderr
    assert "still in use" in refused.stderr
    assert "--reset" in refused.hint
    assert_passed(crate.run(spoilt.vmrunner, "true", "--vm", spoilt.name, "--reset"), spoilt)


def test_reset_gives_a_clean_machine(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    marking = "[ ! -e /root/marker ]; touch /root/marker"
    assert_passed(crate.run(vm.vmrunner, marking, "--vm", vm.name), vm)
    assert vm.shell("ls /root/marker") == "/root/marker\n"
    assert_passed(crate.run(vm.vmrunner, marking, "--vm", vm.name, "--reset"), vm)


def test_a_second_run_waits_or_fails_at_once(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    first = waiting_run(crate, vm)
    holder = rf"the test run {last_run(vm).id} \(process {first.pid}, since \d\d:\d\d:\d\d\)"
    second = crate.start(vm.vmrunner, "true", "--vm", vm.name)
    second.wait_for(f"^note: waiting for {holder}, which has the VM `{vm.name}`$")
    hasty = crate.run(vm.vmrunner, "true", "--vm", vm.name, "--no-wait")
    assert hasty.code == 20, hasty.stderr
    assert re.fullmatch(f"the VM `{vm.name}` is taken by {holder}", hasty.message)
    assert "--no-wait" in hasty.hint
    assert hasty.seconds < TOLD_SOON_SECONDS
    assert vm.listing["held_by"]["pid"] == first.pid
    refused = vm.run("reset")
    assert refused.code == 20
    assert re.search(holder, refused.message)
    release(vm)
    assert first.finish().code == 0
    assert second.finish().code == 0
    assert vm.listing["held_by"] is None


def test_a_vm_that_is_not_there(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    finished = crate.run(vm.vmrunner, "true", "--vm", f"{vm.name}z")
    assert finished.code == 2, finished.stderr
    assert finished.message == f"there is no VM `{vm.name}z`; did you mean `{vm.name}`?"
    assert "vmrunner ps" in finished.hint


def test_flags_that_shape_a_machine_are_refused(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    finished = crate.run(vm.vmrunner, "true", "--vm", vm.name, "--memory", "4G")
    assert finished.code == 2, finished.stderr
    assert "--memory cannot be given with --vm" in finished.stderr


def test_ctrl_c_ends_the_tests_and_not_the_vm(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    running = waiting_run(crate, vm)
    running.press_ctrl_c()
    finished = running.finish(seconds=40)
    assert finished.code == 130, finished.stderr
    assert "Traceback" not in finished.stderr
    assert last_run(vm).outcomes == {"script": "failed"}
    assert_passed(crate.run(vm.vmrunner, LOOK_ROUND, "--vm", vm.name), vm)


def test_killed_vmrunner_leaves_the_vm_usable(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    waiting_run(crate, vm).kill()
    finished = crate.run(vm.vmrunner, "! pgrep -f [/]out/go", "--vm", vm.name, "--no-wait")
    assert_passed(finished, vm)


def test_a_vm_that_dies_during_the_run_and_after_it(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    running = waiting_run(crate, vm)
    pid = vm.pid
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    finished = running.finish()
    assert time.monotonic() - killed < TOLD_SOON_SECONDS
    assert finished.code == 23, finished.stderr
    assert "Traceback" not in finished.stderr
    assert "QEMU" in finished.message
    assert_broke_with(last_run(vm), "GuestLost", 23)
    wait_until_gone(pid)
    again = crate.run(vm.vmrunner, "true", "--vm", vm.name)
    assert (again.code, again.message) == (23, f"the VM `{vm.name}` died: its QEMU is gone")
    assert f"vmrunner up {vm.name}" in again.hint
    assert vm.run("stop").code == 0
    stopped = crate.run(vm.vmrunner, "true", "--vm", vm.name)
    assert (stopped.code, stopped.message) == (23, f"the VM `{vm.name}` is stopped")
    assert f"vmrunner up {vm.name}" in stopped.hint
    assert_passed(crate.run(vm.vmrunner, "true", "--vm", vm.name, "--reset"), vm)


def test_failing_tests_give_nextests_code_and_report(vm: LongLivedVm) -> None:
    finished = vm.vmrunner.run(
        "test", VERDICTS, "--vm", vm.name, "--", "-E", "test(/passing|failing/)", "-j1"
    )
    assert finished.code == 100, finished.stderr
    run = last_run(vm)
    assert run.report["start"] == "reused"
    assert run.report["outcome"] == "failed"
    assert run.outcomes["failing"] == "failed"
    assert "arithmetic holds" in run.junit("failing").find("failure").text


def kept(vm: LongLivedVm) -> list[str]:
    """The names of the VMs that there are beside the shared one."""
    return [path.parent.name for path in vm.directory.parent.glob("*/vm.json") if path.parent.name != vm.name]


def assert_it_can_be_used_and_removed(vm: LongLivedVm, finished: Finished) -> None:
    """The one kept VM is the one that the output names; both commands that it tells work."""
    (name,) = kept(vm)
    told = finished.line("the machine is kept").text
    assert f"`vmrunner ssh {name}`" in told
    assert f"`vmrunner rm -f {name}`" in told
    machine = LongLivedVm(vm.vmrunner, name)
    assert machine.shell("cat /root/marker") == "marked\n"
    assert machine.run("rm", "-f").code == 0
    assert kept(vm) == []
    assert machine.processes() == []
    assert not machine.inbox.exists()


def test_a_failed_runs_machine_is_kept(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    failed = crate.run(vm.vmrunner, "echo marked >/root/marker; exit 1", "--keep", "on-failure")
    assert failed.code == 100, failed.stderr
    assert last_run(vm).report["start"] == "restored"
    assert_it_can_be_used_and_removed(vm, failed)


def test_a_passed_runs_machine_is_gone(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    passed = crate.run(vm.vmrunner, "true", "--keep", "on-failure")
    assert passed.code == 0, passed.stderr
    assert kept(vm) == []
    vm.vmrunner.assert_nothing_left(last_run(vm))


def test_any_runs_machine_is_kept(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    passed = crate.run(vm.vmrunner, "echo marked >/root/marker", "--keep", "always")
    assert passed.code == 0, passed.stderr
    assert_it_can_be_used_and_removed(vm, passed)


def test_killed_vmrunner_keeps_nothing(crate: ScriptedCrate, vm: LongLivedVm) -> None:
    """The next vmrunner removes what was to be kept only if somebody were told."""
    running = crate.start(vm.vmrunner, "echo began; sleep 1000", "--keep", "always")
    running.wait_for("Starting 1 test")
    running.kill()
    (name,) = kept(vm)
    machine = LongLivedVm(vm.vmrunner, name)
    assert machine.processes() != []
    after = vm.vmrunner.run("ps")
    assert after.code == 0
    assert f"removed the VM `{name}`: the test run that made it was killed" in after.stderr
    assert name not in after.stdout
    assert kept(vm) == []
    assert machine.processes() == []
    assert not machine.inbox.exists()
