"""The long-lived VMs as a person wants to see them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from vmrunner.errors import VmDamaged
from vmrunner.machine import registry
from vmrunner.machine.registry import Holder
from vmrunner.machine.vm_record import VmRecord, VmState


@dataclass(frozen=True)
class VmListing:
    """One VM as it is now; `record` is None where it is damaged, and `end` says what became of one that died.

    `memory_used` is bytes of this computer's memory that are its own (what it shares with others counts in part).
    """

    name: str
    state: str
    record: VmRecord | None
    memory_used: int | None
    holder: Holder | None
    last_run: Path | None
    end: str | None


def list_vms() -> list[VmListing]:
    """All VMs, by name."""
    return [_describe(name) for name in registry.names()]


def _describe(name: str) -> VmListing:
    try:
        record = registry.find(name)
    except VmDamaged as error:
        return VmListing(name, "damaged", None, None, None, None, error.message)
    state = record.state
    return VmListing(
        name=name,
        state=state.value,
        record=record,
        memory_used=_memory_used(record) if state is VmState.RUNNING else None,
        holder=registry.holder_of(name),
        last_run=registry.last_run(name),
        end=record.end if state is VmState.DIED else None,
    )


def _memory_used(record: VmRecord) -> int | None:
    """The proportional set size, which another user's process does not show; then the resident one."""
    assert record.process is not None
    try:
        process = psutil.Process(record.process.pid)
        try:
            return int(process.memory_full_info().pss)
        except psutil.AccessDenied:
            return int(process.memory_info().rss)
    except psutil.Error:
        return None
