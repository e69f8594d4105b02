"""Affinity and nice values of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vmrunner.errors import HostError
from vmrunner.host.scheduling import nice_floor, read_affinity, read_nice, set_affinity, set_nice

THREADED = (
    "import threading, time; [threading.Thread(target=time.sleep, args=[60]).start() for _ in range(3)]"
)


def test_a_thread_is_pinned_and_its_neighbours_are_not() -> None:
    allowed = read_affinity(0)
    found: list[tuple[int, ...]] = []
    thread = threading.Thread(
        target=lambda: found.append(set_affinity(threading.get_native_id(), allowed[:1]))
    )
    thread.start()
    thread.join()
    assert found == [allowed[:1]]
    assert read_affinity(0) == allowed


def test_a_cpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(HostError, match="4000"):
        set_affinity(threading.get_native_id(), [4000])


def test_all_threads_of_a_process_get_the_nice_value() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", THREADED])
    try:
        tasks: list[str] = []
        for _ in range(1000):
            tasks = [task.name for task in Path(f"/proc/{child.pid}/task").iterdir()]
            if len(tasks) == 4:
                break
        wanted = read_nice(0) + 3
        assert set_nice(child.pid, wanted) == wanted
        assert {os.getpriority(os.PRIO_PROCESS, int(task)) for task in tasks} == {wanted}
    finally:
        child.kill()
        child.wait()
    with pytest.raises(ProcessLookupError):
        read_nice(child.pid)


def test_the_floor_is_one_that_can_be_had() -> None:
    assert -20 <= nice_floor() <= read_nice(0)
