"""Start a long-lived VM: clean (from a memory template, else by a boot of its image), or from its own disk."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vmrunner.config.model import Config
from vmrunner.errors import BootError, GuestError, HostError, ImageDamaged, VmDamaged
from vmrunner.events import Emit, Note, phase
from vmrunner.guest.adjustment import Adjustment, adjust
from vmrunner.guest.key import LoginKey, make_login_key
from vmrunner.guest.preparation import Preparation
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import write_atomically
from vmrunner.host.paths import private
from vmrunner.host.process_identity import ProcessIdentity, identity_of
from vmrunner.host.qemu import Qemu, find_qemu
from vmrunner.host.sparse_copy import link_or_copy
from vmrunner.image.manifest import Image, open_image
from vmrunner.image.request import ImageRequest
from vmrunner.image.resolve import resolve_image
from vmrunner.machine import templates
from vmrunner.machine.detached import start_detached
from vmrunner.machine.device_state import SavedState
from vmrunner.machine.disk_files import make_extra_disks, make_overlay
from vmrunner.machine.forwarded_ports import tell_forwards
from vmrunner.machine.machine import RESTORED_ANSWERS_SECONDS
from vmrunner.machine.memory_file import copy_memory, memory_from
from vmrunner.machine.plan import MachinePlan, with_credential
from vmrunner.machine.templates import Template, TemplateUnusable
from vmrunner.machine.vm_record import VmDirectory, VmRecord, with_sockets, write_record
from vmrunner.nextest.tool import NextestTool, find_nextest
from vmrunner.run.emulator import choose_emulator
from vmrunner.run.host_store import shared_store
from vmrunner.run.planning import Places, adjustment_of, can_be_templated, plan_machine, preparation_of
from vmrunner.run.requirements import check_settings
from vmrunner.run.second_boot import boot_reliably
from vmrunner.run.template_making import TemplateRequest, find_or_make
from vmrunner.run.vm_settings import config_of, kept_settings


@dataclass(frozen=True)
class VmOrder:
    """A VM that is to be made, with all that had to be looked for.

    `preparation` holds its names, `store` is the Nix store of this host that it may see.
    """

    name: str
    config: Config
    image: Image
    qemu: Qemu
    accelerator: Accelerator
    tool: NextestTool | None
    preparation: Preparation
    store: Path | None
    created: float
    owner: ProcessIdentity | None = None

    @property
    def directory(self) -> VmDirectory:
        """Where its files are."""
        return VmDirectory(self.name)


def order_vm(
    name: str, config: Config, *, owner: ProcessIdentity | None, emit: Emit, deadline: Deadline
) -> VmOrder:
    """Look for all that a new VM needs; its image is built where there is none yet.

    Raises HostError, ImageError, ConfigError where it cannot be had.
    """
    check_settings(config)
    qemu, accelerator = choose_emulator(config, emit=emit, deadline=deadline)
    with phase(emit, "image", "Looking for the image") as current:
        image = resolve_image(ImageRequest.of(config), emit=emit, deadline=deadline)
        current.text = image.label
    return VmOrder(
        name, config, image, qemu, accelerator, _tool_for(image, deadline), preparation_of(config),
        shared_store(config, None), created=time.time(), owner=owner,
    )  # fmt: skip


def order_again(record: VmRecord, *, deadline: Deadline) -> VmOrder:
    """The order for a VM that there is, to be made anew with the same settings. Raises ImageError, HostError."""
    plan, image = record.plan, open_image(record.image_directory)
    return VmOrder(
        record.name, config_of(record), image, find_qemu(),
        Accelerator(plan.accelerator, plan.cpu_model, record.accelerator_reason, "", ()),
        _tool_for(image, deadline), Preparation(hostname=record.hostname, machine_id=record.machine_id),
        plan.store, created=record.created, owner=record.owner,
    )  # fmt: skip


def plan_again(record: VmRecord, config: Config, *, deadline: Deadline) -> MachinePlan:
    """The machine of a VM that there is, as `config` has it, over the disk that it has."""
    plan = _plan(replace(order_again(record, deadline=deadline), config=config))
    disk = replace(record.plan.disk, size=max(record.plan.disk.size, config.disk))
    return replace(plan, disk=disk, credentials=record.plan.credentials, long_lived=record.plan.long_lived)


def start_clean(order: VmOrder, *, emit: Emit, deadline: Deadline) -> VmRecord:
    """Make the VM's disk and start it, restored where that goes and is not ruled out by the settings.

    Raises BootError and GuestError where it does not come up, and then nothing of it runs.
    """
    how = order.config.start
    plan = _plan(order)
    request = TemplateRequest.of(
        plan, image=order.image, qemu=order.qemu, tool=order.tool, boot_timeout=order.config.boot_timeout
    )
    template = (
        None
        if how == "booted" or not can_be_templated(order.config)
        else find_or_make(request, emit=emit, deadline=deadline)
    )
    if template:
        try:
            return _restore(order, plan, template, emit=emit, deadline=deadline)
        except (BootError, GuestError, TemplateUnusable) as error:
            if how == "restored" or deadline.passed:
                raise BootError(f"the VM `{order.name}` cannot be restored: {error}") from error
            templates.discard(request.key)
            emit(Note(f"the memory template was thrown away, and the VM boots: {error}", "warning"))
    elif how == "restored":
        raise BootError(
            f"the VM `{order.name}` cannot be restored: there is no memory template for it",
            hint="`--start auto` boots it where it cannot be restored",
        )
    return _boot_clean(order, plan, emit=emit, deadline=deadline)


def start_from_disk(record: VmRecord, *, boot_timeout: float, emit: Emit, deadline: Deadline) -> VmRecord:
    """Boot a VM that does not run, from its disk as it is. Raises ImageDamaged and VmDamaged where files are gone."""
    for path in (record.plan.boot.kernel, record.plan.disk.backing_file):
        if not path.exists() and not path.is_relative_to(record.directory.path):
            raise ImageDamaged(
                f"the image that the VM `{record.name}` lies on is gone: there is no {path}",
                hint=f"`vmrunner image build` may bring it back; else only `vmrunner rm {record.name}` is left",
            )
    if not record.plan.disk.overlay.exists():
        raise VmDamaged(
            f"the disk of the VM `{record.name}` is gone: there is no {record.plan.disk.overlay}",
            hint=f"`vmrunner reset {record.name}` gives it a clean one",
        )
    plan = with_sockets(record.plan, record.directory)
    make_extra_disks(plan, deadline=deadline, anew=False)
    preparation = Preparation(hostname=record.hostname, machine_id=record.machine_id)
    starting = record.changed(plan=plan)
    adjustment = adjustment_of(config_of(record), plan, rescan=False)
    return boot_reliably(plan, lambda: start_vm(
        starting, plan, saved=None, start="booted", answers_in=boot_timeout, preparation=preparation,
        adjustment=adjustment, emit=emit, deadline=deadline,
    ), emit=emit, deadline=deadline)  # fmt: skip


def start_vm(
    record: VmRecord,
    plan: MachinePlan,
    *,
    saved: SavedState | None,
    start: Literal["restored", "booted"],
    answers_in: float,
    preparation: Preparation,
    adjustment: Adjustment,
    emit: Emit,
    deadline: Deadline,
) -> VmRecord:
    """Start QEMU with `plan`, wait for the guest, prepare it, and keep the record up to date meanwhile."""
    directory = record.directory
    directory.serial_log.touch(0o600)
    serial_start = directory.serial_log.stat().st_size
    private(directory.out)
    private(directory.inbox)
    with ExitStack() as stack:
        with phase(emit, "start", "Restoring the VM" if saved else "Starting QEMU"):
            opened = start_detached(
                plan, login_key=record.login_key, qemu_log=directory.qemu_log, deadline=deadline, saved=saved
            )
            machine = stack.enter_context(opened)
            started = record.changed(
                process=identity_of(machine.pid), ssh_port=machine.ssh_port, wanted="running", start=start,
                forwards=tuple(map(str, machine.forwards)),
                started_at=time.time(), serial_start=serial_start,
            )  # fmt: skip
            write_record(started)
        tell_forwards(machine.forwards, emit)
        with phase(emit, "connect", "Waiting for the guest") as current:
            machine.wait_ready(deadline.within(answers_in))
            machine.prepare(replace(preparation, clock_shift=machine.clock_shift), deadline=deadline)
            adjust(machine.guest, adjustment, deadline=deadline)
            current.text = "SSH answers"
    return started


def _restore(
    order: VmOrder, plan: MachinePlan, template: Template, *, emit: Emit, deadline: Deadline
) -> VmRecord:
    with templates.hold(template):
        base = order.directory.base(template.record.key)
        link_or_copy(template.disk, base)
        plan = replace(plan, disk=replace(plan.disk, backing_file=base, backing_format="qcow2"))
        record = _new_record(order, plan, template.login_key, template.record.key, deadline)
        incoming = replace(record.plan, memory_file=memory_from(template, plan), incoming=True)
        copy_memory(template, incoming)
        return start_vm(
            record, incoming, saved=template.saved, start="restored", answers_in=RESTORED_ANSWERS_SECONDS,
            preparation=order.preparation, adjustment=adjustment_of(order.config, plan, rescan=True), emit=emit,
            deadline=deadline,
        )  # fmt: skip


def _boot_clean(order: VmOrder, plan: MachinePlan, *, emit: Emit, deadline: Deadline) -> VmRecord:
    def boot() -> VmRecord:
        record = _new_record(order, plan, make_login_key(), None, deadline)
        return start_vm(
            record, record.plan, saved=None, start="booted", answers_in=order.config.boot_timeout,
            preparation=order.preparation, adjustment=adjustment_of(order.config, plan, rescan=False), emit=emit,
            deadline=deadline,
        )  # fmt: skip

    return boot_reliably(plan, boot, emit=emit, deadline=deadline)


def _new_record(
    order: VmOrder, plan: MachinePlan, key: LoginKey, template_key: str | None, deadline: Deadline
) -> VmRecord:
    """Put disk and key in their places. The record of a new VM is written when QEMU runs."""
    directory = order.directory
    directory.disk.unlink(missing_ok=True)
    make_overlay(plan.disk, qemu_img=plan.qemu.with_name("qemu-img"), deadline=deadline)
    make_extra_disks(plan, deadline=deadline)
    write_atomically(directory.login_key, key.private)
    manifest = order.image.manifest
    record = VmRecord(
        name=order.name, created=order.created, settings=kept_settings(order.config),
        image=manifest.name, image_directory=order.image.directory, image_digest=manifest.digest,
        public_key=key.public, qemu_version=order.qemu.version,
        accelerator_reason=order.accelerator.reason, plan=with_credential(plan, key.public),
        hostname=order.preparation.hostname, machine_id=order.preparation.machine_id,
        template_key=template_key, wanted="running", start="booted", started_at=time.time(), process=None,
        ssh_port=0, owner=order.owner,
    )  # fmt: skip
    if directory.record.exists():
        # An older record would not go with the new key and disk, should QEMU not start now.
        write_record(record.changed(wanted="stopped"))
    return record


def _plan(order: VmOrder) -> MachinePlan:
    """The machine as it boots from a clean disk."""
    directory = order.directory
    places = Places(
        f"vmrunner-{order.name}", directory.disk, directory.inbox, directory.out, directory.serial_log
    )
    plan = plan_machine(
        order.config, image=order.image, qemu=order.qemu, accelerator=order.accelerator, places=places,
        authorized_key="", store=order.store, lives_long=True,
    )  # fmt: skip
    return with_sockets(plan, directory)


def _tool_for(image: Image, deadline: Deadline) -> NextestTool | None:
    """The nextest that templates of this image carry; a VM can do without where this computer has none."""
    if image.manifest.nextest:
        return None
    try:
        return find_nextest(deadline=deadline)
    except HostError:
        return None
