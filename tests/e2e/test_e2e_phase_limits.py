"""Limits of phases: the run ends as when its time is up, and says which phase it was."""

from __future__ import annotations

from typing import Any

from command_line import CommandLine
from run_record import assert_guest_ran


def test_tests_that_take_too_long(vmrunner: CommandLine, copied_crate: Any) -> None:
    crate = copied_crate("scripted")
    done = vmrunner.run("test", crate, "--phase-timeout", "unit=10s", "--env", "SCRIPT=sleep 120")
    assert (done.code, done.message) == (25, "the phase `unit` took longer than 10s")
    assert done.hint == "give it more with `--phase-timeout unit=...`"
    assert "nextest is asked to stop" in done.stderr
    assert done.seconds < 100
    assert_guest_ran(vmrunner.only_run)

    assert vmrunner.only_run.report["exit_code"] == 25
    assert vmrunner.only_run.outcomes == {"edition": "passed", "script": "failed"}
    vmrunner.assert_nothing_left(vmrunner.only_run)


def test_a_build_that_takes_too_long(vmrunner: CommandLine, copied_crate: Any) -> None:
    crate = copied_crate("scripted")
    (crate / "build.rs").write_text(
        "fn main() { std::thread::sleep(std::time::Duration::from_secs(120)); }\n"
    )
    (crate / "vmrunner.yaml").write_text("phase-timeouts: {archive: 4s, unit: 10m}\n")
    done = vmrunner.run("test", crate)
    assert (done.code, done.message) == (25, "the phase `archive` took longer than 4s")
    assert done.seconds < 30
    vmrunner.assert_nothing_left(vmrunner.only_run)


def test_a_template_that_takes_too_long_is_no_reason_to_boot(
    vmrunner: CommandLine, copied_crate: Any
) -> None:
    flags = ("--memory", "777M", "--phase-timeout", "template=3s")
    done = vmrunner.run("test", copied_crate("scripted"), *flags, "--env", "SCRIPT=true")
    assert (done.code, done.message) == (25, "the phase `template` took longer than 3s")
    assert "boots" not in done.stderr
    vmrunner.assert_nothing_left(vmrunner.only_run)


def test_a_phase_in_which_nothing_waits(vmrunner: CommandLine, copied_crate: Any) -> None:
    """What the tests found is there all the same; and a flag takes a limit of the project's file back."""
    crate = copied_crate("scripted")
    (crate / "vmrunner.yaml").write_text("phase-timeouts: {unit: 1s, collect: 1ms}\n")
    done = vmrunner.run("test", crate, "--phase-timeout", "unit=0", "--env", "SCRIPT=sleep 2")
    assert (done.code, done.message) == (25, "the phase `collect` took longer than 0.001s")
    assert_guest_ran(vmrunner.only_run)
    assert vmrunner.only_run.report["exit_code"] == 25
    assert vmrunner.only_run.outcomes == {"edition": "passed", "script": "passed"}
    vmrunner.assert_nothing_left(vmrunner.only_run)


def test_a_phase_that_there_is_not(vmrunner: CommandLine, copied_crate: Any) -> None:
    refused = vmrunner.run("test", copied_crate("scripted"), "--phase-timeout", "boot=3s")
    assert refused.code == 2
    assert "not a phase of a test run: 'boot'" in refused.message
