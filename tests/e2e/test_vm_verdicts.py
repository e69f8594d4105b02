"""nextest's verdict comes back whole: exit codes, cases, output, and each line when it happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CRATES, CommandLine, Finished
from crate_copies import CopyCrate
from run_record import RunRecord, assert_guest_ran

from vmrunner.host.paths import cache_dir

VERDICTS = CRATES / "verdicts"
HEAVY_LINE = "x" * 79
HEAVY_LINES = 200_000 // 80
SLOW_SECONDS = 1.5
"""How long the test `slow` sleeps."""


@pytest.fixture(scope="module")
def command_line(
    image: Path, target_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> CommandLine:
    """A command line for the run that most tests of this file look at."""
    variables: dict[str, str | None] = {"VMRUNNER_IMAGE": str(image)}
    return CommandLine(tmp_path_factory.mktemp("state"), cache_dir().parent, target_directory, variables)


@pytest.fixture(scope="module")
def finished(command_line: CommandLine) -> Finished:
    """All tests, one after the other, each of which may be tried three times, with a report under a name of its own."""
    return command_line.run(
        "test",
        VERDICTS,
        "--",
        "--profile",
        "named",
        "--no-fail-fast",
        "--retries",
        "2",
        "--test-threads",
        "1",
    )


@pytest.fixture(scope="module")
def run(command_line: CommandLine, finished: Finished) -> RunRecord:
    """What that run left."""
    assert finished.lines
    return command_line.only_run


def test_failing_tests_give_nextests_exit_code(run: RunRecord, finished: Finished) -> None:
    assert finished.code == 100, finished.stderr
    assert_guest_ran(run)
    assert run.report["exit_code"] == 100
    assert run.report["outcome"] == "failed"
    assert run.report["error"] is None


def test_every_case_has_its_outcome(run: RunRecord) -> None:
    assert run.outcomes == {
        "failing": "failed",
        "flaky": "flaky",
        "output_heavy": "passed",
        "panicking": "failed",
        "passing": "passed",
        "slow": "passed",
    }


def test_skipped_tests_are_counted(run: RunRecord) -> None:
    assert run.report["tests"] == {"passed": 4, "failed": 2, "skipped": 1, "flaky": 1}


def test_times_are_those_of_the_tests(run: RunRecord) -> None:
    seconds = {case["name"].split("::")[-1]: case["seconds"] for case in run.report["cases"]}
    assert seconds["slow"] >= SLOW_SECONDS
    assert run.report["nextest_seconds"] > seconds["slow"]


def test_report_with_a_name_of_its_own_is_found(run: RunRecord) -> None:
    assert (run.directory / "out" / "store" / "named" / "verdicts.xml").is_file()
    assert (run.directory / "junit.xml").is_file()
    assert run.report["artifacts"]["junit"] == str(run.directory / "junit.xml")


def test_long_output_is_complete_on_both_streams(run: RunRecord) -> None:
    heavy = run.junit("output_heavy")
    for stream in ("system-out", "system-err"):
        assert heavy.find(stream).text.count(HEAVY_LINE) == HEAVY_LINES


def test_output_of_a_failed_test_is_kept(run: RunRecord) -> None:
    failing = run.junit("failing")
    assert "a line on stdout" in failing.find("system-out").text
    assert "a line on stderr" in failing.find("system-err").text
    assert "arithmetic holds" in failing.find("failure").text


def test_retries_are_in_the_report(run: RunRecord) -> None:
    assert len(run.junit("flaky").findall("flakyFailure")) == 1
    assert len(run.junit("failing").findall("rerunFailure")) == 2


def test_lines_arrive_while_the_tests_run(finished: Finished) -> None:
    """The tests run one by one: a fast one's line must be there while the slow one still sleeps."""
    passing, slow = finished.line(r"PASS .*::passing"), finished.line(r"PASS .*::slow")
    assert slow.seconds - passing.seconds >= SLOW_SECONDS - 0.3
    assert finished.line(r"SLOW .*::slow").seconds < slow.seconds


def test_nothing_is_left(run: RunRecord, command_line: CommandLine) -> None:
    command_line.assert_nothing_left(run)


def test_no_test_selected(vmrunner: CommandLine) -> None:
    finished = vmrunner.run("test", VERDICTS, "--", "-E", "test(nothing_matches)")
    assert finished.code == 4, finished.stderr
    assert_guest_ran(vmrunner.only_run)
    assert vmrunner.only_run.report["outcome"] == "no-tests"
    assert vmrunner.only_run.report["exit_code"] == 4
    assert vmrunner.only_run.report["tests"] == {"passed": 0, "failed": 0, "skipped": 7, "flaky": 0}


def test_filterset_that_is_none(vmrunner: CommandLine) -> None:
    finished = vmrunner.run("test", VERDICTS, "--", "-E", "test(")
    assert finished.code == 94, finished.stderr
    assert_guest_ran(vmrunner.only_run)
    assert vmrunner.only_run.report["exit_code"] == 94
    assert "test(" in (vmrunner.only_run.directory / "nextest.log").read_text()


def test_flag_that_nextest_does_not_have(vmrunner: CommandLine) -> None:
    finished = vmrunner.run("test", VERDICTS, "--", "--bad-flag")
    assert finished.code == 2, finished.stderr
    assert finished.message == "nextest did not take its arguments"
    assert "`--`" in finished.hint
    assert "--bad-flag" in finished.stderr
    assert vmrunner.only_run.report["error"]["exit_code"] == 2


def test_build_that_fails_gives_nextests_exit_code(
    bare_vmrunner: CommandLine, copied_crate: CopyCrate
) -> None:
    crate = copied_crate("mydns")
    (crate / "src" / "main.rs").write_text("fn main() { no_such_function() }\n")
    finished = bare_vmrunner.run("test", crate)
    assert finished.code == 101, finished.stderr
    assert "no_such_function" in finished.stderr
    assert str(crate) in finished.message
    bare_vmrunner.assert_nothing_left(bare_vmrunner.only_run)
