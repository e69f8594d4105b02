"""From runs to the figures that the goals are about: medians, and their ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.goals import Figure
from benchmarks.process_memory import ProcessMemory
from benchmarks.suite_runs import SuiteRun

RESTORED = "restored"


def figures_of(
    *,
    restored: Sequence[SuiteRun] = (),
    long_lived: Sequence[SuiteRun] = (),
    cold: Sequence[SuiteRun] = (),
    virtme: Sequence[SuiteRun] = (),
    idle: Sequence[ProcessMemory] = (),
) -> dict[Figure, float]:
    """The figures that these runs give, in the units of the goals; one that nothing was measured for is not there.

    `restored` are runs of `vmrunner test` in a restored machine each, `long_lived` those with `--vm`, `cold` and `virtme`
    what they are compared with, and `idle` the memory of restored machines that nothing runs in.
    """
    figures: dict[Figure, float] = {}
    if running := [run.running_seconds for run in restored if run.running_seconds is not None]:
        figures[Figure.RESTORE] = statistics.median(running) * 1000
    if restored:
        figures[Figure.RESTORED_TEST] = _median_less_nextest(restored)
    if restored and cold:
        figures[Figure.COLD_BOOT_RATIO] = _median_less_nextest(cold) / _median_less_nextest(restored)
    if restored and virtme:
        figures[Figure.VIRTME_NG_RATIO] = _median_seconds(virtme) / _median_seconds(restored)
    if long_lived:
        figures[Figure.LONG_LIVED_TEST] = _median_less_nextest(long_lived)
    if idle:
        figures[Figure.PRIVATE_MEMORY] = statistics.median(memory.private for memory in idle) / 1e6
    return figures


def _median_less_nextest(runs: Sequence[SuiteRun]) -> float:
    return statistics.median(run.less_nextest for run in runs)


def _median_seconds(runs: Sequence[SuiteRun]) -> float:
    return statistics.median(run.seconds for run in runs)
