"""The counts in the last line that nextest prints; the JUnit report says nothing about skipped tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_SUMMARY = re.compile(
    r"^ {5}Summary \[\s*(?P<seconds>\d+(?:\.\d+)?)s\] "
    r"(?P<run>\d+)(?:/(?P<planned>\d+))? (?P<what>tests? run|stress run iterations?): (?P<counts>.*)$",
    re.MULTILINE,
)
_COUNT = re.compile(r"(\d+) (passed|slow|flaky|leaky|failed|timed out|exec failed|skipped)\b")


@dataclass(frozen=True)
class Summary:
    """What nextest counted, in tests; `failed` holds all that did not pass.

    `passed` includes `slow`, `flaky` and `leaky` ones; `failed` includes `timed_out` and `exec_failed` ones.
    `planned` is larger than `run` where nextest stopped early (fail-fast, a signal). `seconds` is nextest's own
    clock. In a stress run `run`, `planned`, `passed` and `failed` count iterations.
    """

    seconds: float
    run: int
    planned: int
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    slow: int = 0
    flaky: int = 0
    leaky: int = 0
    timed_out: int = 0
    exec_failed: int = 0


def parse_summary(text: str) -> Summary | None:
    """The last summary line in `text` (the end of nextest's log, with or without colours), or None."""
    lines = list(_SUMMARY.finditer(_ANSI.sub("", text).replace("\r\n", "\n")))
    if not lines:
        return None
    line = lines[-1]
    counts: dict[str, int] = {}
    for number, label in _COUNT.findall(line["counts"]):
        counts.setdefault(label, int(number))
    timed_out, exec_failed = counts.get("timed out", 0), counts.get("exec failed", 0)
    return Summary(
        seconds=float(line["seconds"]),
        run=int(line["run"]),
        planned=int(line["planned"] or line["run"]),
        passed=counts.get("passed", 0),
        failed=counts.get("failed", 0) + timed_out + exec_failed,
        skipped=counts.get("skipped", 0),
        slow=counts.get("slow", 0),
        flaky=counts.get("flaky", 0),
        leaky=counts.get("leaky", 0),
        timed_out=timed_out,
        exec_failed=exec_failed,
    )


def merge_summaries(parts: Sequence[Summary]) -> Summary | None:
    """The summary of a run whose tests were partitioned; None where there is no part.

    Each part counts the other parts' tests as skipped, so what was really skipped is what no part planned to run.
    `seconds` is that of the longest part.
    """
    if not parts:
        return None
    planned = sum(part.planned for part in parts)
    whole = parts[0].planned + parts[0].skipped
    added = ("run", "passed", "failed", "slow", "flaky", "leaky", "timed_out", "exec_failed")
    return Summary(
        seconds=max(part.seconds for part in parts),
        planned=planned,
        skipped=max(whole - planned, 0),
        **{name: sum(getattr(part, name) for part in parts) for name in added},
    )
