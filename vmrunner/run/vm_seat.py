"""A run's place in a long-lived VM: one that is there already, or one that is made to be kept if the tests fail."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vmrunner.config.load import Loaded
from vmrunner.config.model import Config
from vmrunner.errors import BootTimeout, GuestLost, VmrunnerError
from vmrunner.events import Emit, Note, phase
from vmrunner.guest.preparation import Preparation, clear_away_and_arm
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import remove_tree
from vmrunner.host.process_identity import identity_of
from vmrunner.host.signals import shielded
from vmrunner.image.manifest import open_image
from vmrunner.machine import registry
from vmrunner.machine.detached import machine_of
from vmrunner.machine.machine import Machine
from vmrunner.machine.vm_record import VmRecord, VmState, write_record
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.directory import RunDirectory
from vmrunner.run.seat import MachineFacts, ReadySeat, Start
from vmrunner.run.vm_lifecycle import bring_up, reset_vm

_ANSWERS_SECONDS = 60.0


@dataclass(frozen=True)
class VmChoice:
    """The long-lived VM to run in; `reset`: made clean first; `wait`: for a run that has it now."""

    name: str
    reset: bool = False
    wait: bool = True


class VmSeat:
    """A run in a long-lived VM. Made by `seated_in` and `seated_to_keep`."""

    start: Start = "reused"
    running_seconds: float | None = None
    ready_seconds: float | None = None

    def __init__(
        self,
        record: VmRecord,
        run: RunDirectory,
        tool: NextestTool,
        *,
        machine: Machine,
        login: Future[None],
        emit: Emit,
    ) -> None:
        self.run = run
        self.image = open_image(record.image_directory)
        self.tool = None if self.image.manifest.nextest else tool
        self.facts = MachineFacts.of(
            record.plan,
            name=record.name,
            image=record.image,
            accelerator_reason=record.accelerator_reason,
            qemu=record.qemu_version,
        )
        self.network = record.plan.network
        self.dns = record.plan.dns
        self.hostname = record.hostname or None
        self.has_store = record.plan.store is not None
        self.failed = True
        self._record = record
        self._machine = machine
        self._login = login
        self._emit = emit

    def ready(self) -> ReadySeat:
        """Wait for the login, and put the run's files in the place of those of the run before.

        The guest is told to let go of the old files in the same command that starts the unit.
        """
        with phase(self._emit, "connect", f"Logging in to the VM {self._record.name}") as current:
            try:
                self._login.result()
            except BootTimeout as error:
                raise GuestLost(
                    f"the guest of the VM `{self._record.name}` does not answer over SSH",
                    hint=f"`vmrunner reset {self._record.name}` starts it afresh",
                    details=error.details,
                ) from error
            current.text = "SSH answers"
        places = self._record.directory
        _replace_entries(places.inbox, self.run.inbox)
        _replace_entries(places.out, self.run.out)
        run = replace(self.run, share_of_vm=places.out)
        return ReadySeat(
            self._machine,
            run,
            prelude=shlex.join(Preparation().command_for_run(self.run.id, undo=True)),
            way_out="a program that the run before left in the guest may still use its files; "
            "`--reset` makes the VM clean first",
            # A failed run stays as it is, to be looked at.
            afterwards=shlex.join(clear_away_and_arm()),
        )

    def finish(self, *, failed: bool) -> None:
        """Note what came of the run; the VM lives on."""
        self.failed = failed

    def bring_back(self) -> None:
        """Take what the guest left in its share to the run's own directory, whatever it is, links unfollowed."""
        _replace_entries(self.run.path / "out", self._record.directory.out)


@contextmanager
def seated_in(
    choice: VmChoice, run: RunDirectory, tool: NextestTool, *, emit: Emit, deadline: Deadline
) -> Iterator[VmSeat]:
    """Have the VM for one run; another run that has it is waited for.

    Raises UsageError where there is no such VM, VmNotRunning where it does not run, VmBusy where a run has it that is
    not to be waited for.
    """
    registry.find(choice.name)
    with (
        registry.holding(choice.name, wait=choice.wait, run_id=run.id, emit=emit, deadline=deadline),
        ExitStack() as stack,
    ):
        if choice.reset:
            reset_vm(choice.name, force=True, emit=emit, deadline=deadline)
        record = registry.find_running(choice.name)
        registry.note_run(choice.name, run.path)
        machine = stack.enter_context(machine_of(record, deadline=deadline))
        worker = ThreadPoolExecutor(1, "login")
        stack.callback(worker.shutdown)
        stack.callback(machine.guest.close)
        login = worker.submit(machine.wait_ready, deadline.within(_ANSWERS_SECONDS))
        seat = VmSeat(record, run, tool, machine=machine, login=login, emit=emit)
        stack.callback(seat.bring_back)
        yield seat


@contextmanager
def seated_to_keep(
    config: Config, run: RunDirectory, tool: NextestTool, *, emit: Emit, deadline: Deadline
) -> Iterator[VmSeat]:
    """Make a VM for the run, which stays where the settings say so and else is gone when the block ends.

    Until then it is this process's: where that is killed, the next vmrunner removes the VM.
    """
    name = f"run-{run.id}"
    made = bring_up(
        name, Loaded(config, {}, None), emit=emit, deadline=deadline, owner=identity_of(os.getpid())
    )
    keep = False
    try:
        with seated_in(VmChoice(name), run, tool, emit=emit, deadline=deadline) as seat:
            seat.start = made.start
            yield seat
        keep = seat.failed or config.keep == "always"
    except VmrunnerError:
        keep = True
        raise
    finally:
        with shielded():
            if keep and registry.find(name).state is VmState.RUNNING:
                _leave(name, emit)
            else:
                with registry.changing(name, emit=emit):
                    registry.erase(name)


def _leave(name: str, emit: Emit) -> None:
    with registry.changing(name, emit=emit):
        write_record(registry.find(name).changed(owner=None))
    emit(
        Note(
            f"the machine is kept: get in with `vmrunner ssh {name}`, remove it with `vmrunner rm -f {name}`"
        )
    )


def _replace_entries(destination: Path, source: Path) -> None:
    """Move all that is in `source` into `destination`, in the place of what is there. Both are on one file system.

    Names are moved, not opened: what a guest made is not followed.
    """
    for old in destination.iterdir():
        if old.is_dir() and not old.is_symlink():
            remove_tree(old)
        else:
            old.unlink()
    for new in source.iterdir():
        new.rename(destination / new.name)
