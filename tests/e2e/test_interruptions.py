"""Signals in every phase: the exit code says which came, and no process, machine or scratch space is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from command_line import CRATES, CommandLine, Finished, Running
from crate_copies import CopyCrate
from run_record import RunRecord

HOSTILE = CRATES / "hostile"
MYDNS = CRATES / "mydns"
HANG = ("--", "--run-ignored", "all", "-E", "test(/::hang$/) + test(/::write_to_in_share$/)")
SOON_SECONDS = 2.0
"""How long a machine may outlive a vmrunner that was killed."""
SLOW_BUILD = """\
//! Says that it runs, and then takes longer than anybody waits.

fn main() {
    std::fs::write(std::env::var("BUILD_BEGAN").expect("it is set"), "").expect("it can be written");
    std::thread::sleep(std::time::Duration::from_secs(600));
}
"""


def wait_until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Look again and again until `condition` holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.02)


def processes_naming(text: str) -> list[psutil.Process]:
    """The live processes that have `text` on their command line or in the path of their program."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(text in word for word in (process.exe(), *process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


def booting_machine(vmrunner: CommandLine) -> Running:
    """A run whose machine has been booting for a moment."""
    running = vmrunner.start("test", MYDNS, "--start", "booted")
    running.wait_for("^Booting ")
    time.sleep(1)
    assert [process.name() for process in vmrunner.only_run.processes()] == ["qemu-system-x86_64"]
    return running


def running_tests(vmrunner: CommandLine) -> Running:
    """A run in which one test has ended and another never will."""
    running = vmrunner.start("test", HOSTILE, *HANG)
    running.wait_for("PASS .*::write_to_in_share")
    return running


def assert_ended(vmrunner: CommandLine, finished: Finished, code: int) -> RunRecord:
    """It ended with `code` and without a traceback, its report says `error`, and nothing is left."""
    assert finished.code == code, finished.stderr
    assert "Traceback" not in finished.stderr
    run = vmrunner.only_run
    assert run.report["outcome"] == "error"
    vmrunner.assert_nothing_left(run)
    return run


def test_ctrl_c_while_the_archive_is_built(
    vmrunner_in_place: CommandLine, copied_crate: CopyCrate, tmp_path: Path
) -> None:
    crate = copied_crate("mydns")
    (crate / "build.rs").write_text(SLOW_BUILD)
    began = tmp_path / "began"
    running = vmrunner_in_place.with_variables(BUILD_BEGAN=str(began)).start("test", crate)
    wait_until(began.exists)
    assert processes_naming(str(crate / "target"))
    running.press_ctrl_c()
    assert_ended(vmrunner_in_place, running.finish(seconds=20), 130)
    assert processes_naming(str(crate)) == []


def test_ctrl_c_while_the_image_is_built(bare_vmrunner: CommandLine, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    running = bare_vmrunner.with_variables(TMPDIR=str(temporary)).start("image", "build", "--image", "debian")
    running.wait_for("Building the Debian image")
    images = bare_vmrunner.cache_home / "vmrunner" / "images"
    # Root's system grows in the build directory, an ordinary user's in TMPDIR.
    wait_until(lambda: [*images.glob(".tmp-*/scratch/*/var/lib/apt"), *temporary.glob("*/var/lib/apt")])
    time.sleep(3)
    running.press_ctrl_c()
    finished = running.finish(seconds=30)
    assert finished.code == 130, finished.stderr
    assert "Traceback" not in finished.stderr
    assert [path.name for path in images.iterdir()] == [".locks"]
    assert processes_naming(str(tmp_path)) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("send", "code"), [("press_ctrl_c", 130), ("terminate", 143)])
def test_signal_while_it_boots(send: str, code: int, vmrunner: CommandLine) -> None:
    running = booting_machine(vmrunner)
    getattr(running, send)()
    run = assert_ended(vmrunner, running.finish(seconds=10), code)
    assert run.report["error"] is None
    assert "unit" not in run.phases


@pytest.mark.parametrize(("send", "code"), [("press_ctrl_c", 130), ("terminate", 143)])
def test_signal_while_the_tests_run(send: str, code: int, vmrunner: CommandLine) -> None:
    """Nextest is asked to stop, so there is a report of what ran until then."""
    running = running_tests(vmrunner)
    getattr(running, send)()
    run = assert_ended(vmrunner, running.finish(seconds=40), code)
    assert run.outcomes == {"write_to_in_share": "passed", "hang": "failed"}
    assert run.junit("write_to_in_share").find("failure") is None
    assert "2 tests run: 1 passed, 1 failed" in (run.directory / "nextest.log").read_text()


def test_ctrl_c_twice_while_the_tests_run(vmrunner: CommandLine) -> None:
    running = running_tests(vmrunner)
    running.press_ctrl_c()
    running.wait_for("interrupted: nextest is asked to stop")
    pressed = time.monotonic()
    running.press_ctrl_c()
    assert_ended(vmrunner, running.finish(seconds=20), 130)
    assert time.monotonic() - pressed < 5


def test_killed_vmrunner_takes_its_machine_with_it(bare_vmrunner: CommandLine, image: Path) -> None:
    """Nobody can clean up after SIGKILL but the kernel, and the next run."""
    vmrunner = bare_vmrunner.with_variables(VMRUNNER_IMAGE=str(image))
    running = booting_machine(vmrunner)
    killed = vmrunner.only_run
    (qemu,) = killed.processes()
    running.kill()
    qemu.wait(SOON_SECONDS)
    assert killed.processes() == []
    assert vmrunner.scratch(killed).is_dir()
    # It needs no machine: leftovers are looked for before anything else.
    after = vmrunner.run("test", MYDNS, "--memory", "60T")
    assert after.code == 2, after.stderr
    assert after.line(killed.id).text == f"note: cleared up after the run {killed.id}, which was killed"
    for run in vmrunner.runs:
        vmrunner.assert_nothing_left(run)
