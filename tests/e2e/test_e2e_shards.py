"""`--shards`: one suite in several machines at once, with one output, one report and one exit code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import CRATES, CommandLine, Finished
from crate_copies import CopyCrate
from defusedxml.ElementTree import parse
from run_record import RunRecord

from vmrunner.host.facts import read_facts

VERDICTS = CRATES / "verdicts"
# Two of them fit on two cores, and one template serves every test here.
SHAPE = ("--shards", "2", "--cpus", "1", "--memory", "512M")
PASSING = {"flaky": "flaky", "output_heavy": "passed", "passing": "passed", "slow": "passed"}
ENDLESS = """

#[cfg(test)]
mod endless {
    fn sleep_for_ever() {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }

    #[test]
    fn one() {
        sleep_for_ever();
    }

    #[test]
    fn other() {
        sleep_for_ever();
    }
}
"""


@pytest.fixture(scope="module")
def templated(
    image: Path, target_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CommandLine, Finished]:
    """A first run of all that can pass, in a cache without a template; what it made serves every other test."""
    command_line = CommandLine(
        tmp_path_factory.mktemp("state"),
        tmp_path_factory.mktemp("cache"),
        target_directory,
        {"VMRUNNER_IMAGE": str(image)},
    )
    chosen = "not test(failing) and not test(panicking)"
    return command_line, command_line.run("test", VERDICTS, *SHAPE, "--", "--retries", "2", "-E", chosen)


@pytest.fixture
def first(templated: tuple[CommandLine, Finished]) -> Finished:
    """That first run, as a user saw it."""
    return templated[1]


@pytest.fixture
def first_run(templated: tuple[CommandLine, Finished]) -> RunRecord:
    """What that first run left."""
    assert templated[1].code == 0, templated[1].stderr
    return templated[0].only_run


@pytest.fixture
def vmrunner(templated: tuple[CommandLine, Finished], tmp_path: Path) -> Iterator[CommandLine]:
    """The command line with a state directory of its own and a cache that has the template."""
    command_line = replace(templated[0], state_home=tmp_path / "state", started=[])
    yield command_line
    command_line.abandon_all()


def names_in(junit: Path) -> Counter[str]:
    """How often each test is in a JUnit report."""
    return Counter(case.get("name", "").split("::")[-1] for case in parse(junit).iter("testcase"))


def shard_reports(run: RunRecord) -> list[Path]:
    """The JUnit report of each shard."""
    return [Path(shard["artifacts"]["junit"]) for shard in run.report["shards"]]


def labels_of(finished: Finished, pattern: str) -> Counter[str]:
    """How many lines like `pattern` came from which shard; those without a label count as ``."""
    lines = [line.text for line in finished.lines if re.search(pattern, line.text)]
    labels = [re.match(r"\[(\d/\d)\] ", line) for line in lines]
    return Counter(label[1] if label else "" for label in labels)


def test_every_test_runs_exactly_once(first: Finished, first_run: RunRecord) -> None:
    assert first_run.outcomes == PASSING
    assert len(first_run.report["cases"]) == len(PASSING)
    parts = [names_in(junit) for junit in shard_reports(first_run)]
    assert [part.total() for part in parts] == [2, 2]
    assert parts[0] + parts[1] == Counter(PASSING.keys()), first.stderr
    assert first_run.report["tests"] == {"passed": 4, "failed": 0, "skipped": 3, "flaky": 1}
    assert "passed: 4 passed, 3 skipped, 1 flaky" in first.stderr


def test_the_report_of_all_is_one_junit_document(first_run: RunRecord) -> None:
    root = parse(first_run.directory / "junit.xml").getroot()
    assert root is not None
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "4", "0")
    assert [(suite.get("name"), suite.get("tests")) for suite in root] == [("verdicts", "4")]
    assert names_in(first_run.directory / "junit.xml") == Counter(PASSING.keys())
    assert first_run.junit("flaky").find("flakyFailure") is not None
    assert "a test that passed" in first_run.junit("passing").find("system-out").text


def test_each_shard_has_a_machine_of_its_own_from_one_template(
    first: Finished, first_run: RunRecord, templated: tuple[CommandLine, Finished]
) -> None:
    report = first_run.report
    assert first.stderr.count("Making a memory template") == 1
    assert [shard["start"] for shard in report["shards"]] == ["restored", "restored"]
    assert [shard["outcome"] for shard in report["shards"]] == ["passed", "passed"]
    directories = {shard["artifacts"]["directory"] for shard in report["shards"]}
    assert directories == {str(first_run.directory / f"shard-{number}") for number in (1, 2)}
    assert report["machine"]["cpus"] == 1
    templated[0].assert_nothing_left(first_run)


def test_output_says_which_shard_it_is_from(first: Finished, first_run: RunRecord) -> None:
    assert labels_of(first, "PASS|FLAKY .*verdicts") >= Counter({"1/2": 2, "2/2": 2})
    assert labels_of(first, "Summary ") == {"1/2": 1, "2/2": 1}
    assert labels_of(first, "verdicts tests::")[""] == 0
    log = (first_run.directory / "nextest.log").read_text().splitlines()
    assert {line[:6] for line in log} == {"[1/2] ", "[2/2] "}


def test_a_failure_in_one_shard_is_nextests_exit_code_for_the_whole(vmrunner: CommandLine) -> None:
    chosen = ("-E", "test(/::failing$/) + test(/::passing$/)", "--no-fail-fast")
    finished = vmrunner.run("test", VERDICTS, *SHAPE, "--", *chosen)
    run = vmrunner.only_run
    assert finished.code == 100, finished.stderr
    assert run.report["outcome"] == "failed"
    assert run.outcomes == {"failing": "failed", "passing": "passed"}
    assert sorted(shard["exit_code"] for shard in run.report["shards"]) == [0, 100]
    assert run.report["start"] == "restored"
    vmrunner.assert_nothing_left(run)


def test_arguments_for_the_tests_themselves_leave_the_shards_alone(vmrunner: CommandLine) -> None:
    finished = vmrunner.run("test", VERDICTS, *SHAPE, "--", "--", "--exact", "tests::passing", "tests::slow")
    assert finished.code == 0, finished.stderr
    run = vmrunner.only_run
    assert run.outcomes == {"passing": "passed", "slow": "passed"}
    assert [names_in(junit).total() for junit in shard_reports(run)] == [1, 1]


@pytest.mark.parametrize(
    ("chosen", "code", "outcomes"),
    [("test(/::passing$/)", 0, ["no-tests", "passed"]), ("test(of_that_name)", 4, ["no-tests", "no-tests"])],
)
def test_only_where_no_shard_has_tests_there_are_none(
    vmrunner: CommandLine, chosen: str, code: int, outcomes: list[str]
) -> None:
    finished = vmrunner.run("test", VERDICTS, *SHAPE, "--", "-E", chosen)
    run = vmrunner.only_run
    assert finished.code == code, finished.stderr
    assert run.report["exit_code"] == code
    assert sorted(shard["outcome"] for shard in run.report["shards"]) == outcomes


def test_ctrl_c_ends_every_shard(vmrunner: CommandLine, copied_crate: CopyCrate) -> None:
    crate = copied_crate("verdicts")
    with (crate / "src" / "lib.rs").open("a") as source:
        source.write(ENDLESS)
    in_place = replace(vmrunner, target_directory=None)
    running = in_place.start("test", crate, *SHAPE, "--", "-E", "test(/^endless::/)")
    for label in ("1/2", "2/2"):
        running.wait_for(rf"^\[{label}\] +Starting 1 test")
    assert len(vmrunner.only_run.processes()) == 2
    running.press_ctrl_c()
    finished = running.finish(seconds=30)
    assert finished.code == 130, finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count("interrupted: nextest is asked to stop") == 1
    assert set(labels_of(finished, "Cancel")) == {"1/2", "2/2"}
    run = vmrunner.only_run
    assert run.report["outcome"] == "error"
    assert run.outcomes == {"one": "failed", "other": "failed"}
    vmrunner.assert_nothing_left(run)


def test_more_shards_than_the_host_has_processors_are_refused(vmrunner: CommandLine) -> None:
    cpus = read_facts().cpus
    asked = ("--shards", str(cpus + 1), "--cpus", "1", "--memory", "128M")
    finished = vmrunner.run("test", VERDICTS, *asked)
    assert finished.code == 2, finished.stderr
    assert finished.message == (
        f"`cpus` is 1, which makes {cpus + 1} for {cpus + 1} shards together, but this host has {cpus}"
    )
    assert "--shards" in finished.hint
    assert vmrunner.only_run.report["machine"] is None


def test_shards_that_fit_one_by_one_but_not_together_are_refused(vmrunner: CommandLine) -> None:
    mebibytes = read_facts().memory_available * 3 // 4 >> 20
    finished = vmrunner.run("test", VERDICTS, "--shards", "2", "--cpus", "1", "--memory", f"{mebibytes}M")
    assert finished.code == 2, finished.stderr
    assert re.fullmatch(
        rf"`memory` is {mebibytes}M \([\d.]+ GiB for 2 shards together\), "
        r"but this host has [\d.]+ GiB available \(of [\d.]+ GiB\)",
        finished.message,
    )
    assert "--shards" in finished.hint
    assert vmrunner.only_run.report["machine"] is None


def test_a_phase_of_one_shard_has_a_limit(vmrunner: CommandLine) -> None:
    finished = vmrunner.run(
        "test", VERDICTS, *SHAPE, "--phase-timeout", "mount=1ms", "--", "-E", "test(slow)"
    )
    assert (finished.code, finished.message) == (25, "the phase `mount` took longer than 0.001s")
    vmrunner.assert_nothing_left(vmrunner.only_run)


def test_a_partition_of_ones_own_is_refused(vmrunner: CommandLine) -> None:
    finished = vmrunner.run("test", VERDICTS, *SHAPE, "--", "--partition", "slice:1/2")
    assert finished.code == 2, finished.stderr
    assert "`--partition`" in finished.message
    assert "`--shards`" in finished.message
