"""The report of one run, as the design fixes it: one JSON document, the same on stdout and in report.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vmrunner.errors import VmrunnerError, exit_code_of
from vmrunner.events import PhaseFinished
from vmrunner.nextest import exit_codes
from vmrunner.nextest.junit import Case
from vmrunner.nextest.summary import Summary
from vmrunner.run.bottleneck import bottleneck_of
from vmrunner.run.directory import RunDirectory
from vmrunner.run.samples import Series
from vmrunner.run.seat import Seat

Outcome = Literal["passed", "failed", "no-tests", "error"]
_REPORTED_PHASES = (
    "image",
    "template",
    "archive",
    "stage",
    "start",
    "connect",
    "mount",
    "unit",
    "collect",
    "stop",
)


@dataclass
class Report:
    """What came of a run. Filled while it goes on, so that a run that breaks has a report too."""

    run: RunDirectory
    exit_code: int | None = None
    error: VmrunnerError | None = None
    interrupted: bool = False
    cases: Sequence[Case] = ()
    summary: Summary | None = None
    seat: Seat | None = None
    shards: Sequence[Report] = ()
    phases: Sequence[PhaseFinished] = field(default_factory=list)
    has_junit: bool = False
    usage: Series = field(default_factory=Series)

    @property
    def outcome(self) -> Outcome:
        """The run in one word; `error` means that nothing can be said about the tests."""
        if self.error or self.interrupted or self.exit_code is None:
            return "error"
        if self.exit_code == exit_codes.OK:
            return "passed"
        if self.exit_code == exit_codes.NO_TESTS_RUN:
            return "no-tests"
        return "failed"

    @property
    def boot_seconds(self) -> float | None:
        """From the start of QEMU to the login over SSH; None where it did not come to that."""
        return _rounded(self.seat.ready_seconds) if self.seat else None

    @property
    def running_seconds(self) -> float | None:
        """From the start of QEMU to a guest that runs (a restored one) or begins to boot."""
        return _rounded(self.seat.running_seconds) if self.seat else None

    @property
    def bottleneck(self) -> str | None:
        """What held the run, or one of its shards, back."""
        found = (bottleneck_of(part.usage) for part in (self, *self.shards))
        return next((sentence for sentence in found if sentence), None)

    def counts(self) -> dict[str, int]:
        """Tests by outcome. nextest's own summary line counts best; without one, its JUnit cases are counted."""
        if self.summary:
            return {
                "passed": self.summary.passed,
                "failed": self.summary.failed,
                "skipped": self.summary.skipped,
                "flaky": self.summary.flaky,
            }
        outcomes = [case.outcome for case in self.cases]
        flaky = outcomes.count("flaky")
        return {
            "passed": outcomes.count("passed") + flaky,
            "failed": outcomes.count("failed"),
            "skipped": 0,
            "flaky": flaky,
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "interval_seconds": self.usage.interval,
            "bottleneck": bottleneck_of(self.usage),
            "samples": self.usage.as_json(),
        }

    def as_json(self) -> dict[str, Any]:
        """The document."""
        return {
            "outcome": self.outcome,
            "exit_code": exit_code_of(self.error) if self.error else self.exit_code,
            "tests": self.counts(),
            "cases": [
                {"binary": case.binary, "name": case.name, "outcome": case.outcome, "seconds": case.seconds}
                for case in self.cases
            ],
            "nextest_seconds": self.summary.seconds if self.summary else None,
            "start": self.seat.start if self.seat else None,
            "running_seconds": self.running_seconds,
            "boot_seconds": self.boot_seconds,
            "phases": self._phases_json(),
            "machine": asdict(self.seat.facts) if self.seat else None,
            "usage": self._usage() if self.usage.samples else None,
            "artifacts": {
                "junit": str(self.run.junit) if self.has_junit else None,
                "log": str(self.run.nextest_log),
                "serial": str(self.run.serial_log),
                "directory": str(self.run.path),
            },
            "error": _error_json(self.error) if self.error else None,
            **({"shards": [_shard_json(shard) for shard in self.shards]} if self.shards else {}),
        }

    def _phases_json(self) -> list[dict[str, Any]]:
        return [
            {"name": item.name, "seconds": round(item.seconds, 3)}
            for item in self.phases
            if item.name in _REPORTED_PHASES
        ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _shard_json(shard: Report) -> dict[str, Any]:
    whole = shard.as_json()
    kept = ("outcome", "exit_code", "tests", "nextest_seconds", "start", "running_seconds", "boot_seconds",
            "phases", "usage", "artifacts", "error")  # fmt: skip
    return {name: whole[name] for name in kept}


def _error_json(error: VmrunnerError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "exit_code": exit_code_of(error),
        "message": error.message,
        "hint": error.hint,
        "details": error.details,
    }
