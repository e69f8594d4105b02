"""`vmrunner tune`: change a long-lived VM while it runs, and keep the changes for its next start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vmrunner.config.cpu_values import percent_of, pins_of
from vmrunner.config.model import Config
from vmrunner.config.network_values import bits_of
from vmrunner.config.units import Size
from vmrunner.errors import BootTimeout, ConfigError, GuestLost, HostError, UsageError
from vmrunner.events import Emit, phase
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.host.deadline import Deadline
from vmrunner.host.facts import read_facts
from vmrunner.host.limits import read_limits
from vmrunner.machine import registry
from vmrunner.machine.detached import machine_of
from vmrunner.machine.machine import Machine
from vmrunner.machine.monitor import CommandRefused, MonitorLost
from vmrunner.machine.tuning import cpus, disk, memory, network, threads
from vmrunner.machine.tuning.change import Change
from vmrunner.machine.vm_record import VmRecord, VmState, write_record
from vmrunner.run.requirements import check_limits, check_together
from vmrunner.run.vm_disk import grown_plan
from vmrunner.run.vm_settings import config_of, kept_settings
from vmrunner.run.vm_start import plan_again

LIVE: Final = (
    "cpus", "memory", "disk", "disk_limits", "net_rate", "net_delay", "cpu_pin", "cpu_weight", "cpu_quota", "nice",
)  # fmt: skip
"""The settings that can be changed while a VM runs; all others take a restart."""

_IN_GUEST: Final = {"cpus", "memory", "disk", "net_rate", "net_delay"}
_ANSWERS_SECONDS: Final = 30.0


@dataclass(frozen=True)
class TuneRequest:
    """What is to be changed: `wanted` is a Config of which the fields in `fields` count."""

    wanted: Config
    fields: frozenset[str]
    link: network.Link | None = None
    persist: bool = False


def tune_vm(name: str, request: TuneRequest, *, emit: Emit, deadline: Deadline) -> list[Change]:
    """Make the changes and tell what was read back; nothing is changed where one of them is impossible.

    Raises UsageError where there is no such VM, VmNotRunning, VmBusy while a test run has it, ConfigError for what is
    impossible or takes a restart, GuestError where the guest does not follow.
    """
    if not request.fields and request.link is None:
        raise UsageError("nothing to change", hint=f"for example `vmrunner tune {name} --cpus 1`")
    with registry.changing(name, emit=emit):
        record = registry.find(name)
        registry.refuse_held(name, doing="tuned", way_out="wait for its end")
        after = _settings_after(record, request)
        _check(record, request, after)
        changes: list[Change] = []
        if record.state is VmState.RUNNING or not request.persist:
            record, changes = _change_running(
                registry.find_running(name), request, emit=emit, deadline=deadline
            )
        if request.persist:
            write_record(
                record.changed(
                    plan=plan_again(record, after, deadline=deadline), settings=kept_settings(after)
                )
            )
        return changes


def _settings_after(record: VmRecord, request: TuneRequest) -> Config:
    """The VM's settings with the changes; pins are added to those that there are."""
    old = config_of(record)
    changed = {field: getattr(request.wanted, field) for field in request.fields}
    if "cpu_pin" in changed:
        changed["cpu_pin"] = {**old.cpu_pin, **changed["cpu_pin"]}
    return Config.model_validate({**{field: getattr(old, field) for field in Config.model_fields}, **changed})


def _check(record: VmRecord, request: TuneRequest, after: Config) -> None:
    restart = sorted(request.fields.difference(LIVE))
    if restart and not request.persist:
        names = ", ".join(f"`{field.replace('_', '-')}`" for field in restart)
        raise ConfigError(
            f"{names} cannot be changed while the VM `{record.name}` runs",
            hint=f"add `--persist`, then `vmrunner stop {record.name}` and `vmrunner up {record.name}`",
        )
    if "cpus" in request.fields and after.cpus > record.plan.most_cpus and not request.persist:
        raise ConfigError(
            f"`cpus` is {after.cpus}, but the VM `{record.name}` was started with {record.plan.most_cpus} at most",
            hint=f"`vmrunner tune {record.name} --cpus-max {after.cpus} --persist`, then `vmrunner stop` and `vmrunner up`",
        )
    most = max(record.plan.most_cpus, after.cpus)
    # What the VM had at its start is no limit for what it uses now.
    at_start = {} if request.persist else {"memory": record.plan.memory}
    check_together(after.model_copy(update={"cpus_max": after.cpus_max or most, **at_start}))
    check_limits(after, read_limits())
    if "memory" in request.fields and record.state is VmState.RUNNING:
        _check_room(record, after)


