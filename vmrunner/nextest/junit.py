"""nextest's JUnit report -> cases. The report comes from a guest, so nothing in it or around it is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal, cast
from xml.etree.ElementTree import ParseError

from vmrunner.errors import UnitFailed
from vmrunner.host.untrusted import copy_regular

if TYPE_CHECKING:
    from junitparser.junitparser import Element, Result
    from junitparser.xunit2 import TestCase

LIMIT_BYTES = 256 * 2**20
"""More than any report that a person would look at."""

WHAT = "the JUnit report"

Outcome = Literal["passed", "failed", "flaky"]


@dataclass(frozen=True)
class Case:
    """One test that ran. Skipped and never started tests are not in the report.

    `binary` is nextest's binary id, `attempts` the number of tries. `reason` says how the test failed, if it did
    ("test failure with exit code 101", "test timeout"), `message` is the first line of that failure. `seconds` and
    `output` (standard output, then standard error) are of the try that nextest leads with: the last one of a test
    that passed, the first one of a test that failed at every try.
    """

    binary: str
    name: str
    outcome: Outcome
    seconds: float
    attempts: int = 1
    reason: str = ""
    message: str = ""
    output: str = ""


def copy_report(
    share: Path, relative: PurePath, destination: Path, *, limit_bytes: int = LIMIT_BYTES
) -> None:
    """Copy the report `relative` below the directory `share`, which a guest can write, out of the guest's reach.

    Raises FileNotFoundError where there is none, and UnitFailed where it is a link or no file, or too large.
    """
    copy_regular(share, relative, destination, limit=limit_bytes, what=WHAT)


def load_parser() -> None:
    """Import what `parse_cases` needs (0.06 s), for a caller that has time while the tests run."""
    import junitparser.xunit2  # noqa: F401 -- imported for later


def parse_cases(document: bytes) -> tuple[Case, ...]:
    """The cases in a JUnit document; raises UnitFailed where it is none."""
    # These cost 55 ms together, and only a finished run needs them.
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring
    from junitparser import JUnitXmlError
    from junitparser.xunit2 import JUnitXml

    try:
        report = JUnitXml.fromroot(cast("Element", fromstring(document, forbid_dtd=True)))
        return tuple(_case(cast("TestCase", case), suite.name) for suite in report for case in suite)
    except (ParseError, DefusedXmlException, JUnitXmlError, ValueError, TypeError, AttributeError) as error:
        raise UnitFailed(
            f"{WHAT} is malformed: {error}",
            hint="nextest may have been killed while it wrote; its log is in the run's directory",
        ) from error


def merge_reports(reports: Sequence[Path], destination: Path) -> None:
    """Write one JUnit document with the test suites of several; the reports were checked when they were copied.

    Raises UnitFailed where one of them is malformed.
    """
    from defusedxml.ElementTree import fromstring
    from junitparser import JUnitXmlError
    from junitparser.xunit2 import JUnitXml

    merged = JUnitXml(name="nextest-run")
    for report in reports:
        try:
            merged += JUnitXml.fromroot(cast("Element", fromstring(report.read_bytes(), forbid_dtd=True)))
        except (ParseError, JUnitXmlError, ValueError, TypeError) as error:
            raise UnitFailed(f"{WHAT} {report} is malformed: {error}") from error
    merged.update_statistics()  # type: ignore[no-untyped-call]  # the library's own
    # Not `pretty`: that would put line breaks into what the tests printed.
    merged.write(str(destination))
    destination.chmod(0o600)


def _case(case: TestCase, suite: str | None) -> Case:
    failures = [result for result in case.result if type(result).__name__ in {"Failure", "Error"}]
    flaky, rerun = list(case.flaky_failures()), list(case.rerun_failures())
    outcome: Outcome = "failed" if failures else "flaky" if flaky else "passed"
    reason, message = _why(failures or flaky)
    return Case(
        binary=suite or case.classname or "",
        name=case.name or "",
        outcome=outcome,
        seconds=float(case.time or 0.0),
        attempts=1 + len(flaky) + len(rerun),
        reason=reason,
        message=message,
        output="".join(text for text in (case.system_out, case.system_err) if text),
    )


def _why(failures: Sequence[Result]) -> tuple[str, str]:
    """Kind and first line of the last of these failures; empty where there is none."""
    if not failures:
        return "", ""
    return failures[-1].type or "", failures[-1].message or ""
