"""The series of a run: what it becomes in the report, how it stays small, and what it says held the run back."""

from __future__ import annotations

import json
import os
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from vmrunner.guest.meter import GuestUse
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.machine.monitor import MonitorLost
from vmrunner.machine.usage import HostMemory
from vmrunner.run import sampling
from vmrunner.run.bottleneck import bottleneck_of
from vmrunner.run.samples import MOST_SAMPLES, Sample, Series
from vmrunner.run.sampling import GuestRates, Sampler


def sample(seconds: float = 1.0, **changes: Any) -> Sample:
    plain = {
        "host_percent": 40.0, "cpu_percent": 50.0, "vcpu_percent": (30.0, 20.0), "rss": 1 << 28, "pss": 1 << 27, "shared": 1 << 26,
        "read_bytes_per_second": 0.0, "written_bytes_per_second": 0.0, "requests_per_second": 0.0,
    }  # fmt: skip
    return Sample(seconds, **{**plain, **changes})


def series(*samples: Sample, **judged_by: Any) -> Series:
    return Series(**{"host_cpus": 4, "vcpus": 2, **judged_by}, samples=list(samples))


def test_a_run_that_nothing_held_back() -> None:
    assert bottleneck_of(series(*[sample()] * 5)) is None


@pytest.mark.parametrize(
    ("changes", "judged_by", "said"),
    [
        ({"written_bytes_per_second": 4.1e6}, {"disk_limits": {"bps": "4M"}}, "at its limit (bps=4M) 100%"),
        ({"requests_per_second": 99.0}, {"disk_limits": {"iops": "100"}}, "iops=100"),
        ({"cpu_percent": 49.0}, {"cpu_quota": 50}, "CPU quota of 50%"),
        (
            {"host_percent": 99.0},
            {},
            "host's CPUs were saturated 100% of the time; the machine had 50 % of 400 %",
        ),
        ({"vcpu_percent": (99.0, 97.0)}, {}, "all 2 CPUs of the guest were busy"),
        (
            {"guest_stalled_percent": 60.0, "guest_swapped": 50 << 20},
            {},
            "was swapping 100% of the time (up to 50 MiB",
        ),
        (
            {"guest_stalled_percent": 60.0, "guest_swapped": 0},
            {},
            "was short of memory 100% of the time; `--memory`",
        ),
        (
            {"guest_kills": 2, "host_percent": 99.0},
            {},
            "ran out of memory and killed 2 of the tests' processes",
        ),
    ],
    ids=str,
)
def test_what_held_it_back(changes: dict[str, Any], judged_by: dict[str, Any], said: str) -> None:
    found = bottleneck_of(series(*[sample(**changes)] * 4, **judged_by))
    assert found is not None
    assert said in found


def test_large_requests_that_end_in_every_other_look() -> None:
    samples = [sample(written_bytes_per_second=rate) for rate in (0.0, 4.2e6) * 6]
    assert "bps=2M" in str(bottleneck_of(series(*samples, disk_limits={"bps": "2M"})))


def test_a_short_run_tells_nothing() -> None:
    assert bottleneck_of(series(*[sample(host_percent=99.0)] * 2)) is None


def test_a_moment_is_no_bottleneck() -> None:
    assert bottleneck_of(series(sample(host_percent=99.0), *[sample()] * 3)) is None


def test_a_long_series_is_thinned() -> None:
    long = series()
    for number in range(1000):
        long.add(sample(float(number)))
    assert len(long.samples) <= MOST_SAMPLES
    assert long.interval > 0.5
    assert long.samples[-1].seconds == 999.0


def test_what_the_report_holds() -> None:
    document = series(sample(1.23456)).as_json()
    assert json.loads(json.dumps(document)) == document
    assert document[0]["seconds"] == 1.2
    assert document[0]["vcpu_percent"] == [30.0, 20.0]
    assert document[0]["guest_available"] is None


def test_a_guest_that_uses_swap_and_waits_for_nothing_is_not_held_back() -> None:
    assert bottleneck_of(series(*[sample(guest_swapped=1 << 30, guest_stalled_percent=1.0)] * 4)) is None


