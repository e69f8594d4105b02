"""nextest's JUnit -> cases; the samples are real reports of nextest 0.9.148."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import parse

from vmrunner.errors import UnitFailed
from vmrunner.nextest.junit import Case, copy_report, merge_reports, parse_cases

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


def test_no_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy_report(tmp_path, REPORT, tmp_path / "copy.xml")
    assert not (tmp_path / "copy.xml").exists()


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    share = share_with(tmp_path, b"")
    (share / REPORT).unlink()
    (share / REPORT).symlink_to("/etc/passwd")
    with pytest.raises(UnitFailed, match="JUnit report is a symbolic link") as caught:
        copy_report(share, REPORT, tmp_path / "copy.xml")
    assert caught.value.exit_code == 23
    assert not (tmp_path / "copy.xml").exists()


def test_a_flood_is_refused(tmp_path: Path) -> None:
    share = share_with(tmp_path, b"")
    os.truncate(share / REPORT, 1 << 40)
    with pytest.raises(UnitFailed, match="more than 1000 bytes"):
        copy_report(share, REPORT, tmp_path / "copy.xml", limit_bytes=1000)
    assert not (tmp_path / "copy.xml").exists()


def test_a_copy_is_the_same_and_private(tmp_path: Path) -> None:
    document = (SAMPLES / "junit-retries.xml").read_bytes()
    share = share_with(tmp_path / "share", document)
    copy_report(share, REPORT, tmp_path / "copy.xml")
    assert (tmp_path / "copy.xml").read_bytes() == document
    assert (tmp_path / "copy.xml").stat().st_mode & 0o777 == 0o600


def merged(directory: Path, *samples: str) -> tuple[Element, tuple[Case, ...]]:
    """The root element and the cases of what came of merging the samples."""
    destination = directory / "merged.xml"
    merge_reports([SAMPLES / f"junit-{sample}.xml" for sample in samples], destination)
    return root_of(destination), parse_cases(destination.read_bytes())


def root_of(document: Path) -> Element:
    root = parse(document).getroot()
    assert root is not None
    return root


def numbers(element: Element) -> dict[str, str | None]:
    return {name: element.get(name) for name in ("tests", "failures", "errors", "time")}


def test_reports_of_one_suite_become_one_suite_with_all_their_cases(tmp_path: Path) -> None:
    root, cases = merged(tmp_path, "retries", "timeout")
    assert cases == (*cases_of("retries").values(), *cases_of("timeout").values())
    (suite,) = root
    assert (root.tag, root.get("name"), suite.get("name")) == ("testsuites", "nextest-run", "verdicts")
    assert numbers(root) == numbers(suite) == {"tests": "6", "failures": "3", "errors": "0", "time": "2.049"}


def test_suites_of_other_names_stay_apart(tmp_path: Path) -> None:
    text = (SAMPLES / "junit-timeout.xml").read_text()
    (tmp_path / "junit.xml").write_text(text.replace('name="verdicts"', 'name="other::bin/other"'))
    destination = tmp_path / "merged.xml"
    merge_reports([SAMPLES / "junit-retries.xml", tmp_path / "junit.xml"], destination)
    suites = [(suite.get("name"), suite.get("tests")) for suite in root_of(destination)]
    assert suites == [("verdicts", "5"), ("other::bin/other", "1")]


def test_what_tests_printed_survives_word_for_word(tmp_path: Path) -> None:
    def printed(root: Element) -> list[str | None]:
        return [
            "".join(element.itertext()) if element.tag.startswith("system") else element.text
            for element in root.iter()
            if element.tag not in {"testsuites", "testsuite", "testcase"}
        ]

    root, _ = merged(tmp_path, "retries", "flaky-fails")
    both = [
        text
        for name in ("retries", "flaky-fails")
        for text in printed(root_of(SAMPLES / f"junit-{name}.xml"))
    ]
    assert printed(root) == both


def test_one_report_stays_what_it_is(tmp_path: Path) -> None:
    _, cases = merged(tmp_path, "retries")
    assert cases == tuple(cases_of("retries").values())


def test_an_empty_report_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.xml").write_text('<testsuites name="nextest-run" tests="0"/>')
    merge_reports([tmp_path / "empty.xml", SAMPLES / "junit-timeout.xml"], tmp_path / "merged.xml")
    assert parse_cases((tmp_path / "merged.xml").read_bytes()) == tuple(cases_of("timeout").values())


def test_a_merged_report_is_private(tmp_path: Path) -> None:
    merged(tmp_path, "timeout")
    assert (tmp_path / "merged.xml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "document", [b"", b"not xml", b"<html/>", b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><a/>']
)
def test_what_is_no_report_is_not_merged(tmp_path: Path, document: bytes) -> None:
    (tmp_path / "bad.xml").write_bytes(document)
    with pytest.raises(UnitFailed, match=r"bad\.xml is malformed") as caught:
        merge_reports([SAMPLES / "junit-timeout.xml", tmp_path / "bad.xml"], tmp_path / "merged.xml")
    assert caught.value.exit_code == 23
    assert not (tmp_path / "merged.xml").exists()
