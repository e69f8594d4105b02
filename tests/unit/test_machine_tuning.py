"""What a running machine is told when it is changed: QEMU's monitor and the guest are stand-ins that remember.

Hot-plugging CPUs cannot be provoked under TCG, where it kills QEMU; the rest is in tests/e2e/test_e2e_tuning.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from sample_plans import sample_plan

from vmrunner.config.units import Size
from vmrunner.errors import ConfigError
from vmrunner.host.deadline import Deadline
from vmrunner.machine.tuning import cpus, disk, memory, network


class RememberingMonitor:
    """Answers what it is given, by command, and keeps what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Mapping[str, object] | None]] = []

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline
    ) -> Any:
        del deadline
        self.asked.append((command, arguments))
        answer = self.answers.get(command.replace("-", "_"))
        return answer.pop(0) if isinstance(answer, list) else answer


class AnsweringGuest:
    """Gives one answer after the other."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.commands: list[Sequence[str]] = []

    def execute(self, command: Sequence[str], *, deadline: Deadline) -> Any:
        del deadline
        self.commands.append(command)
        return SimpleNamespace(code=0, stdout=self.answers.pop(0), stderr="")


def machine(monitor: RememberingMonitor, guest: AnsweringGuest | None = None, **plan: Any) -> Any:
    return SimpleNamespace(monitor=monitor, guest=guest, plan=sample_plan(**plan))


def soon() -> Deadline:
    return Deadline.after(5)


def slot(number: int, *, there: bool) -> dict[str, Any]:
    found = {
        "type": "host-x86_64-cpu",
        "vcpus-count": 1,
        "props": {"core-id": number, "thread-id": 0, "socket-id": 0},
    }
    return {**found, "qom-path": f"/machine/unattached/device[{number}]"} if there else found


def test_under_kvm_cpus_that_are_missing_are_plugged_in_the_first_free_first() -> None:
    slots = [slot(number, there=number < 2) for number in (3, 2, 1, 0)]
    after = [slot(number, there=number < 3) for number in (3, 2, 1, 0)]
    monitor = RememberingMonitor(query_hotpluggable_cpus=[slots, after, after])
    guest = AnsweringGuest("2\n", "3\n", "", "3\n")
    change = cpus.set_cpus(machine(monitor, guest, cpus=2, cpus_max=4), 3, deadline=soon())
    assert [asked for asked in monitor.asked if asked[0] != "query-hotpluggable-cpus"] == [
        (
            "device_add",
            {"driver": "host-x86_64-cpu", "id": "cpu2", "core-id": 2, "thread-id": 0, "socket-id": 0},
        )
    ]
    assert "-ge 3" in guest.commands[2][-1]
    assert (change.before, change.after, change.complete) == ("2", "3", True)


def test_under_kvm_cpus_that_are_not_wanted_are_unplugged_the_last_first() -> None:
    before = [slot(number, there=True) for number in (3, 2, 1, 0)]
    after = [slot(number, there=number < 2) for number in (3, 2, 1, 0)]
    monitor = RememberingMonitor(query_hotpluggable_cpus=[before, before, before, after])
    guest = AnsweringGuest("4\n", "4\n", "", "2\n")
    change = cpus.set_cpus(machine(monitor, guest, cpus=2, cpus_max=4), 2, deadline=soon())
    paths = [arguments for command, arguments in monitor.asked if command == "device_del"]
    assert paths == [{"id": f"/machine/unattached/device[{number}]"} for number in (3, 2)]
    assert (change.after, change.complete, change.remark) == ("2", True, "")


def test_under_kvm_a_guest_that_does_not_let_go_keeps_them_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_LETS_GO_SECONDS", 0.3)
    before = [slot(number, there=True) for number in (1, 0)]
    monitor = RememberingMonitor(query_hotpluggable_cpus=[before] * 20)
    guest = AnsweringGuest("2\n", "2\n", "", "1\n")
    change = cpus.set_cpus(machine(monitor, guest, cpus=2), 1, deadline=soon())
    assert (change.after, change.complete) == ("1", True)
    assert change.remark == "1 are offline and stay plugged in: the guest did not let go of them"


def test_under_tcg_nothing_is_plugged() -> None:
    monitor = RememberingMonitor()
    guest = AnsweringGuest("2\n", "4\n", "", "1\n")
    change = cpus.set_cpus(machine(monitor, guest, accelerator="tcg", cpus=2, cpus_max=4), 1, deadline=soon())
    assert monitor.asked == []
    assert change.after == "1"


def test_memory_that_the_guest_does_not_give_is_told_as_far_as_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_STANDSTILL_SECONDS", 0.5)
    sizes = [{"actual": 1 << 30}, {"actual": 900 << 20}, *({"actual": 800 << 20} for _ in range(50))]
    guest = AnsweringGuest("MemTotal:         700000 kB\n")
    change = memory.set_memory(
        machine(RememberingMonitor(query_balloon=sizes), guest, balloon=True),
        Size.parse("512M"),
        deadline=soon(),
    )
    assert (change.before, change.after, change.complete) == ("1G", "800M", False)
    assert (
        change.remark == "the guest came no nearer to 512M: it uses the rest; the guest says MemTotal 684 MiB"
    )


def plugged(size: int) -> list[dict[str, Any]]:
    """What QEMU says of its memory devices."""
    return [
        {"type": "dimm", "data": {"id": "another", "size": 1}},
        {"type": "virtio-mem", "data": {"id": "more-memory0", "size": size}},
    ]


def test_more_memory_than_at_the_start_is_plugged_in() -> None:
    monitor = RememberingMonitor(
        query_balloon=[{"actual": 600 << 20}, *[{"actual": 1 << 30}] * 3],
        query_memory_devices=[plugged(0), plugged(256 << 20), plugged(512 << 20)],
    )
    guest = AnsweringGuest("MemTotal:        1500000 kB\n")
    there = machine(monitor, guest, balloon=True, memory_max=Size.parse("2G"))
    change = memory.set_memory(there, Size.parse("1536M"), deadline=soon())
    assert ("balloon", {"value": 1 << 30}) in monitor.asked
    request = {"path": "/machine/peripheral/more-memory0", "property": "requested-size", "value": 512 << 20}
    assert ("qom-set", request) in monitor.asked
    assert (change.before, change.after, change.complete) == ("600M", "1536M", True)


def test_less_memory_than_at_the_start_is_unplugged_before_the_balloon_counts() -> None:
    monitor = RememberingMonitor(
        query_balloon=[{"actual": 1 << 30}, {"actual": 512 << 20}],
        query_memory_devices=[plugged(512 << 20), plugged(0)],
    )
    there = machine(monitor, AnsweringGuest(""), balloon=True, memory_max=Size.parse("2G"))
    change = memory.set_memory(there, Size.parse("512M"), deadline=soon())
    assert (change.before, change.after, change.remark) == ("1536M", "512M", "")


def test_memory_without_a_balloon_or_beyond_the_machines_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no balloon"):
        memory.set_memory(machine(RememberingMonitor()), Size.parse("512M"), deadline=soon())
    most = Size.parse("2G")
    with pytest.raises(ConfigError, match="3G, but the machine was started with 2G at most"):
        memory.set_memory(machine(RememberingMonitor(), memory_max=most), Size.parse("3G"), deadline=soon())
    with pytest.raises(ConfigError, match="2G, but the machine was started with 1G"):
        memory.set_memory(machine(RememberingMonitor(), balloon=True), Size.parse("2G"), deadline=soon())


def test_new_limits_take_the_place_of_all_old_ones() -> None:
    monitor = RememberingMonitor(qom_get=[{"bps-total": 1 << 20}, {"iops-total": 50}])
    change = disk.set_limits(machine(monitor), {"iops": "50"}, deadline=soon())
    _, told = monitor.asked[1]
    assert told is not None
    value: Any = told["value"]
    assert (value["bps-total"], value["iops-total"], value["bps-total-max-length"]) == (0, 50, 1)
    assert (change.before, change.after, change.complete) == ("bps=1M", "iops=50", True)


def test_a_disk_does_not_shrink() -> None:
    with pytest.raises(ConfigError, match="4G, but the disk has 8G"):
        disk.grow(machine(RememberingMonitor()), Size.parse("4G"), deadline=soon())


@pytest.mark.parametrize(
    ("said", "rate", "delay"),
    [
        ("qdisc pfifo_fast 0: root refcnt 2", 0, 0.0),
        ("qdisc prio 1: root\nqdisc netem 20: parent 1:2 limit 1000 delay 100ms rate 1Mbit", 1_000_000, 0.1),
        ("qdisc netem 20: parent 1:2 limit 1000 delay 1.5s", 0, 1.5),
        ("qdisc netem 20: parent 1:2 limit 1000 delay 250us rate 512Kbit", 512_000, 0.00025),
    ],
)
def test_what_tc_says(said: str, rate: int, delay: float) -> None:
    found = network.read_shape(machine(RememberingMonitor(), AnsweringGuest(said)), soon())
    assert found == pytest.approx((rate, delay))