def test_what_the_guest_says_becomes_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [GuestUse(10.0 + n, 1 << 20, 2 << 20, 0.5 * n, 0, 1000 * n, None) for n in range(3)]
    meter = SimpleNamespace(latest=Mock(side_effect=[said[0], None, said[1], None, said[2]]), close=Mock())
    monkeypatch.setattr(sampling, "Meter", lambda _guest, deadline: meter)
    monkeypatch.setattr(sampling, "ASK_GUEST_AFTER_SECONDS", 0.0)
    found = Series(interval=0.0)
    sampler = Sampler(looked_at(), found)
    for _ in range(5):
        sampler.look()
    # A look at which it said nothing new has what it said before: thinning may take any of them.
    assert [one.guest_stalled_percent for one in found.samples] == [None, 50.0, 50.0, 50.0]
    assert [one.guest_received_bytes_per_second for one in found.samples] == [None, 1000.0, 1000.0, 1000.0]
    assert found.samples[-1].guest_sent_bytes_per_second is None
    assert (found.samples[0].guest_available, found.samples[0].guest_swapped) == (1 << 20, 2 << 20)
    sampler.close()
    assert meter.close.called


def test_a_guest_that_does_not_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Mock(side_effect=ConnectionLost("gone"))
    monkeypatch.setattr(sampling, "Meter", broken)
    monkeypatch.setattr(sampling, "ASK_GUEST_AFTER_SECONDS", 0.0)
    found = Series(interval=0.0)
    sampler = Sampler(looked_at(), found)
    for _ in range(3):
        sampler.look()
    assert broken.call_count == 1
    assert [one.guest_kills for one in found.samples] == [None, None]


def test_a_machine_is_looked_at() -> None:
    found = Series(interval=0.0)
    sampler = Sampler(looked_at(), found)
    for _ in range(3):
        sampler.look()
    assert len(found.samples) == 2
    assert found.disk_limits == {"bps": "1M"}
    assert found.samples[0].rss > 1 << 20
    assert 1 << 20 < (found.samples[0].pss or 0) <= found.samples[0].rss + (1 << 20)
    assert found.samples[0].shared is not None


def test_how_memory_is_shared_is_asked_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that takes long: 10 ms for each GiB."""

    def slow(_pid: int) -> HostMemory:
        asked.append(1)
        time.sleep(0.02)
        return HostMemory(1, len(asked), 3, 4)

    asked: list[int] = []
    monkeypatch.setattr(sampling, "host_memory", slow)
    found = Series(interval=0.0)
    sampler = Sampler(looked_at(), found)
    for _ in range(5):
        sampler.look()
    assert (len(asked), [one.pss for one in found.samples]) == (1, [1, 1, 1, 1])
    monkeypatch.setattr(sampling, "_MEMORY_PAUSE", 0)
    sampler = Sampler(looked_at(), found)
    for _ in range(3):
        sampler.look()
    assert found.samples[-1].pss == 4


def test_a_guest_whose_counters_go_back_or_stand_still_has_no_rates() -> None:
    first = GuestUse(10.0, None, None, None, None, 500, 500)
    assert GuestRates.between(first, GuestUse(10.0, None, None, None, None, 900, 900)) == GuestRates()
    assert GuestRates.between(first, GuestUse(12.0, None, None, None, None, 100, 900)) == GuestRates(
        None, 0.0, 200.0
    )
    assert GuestRates.between(None, first) == GuestRates()


def looked_at() -> Any:
    """A machine that is this process."""
    answers: dict[str, Any] = {
        "query-cpus-fast": [{"cpu-index": 0, "thread-id": os.getpid()}],
        "qom-get": {"bps-total": 1 << 20},
        "query-blockstats": [
            {"qdev": "/machine/peripheral/disk0/virtio-backend",
             "stats": dict.fromkeys(("rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations"), 7)}
        ],
    }  # fmt: skip
    monitor = SimpleNamespace(execute=lambda command, *_args, **_named: answers[command])
    plan = SimpleNamespace(cpus=1, placement=SimpleNamespace(quota=None))
    return SimpleNamespace(pid=os.getpid(), monitor=monitor, plan=plan, guest=None)


def test_what_cannot_be_looked_at_is_no_failure() -> None:
    found = Series()
    lost = SimpleNamespace(execute=Mock(side_effect=MonitorLost("gone")))
    sampler = Sampler(SimpleNamespace(pid=1, monitor=lost), found)  # type: ignore[arg-type]
    for _ in range(2):
        sampler.look()
    assert lost.execute.call_count == 1
    assert found.samples == []
