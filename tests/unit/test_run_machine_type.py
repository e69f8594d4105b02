"""Machine types: what this computer's QEMU says of them, and what is refused."""

from __future__ import annotations

import pytest

from vmrunner.config.model import Config
from vmrunner.errors import ConfigError
from vmrunner.events import Event, Note, silent
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.machine_types import MachineType, read_machine_types
from vmrunner.host.qemu import Qemu, find_qemu
from vmrunner.run.machine_type import check_cpus, check_machine_type

TCG = Accelerator("tcg", "max", "", "", ())
KVM = Accelerator("kvm", "host", "", "", ())


def check(machine_type: str, events: list[Event] | None = None, **settings: object) -> None:
    config = Config.model_validate({"machine_type": machine_type, **settings})
    emit = silent if events is None else events.append
    check_machine_type(config, find_qemu(), TCG, emit=emit, deadline=Deadline.after(20))


def test_names_get_the_version_of_qemu() -> None:
    qemu = Qemu(find_qemu().path, "9.1.2")
    names = [qemu.machine_type_named(name) for name in ("auto", "q35", "pc", "pc-q35-8.0")]
    assert names == ["pc-q35-9.1", "pc-q35-9.1", "pc-i440fx-9.1", "pc-q35-8.0"]


def test_this_qemu_has_both_families() -> None:
    types = read_machine_types(find_qemu(), deadline=Deadline.after(20))
    q35 = types[find_qemu().machine_type_named("auto")]
    assert q35.hot_pluggable_cpus
    assert q35.most_cpus >= 255
    assert not types["microvm"].hot_pluggable_cpus
    for name in ("auto", "q35", "pc"):
        check(name)


def test_one_that_it_has_not() -> None:
    with pytest.raises(ConfigError, match=r"pc-q35-99\.0, which QEMU") as caught:
        check("pc-q35-99.0")
    assert "pc-q35-" in (caught.value.hint or "")


def test_an_old_one_is_told() -> None:
    types = read_machine_types(find_qemu(), deadline=Deadline.after(20))
    old = next(
        (one.name for one in types.values() if one.deprecated and one.name.startswith("pc-i440fx")), None
    )
    if old is None:
        pytest.skip("this QEMU has no old machine types left")
    events: list[Event] = []
    check(old, events)
    assert [event.text for event in events if isinstance(event, Note)] == [
        f"the machine type {old} is deprecated in QEMU {find_qemu().version}"
    ]


def test_more_cpus_than_the_machine_has_room_for() -> None:
    machine = MachineType("pc-i440fx-2.0", 8, hot_pluggable_cpus=True, deprecated=True)
    with pytest.raises(ConfigError, match=r"`cpus` is 9, and `machine-type` pc-i440fx-2\.0 has 8 at most"):
        check_cpus(Config(cpus=9), machine, TCG)


def test_hot_plug_where_there_is_none() -> None:
    machine = MachineType("some", 255, hot_pluggable_cpus=False, deprecated=False)
    check_cpus(Config(cpus=2, cpus_max=4), machine, TCG)
    check_cpus(Config(cpus=2, cpus_max=2), machine, KVM)
    with pytest.raises(
        ConfigError, match="`cpus-max` is 4 and `cpus` 2, but nothing can be plugged into"
    ) as caught:
        check_cpus(Config(cpus=2, cpus_max=4), machine, KVM)
    assert "q35" in (caught.value.hint or "")
