"""What is left of a run in its directory, and what every run that had a machine must have left there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from defusedxml.ElementTree import parse


@dataclass(frozen=True)
class RunRecord:
    """What is left of one run."""

    directory: Path

    @property
    def id(self) -> str:
        """The run's id, which is also in its machine's name."""
        return self.directory.name

    @property
    def report(self) -> dict[str, Any]:
        """The content of report.json."""
        document: dict[str, Any] = json.loads((self.directory / "report.json").read_text())
        return document

    @property
    def outcomes(self) -> dict[str, str]:
        """Outcome by test name, without the modules it is in."""
        return {case["name"].split("::")[-1]: case["outcome"] for case in self.report["cases"]}

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase."""
        return {phase["name"]: phase["seconds"] for phase in self.report["phases"]}

    def junit(self, name: str) -> Any:
        """The `<testcase>` of the test `name`, from the kept copy of nextest's report."""
        cases = parse(self.directory / "junit.xml").iter("testcase")
        return next(case for case in cases if case.get("name", "").split("::")[-1] == name)

    def processes(self) -> list[psutil.Process]:
        """Every live process that has the run's id on its command line."""
        found = []
        for process in psutil.process_iter():
            try:
                if any(self.id in word for word in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def assert_guest_ran(run: RunRecord) -> None:
    """The run had a machine that came up, had a console, and was asked to start the unit."""
    report = run.report
    assert report["machine"]["name"] == f"vmrunner-{run.id}"
    assert report["start"] in ("booted", "restored")
    assert report["boot_seconds"] > 0
    assert {"start", "connect", "mount"} <= set(run.phases)
    # A restored machine has said what there is to say on its console before it was saved.
    assert report["start"] == "restored" or (run.directory / "serial.log").stat().st_size > 0


def assert_broke_with(run: RunRecord, kind: str, code: int) -> None:
    """The run ended with an error of that kind, and says so in its report."""
    report = run.report
    assert report["outcome"] == "error"
    assert report["exit_code"] == code
    assert (report["error"]["kind"], report["error"]["exit_code"]) == (kind, code)
