"""The main job, top to bottom: archive, image, staging, machine, unit, result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmrunner.config.model import Config
from vmrunner.errors import Interrupted, RunTimeout, UsageError, VmrunnerError
from vmrunner.events import Emit, Recorder, silent
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import write_atomically
from vmrunner.host.paths import archives_dir
from vmrunner.image.manifest import Image
from vmrunner.nextest import exit_codes
from vmrunner.nextest.archive import make_archive
from vmrunner.nextest.arguments import NextestArguments, option_value, require_prebuilt, split_arguments
from vmrunner.nextest.extract import ExtractedArchive, extract_archive, prune_archives
from vmrunner.nextest.tool import NextestTool, find_nextest
from vmrunner.run.directory import RunDirectory, open_run_directory
from vmrunner.run.fitness import Fitness
from vmrunner.run.follow import Cancellation
from vmrunner.run.host_store import lays_store, shared_store
from vmrunner.run.new_machines import NewMachines
from vmrunner.run.phase_limits import PhaseLimits
from vmrunner.run.report import Report
from vmrunner.run.seat import Seat
from vmrunner.run.shards import Shard, partition_arguments, run_shards
from vmrunner.run.staging import sources_of, stage_job
from vmrunner.run.suite import run_suite
from vmrunner.run.vm_seat import VmChoice, seated_in, seated_to_keep


@dataclass(frozen=True)
class TestRequest:
    """One call of `vmrunner test`: the settings, where the sources are, what follows `--`, whether colour is wanted."""

    __test__ = False  # not a test case, whatever pytest thinks of its name

    config: Config
    workspace: Path
    nextest_args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    color: bool = False
    vm: VmChoice | None = None

    @property
    def arguments(self) -> NextestArguments:
        """The configured nextest arguments and those of the command line, told apart. Raises UsageError."""
        arguments = split_arguments((*self.config.nextest_args, *self.nextest_args))
        if self.config.archive:
            require_prebuilt(arguments)
        if self.config.shards > 1:
            self._check_shards(arguments)
        return arguments

    def _check_shards(self, arguments: NextestArguments) -> None:
        if option_value(arguments.run, "--partition"):
            raise UsageError(
                "`--partition` is how the shards share the tests, so it cannot be given with `--shards`",
                hint="leave out one of the two",
            )
        if self.vm or self.config.keep != "never":
            raise UsageError(
                "each shard has a machine of its own, which is gone after the run",
                hint="leave out `--shards`, or `--vm` and `--keep`",
            )


def run_tests(request: TestRequest, *, emit: Emit) -> Report:
    """Run the suite in a fresh machine and report; what went wrong is in the report, and raised only if a signal came.

    The report is in the run's directory whatever happened, and everything else is gone.
    """
    with open_run_directory(emit) as run, run.events_log.open("w") as events:
        limits = PhaseLimits(request.config.phase_timeouts)
        recorder = Recorder(limits.watching(_logged(emit, events.write)))
        report = Report(run, phases=recorder.phases)
        try:
            _run_into(report, request, limits, recorder)
        except VmrunnerError as error:
            report.error = limits.told(_with_phase(error, recorder))
        except Interrupted as signal:
            report.interrupted = True
            report.exit_code = signal.exit_code
            raise
        finally:
            write_atomically(run.report, json.dumps(report.as_json(), indent=2))
    return report


def _run_into(report: Report, request: TestRequest, limits: PhaseLimits, emit: Recorder) -> None:
    """The run, in the order in which its parts need each other; the machines are on their way while the host works."""
    config, arguments = request.config, request.arguments
    deadline = limits.deadline(config.timeout)
    tool = find_nextest(deadline=deadline)
    with ExitStack() as stack:
        seats = _seats_in_vms(request, report.run, tool, stack=stack, emit=emit, deadline=deadline)
        machines = None if seats else NewMachines(report.run, config, tool, emit=emit, deadline=deadline)
        if machines and machines.image and _has_to_build(request) and config.nix_store != "copy":
            seats = machines.launch(machines.image, stack, store=shared_store(config, None))
        extracted = stack.enter_context(
            _extracted(request, arguments, report.run, tool=tool, emit=emit, deadline=deadline)
        )
        report.seat = next(iter(seats), None)
        workspace = sources_of(extracted.info, given=request.workspace, built_here=config.archive is None)
        fitness = Fitness(
            config, arguments, extracted, workspace=workspace, tool=tool, environment=request.environment
        )
        # An archive that does not fit is refused before a machine is started for it.
        image = _image_of(seats, machines)
        fitness.check(image, emit=emit)
        if machines and not seats:
            seats = _launched(machines, image, fitness, config, stack)
            report.seat = seats[0]
        fitness.require_store(shared=seats[0].has_store)
        shards = [
            _staged(
                request, arguments, extracted, seat, (index, len(seats)), workspace=workspace,
                host_store=lays_store(config, fitness.needs, shared=seat.has_store), emit=emit, deadline=deadline,
            )
            for index, seat in enumerate(seats, start=1)
        ]  # fmt: skip
        _run_staged(report, shards, limits, emit=emit, deadline=deadline)


def _launched(
    machines: NewMachines, image: Image, fitness: Fitness, config: Config, stack: ExitStack
) -> Sequence[Seat]:
    """Begin to launch the machines with what the archive needs of this host's Nix store."""
    if fitness.store_paths_to_copy:
        image = machines.build_image(store_paths=fitness.store_paths_to_copy)
        fitness.check(image, emit=silent)
    store = shared_store(config, fitness.needs)
    fitness.require_store(shared=store is not None)
    return machines.launch(image, stack, store=store)


