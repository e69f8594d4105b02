"""nextest's JUnit -> cases; the samples are real reports of nextest 0.9.148."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from vmrunner.errors import UnitFailed
from vmrunner.nextest.junit import Case, copy_report, parse_cases, read_cases

SAMPLES = Path(__file__).parent / "samples"
REPORT = PurePosixPath("store/default/junit.xml")


def cases_of(sample: str) -> dict[str, Case]:
    return {case.name: case for case in parse_cases((SAMPLES / f"junit-{sample}.xml").read_bytes())}


def share_with(directory: Path, document: bytes) -> Path:
    (directory / REPORT.parent).mkdir(parents=True)
    (directory / REPORT).write_bytes(document)
    return directory


def test_a_test_that_passed() -> None:
    case = cases_of("retries")["tests::passing"]
    assert (case.binary, case.outcome, case.attempts, case.reason) == ("verdicts", "passed", 1, "")
    assert "this is the output of a test that passed" in case.output
    assert 0 < case.seconds < 1


def test_a_test_that_took_its_time() -> None:
    assert cases_of("retries")["tests::slow"].seconds > 1


def test_a_flaky_test_tells_how_it_failed_first() -> None:
    case = cases_of("retries")["tests::flaky"]
    assert (case.outcome, case.attempts) == ("flaky", 2)
    assert case.reason == "test failure with exit code 101"
    assert "panicked at src/lib.rs" in case.message


def test_a_test_that_failed_at_every_try() -> None:
    case = cases_of("retries")["tests::failing"]
    assert (case.outcome, case.attempts) == ("failed", 3)
    assert "a line on stdout" in case.output
    assert "a line on stderr" in case.output


def test_markup_and_colours_that_a_test_printed_do_no_harm() -> None:
    assert "<&\"'> red ünïcödé" in cases_of("retries")["tests::panicking"].output


def test_a_test_that_was_ended_for_its_time() -> None:
    case = cases_of("timeout")["tests::slow"]
    assert (case.outcome, case.reason) == ("failed", "test timeout")


def test_a_flaky_test_where_flaky_means_failed() -> None:
    case = cases_of("flaky-fails")["tests::flaky"]
    assert (case.outcome, case.attempts, case.reason) == ("failed", 2, "flaky failure")


def test_an_empty_report() -> None:
    assert parse_cases(b"<testsuites/>") == ()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not xml",
        b"<html/>",
        b'<testsuites><testsuite name="a"><testcase name="b">',
        b'<testsuites><testsuite name="a"><testcase name="b" time="soon"/></testsuite></testsuites>',
        b'<!DOCTYPE x [<!ENTITY y "z">]><testsuites/>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><testsuites/>',
        b"\x00\xff",
    ],
)
def test_what_is_no_report_is_refused(document: bytes) -> None:
    with pytest.raises(UnitFailed, match="JUnit report is malformed") as caught:
        parse_cases(document)
    assert caught.value.exit_code == 23
    assert caught.value.hint


def test_a_real_report_cut_off_anywhere_is_refused() -> None:
    whole = (SAMPLES / "junit-retries.xml").read_bytes().rstrip()
    for length in range(0, len(whole) - 1, 501):
        with pytest.raises(UnitFailed):
            parse_cases(whole[:length])


def test_read_from_a_share(tmp_path: Path) -> None:
    share = share_with(tmp_path, (SAMPLES / "junit-retries.xml").read_bytes())
    assert len(read_cases(share, REPORT)) == 5


def test_no_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_cases(tmp_path, REPORT)


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    share = share_with(tmp_path, b"")
    (share / REPORT).unlink()
    (share / REPORT).symlink_to("/etc/passwd")
    with pytest.raises(UnitFailed, match="JUnit report is a symbolic link") as caught:
        read_cases(share, REPORT)
    assert caught.value.exit_code == 23
    with pytest.raises(UnitFailed):
        copy_report(share, REPORT, tmp_path / "copy.xml")
    assert not (tmp_path / "copy.xml").exists()


def test_a_flood_is_refused(tmp_path: Path) -> None:
    share = share_with(tmp_path, b"")
    os.truncate(share / REPORT, 1 << 40)
    with pytest.raises(UnitFailed, match="more than 1000 bytes"):
        read_cases(share, REPORT, limit_bytes=1000)


def test_a_copy_is_private(tmp_path: Path) -> None:
    share = share_with(tmp_path / "share", b"<testsuites/>")
    copy_report(share, REPORT, tmp_path / "copy.xml")
    assert (tmp_path / "copy.xml").read_bytes() == b"<testsuites/>"
    assert (tmp_path / "copy.xml").stat().st_mode & 0o777 == 0o600
