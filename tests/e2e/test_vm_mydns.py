"""The story of the README: a suite that needs a name to resolve fails on the host and passes in the machine."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import CRATES, CommandLine, Finished
from run_record import RunRecord, assert_guest_ran

from vmrunner.host.deadline import Deadline
from vmrunner.host.paths import cache_dir
from vmrunner.nextest.tool import find_nextest

MYDNS = CRATES / "mydns"
PHASES = ["image", "archive", "stage", "connect", "mount", "unit", "collect", "stop"]
"""In the order in which they end. Before them or between, the machine's `start`; and a `template`, if one was made."""


@pytest.fixture(scope="module")
def command_line(
    image: Path, target_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> CommandLine:
    """A command line for all tests of this file; what mydns names in its own vmrunner.yaml is weaker."""
    variables: dict[str, str | None] = {"VMRUNNER_IMAGE": str(image)}
    return CommandLine(tmp_path_factory.mktemp("state"), cache_dir().parent, target_directory, variables)


@pytest.fixture(scope="module")
def finished(command_line: CommandLine) -> Finished:
    """One run of mydns, looked at by every test of this file."""
    return command_line.run("test", MYDNS, "--format", "json")


@pytest.fixture(scope="module")
def run(command_line: CommandLine, finished: Finished) -> RunRecord:
    """What that run left."""
    assert finished.code == 0, finished.stderr
    return command_line.only_run


def test_the_name_is_unknown_where_there_is_no_dns(mydns_archive: Path) -> None:
    """A network namespace of its own stands for a host or a sandbox without DNS."""
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a network namespace")
    nextest = find_nextest(deadline=Deadline.after(60)).path
    suite: list[str | Path] = [
        nextest,
        "nextest",
        "run",
        "--archive-file",
        mydns_archive,
        "--no-fail-fast",
    ]
    on_host = subprocess.run(
        ["unshare", "--map-root-user", "--net", *suite],
        cwd=MYDNS,
        check=False,
        capture_output=True,
        text=True,
    )
    assert on_host.returncode == 100, on_host.stderr
    assert re.search(r"FAIL .* mydns_tests::ip_for_nip_io", on_host.stderr)
    assert re.search(r"PASS .* mydns_tests::local_ip", on_host.stderr)


def test_passes_in_the_machine(run: RunRecord) -> None:
    assert_guest_ran(run)
    assert run.outcomes == {"local_ip": "passed", "ip_for_nip_io": "passed"}
    assert run.report["outcome"] == "passed"
    assert run.report["exit_code"] == 0
    assert run.report["tests"] == {"passed": 2, "failed": 0, "skipped": 0, "flaky": 0}
    assert run.report["nextest_seconds"] > 0
    assert run.report["error"] is None


def test_standard_output_is_the_report_and_nothing_else(run: RunRecord, finished: Finished) -> None:
    assert json.loads(finished.stdout) == run.report


def test_what_nextest_says_is_on_standard_error(finished: Finished) -> None:
    assert "2 tests run: 2 passed" in finished.stderr
    assert "passed: 2 passed" in finished.lines[-2].text


def test_every_phase_is_reported_in_order(run: RunRecord) -> None:
    assert [name for name in run.phases if name not in ("start", "template")] == PHASES
    assert "start" in run.phases
    assert all(seconds >= 0 for seconds in run.phases.values())


def test_the_machine_is_described(run: RunRecord, image: Path) -> None:
    machine = run.report["machine"]
    assert machine["image"] == json.loads((image / "manifest.json").read_text())["name"]
    assert machine["accelerator"] in ("kvm", "tcg")
    assert (machine["cpus"], machine["memory"]) == (2, 2 << 30)


def test_junit_has_both_cases(run: RunRecord) -> None:
    for name in ("local_ip", "ip_for_nip_io"):
        case = run.junit(name)
        assert float(case.get("time")) > 0
        assert case.find("failure") is None


def test_artifacts_are_where_the_report_says(run: RunRecord) -> None:
    artifacts = run.report["artifacts"]
    assert Path(artifacts["directory"]) == run.directory
    assert "2 passed" in Path(artifacts["log"]).read_text()
    for name in ("junit.xml", "nextest.log", "events.jsonl", "report.json"):
        assert (run.directory / name).stat().st_size > 0, name
    for name in ("qemu.log", "serial.log"):
        assert (run.directory / name).is_file(), name


def test_events_log_is_one_json_object_a_line(run: RunRecord) -> None:
    events = [json.loads(line) for line in (run.directory / "events.jsonl").read_text().splitlines()]
    finished = [event["name"] for event in events if event["event"] == "PhaseFinished"]
    assert [name for name in finished if name in PHASES] == PHASES


def test_everything_is_private(run: RunRecord) -> None:
    assert run.directory.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in run.directory.iterdir() if path.is_file()}
    assert set(modes.values()) == {0o600}, modes


def test_nothing_is_left(run: RunRecord, command_line: CommandLine) -> None:
    command_line.assert_nothing_left(run)


def test_two_runs_at_the_same_time_do_not_meet(command_line: CommandLine, tmp_path: Path) -> None:
    both = replace(command_line, state_home=tmp_path / "state")
    first, second = both.start("test", MYDNS), both.start("test", MYDNS)
    codes = [running.finish().code for running in (first, second)]
    assert codes == [0, 0]
    assert len(both.runs) == 2
    for run in both.runs:
        assert_guest_ran(run)
        assert run.outcomes == {"local_ip": "passed", "ip_for_nip_io": "passed"}
        both.assert_nothing_left(run)
    names = {run.report["machine"]["name"] for run in both.runs}
    assert len(names) == 2
