"""Memory templates with real machines: restored ones are new machines, and what is no good is replaced."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from command_line import CRATES, CommandLine, Finished
from host_clock import host_clock
from run_record import RunRecord
from template_cache import StoredTemplate, TemplateCache, take_all_room

from vmrunner.host.qemu import find_qemu

CLONES = CRATES / "clones"
# Little memory and one shape for all, so that one template serves every test that only restores.
SHAPE = ("--memory", "512M")
QUICK = ("--", "-E", "test(/::identity$/)")
RESTORED_SECONDS = 30.0
"""How long a restored guest may take to answer before it is given up; the program's own limit."""
CLOCK_SECONDS = 0.1
FIRST_CONNECTION_SECONDS = 1.0
"""The second try of a lost SYN or ARP request comes after one second (RFC 6298, arp(7))."""
TEMPLATES_LIMIT = 8 << 30
IN_THE_WAY = 5 << 30


@pytest.fixture(scope="module")
def first_runs(
    image: Path, target_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CommandLine, Finished, Finished]:
    """Two first runs at the same time, in a cache without a template; what they made serves every other test."""
    command_line = CommandLine(
        tmp_path_factory.mktemp("state"),
        tmp_path_factory.mktemp("cache"),
        target_directory,
        {"VMRUNNER_IMAGE": str(image)},
    )
    first = command_line.start("test", CLONES, *SHAPE, *QUICK)
    second = command_line.start("test", CLONES, *SHAPE, *QUICK)
    return command_line, first.finish(), second.finish()


@pytest.fixture
def templated(first_runs: tuple[CommandLine, Finished, Finished], tmp_path: Path) -> Iterator[CommandLine]:
    """The command line with a state directory of its own and a cache that has a template for SHAPE."""
    command_line = replace(first_runs[0], state_home=tmp_path / "state", started=[])
    yield command_line
    command_line.abandon_all()


@pytest.fixture
def alone(templated: CommandLine, tmp_path: Path) -> CommandLine:
    """The same with a cache of its own, in which there is no template."""
    return replace(templated, cache_home=tmp_path / "cache")


@pytest.fixture
def copied(templated: CommandLine, alone: CommandLine) -> StoredTemplate:
    """A copy of the template in the cache of `alone`, to be damaged."""
    original = TemplateCache(templated.cache_home).only
    copy = TemplateCache(alone.cache_home).take_copy(original)
    assert copy.record["key"] == copy.directory.name
    return copy


def remarks(finished: Finished) -> list[str]:
    """What is said about templates beside the progress of the run."""
    marks = ("note: ", "warning: ")
    return [line.text for line in finished.lines if line.text.startswith(marks) and "template" in line.text]


def printed(run: RunRecord, test: str) -> dict[str, str]:
    """The `name=value` lines that a test printed."""
    lines = run.junit(test).find("system-out").text.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def assert_passed(finished: Finished, run: RunRecord, start: str) -> None:
    """It passed in a machine that started so, and nothing is left of that."""
    assert finished.code == 0, finished.stderr
    assert run.report["start"] == start, finished.stderr
    assert run.report["outcome"] == "passed"
    assert run.processes() == []


def test_of_two_first_runs_one_makes_the_template_and_the_other_waits_for_it(
    first_runs: tuple[CommandLine, Finished, Finished],
) -> None:
    command_line, *both = first_runs
    for run in command_line.runs[:2]:
        assert run.report["outcome"] == "passed"
        assert run.report["start"] == "restored"
    told = "".join(finished.stderr for finished in both)
    assert [finished.code for finished in both] == [0, 0], told
    assert told.count("Making a memory template") == 1
    assert told.count("another vmrunner makes the memory template for this machine; waiting for it") == 1
    cache = TemplateCache(command_line.cache_home)
    assert cache.unfinished == []
    assert cache.only.directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in cache.only.directory.iterdir() if path.is_file()} == {0}


def test_the_next_run_is_restored(templated: CommandLine) -> None:
    finished = templated.run("test", CLONES, *SHAPE, *QUICK)
    run = templated.only_run
    assert_passed(finished, run, "restored")
    assert remarks(finished) == []
    report = run.report
    assert 0 < report["running_seconds"] < report["boot_seconds"] < RESTORED_SECONDS
    assert "template" not in run.phases
    assert "restored" in finished.line("^passed: ").text


def test_start_booted_leaves_the_template_alone(templated: CommandLine) -> None:
    template = TemplateCache(templated.cache_home).only
    before = template.record
    finished = templated.run("test", CLONES, *SHAPE, "--start", "booted", *QUICK)
    assert_passed(finished, templated.only_run, "booted")
    assert remarks(finished) == []
    assert template.record == before