def _run_staged(
    report: Report, shards: Sequence[Shard], limits: PhaseLimits, *, emit: Emit, deadline: Deadline
) -> None:
    if len(shards) == 1:
        run_suite(
            report, shards[0].seat.ready(), shards[0].job,
            emit=emit, deadline=deadline, cancellation=Cancellation(),
        )  # fmt: skip
    else:
        run_shards(report, shards, limits, emit=emit, deadline=deadline)
    limits.check()
    for shard in shards:
        shard.seat.finish(failed=report.exit_code != exit_codes.OK)


def _seats_in_vms(
    request: TestRequest,
    run: RunDirectory,
    tool: NextestTool,
    *,
    stack: ExitStack,
    emit: Emit,
    deadline: Deadline,
) -> Sequence[Seat]:
    """The run's place in a long-lived VM where that is wanted, else none; `stack` lets go of it."""
    if request.vm:
        return [stack.enter_context(seated_in(request.vm, run, tool, emit=emit, deadline=deadline))]
    if request.config.keep != "never":
        kept = seated_to_keep(request.config, run, tool, emit=emit, deadline=deadline)
        return [stack.enter_context(kept)]
    return []


def _has_to_build(request: TestRequest) -> bool:
    """Whether cargo has anything to build first; else no machine needs to be on its way."""
    there = request.workspace.resolve()
    return request.config.archive is None and any(
        (directory / "Cargo.toml").is_file() for directory in (there, *there.parents)
    )


def _image_of(seats: Sequence[Seat], machines: NewMachines | None) -> Image:
    """The image of the machines that are on their way, or of those that will be; it is built where it has to be."""
    if machines is None or seats:
        return seats[0].image
    return machines.image or machines.build_image()


@contextmanager
def _extracted(
    request: TestRequest,
    arguments: NextestArguments,
    run: RunDirectory,
    *,
    tool: NextestTool,
    emit: Emit,
    deadline: Deadline,
) -> Iterator[ExtractedArchive]:
    prune_archives(archives_dir(), deadline=deadline)
    archive = request.config.archive or _build_archive(
        request, arguments, run, tool=tool, emit=emit, deadline=deadline
    )
    with extract_archive(archive, cache=archives_dir(), emit=emit, deadline=deadline) as extracted:
        yield extracted


def _staged(
    request: TestRequest,
    arguments: NextestArguments,
    extracted: ExtractedArchive,
    seat: Seat,
    part: tuple[int, int],
    *,
    workspace: Path,
    host_store: bool,
    emit: Emit,
    deadline: Deadline,
) -> Shard:
    """Stage one machine's share of the suite: `part` is which one of how many."""
    config = request.config.model_copy(
        update={"network": seat.network, "dns": seat.dns, "hostname": seat.hostname}
    )
    job = stage_job(
        config,
        seat.run,
        workspace=workspace,
        extracted=extracted,
        tool=seat.tool,
        # First, for behind a `--` of the user's it would be for the tests.
        nextest_args=(*partition_arguments(*part), *arguments.run),
        environment=request.environment,
        color=request.color,
        emit=emit,
        deadline=deadline,
        host_store=host_store,
    )
    return Shard(*part, seat, job)


def _build_archive(
    request: TestRequest,
    arguments: NextestArguments,
    run: RunDirectory,
    *,
    tool: NextestTool,
    emit: Emit,
    deadline: Deadline,
) -> Path:
    return make_archive(
        request.workspace.resolve(),
        tool=tool,
        cargo_args=(*request.config.cargo_args, *arguments.build),
        destination=run.scratch / "archive.tar.zst",
        emit=emit,
        deadline=deadline,
        color=request.color,
    )


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
