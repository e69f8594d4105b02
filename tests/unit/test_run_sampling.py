"""The series of a run: what it becomes in the report, how it stays small, and what it says held the run back."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from vmrunner.machine.monitor import MonitorLost
from vmrunner.run.sampling import MOST_SAMPLES, Sample, Sampler, Series


def sample(seconds: float = 1.0, **changes: Any) -> Sample:
    plain = {
        "host_percent": 40.0, "cpu_percent": 50.0, "vcpu_percent": (30.0, 20.0), "rss": 1 << 28,
        "read_bytes_per_second": 0.0, "written_bytes_per_second": 0.0, "requests_per_second": 0.0,
    }  # fmt: skip
    return Sample(seconds, **{**plain, **changes})


def series(*samples: Sample, **judged_by: Any) -> Series:
    return Series(**{"host_cpus": 4, "vcpus": 2, **judged_by}, samples=list(samples))


def test_a_run_that_nothing_held_back() -> None:
    assert series(*[sample()] * 5).bottleneck() is None


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
    ],
    ids=str,
)
def test_what_held_it_back(changes: dict[str, Any], judged_by: dict[str, Any], said: str) -> None:
    found = series(*[sample(**changes)] * 4, **judged_by).bottleneck()
    assert found is not None
    assert said in found


def test_a_short_run_tells_nothing() -> None:
    assert series(*[sample(host_percent=99.0)] * 2).bottleneck() is None


def test_a_moment_is_no_bottleneck() -> None:
    assert series(sample(host_percent=99.0), *[sample()] * 3).bottleneck() is None


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
    assert document["samples"][0]["seconds"] == 1.2
    assert document["samples"][0]["vcpu_percent"] == [30.0, 20.0]


def test_a_machine_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = Series(interval=0.0)
    sampler = Sampler(SimpleNamespace(pid=os.getpid(), monitor=monitor, plan=plan), found)  # type: ignore[arg-type]
    for _ in range(3):
        sampler.look()
    assert len(found.samples) == 2
    assert found.disk_limits == {"bps": "1M"}
    assert found.samples[0].rss > 1 << 20


def test_what_cannot_be_looked_at_is_no_failure() -> None:
    found = Series()
    lost = SimpleNamespace(execute=Mock(side_effect=MonitorLost("gone")))
    sampler = Sampler(SimpleNamespace(pid=1, monitor=lost), found)  # type: ignore[arg-type]
    for _ in range(2):
        sampler.look()
    assert lost.execute.call_count == 1
    assert found.samples == []