def _check_room(record: VmRecord, after: Config) -> None:
    """What comes on top of the machine's first memory has to be there."""
    available = read_facts().memory_available
    if after.memory - record.plan.memory > available:
        raise ConfigError(
            f"`memory` is {after.memory}, {Size(after.memory - record.plan.memory).for_people()} more than at the VM's start, but"
            f" this host has {Size(available).for_people()} available",
            hint="ask for less, or free some",
        )


def _change_running(
    record: VmRecord, request: TuneRequest, *, emit: Emit, deadline: Deadline
) -> tuple[VmRecord, list[Change]]:
    name = record.name
    try:
        with phase(emit, "tune", f"Changing `{name}`"), machine_of(record, deadline=deadline) as machine:
            _log_in(machine, request, name, deadline)
            changes = list(_changes(machine, request, deadline))
    except (ConnectionLost, BootTimeout) as error:
        raise GuestLost(
            f"the guest of the VM `{name}` does not answer over SSH",
            hint=f"is its link down? `vmrunner tune {name} --link up`", details=str(error),
        ) from error  # fmt: skip
    except (CommandRefused, MonitorLost) as error:
        raise HostError(f"QEMU of the VM `{name}` did not take a change", details=str(error)) from error
    if "disk" in request.fields:
        grown = grown_plan(record.plan, request.wanted.disk)
        record = record.changed(plan=grown, settings={**record.settings, "disk": str(request.wanted.disk)})
        write_record(record)
    return record, changes


def _log_in(machine: Machine, request: TuneRequest, name: str, deadline: Deadline) -> None:
    if request.fields & _IN_GUEST and request.link != "up":
        machine.guest.connect(deadline.within(_ANSWERS_SECONDS), is_up=True)


def _changes(machine: Machine, request: TuneRequest, deadline: Deadline) -> Sequence[Change]:
    """Up first and down last: in between the guest can be reached."""
    done: list[Change] = []
    if request.link == "up":
        done.append(network.set_link(machine, "up", deadline=deadline))
    done += _change_host(machine, request.wanted, request.fields)
    done += _change_size(machine, request, deadline)
    done += _change_flow(machine, request.wanted, request.fields, deadline)
    if request.link == "down":
        done.append(network.set_link(machine, "down", deadline=deadline))
    return done


def _change_size(machine: Machine, request: TuneRequest, deadline: Deadline) -> list[Change]:
    """CPUs, memory and disk; with `persist` what is more than the machine can have now waits for its next start."""
    wanted, fields = request.wanted, request.fields
    done: list[Change] = []
    if "cpus" in fields and wanted.cpus <= machine.plan.most_cpus:
        done.append(cpus.set_cpus(machine, wanted.cpus, deadline=deadline))
    if "memory" in fields and (wanted.memory <= machine.plan.most_memory or not request.persist):
        done.append(memory.set_memory(machine, wanted.memory, deadline=deadline))
    if "disk" in fields:
        done.append(disk.grow(machine, wanted.disk, deadline=deadline))
    return done


def _change_flow(
    machine: Machine, wanted: Config, fields: frozenset[str], deadline: Deadline
) -> list[Change]:
    done: list[Change] = []
    if "disk_limits" in fields:
        done.append(disk.set_limits(machine, wanted.disk_limits, deadline=deadline))
    if fields & {"net_rate", "net_delay"}:
        rate = bits_of(wanted.net_rate) if "net_rate" in fields else None
        delay = float(wanted.net_delay) if "net_delay" in fields else None
        done += network.set_shape(machine, rate, delay, deadline=deadline)
    return done


def _change_host(machine: Machine, wanted: Config, fields: frozenset[str]) -> list[Change]:
    done: list[Change] = []
    if "cpu_pin" in fields:
        done += threads.set_pins(machine, pins_of(wanted.cpu_pin))
    if fields & {"cpu_weight", "cpu_quota"}:
        quota = percent_of(wanted.cpu_quota) if wanted.cpu_quota else None
        done += threads.set_share(machine, wanted.cpu_weight, quota)
    if "nice" in fields:
        done.append(threads.set_niceness(machine, wanted.nice))
    return done
