"""Processes that are known again later, and only then signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

from sample_vms import dead_process, process

from vmrunner.host.deadline import Deadline
from vmrunner.host.process_identity import identity_of, processes_with_argument

IGNORES_SIGTERM = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"


def test_a_live_process_is_known_again() -> None:
    with process() as found:
        assert found.alive()
        assert found.from_this_boot()
        assert identity_of(found.pid) == found


def test_one_that_has_ended_is_dead() -> None:
    assert not dead_process().alive()


def test_a_process_that_nobody_waited_for_yet_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    found = identity_of(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert found is None or not found.alive()
    assert identity_of(child.pid) is None
    child.wait()


def test_another_process_of_the_same_id_is_another() -> None:
    with process() as found:
        former = replace(found, start_ticks=found.start_ticks - 1)
        assert not former.alive()
        former.end(grace=0)
        assert former.wait(0)
        assert found.alive()


def test_a_process_of_another_boot_is_never_touched() -> None:
    with process() as found:
        former = replace(found, boot_id="00000000-0000-0000-0000-000000000000")
        assert not former.alive()
        assert not former.from_this_boot()
        former.end(grace=0)
        assert found.alive()


def test_ending_asks_first() -> None:
    with process() as found:
        began = time.monotonic()
        found.end(grace=10)
        assert not found.alive()
        assert time.monotonic() - began < 5


def test_ending_does_not_take_no_for_an_answer() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", IGNORES_SIGTERM], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as ready:
        ready.readline()
    found = identity_of(child.pid)
    assert found
    found.end(grace=0.1)
    assert child.wait(5) == -signal.SIGKILL


def test_ending_what_has_ended_does_nothing() -> None:
    dead = dead_process()
    dead.end(grace=1)
    assert dead.wait(0)


def test_waiting_says_whether_it_ended() -> None:
    with process() as found:
        assert not found.wait(0.01)
        os.kill(found.pid, signal.SIGKILL)
        assert found.wait(5)


def test_no_process_has_no_identity() -> None:
    assert identity_of(2**22 + 1) is None


def test_a_name_with_parentheses_and_spaces_does_not_confuse() -> None:
    code = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'a) R 1 (b', 0, 0, 0); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as ready:
        before = identity_of(child.pid)
        ready.readline()
    assert before is not None
    assert identity_of(child.pid) == before
    child.kill()
    child.wait()


def test_processes_are_found_by_their_arguments() -> None:
    with process("filename=/here/disk.qcow2,discard=unmap") as found:
        # A process that was started just now has no arguments to show until its program is in its place.
        deadline = Deadline.after(10)
        while not processes_with_argument("filename=/here/disk.qcow2,") and deadline.pause(0.05):
            pass
        assert processes_with_argument("filename=/here/disk.qcow2,") == [found]
        assert processes_with_argument("filename=/elsewhere/disk.qcow2") == []