def test_start_restored_with_names_of_its_own(templated: CommandLine) -> None:
    names = ("--hostname", "db-1.test", "--machine-id", "0123456789abcdef" * 2)
    named = ("--", "-E", "test(identity) + test(hostname_resolves)")
    finished = templated.run("test", CLONES, *SHAPE, "--start", "restored", *names, *named)
    run = templated.only_run
    assert_passed(finished, run, "restored")
    shown = printed(run, "identity")
    assert (shown["hostname"], shown["machine-id"]) == ("db-1.test", "0123456789abcdef" * 2)
    assert run.outcomes["hostname_resolves"] == "passed"


def test_clones_at_the_same_time_share_neither_entropy_nor_disk_nor_machine_id(
    templated: CommandLine,
) -> None:
    arguments = ("test", CLONES, *SHAPE, "--machine-id", "random")
    running = [templated.start(*arguments) for _ in range(3)]
    ended = [each.finish() for each in running]
    runs = templated.runs
    assert len(runs) == 3
    for finished in ended:
        assert finished.code == 0, finished.stderr
    for run in runs:
        assert run.report["start"] == "restored"
        assert run.outcomes == dict.fromkeys(("identity", "disk_is_its_own", "hostname_resolves"), "passed")
    shown = [printed(run, "identity") | printed(run, "disk_is_its_own") for run in runs]
    for name in ("urandom", "uuid", "machine-id", "marker"):
        assert len({each[name] for each in shown}) == 3, shown


def test_the_clock_is_the_hosts_and_the_first_connection_comes_at_once(templated: CommandLine) -> None:
    with host_clock() as comparison:
        user = ("--network", "user", "--env", f"CLOCK_PORT={comparison.port}")
        asked = ("--", "--run-ignored", "all", "-E", "test(/::clock$/)")
        finished = templated.run("test", CLONES, *SHAPE, *user, *asked)
    run = templated.only_run
    assert_passed(finished, run, "restored")
    least, most = comparison.offset
    assert -CLOCK_SECONDS < least <= most < CLOCK_SECONDS, comparison.bounds
    assert float(printed(run, "clock")["connected"]) < FIRST_CONNECTION_SECONDS
    # A template that lay on disk for no time would prove nothing.
    template = TemplateCache(templated.cache_home).only
    assert time.time() - template.record["guest_clock"] > 10 * CLOCK_SECONDS


def test_an_older_format_and_half_made_leftovers_are_replaced(
    alone: CommandLine, copied: StoredTemplate
) -> None:
    cache = TemplateCache(alone.cache_home)
    leftover = cache.leave_half_made(copied.directory.name)
    version, clock = copied.record["format_version"], copied.record["guest_clock"]
    copied.rewrite_record(format_version=version - 1)
    finished = alone.run("test", CLONES, *SHAPE, *QUICK)
    assert_passed(finished, alone.only_run, "restored")
    (said,) = remarks(finished)
    assert "is no good and was thrown away: it is of another version" in said
    assert not leftover.exists()
    assert cache.unfinished == []
    assert cache.only.record["format_version"] == version
    assert cache.only.record["guest_clock"] > clock


@pytest.mark.parametrize(
    ("name", "said"),
    [("ram", "its file `ram` was changed (1048576 bytes)"), ("state", "its file `state` is missing")],
)
def test_a_damaged_template_is_found_before_it_is_used(
    name: str, said: str, alone: CommandLine, copied: StoredTemplate
) -> None:
    """Truncated memory and missing state; `--start booted` has no use for the template and never looks at it.

    That the new one is good is seen where an older format is replaced.
    """
    file = copied.directory / name
    if name == "ram":
        os.truncate(file, 1 << 20)
    else:
        file.unlink()
    other_runs = replace(alone, state_home=alone.cache_home / "state")
    untouched = other_runs.run("test", CLONES, *SHAPE, "--timeout", "0.1s", "--start", "booted", *QUICK)
    assert untouched.code == 25, untouched.stderr
    assert copied.directory.exists()
    running = alone.start("test", CLONES, *SHAPE, *QUICK)
    running.wait_for("Making a memory template")
    assert not copied.directory.exists()
    running.terminate()
    finished = running.finish()
    assert finished.code == 143
    (remark,) = remarks(finished)
    assert remark.endswith(f"is no good and was thrown away: {said}")


