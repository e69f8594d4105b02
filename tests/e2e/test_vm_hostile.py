"""Tests that attack their machine: the error says what happened, soon, and nothing of the host is read or lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CRATES, CommandLine, Finished
from crate_copies import CopyCrate
from run_record import RunRecord, assert_broke_with, assert_guest_ran

HOSTILE = CRATES / "hostile"
SOON_SECONDS = 15.0
"""From nextest's start to the end of the whole command; booting is not in it."""
HANG_TIMEOUT = "30s"
FULL_DISK = """\
//! Fills the disk without writing to it: eight gigabytes take minutes where the processor is emulated.

use std::process::Command;

const ENOSPC: i32 = 28;

#[test]
fn disk_is_full() {
    assert_eq!(std::env::var("VMRUNNER").as_deref(), Ok("1"), "this is no guest of vmrunner");
    for (number, size) in (0..).zip(["7G", "1G", "100M", "100M", "100M", "10M", "10M", "1M", "1M"]) {
        let status = Command::new("fallocate").args(["-l", size, &format!("/fill-{number}")]).status();
        println!("{size}: {status:?}");
    }
    let mut number = 0;
    let error = loop {
        if let Err(error) = std::fs::write(format!("/rest-{number}"), vec![1; 1 << 20]) {
            break error;
        }
        number += 1;
    };
    assert_eq!(error.raw_os_error(), Some(ENOSPC), "{error}");
    let refused = std::fs::write("/last", vec![1; 1 << 20]).expect_err("the disk is full");
    println!("nothing was written: {refused}");
}
"""


def attack(
    vmrunner: CommandLine, *names: str, crate: Path = HOSTILE, flags: tuple[str, ...] = ()
) -> Finished:
    """Run only the tests `names`, which are ignored unless asked for."""
    filterset = " + ".join(f"test(/(^|::){name}$/)" for name in names)
    finished = vmrunner.run("test", crate, *flags, "--", "--run-ignored", "all", "-E", filterset)
    assert_guest_ran(vmrunner.only_run)
    vmrunner.assert_nothing_left(vmrunner.only_run)
    return finished


def files_with(content: bytes, directory: Path) -> list[Path]:
    """The regular files below `directory`, no link followed, that hold `content`."""
    regular = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in regular if content in path.read_bytes()]


@pytest.mark.parametrize(
    ("name", "kind", "sentence", "last_words"),
    [
        ("kernel_panic", "GuestPanicked", "the guest's kernel panicked", "Kernel panic"),
        ("reboot_at_once", "GuestLost", "the guest rebooted itself in the middle of the run", "Resetting"),
        ("poweroff", "GuestLost", "the guest shut itself down in the middle of the run", "Power down"),
    ],
)
def test_machine_that_ends(
    name: str, kind: str, sentence: str, last_words: str, vmrunner: CommandLine
) -> None:
    finished = attack(vmrunner, name)
    assert finished.code == 23, finished.stderr
    assert finished.message == sentence
    assert finished.seconds - finished.line("Starting 1 test").seconds < SOON_SECONDS
    run = vmrunner.only_run
    assert_broke_with(run, kind, 23)
    assert last_words in (run.directory / "serial.log").read_text(errors="replace")
    told = finished.stderr.partition("last lines of the serial console:")[2]
    assert last_words in told
    assert f"logs: {run.directory}" in finished.stderr


def test_attacks_that_change_nothing(vmrunner_in_place: CommandLine, copied_crate: CopyCrate) -> None:
    """A full disk, cut connections, and a share that stays read-only: nextest's own verdict comes back."""
    crate = copied_crate("hostile")
    (crate / "tests").mkdir()
    (crate / "tests" / "disk.rs").write_text(FULL_DISK)
    names = ("disk_is_full", "kill_ssh_sessions", "write_to_in_share")
    finished = attack(vmrunner_in_place, *names, crate=crate)
    assert finished.code == 0, finished.stderr
    run = vmrunner_in_place.only_run
    assert run.outcomes == dict.fromkeys(names, "passed")
    assert run.report["tests"]["passed"] == len(names)
    assert "nothing was written" in run.junit("disk_is_full").find("system-out").text


def test_guest_out_of_memory(vmrunner: CommandLine) -> None:
    finished = attack(vmrunner, "eat_memory", flags=("--memory", "512M", "--start", "booted"))
    assert finished.code == 23, finished.stderr
    assert finished.message.startswith("the guest ran out of memory and killed the tests")
    assert "--memory" in finished.hint
    assert_broke_with(vmrunner.only_run, "GuestOutOfMemory", 23)


def test_nextest_that_is_killed(vmrunner: CommandLine) -> None:
    finished = attack(vmrunner, "kill_nextest")
    assert finished.code == 23, finished.stderr
    assert finished.message == "nextest did not end by itself: killed by SIGKILL"
    assert finished.seconds - finished.line("Starting 1 test").seconds < SOON_SECONDS
    assert_broke_with(vmrunner.only_run, "UnitFailed", 23)


@pytest.mark.parametrize("name", ["junit_link", "junit_directory_link"])
def test_link_where_the_report_should_be(name: str, vmrunner: CommandLine) -> None:
    finished = attack(vmrunner, name)
    assert finished.code == 23, finished.stderr
    assert finished.message.startswith("the JUnit report is a symbolic link")
    run = vmrunner.only_run
    assert_broke_with(run, "UnitFailed", 23)
    assert (run.directory / "out" / "store").is_dir()
    assert not (run.directory / "junit.xml").exists()
    first_line = Path("/etc/passwd").read_bytes().splitlines()[0]
    assert files_with(first_line, run.directory) == []
    assert first_line.decode() not in finished.stderr + finished.stdout


def test_time_that_is_up(vmrunner: CommandLine) -> None:
    """The test that hangs is ended, and the one that ended before it is in the report."""
    finished = attack(vmrunner, "hang", "write_to_in_share", flags=("--timeout", HANG_TIMEOUT))
    assert finished.code == 25, finished.stderr
    assert finished.message == "the time for the run was up while the tests ran"
    assert "--timeout" in finished.hint
    run: RunRecord = vmrunner.only_run
    assert_broke_with(run, "RunTimeout", 25)
    assert run.outcomes == {"write_to_in_share": "passed", "hang": "failed"}
    assert run.junit("hang").find("failure") is not None
