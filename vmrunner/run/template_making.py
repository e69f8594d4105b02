"""Make a memory template: boot a machine, warm it, undo what warmed it, and keep it as files.

What is read, linked and cached by one login, the mounts and one run of the unit is in the memory of every machine that
is restored afterwards; without it each of them would pay for that again (a second and more under TCG, measured).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from vmrunner.config.units import Duration, Size
from vmrunner.errors import GuestError, HostError, VmrunnerError, in_full
from vmrunner.events import Emit, Note, phase
from vmrunner.guest.clock import ClockReading, read_clock
from vmrunner.guest.kernel_health import check_kernel
from vmrunner.guest.key import LoginKey, make_login_key
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.guest.undo import clear_away
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import remove_tree, sync_files
from vmrunner.host.keyed_store import bytes_on_disk
from vmrunner.host.qemu import Qemu
from vmrunner.image.manifest import Image
from vmrunner.machine import registry, templates
from vmrunner.machine.device_state import StateNotTransferred, save_state
from vmrunner.machine.disk_files import make_overlay
from vmrunner.machine.machine import Machine, open_machine
from vmrunner.machine.monitor import CommandRefused, MonitorLost
from vmrunner.machine.plan import MachinePlan, MemoryFile, with_credential, with_shares
from vmrunner.machine.template_key import shape_of, template_key
from vmrunner.machine.templates import Template, TemplateRecord, TemplateUnusable
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.rehearse import rehearse, write_rehearsal
from vmrunner.run.second_boot import boot_reliably

_REHEARSAL_SECONDS = 60.0
_SAVE_SECONDS = 60.0
# An idle guest takes 3.5 % of a CPU under TCG (measured); it is idle when two looks in a row say so.
_IDLE_PERCENT = 12.0
_IDLE_SECONDS = 15.0
_LOOK_SECONDS = 0.25
# A guest that calibrated its clock on a busy host may run wrong for good; nextest's times would be wrong in every run.
_TOLERATED_DRIFT = 0.02
_DISK_RESERVE = 1 << 30


@dataclass(frozen=True)
class TemplateRequest:
    """What a template is made for: machines like `plan` on `image`.

    `tool` is put into the guest where the image has no nextest of its own.
    """

    key: str
    plan: MachinePlan
    image: Image
    qemu_version: str
    tool: NextestTool | None
    boot_timeout: Duration

    @classmethod
    def of(
        cls, plan: MachinePlan, *, image: Image, qemu: Qemu, tool: NextestTool | None, boot_timeout: Duration
    ) -> TemplateRequest:
        """The request, with the key that all machines have in common that can come from the same template."""
        tools = {"nextest": tool.identity} if tool else {}
        key = template_key(plan, image_digest=image.manifest.digest, guest_tools=tools)
        return cls(key, plan, image, qemu.version, tool, boot_timeout)


def find_or_make(request: TemplateRequest, *, emit: Emit, deadline: Deadline) -> Template | None:
    """The template of that key; made first where there is none. None where it cannot be made: a note says why.

    Where another process makes it, this one waits for it.
    """
    waiting = Note("another vmrunner makes the memory template for this machine; waiting for it")
    with templates.making_lock(request.key, deadline=deadline, on_wait=lambda: emit(waiting)):
        found = find(request.key, emit=emit)
        if found:
            return found
        try:
            templates.prune(keep=registry.references())
            _check_room(request.plan)
            boot_reliably(
                request.plan,
                lambda: _make(request, emit, deadline),
                also=(GuestError,),
                emit=emit,
                deadline=deadline,
            )
            return find(request.key, emit=emit)
        except (
            VmrunnerError,
            OSError,
            ConnectionLost,
            MonitorLost,
            CommandRefused,
            StateNotTransferred,
        ) as error:
            if deadline.passed:
                raise
            emit(
                Note(f"no memory template could be made, so this machine boots: {in_full(error)}", "warning")
            )
            return None


def find(key: str, *, emit: Emit) -> Template | None:
    """The template of that key if there is one; one that is no good is thrown away, with a note."""
    try:
        return templates.find_template(key)
    except TemplateUnusable as error:
        emit(Note(f"the memory template {key[:12]} is no good and was thrown away: {error}", "warning"))
        templates.discard(key)
        return None


def _check_room(plan: MachinePlan) -> None:
    """A guest that writes to memory for which the disk has no room takes QEMU down with it (SIGBUS)."""
    needed = int(plan.memory) + _DISK_RESERVE
    free = shutil.disk_usage(templates.directory()).free
    if free < needed:
        raise HostError(
            f"it may take {Size(needed).for_people()}, and {Size(free).for_people()} are free in {templates.directory()}"
        )


def _make(request: TemplateRequest, emit: Emit, deadline: Deadline) -> None:
    key = make_login_key()
    text = "Making a memory template, once for this image and machine"
    with phase(emit, "template", text) as current, templates.making(request.key) as directory:
        (directory / "login-key").touch(0o600)
        (directory / "login-key").write_text(key.private)
        clock = _boot_and_save(_plan_in(directory, request.plan, key), request, directory, key, deadline)
        for share in ("in", "out"):
            remove_tree(directory / share)
        (directory / "host-key").unlink()
        final_disk = templates.path_of(request.key) / "disk.qcow2"
        make_overlay(
            replace(request.plan.disk, overlay=directory / "overlay.qcow2", backing_file=final_disk,
                    backing_format="qcow2"),
            qemu_img=request.plan.qemu.with_name("qemu-img"), unchecked=True, deadline=deadline,
        )  # fmt: skip
        sync_files(directory)
        templates.finish_template(directory, _record(request, key, clock))
        current.text = f"{Size(bytes_on_disk(directory)).for_people()}"


def _plan_in(directory: Path, plan: MachinePlan, key: LoginKey) -> MachinePlan:
    """The plan of the machine that is to be saved: memory and disk in `directory`, which is not final yet."""
    for name in ("in", "out"):
        (directory / name).mkdir(mode=0o700)
    for name in ("ram", "serial.log"):
        (directory / name).touch(0o600)
    return replace(
        with_credential(
            with_shares(shape_of(plan), inbox=directory / "in", out=directory / "out"), key.public
        ),
        name="vmrunner-template",
        disk=replace(plan.disk, overlay=directory / "disk.qcow2"),
        memory_file=MemoryFile(directory / "ram", shared=True),
        serial_log=directory / "serial.log",
    )


def _boot_and_save(
    plan: MachinePlan, request: TemplateRequest, directory: Path, key: LoginKey, deadline: Deadline
) -> float:
    """Boot, warm, undo, save; returns what the guest's clock showed when it was stopped."""
    write_rehearsal(directory / "in", request.tool)
    with open_machine(plan, login_key=key, qemu_log=directory / "qemu.log", deadline=deadline) as machine:
        machine.wait_ready(deadline.within(request.boot_timeout))
        within = deadline.within(_REHEARSAL_SECONDS)
        machine.guest.execute(["systemctl", "is-system-running", "--wait"], deadline=within)
        first = read_clock(machine.guest, deadline=within)
        rehearse(machine.guest, request.tool, out=directory / "out", deadline=within)
        clear_away(machine.guest, deadline=within)
        second = read_clock(machine.guest, deadline=within)
        _check_drift(first, second)
        # What its bug has killed would be missing in every run.
        check_kernel(machine.guest, deadline=within)
        machine.guest.disconnect()
        _wait_idle(machine, Deadline.after(_IDLE_SECONDS))
        machine.check_alive()
        stopped_at = save_state(
            machine.monitor, directory / "state", memory_apart=True, deadline=deadline.within(_SAVE_SECONDS)
        )
    return stopped_at + second.offset