def test_state_that_qemu_refuses_is_replaced(alone: CommandLine, copied: StoredTemplate) -> None:
    state = copied.directory / "state"
    state.write_bytes(b"\xff" * state.stat().st_size)
    copied.stamp("state")
    finished = alone.run("test", CLONES, *SHAPE, *QUICK)
    assert finished.code == 0, finished.stderr
    (remark,) = remarks(finished)
    assert "the memory template was no good and was thrown away" in remark
    assert "while its saved state was loaded" in remark
    assert alone.only_run.report["outcome"] == "passed"


def test_memory_that_is_garbage_is_found_within_its_deadline_and_the_machine_boots(
    alone: CommandLine, copied: StoredTemplate
) -> None:
    ram = copied.directory / "ram"
    size = ram.stat().st_size
    with ram.open("r+b") as file:
        file.truncate(0)
        file.write(os.urandom(16 << 20))
        file.truncate(size)
    copied.stamp("ram")
    finished = alone.run("test", CLONES, *SHAPE, *QUICK)
    run = alone.only_run
    assert_passed(finished, run, "booted")
    (remark,) = remarks(finished)
    assert "the memory template was no good and was thrown away: " in remark
    given_up = next(line for line in finished.lines if line.text == remark)
    assert given_up.seconds < RESTORED_SECONDS + 5
    assert TemplateCache(alone.cache_home).stored == []


def test_killed_while_it_saves_and_pruned_before_the_next_is_made(alone: CommandLine) -> None:
    """Nothing is left that could be taken for a template; those used longest ago make room for the next one."""
    cache = TemplateCache(alone.cache_home)
    running = alone.start("test", CLONES, *SHAPE, *QUICK)
    running.wait_for("Making a memory template")
    while not list(cache.root.glob(".tmp-*/state")):
        assert not running.ended, running.finish().stderr
        time.sleep(0.001)
    running.kill()
    assert cache.stored == []
    (unfinished,) = cache.unfinished
    wait_for_no_process_with(unfinished.name)
    now = time.time()
    try:
        old, older = (
            cache.fill(name, IN_THE_WAY, used_at=now - age) for name, age in (("b", 100), ("c", 200))
        )
    except OSError as error:
        pytest.skip(f"{2 * IN_THE_WAY} bytes of disk are needed: {error}")
    assert 2 * IN_THE_WAY > TEMPLATES_LIMIT > IN_THE_WAY
    finished = alone.run("test", CLONES, *SHAPE, *QUICK)
    assert_passed(finished, alone.runs[-1], "restored")
    assert cache.unfinished == []
    assert old.directory.exists()
    assert not older.directory.exists()
    assert len(cache.stored) == 2


def test_a_guest_whose_kernel_met_a_bug_is_no_template(alone: CommandLine) -> None:
    """The flag that its kernel sets after a bug can be set by its command line; nothing else is wrong with this one."""
    flagged = ("--kernel-arg", "sysctl.kernel.tainted=128", "--start", "restored")
    failed = alone.run("test", CLONES, *SHAPE, *flagged, *QUICK)
    assert failed.code == 22
    told = failed.stderr.count("the guest's kernel has met a bug of its own (flags 128 in")
    assert told == (1 if find_qemu().emulates_several_cpus else 2)
    assert list((alone.cache_home / "vmrunner" / "templates").glob("[!.]*")) == []


def test_a_disk_that_is_full_while_it_saves_makes_the_machine_boot(alone: CommandLine) -> None:
    cache = TemplateCache(alone.cache_home)
    cache.root.mkdir(parents=True, mode=0o700)
    with_room = ["mount", "-t", "tmpfs", "-o", "size=1800m,mode=0700", "vmrunner-test", str(cache.root)]
    mounted = subprocess.run(with_room, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user may not mount: {mounted.stderr.strip()}")
    try:
        running = alone.start("test", CLONES, *SHAPE, *QUICK)
        running.wait_for("Making a memory template")
        while not list(cache.root.glob(".tmp-*/out/nextest.log")):
            assert not running.ended, running.finish().stderr
            time.sleep(0.01)
        take_all_room(cache.root)
        finished = running.finish()
        assert_passed(finished, alone.only_run, "booted")
        (remark,) = remarks(finished)
        assert "no memory template could be made, so this machine boots" in remark
        assert cache.stored == []
        assert cache.unfinished == []
    finally:
        subprocess.run(["umount", "--lazy", str(cache.root)], check=True)


def wait_for_no_process_with(text: str) -> None:
    """Wait until no process has `text` on its command line; the kernel ends a killed run's QEMU by itself."""
    until = time.monotonic() + 2
    while any(
        text in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ):
        assert time.monotonic() < until, f"a process of {text} lives on"
        time.sleep(0.02)
