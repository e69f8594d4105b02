"""nextest's last line -> counts; the samples are real output of nextest 0.9.148."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.nextest.summary import Summary, parse_summary

SAMPLES = Path(__file__).parent / "samples"


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("default", Summary(seconds=1.522, run=5, planned=5, passed=2, slow=1, failed=3, skipped=2)),
        ("retries", Summary(seconds=1.546, run=5, planned=5, passed=3, slow=1, flaky=1, failed=2, skipped=2)),
        ("fail-fast", Summary(seconds=0.005, run=1, planned=6, failed=1, skipped=1)),
        ("timeout", Summary(seconds=0.504, run=1, planned=1, failed=1, timed_out=1, skipped=6)),
        ("no-tests", Summary(seconds=0.0, run=0, planned=0, skipped=7)),
        ("stress", Summary(seconds=0.014, run=2, planned=2, passed=2)),
    ],
)
def test_real_output(sample: str, expected: Summary) -> None:
    assert parse_summary((SAMPLES / f"nextest-{sample}.log").read_text()) == expected


def line(counts: str) -> Summary | None:
    return parse_summary(f"     Summary [  61.500s] 20 tests run: {counts}\n")


def test_every_kind_of_failure_counts_as_failed() -> None:
    summary = line("15 passed, 2 failed, 2 exec failed, 1 timed out, 0 skipped")
    assert summary is not None
    assert (summary.failed, summary.exec_failed, summary.timed_out) == (5, 2, 1)


def test_tests_that_failed_for_a_leak_are_not_leaky_passes() -> None:
    summary = line("17 passed (2 leaky), 3 failed (1 due to being leaky), 4 skipped")
    assert summary == Summary(seconds=61.5, run=20, planned=20, passed=17, leaky=2, failed=3, skipped=4)


def test_the_last_summary_counts() -> None:
    text = "     Summary [   0.1s] 1 test run: 1 passed, 0 skipped\n" * 2
    text += "     Summary [   0.2s] 2 tests run: 2 passed, 0 skipped\n"
    summary = parse_summary(text)
    assert summary is not None
    assert summary.run == 2


def test_what_a_test_prints_is_not_a_summary() -> None:
    printed = "    Summary [   0.1s] 9 tests run: 9 passed, 0 skipped\n"
    assert parse_summary(printed) is None


def test_a_terminals_line_ends_do_not_matter() -> None:
    assert parse_summary("     Summary [   0.1s] 1 test run: 1 passed, 0 skipped\r\n") is not None


@pytest.mark.parametrize(
    "text", ["", "error: no such profile\n", "     Summary [  soon] 1 test run: 1 passed\n"]
)
def test_no_summary(text: str) -> None:
    assert parse_summary(text) is None
