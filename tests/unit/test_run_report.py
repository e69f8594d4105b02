"""The report: its JSON document key by key, its outcomes and its counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_seats import FACTS, SampleSeat

from vmrunner.errors import GuestLost, NextestFailed
from vmrunner.events import PhaseFinished
from vmrunner.nextest.junit import Case
from vmrunner.nextest.summary import Summary
from vmrunner.run.directory import RunDirectory
from vmrunner.run.report import Outcome, Report

RUN = RunDirectory("1", Path("/state/runs/1"), Path("/cache/scratch/1"))
CASES = (
    Case("mydns::bin/mydns", "tests::local_ip", "passed", 0.004),
    Case("mydns", "tests::flaky", "flaky", 1.5, attempts=2),
    Case("mydns", "tests::bad", "failed", 0.25, message="assertion failed"),
)
PHASES = [
    PhaseFinished("accelerator", 1.0),
    PhaseFinished("image", 0.00049),
    PhaseFinished("start", 0.25),
    PhaseFinished("connect", 4.5),
    PhaseFinished("unit", 9.87654),
]


def test_the_whole_document() -> None:
    seat = SampleSeat(RUN, start="restored", running_seconds=0.14159, ready_seconds=0.98765)
    report = Report(
        RUN, exit_code=100, cases=CASES, phases=PHASES, has_junit=True, seat=seat,
        summary=Summary(seconds=0.02, run=3, planned=3, passed=2, failed=1, skipped=4, flaky=1),
    )  # fmt: skip
    assert report.as_json() == {
        "outcome": "failed",
        "exit_code": 100,
        "tests": {"passed": 2, "failed": 1, "skipped": 4, "flaky": 1},
        "cases": [
            {"binary": "mydns::bin/mydns", "name": "tests::local_ip", "outcome": "passed", "seconds": 0.004},
            {"binary": "mydns", "name": "tests::flaky", "outcome": "flaky", "seconds": 1.5},
            {"binary": "mydns", "name": "tests::bad", "outcome": "failed", "seconds": 0.25},
        ],
        "nextest_seconds": 0.02,
        "start": "restored",
        "running_seconds": 0.142,
        "boot_seconds": 0.988,
        "phases": [
            {"name": "image", "seconds": 0.0},
            {"name": "start", "seconds": 0.25},
            {"name": "connect", "seconds": 4.5},
            {"name": "unit", "seconds": 9.877},
        ],
        "machine": {
            "name": "vmrunner-1",
            "accelerator": "tcg",
            "accelerator_reason": "no /dev/kvm",
            "cpu_model": "max",
            "cpus": 2,
            "memory": 1073741824,
            "image": "debian",
            "qemu": "7.2.22",
        },
        "usage": None,
        "artifacts": {
            "junit": "/state/runs/1/junit.xml",
            "log": "/state/runs/1/nextest.log",
            "serial": "/state/runs/1/serial.log",
            "directory": "/state/runs/1",
        },
        "error": None,
    }


def test_the_document_has_every_key_that_is_promised_whatever_happened() -> None:
    promised = {
        "outcome", "exit_code", "tests", "cases", "nextest_seconds", "start", "phases", "machine", "artifacts",
        "error",
    }  # fmt: skip
    for report in (Report(RUN), Report(RUN, error=GuestLost("x")), Report(RUN, interrupted=True)):
        document = report.as_json()
        assert promised <= document.keys()
        assert document["tests"].keys() == {"passed", "failed", "skipped", "flaky"}
        assert document["artifacts"].keys() == {"junit", "log", "serial", "directory"}
        assert json.loads(json.dumps(document)) == document


def test_an_error_is_told_with_its_exit_code() -> None:
    error = GuestLost("the guest rebooted itself", hint="did a test do that?", details="tail")
    document = Report(RUN, error=error).as_json()
    assert document["outcome"] == "error"
    assert document["exit_code"] == 23
    assert document["machine"] is None
    assert document["error"] == {
        "kind": "GuestLost",
        "exit_code": 23,
        "message": "the guest rebooted itself",
        "hint": "did a test do that?",
        "details": "tail",
    }
    failed = Report(RUN, error=NextestFailed("the archive could not be built", code=101)).as_json()
    assert failed["error"]["exit_code"] == 101


@pytest.mark.parametrize(
    ("report", "outcome"),
    [
        (Report(RUN, exit_code=0), "passed"),
        (Report(RUN, exit_code=4), "no-tests"),
        (Report(RUN, exit_code=100), "failed"),
        (Report(RUN, exit_code=104), "failed"),
        (Report(RUN), "error"),
        (Report(RUN, interrupted=True), "error"),
        (Report(RUN, exit_code=0, interrupted=True), "error"),
        (Report(RUN, exit_code=0, error=GuestLost("x")), "error"),
    ],
)
def test_outcomes(report: Report, outcome: Outcome) -> None:
    assert report.outcome == outcome


def test_without_a_summary_the_cases_are_counted() -> None:
    assert Report(RUN, cases=CASES).counts() == {"passed": 2, "failed": 1, "skipped": 0, "flaky": 1}
    assert Report(RUN).counts() == {"passed": 0, "failed": 0, "skipped": 0, "flaky": 0}


def test_a_summary_counts_more_than_the_cases_do() -> None:
    summary = Summary(seconds=1.0, run=5, planned=9, passed=4, failed=1, skipped=2)
    assert Report(RUN, cases=CASES, summary=summary).counts() == {
        "passed": 4, "failed": 1, "skipped": 2, "flaky": 0,
    }  # fmt: skip


def test_without_a_machine_there_are_neither_start_nor_times() -> None:
    document = Report(RUN, phases=PHASES).as_json()
    assert [document[name] for name in ("start", "running_seconds", "boot_seconds")] == [None] * 3


def test_a_machine_that_did_not_answer_has_no_boot_time() -> None:
    document = Report(RUN, seat=SampleSeat(RUN, running_seconds=0.5)).as_json()
    assert [document[name] for name in ("start", "running_seconds", "boot_seconds")] == ["booted", 0.5, None]


def test_a_run_without_shards_does_not_speak_of_them() -> None:
    assert "shards" not in Report(RUN, exit_code=0).as_json()


def test_each_shard_is_told_with_what_is_its_own() -> None:
    one, other = (RunDirectory(f"1-{n}", RUN.path / f"shard-{n}", RUN.scratch / f"shard-{n}") for n in (1, 2))
    error = GuestLost("the guest rebooted itself")
    report = Report(
        RUN,
        error=error,
        seat=SampleSeat(one),
        shards=[
            Report(
                one, exit_code=0, phases=PHASES, has_junit=True, cases=CASES[:1],
                seat=SampleSeat(one, start="restored", running_seconds=0.1, ready_seconds=0.9),
                summary=Summary(seconds=0.02, run=1, planned=1, passed=1, skipped=2),
            ),
            Report(other, error=error, seat=SampleSeat(other)),
        ],
    )  # fmt: skip
    document = report.as_json()
    assert document["machine"]["name"] == FACTS.name
    first, second = document["shards"]
    assert first == {
        "outcome": "passed",
        "exit_code": 0,
        "tests": {"passed": 1, "failed": 0, "skipped": 2, "flaky": 0},
        "nextest_seconds": 0.02,
        "start": "restored",
        "running_seconds": 0.1,
        "boot_seconds": 0.9,
        "phases": document_phases(report.shards[0]),
        "usage": None,
        "artifacts": {
            "junit": "/state/runs/1/shard-1/junit.xml",
            "log": "/state/runs/1/shard-1/nextest.log",
            "serial": "/state/runs/1/shard-1/serial.log",
            "directory": "/state/runs/1/shard-1",
        },
        "error": None,
    }
    assert (second["outcome"], second["exit_code"], second["start"]) == ("error", 23, "booted")
    assert second["error"]["message"] == "the guest rebooted itself"
    assert json.loads(json.dumps(document)) == document


def document_phases(report: Report) -> object:
    """The phases as a document of their own tells them."""
    return report.as_json()["phases"]


def test_without_junit_there_is_no_path_to_one() -> None:
    assert Report(RUN, exit_code=0).as_json()["artifacts"]["junit"] is None
