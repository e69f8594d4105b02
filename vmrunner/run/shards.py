"""A suite shared between machines: each restored from the same template, each with its slice of the tests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import IO, Literal

from vmrunner.errors import Interrupted, VmrunnerError
from vmrunner.events import Emit, Event, Note, Output, Recorder, phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import shielded
from vmrunner.nextest import exit_codes
from vmrunner.nextest.junit import merge_reports, parse_cases
from vmrunner.nextest.summary import merge_summaries
from vmrunner.run.follow import INTERRUPTED, Cancellation, Cancelled
from vmrunner.run.phase_limits import PhaseLimits
from vmrunner.run.report import Report
from vmrunner.run.seat import ReadySeat, Seat
from vmrunner.run.staging import StagedJob
from vmrunner.run.suite import run_suite

# nextest gets 15 s to cancel its tests; then the machines are stopped whatever happens.
_WIND_DOWN_SECONDS = 25.0


@dataclass(frozen=True)
class Shard:
    """One machine's part: `index` of `count`, counted from 1."""

    index: int
    count: int
    seat: Seat
    job: StagedJob

    @property
    def label(self) -> str:
        """What its output is labelled with."""
        return f"{self.index}/{self.count}"


def partition_arguments(index: int, count: int) -> tuple[str, ...]:
    """What makes nextest run that slice of the tests; nothing where there is one machine only."""
    return ("--partition", f"slice:{index}/{count}") if count > 1 else ()


def run_shards(
    report: Report, shards: Sequence[Shard], limits: PhaseLimits, *, emit: Emit, deadline: Deadline
) -> None:
    """Run all shards at once and fill the report with what they have found together.

    Raises the first error of a shard, after all have ended. On a signal every nextest is asked to stop first; on a
    second one the machines are stopped at once.
    """
    # One after the other, and here: QEMU dies with the thread that started it, and the logins go on side by side anyhow.
    ready = [shard.seat.ready() for shard in shards]
    report.shards = [Report(shard.seat.run, seat=shard.seat) for shard in shards]
    try:
        with phase(emit, "unit", f"Running the tests in {len(shards)} machines"):
            _run_all(report, shards, ready, limits, emit=emit, deadline=deadline)
    except Interrupted:
        # What will be told is the signal, whatever the reports that were cut short look like.
        with contextlib.suppress(VmrunnerError):
            _merge_findings(report)
        raise
    merge(report)


def _run_all(
    report: Report,
    shards: Sequence[Shard],
    ready: Sequence[ReadySeat],
    limits: PhaseLimits,
    *,
    emit: Emit,
    deadline: Deadline,
) -> None:
    cancellation, lock = Cancellation(), threading.Lock()
    futures: list[Future[None]] = []
    with report.run.nextest_log.open("ab") as log, ThreadPoolExecutor(len(shards), "shard") as pool:
        try:
            for shard, part, seat in zip(shards, report.shards, ready, strict=True):
                labelled = Labelled(emit, shard.label, log, lock)
                run_one = partial(_run_one, emit=labelled, deadline=deadline, cancellation=cancellation)
                futures.append(pool.submit(run_one, part, seat, shard.job, limits))
            wait(futures)
        except Interrupted:
            cancellation.set()
            try:
                with lock:
                    emit(INTERRUPTED)
                wait(futures, timeout=_WIND_DOWN_SECONDS)
            finally:
                _stop_machines(ready)
            raise
    for future in futures:
        future.result()  # a bug in a thread is a bug here too


def _stop_machines(ready: Sequence[ReadySeat]) -> None:
    """A thread that follows a machine ends with it, so that nobody has to wait for the thread."""
    with shielded():
        for seat in ready:
            seat.machine.stop()


def _run_one(
    part: Report,
    seat: ReadySeat,
    job: StagedJob,
    limits: PhaseLimits,
    *,
    emit: Labelled,
    deadline: Deadline,
    cancellation: Cancellation,
) -> None:
    recorder = Recorder(limits.watching(emit))
    part.phases = recorder.phases
    try:
        run_suite(part, seat, job, emit=recorder, deadline=deadline, cancellation=cancellation)
    except VmrunnerError as error:
        part.error = error
    except Cancelled:
        part.interrupted = True
    finally:
        emit.close()


def merge(report: Report) -> None:
    """Put the parts together: cases and JUnit as one, counts added up, the worst exit code.

    Raises the first error of a part. A slice without tests is no failure where another one had some.
    """
    _merge_findings(report)
    for part in report.shards:
        if part.error:
            raise part.error
    codes = [part.exit_code for part in report.shards if part.exit_code is not None]
    ran = [code for code in codes if code != exit_codes.NO_TESTS_RUN]
    report.exit_code = max(ran) if ran else exit_codes.NO_TESTS_RUN


def _merge_findings(report: Report) -> None:
    reported = [part.run.junit for part in report.shards if part.has_junit]
    if reported:
        merge_reports(reported, report.run.junit)
        report.cases = parse_cases(report.run.junit.read_bytes())
        report.has_junit = True
    report.summary = merge_summaries([part.summary for part in report.shards if part.summary])


class Labelled:
    """An `Emit` for one shard's thread: its output in whole lines, labelled, one event at a time, and kept in `log`.

    Its phases are its own and not shown.
    """

    def __init__(self, emit: Emit, label: str, log: IO[bytes], lock: threading.Lock) -> None:
        self._emit = emit
        self._label = label
        self._log = log
        self._lock = lock
        self._partial: dict[Literal["stdout", "stderr"], bytes] = {"stdout": b"", "stderr": b""}

    def __call__(self, event: Event) -> None:
        """Take one event of the shard."""
        with self._lock:
            match event:
                case Output():
                    self._take_lines(event)
                case Note():
                    self._emit(Note(f"shard {self._label}: {event.text}", event.level))
                case _:
                    pass

    def close(self) -> None:
        """Hand on the lines that were not ended, as lines."""
        with self._lock:
            for stream, rest in self._partial.items():
                if rest:
                    self._take_lines(Output(stream, b"\n"))

    def _take_lines(self, event: Output) -> None:
        whole, newline, rest = (self._partial[event.stream] + event.data).rpartition(b"\n")
        self._partial[event.stream] = rest
        if newline:
            self._emit(Output(event.stream, whole + newline, self._label))
            self._log.writelines(f"[{self._label}] ".encode() + line + b"\n" for line in whole.split(b"\n"))
            self._log.flush()
