"""Get a machine for a run: restored from a memory template where that goes, else booted.

A launch begins before the archive is built and the sources are staged, so that the guest's part of it (most of a second
under TCG, for SSH) goes on beside the host's.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vmrunner.config.model import Config
from vmrunner.errors import BootError, BootTimeout, GuestError, RunTimeout, VmrunnerError
from vmrunner.events import Emit, Note, phase
from vmrunner.guest.key import make_login_key
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu import Qemu
from vmrunner.image.manifest import Image
from vmrunner.machine import templates
from vmrunner.machine.forwarded_ports import tell_forwards
from vmrunner.machine.machine import (
    RESTORED_ANSWERS_SECONDS,
    Machine,
    open_machine,
    restored,
)
from vmrunner.machine.plan import MachinePlan, with_credential
from vmrunner.machine.templates import Template, TemplateUnusable
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.directory import RunDirectory
from vmrunner.run.planning import adjustment_of, can_be_templated, hint_for, plan_machine, preparation_of
from vmrunner.run.seat import MachineFacts, ReadySeat, Start
from vmrunner.run.second_boot import boot_reliably
from vmrunner.run.template_making import TemplateRequest, find, find_or_make


@dataclass(frozen=True)
class LaunchRequest:
    """What is to be launched. `tool` is the nextest to be carried into it, None where the image has one.

    `store` is the Nix store of this host that it may see.
    """

    config: Config
    run: RunDirectory
    image: Image
    qemu: Qemu
    accelerator: Accelerator
    tool: NextestTool | None
    store: Path | None = None

    @property
    def plan(self) -> MachinePlan:
        """The machine, were it booted."""
        return plan_machine(
            self.config,
            image=self.image,
            qemu=self.qemu,
            accelerator=self.accelerator,
            places=self.run.places,
            authorized_key="",
            store=self.store,
        )

    @property
    def template(self) -> TemplateRequest:
        """The template that this machine can be restored from."""
        return TemplateRequest.of(
            self.plan,
            image=self.image,
            qemu=self.qemu,
            tool=self.tool,
            boot_timeout=self.config.boot_timeout,
        )


class Launch:
    """A machine on its way. Made by `launching`."""

    def __init__(self, request: LaunchRequest, *, emit: Emit, deadline: Deadline) -> None:
        self.request = request
        self.run = request.run
        self.image = request.image
        self.tool = request.tool
        plan = request.plan
        self.facts = MachineFacts.of(
            plan,
            name=plan.name,
            image=request.image.manifest.name,
            accelerator_reason=request.accelerator.reason,
            qemu=request.qemu.version,
        )
        self.network = request.config.network
        self.dns = request.config.dns
        self.hostname = request.config.hostname
        self.has_store = request.store is not None
        self.start: Start = "booted"
        self.running_seconds: float | None = None
        self.ready_seconds: float | None = None
        self._began = time.monotonic()
        self._emit = emit
        self._deadline = deadline
        self._stack = ExitStack()
        self._machine: Machine | None = None
        self._login: Future[None] | None = None
        self._template: Template | None = None

    def begin(self) -> None:
        """Start restoring right away where there is a template; called from the main thread, as `start_qemu` wants."""
        if not self._may_be_restored:
            return
        template = find(self.request.template.key, emit=self._emit)
        if template:
            self._try_to_restore(template)

    def ready(self) -> ReadySeat:
        """Wait until the guest is logged in to; a template that does not come up is replaced by a boot.

        Raises BootError and GuestError where the boot fails too, or a restored machine was asked for.
        """
        machine = self._machine_that_answers()
        config = self.request.config
        preparation = replace(preparation_of(config), clock_shift=machine.clock_shift)
        adjusting = adjustment_of(config, machine.plan, rescan=self._template is not None).script()
        prelude = shlex.join(preparation.command_for_run(self.run.id))
        if adjusting:
            # In a shell of its own, whose end is not that of the command which waits for the unit.
            prelude = f"( {adjusting} ) && {prelude}"
        tell_forwards(machine.forwards, self._emit)
        return ReadySeat(machine, self.request.run, prelude, hint_for(config))

    @property
    def _may_be_restored(self) -> bool:
        return self.request.config.start != "booted" and can_be_templated(self.request.config)

    def _machine_that_answers(self) -> Machine:
        if self._login is None and self._may_be_restored:
            template = find_or_make(self.request.template, emit=self._emit, deadline=self._deadline)
            if template:
                self._try_to_restore(template)
            elif self.request.config.start == "restored":
                raise BootError("the machine cannot be restored: there is no memory template for it")
        if self._login is not None:
            try:
                return self._wait_for_login("Waiting for the restored machine")
            except (BootError, GuestError) as error:
                self._give_up(error)
        plan = self.request.plan
        return boot_reliably(plan, lambda: self._boot(plan), emit=self._emit, deadline=self._deadline)

    def _boot(self, plan: MachinePlan) -> Machine:
        # What a boot before this has left.
        self._stack.close()
        self._open(None)
        return self._wait_for_login(f"Booting {self.request.image.manifest.name} under {plan.accelerator}")

    def finish(self, *, failed: bool) -> None:
        """Stop the machine."""
        with phase(self._emit, "stop", "Stopping the machine"):
            self.close()

    def close(self) -> None:
        """Stop the machine, if there is one."""
        self._stack.close()

    def _try_to_restore(self, template: Template) -> None:
        try:
            self._open(template)
        except (BootError, GuestError) as error:
            self._give_up(error)
        except (TemplateUnusable, FileNotFoundError) as error:
            self._give_up(BootError(f"the memory template is gone: {error}"))

    def _give_up(self, error: VmrunnerError) -> None:
        """A template that does not come up is no good to anybody."""
        self._stack.close()
        self._login = None
        if self._deadline.passed or self._template is None:
            raise error
        templates.discard(self.request.template.key)
        if self.request.config.start == "restored":
            raise error
        self._emit(Note(f"the memory template was no good and was thrown away: {error.message}", "warning"))
        self._template = None

    def _open(self, template: Template | None) -> None:
        request = self.request
        self._template = template
        if template:
            self._stack.enter_context(templates.hold(template))
        plan, key = request.plan, make_login_key() if template is None else template.login_key
        plan = with_credential(plan, key.public)
        self.start = "restored" if template else "booted"
        text = "Restoring a machine" if template else "Starting QEMU"
        with phase(self._emit, "start", text):
            self._began = time.monotonic()
            if template:
                plan = restored(plan, template)
            machine = self._stack.enter_context(
                open_machine(
                    plan,
                    login_key=key,
                    qemu_log=request.run.qemu_log,
                    deadline=self._deadline,
                    template=template,
                )
            )
            self.running_seconds = time.monotonic() - self._began
            request.run.remember_qemu(machine.pid)
        seconds = RESTORED_ANSWERS_SECONDS if template else request.config.boot_timeout
        worker = ThreadPoolExecutor(1, "login")
        # Pushed after the machine, so that it is waited for before the machine's end is; stopping ends the login.
        self._stack.callback(worker.shutdown)
        self._stack.callback(machine.stop)
        self._machine = machine
        self._login = worker.submit(self._log_in, machine, self._deadline.within(seconds))

    def _log_in(self, machine: Machine, deadline: Deadline) -> None:
        machine.wait_ready(deadline)
        self.ready_seconds = time.monotonic() - self._began

    def _wait_for_login(self, text: str) -> Machine:
        assert self._machine is not None
        assert self._login is not None
        with phase(self._emit, "connect", text) as current:
            try:
                self._login.result()
            except BootTimeout as error:
                if self._deadline.passed:
                    raise RunTimeout(
                        "the time for the run was up while the guest booted",
                        hint="give it more with `--timeout`", details=error.details,
                    ) from error  # fmt: skip
                raise
            current.text = "SSH answers"
        return self._machine


@contextmanager
def launching(request: LaunchRequest, *, emit: Emit, deadline: Deadline) -> Iterator[Launch]:
    """Begin a launch; its machine is stopped when the block ends, however it ends."""
    launch = Launch(request, emit=emit, deadline=deadline)
    try:
        launch.begin()
        yield launch
    finally:
        launch.close()
