"""One run of the unit in one machine, from a seat that is ready to a report that is filled."""

from __future__ import annotations

import logging

from vmrunner.errors import Interrupted, RunTimeout, UnitFailed, VmrunnerError
from vmrunner.events import Emit, Note, phase
from vmrunner.guest.host_forwards import serve_host_forwards
from vmrunner.guest.unit import journal_of_unit
from vmrunner.host.deadline import Deadline
from vmrunner.host.log_end import read_end, tail
from vmrunner.nextest import exit_codes
from vmrunner.nextest.junit import copy_report, parse_cases
from vmrunner.nextest.summary import parse_summary
from vmrunner.run.follow import Cancellation, Cancelled, follow_unit, started
from vmrunner.run.output_limit import OutputWatch
from vmrunner.run.report import Report
from vmrunner.run.sampling import Sampler
from vmrunner.run.seat import ReadySeat
from vmrunner.run.staging import StagedJob
from vmrunner.run.verdict import nextest_exit_code

log = logging.getLogger(__name__)

_COLLECT_SECONDS = 60.0
_FORWARD_SECONDS = 30.0
# nextest lists failed tests, which may be many, behind its summary line.
_SUMMARY_BYTES = 4 << 20


def run_suite(
    report: Report,
    seat: ReadySeat,
    job: StagedJob,
    *,
    emit: Emit,
    deadline: Deadline,
    cancellation: Cancellation,
) -> None:
    """Run the staged job and fill the report; `cancellation` ends it early, as a signal does."""
    report.run = seat.run
    forwards = seat.machine.plan.host_forwards
    serve_host_forwards(seat.machine.guest, forwards, deadline=deadline.within(_FORWARD_SECONDS))
    sampler = Sampler(seat.machine, report.usage)
    try:
        status = follow_unit(
            seat, deadline=deadline, emit=emit, cancellation=cancellation,
            looks=(sampler.look, OutputWatch(seat.run.out, job.output_limit).look),
            log_limit=job.log_limit,
        )  # fmt: skip
    except (RunTimeout, Interrupted, Cancelled):
        _collect_what_there_is(report, job)
        raise
    finally:
        sampler.close()
    with phase(emit, "collect", "Collecting the results"):
        log_tail = tail(report.run.nextest_log)
        published = status.exited and exit_codes.is_published(status.main_status)
        guest = seat.machine.guest
        journal = "" if published else journal_of_unit(guest, deadline=deadline.within(_COLLECT_SECONDS))
        code = nextest_exit_code(status, started=started(report.run), log_tail=log_tail, journal=journal)
        _collect(report, job)
        if code == exit_codes.OK and not report.has_junit and report.summary is None and not log_tail:
            raise UnitFailed(
                "the unit ended well, but nextest said nothing: it cannot have run", details=journal
            )
        if code in (exit_codes.OK, exit_codes.TEST_RUN_FAILED) and not report.has_junit:
            emit(Note(f"nextest left no JUnit report at {job.junit}", "warning"))
        report.exit_code = code


def _collect(report: Report, job: StagedJob) -> None:
    """Read the summary and the JUnit report. Raises UnitFailed where the report is not what a report is."""
    run = report.run
    report.summary = parse_summary(read_end(run.nextest_log, size=_SUMMARY_BYTES))
    try:
        copy_report(run.out, job.junit, run.junit)
    except FileNotFoundError:
        return
    report.cases = parse_cases(run.junit.read_bytes())
    report.has_junit = True


def _collect_what_there_is(report: Report, job: StagedJob) -> None:
    """For a run that was cut short: the reason for that is what will be told, not a report that is missing."""
    try:
        _collect(report, job)
    except VmrunnerError as error:
        log.debug("collect: %s", error)
