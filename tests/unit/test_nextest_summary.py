"""nextest's last line -> counts; the samples are real output of nextest 0.9.148."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.nextest.summary import Summary, merge_summaries, parse_summary

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


def test_no_part_makes_no_whole() -> None:
    assert merge_summaries([]) is None


def test_the_parts_of_one_suite() -> None:
    """Seven tests, one of them ignored; each part calls the tests of the other ones skipped."""
    parts = [
        Summary(seconds=1.5, run=3, planned=3, passed=2, failed=1, skipped=4, flaky=1),
        Summary(seconds=4.25, run=2, planned=2, passed=1, failed=1, skipped=5, slow=1, timed_out=1),
        Summary(seconds=0.5, run=1, planned=1, failed=1, skipped=6, exec_failed=1),
    ]
    assert merge_summaries(parts) == Summary(
        seconds=4.25, run=6, planned=6, passed=3, failed=3, skipped=1,
        slow=1, flaky=1, timed_out=1, exec_failed=1,
    )  # fmt: skip
    assert merge_summaries(parts[::-1]) == merge_summaries(parts)


def test_one_part_alone_is_the_whole() -> None:
    part = Summary(seconds=1.0, run=3, planned=5, passed=2, failed=1, skipped=4, leaky=1)
    assert merge_summaries([part]) == part


def test_a_part_without_tests_takes_none_away() -> None:
    parts = [
        Summary(seconds=0.0, run=0, planned=0, skipped=7),
        Summary(seconds=1.0, run=5, planned=5, passed=5, skipped=2),
    ]
    whole = merge_summaries(parts)
    assert whole is not None
    assert (whole.run, whole.passed, whole.skipped) == (5, 5, 2)


def test_what_a_part_did_not_come_to_is_planned_and_not_skipped() -> None:
    parts = [
        Summary(seconds=0.1, run=1, planned=3, failed=1, skipped=3),
        Summary(seconds=1.0, run=3, planned=3, passed=3, skipped=3),
    ]
    whole = merge_summaries(parts)
    assert whole is not None
    assert (whole.run, whole.planned, whole.skipped) == (4, 6, 0)


def test_parts_that_contradict_each_other_skip_nothing_rather_than_less() -> None:
    parts = [Summary(seconds=1.0, run=2, planned=2, passed=2)] * 2
    whole = merge_summaries(parts)
    assert whole is not None
    assert whole.skipped == 0