def _check_drift(first: ClockReading, second: ClockReading) -> None:
    passed = second.at - first.at
    drift = abs(second.offset - first.offset) - first.uncertainty - second.uncertainty
    if passed > 0 and drift / passed > _TOLERATED_DRIFT:
        raise HostError(
            f"the guest's clock went wrong by {drift:.2f} s in {passed:.1f} s",
            hint="the host was too busy while the guest booted; the next run tries again",
        )


def _wait_idle(machine: Machine, deadline: Deadline) -> None:
    """Until the guest does nothing any more, as the host sees it; a guest that never rests is saved as it is."""
    import psutil  # 40 ms, and only whoever makes a template needs it

    process = psutil.Process(machine.pid)
    process.cpu_percent()
    quiet = 0
    while quiet < 2 and deadline.pause(_LOOK_SECONDS):
        quiet = quiet + 1 if process.cpu_percent() < _IDLE_PERCENT else 0


def _record(request: TemplateRequest, key: LoginKey, clock: float) -> TemplateRecord:
    plan = request.plan
    return TemplateRecord(
        key=request.key,
        image=request.image.manifest.name,
        image_directory=request.image.directory,
        accelerator=plan.accelerator,
        qemu_version=request.qemu_version,
        cpus=plan.cpus,
        memory=int(plan.memory),
        public_key=key.public,
        guest_clock=clock,
        files={},
    )
