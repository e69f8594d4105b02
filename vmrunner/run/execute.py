"""The main job, top to bottom: archive, image, staging, machine, unit, result."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmrunner.config.model import Config
from vmrunner.errors import BootTimeout, Interrupted, RunTimeout, UnitFailed, VmrunnerError
from vmrunner.events import Emit, Note, Recorder, phase
from vmrunner.guest.key import make_login_key
from vmrunner.guest.unit import journal_of_unit
from vmrunner.host.accelerator import Accelerator, choose_accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.facts import read_facts
from vmrunner.host.files import write_atomically
from vmrunner.host.log_end import read_end, tail
from vmrunner.host.paths import archives_dir
from vmrunner.host.qemu import Qemu, find_qemu
from vmrunner.image.manifest import Image
from vmrunner.image.resolve import resolve_image
from vmrunner.image.store import hold
from vmrunner.machine.machine import Machine, MachineAccess, open_machine
from vmrunner.nextest import exit_codes
from vmrunner.nextest.archive import make_archive
from vmrunner.nextest.arguments import NextestArguments, require_prebuilt, split_arguments
from vmrunner.nextest.extract import ExtractedArchive, extract_archive, prune_archives
from vmrunner.nextest.junit import copy_report, parse_cases
from vmrunner.nextest.preflight import check_archive
from vmrunner.nextest.summary import parse_summary
from vmrunner.nextest.tool import NextestTool, find_nextest
from vmrunner.run.directory import RunDirectory, open_run_directory
from vmrunner.run.follow import follow_unit, started
from vmrunner.run.planning import Places, check_against_host, plan_machine
from vmrunner.run.report import MachineFacts, Report
from vmrunner.run.staging import StagedJob, sources_of, stage_job
from vmrunner.run.verdict import nextest_exit_code

log = logging.getLogger(__name__)

JUNIT_LIMIT = 256 << 20
"""Bytes of a JUnit report that are read at most; it comes from the guest."""

_COLLECT_SECONDS = 60.0
# nextest lists failed tests, which may be many, behind its summary line.
_SUMMARY_BYTES = 4 << 20


@dataclass(frozen=True)
class TestRequest:
    """One call of `vmrunner test`: the settings, where the sources are, what follows `--`, whether colour is wanted."""

    __test__ = False  # not a test case, whatever pytest thinks of its name

    config: Config
    workspace: Path
    nextest_args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    color: bool = False

    @property
    def arguments(self) -> NextestArguments:
        """The configured nextest arguments and those of the command line, told apart. Raises UsageError."""
        arguments = split_arguments((*self.config.nextest_args, *self.nextest_args))
        if self.config.archive:
            require_prebuilt(arguments)
        return arguments


@dataclass(frozen=True)
class Prepared:
    """All that is decided and on this host before a machine is started."""

    image: Image
    qemu: Qemu
    accelerator: Accelerator
    job: StagedJob


def run_tests(request: TestRequest, *, emit: Emit) -> Report:
    """Run the suite in a fresh machine and report; what went wrong is in the report, and raised only if a signal came.

    The report is in the run's directory whatever happened, and everything else is gone.
    """
    with open_run_directory(emit) as run, run.events_log.open("w") as events:
        recorder = Recorder(_logged(emit, events.write))
        report = Report(run, phases=recorder.phases)
        try:
            _run_into(report, request, recorder)
        except VmrunnerError as error:
            report.error = _with_phase(error, recorder)
        except Interrupted as signal:
            report.interrupted = True
            report.exit_code = signal.exit_code
            raise
        finally:
            write_atomically(run.report, json.dumps(report.as_json(), indent=2))
    return report


def _run_into(report: Report, request: TestRequest, emit: Recorder) -> None:
    config, arguments = request.config, request.arguments
    deadline = Deadline.after(config.timeout)
    check_against_host(config, read_facts())
    qemu = find_qemu()
    accelerator = choose_accelerator(config.accel, config.cpu_model, qemu=qemu, emit=emit, deadline=deadline)
    tool = find_nextest(deadline=deadline)
    prune_archives(archives_dir(), deadline=deadline)
    with ExitStack() as stack:
        archive = config.archive or _build_archive(
            request, report.run, tool=tool, emit=emit, deadline=deadline
        )
        extracted = stack.enter_context(
            extract_archive(archive, cache=archives_dir(), emit=emit, deadline=deadline)
        )
        workspace = sources_of(extracted.info, given=request.workspace, built_here=config.archive is None)
        with phase(emit, "image", "Looking for the image") as current:
            image = resolve_image(str(config.image), packages=config.packages, emit=emit, deadline=deadline)
            current.text = f"{image.manifest.name} {image.manifest.digest[:12]}"
        stack.enter_context(hold(image))
        _check_archive(extracted, image)
        job = stage_job(
            config,
            report.run,
            workspace=workspace,
            extracted=extracted,
            tool=None if image.manifest.nextest else tool,
            nextest_args=arguments.run,
            environment=request.environment,
            color=request.color,
            emit=emit,
            deadline=deadline,
        )
        prepared = Prepared(image, qemu, accelerator, job)
        _run_in_machine(report, request, prepared, emit=emit, deadline=deadline)


def _build_archive(
    request: TestRequest, run: RunDirectory, *, tool: NextestTool, emit: Emit, deadline: Deadline
) -> Path:
    return make_archive(
        request.workspace.resolve(),
        tool=tool,
        cargo_args=(*request.config.cargo_args, *request.arguments.build),
        destination=run.scratch / "archive.tar.zst",
        emit=emit,
        deadline=deadline,
        color=request.color,
    )


def _check_archive(extracted: ExtractedArchive, image: Image) -> None:
    manifest = image.manifest
    check_archive(
        extracted,
        guest_architecture=manifest.architecture,
        guest_glibc=manifest.glibc,
        guest_interpreters=manifest.interpreters,
    )


def _run_in_machine(
    report: Report, request: TestRequest, prepared: Prepared, *, emit: Emit, deadline: Deadline
) -> None:
    run, config = report.run, request.config
    key = make_login_key()
    plan = plan_machine(
        config,
        image=prepared.image,
        qemu=prepared.qemu,
        accelerator=prepared.accelerator,
        places=Places(f"vmrunner-{run.id}", run.overlay, run.inbox, run.out, run.serial_log),
        authorized_key=key.public,
    )
    report.machine = MachineFacts(
        plan, prepared.image.manifest.name, prepared.qemu.version, prepared.accelerator.reason
    )
    access = MachineAccess(prepared.image.manifest.ssh_host_key, key)
    with ExitStack() as stack:
        with phase(emit, "start", "Starting QEMU"):
            machine = stack.enter_context(
                open_machine(plan, access=access, qemu_log=run.qemu_log, deadline=deadline)
            )
            run.remember_qemu(machine.pid)
        with phase(
            emit, "connect", f"Booting {prepared.image.manifest.name} under {plan.accelerator}"
        ) as current:
            _wait_ready(machine, config, deadline)
            current.text = "SSH answers"
        _run_unit(report, machine, prepared.job, emit=emit, deadline=deadline)
        with phase(emit, "stop", "Stopping the machine"):
            machine.stop()


def _wait_ready(machine: Machine, config: Config, deadline: Deadline) -> None:
    try:
        machine.wait_ready(deadline.within(config.boot_timeout))
    except BootTimeout as error:
        if deadline.passed:
            raise RunTimeout(
                "the time for the run was up while the guest booted", hint="give it more with `--timeout`",
                details=error.details,
            ) from error  # fmt: skip
        raise


def _run_unit(report: Report, machine: Machine, job: StagedJob, *, emit: Emit, deadline: Deadline) -> None:
    run = report.run
    try:
        status = follow_unit(machine, run, deadline=deadline, emit=emit)
    except (RunTimeout, Interrupted):
        _collect_what_there_is(report, job)
        raise
    with phase(emit, "collect", "Collecting the results"):
        log_tail = tail(run.nextest_log)
        published = status.exited and exit_codes.is_published(status.main_status)
        journal = (
            "" if published else journal_of_unit(machine.guest, deadline=deadline.within(_COLLECT_SECONDS))
        )
        code = nextest_exit_code(status, started=started(run), log_tail=log_tail, journal=journal)
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
        copy_report(run.out, job.junit, run.junit, limit_bytes=JUNIT_LIMIT)
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


def _with_phase(error: VmrunnerError, recorder: Recorder) -> VmrunnerError:
    """Say in which phase the time was up, where the error does not yet."""
    failed = [item.name for item in recorder.phases if item.failed]
    if isinstance(error, RunTimeout) and failed and " while " not in error.message:
        error.message = f"{error.message} (in the phase `{failed[-1]}`)"
    return error


def _logged(emit: Emit, write: Callable[[str], Any]) -> Emit:
    """Also keep each event as one line of JSON; what the tests print is in logs of its own."""

    def both(event: Any) -> None:  # noqa: ANN401 -- one of the event classes
        if not hasattr(event, "stream"):
            write(json.dumps({"event": type(event).__name__, **vars(event)}) + "\n")
        emit(event)

    return both
