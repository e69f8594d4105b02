"""Signals as exceptions: which, when, and held back while something is cleaned up."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from vmrunner.errors import Interrupted
from vmrunner.host.signals import interruptible, shielded

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def send(number: signal.Signals) -> None:
    """Send a signal to this process; Python has handled it when this returns."""
    os.kill(os.getpid(), number)
    threading.Event().wait(0)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_each_signal_interrupts_with_its_exit_code(number: signal.Signals, code: int) -> None:
    with pytest.raises(Interrupted) as caught, interruptible():
        send(number)
    assert caught.value.exit_code == code


def test_an_interruption_is_no_ordinary_exception() -> None:
    def swallow() -> None:
        with contextlib.suppress(Exception):
            send(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), interruptible():
        swallow()


def test_the_handlers_before_come_back() -> None:
    before = [signal.getsignal(number) for number in ALL]
    with interruptible():
        assert [signal.getsignal(number) for number in ALL] != before
    assert [signal.getsignal(number) for number in ALL] == before
    with pytest.raises(Interrupted), interruptible():
        send(signal.SIGTERM)
    assert [signal.getsignal(number) for number in ALL] == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_shield_holds_a_signal_back_until_its_end() -> None:
    steps = []

    def run() -> None:
        with shielded():
            send(signal.SIGINT)
            steps.append("cleaned up")
        steps.append("went on")

    with pytest.raises(Interrupted) as caught, interruptible():
        run()
    assert steps == ["cleaned up"]
    assert caught.value.exit_code == 130


def test_a_second_signal_is_held_back_too_and_the_last_one_counts() -> None:
    def run() -> None:
        with shielded():
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
                send(number)

    with pytest.raises(Interrupted) as caught, interruptible():
        run()
    assert caught.value.exit_code == 143


def test_shields_nest() -> None:
    steps = []

    def run() -> None:
        with shielded():
            with shielded():
                send(signal.SIGINT)
            steps.append("still shielded")

    with pytest.raises(Interrupted), interruptible():
        run()
    assert steps == ["still shielded"]


def test_ctrl_c_twice_cleans_up_once_and_whole() -> None:
    steps = []

    def run() -> None:
        try:
            send(signal.SIGINT)
        finally:
            with shielded():
                send(signal.SIGINT)
                steps.append("cleaned up")

    with pytest.raises(Interrupted), interruptible():
        run()
    assert steps == ["cleaned up"]


def test_a_clean_up_that_fails_is_still_an_interruption() -> None:
    def clean_up() -> None:
        with shielded():
            send(signal.SIGTERM)
            raise OSError("the disk is gone")

    with pytest.raises(Interrupted) as caught, interruptible():
        clean_up()
    assert isinstance(caught.value.__context__, OSError)


def test_nothing_is_left_pending() -> None:
    with pytest.raises(Interrupted), interruptible(), shielded():
        send(signal.SIGINT)
    with interruptible(), shielded():
        pass


def test_a_shield_without_a_signal_does_nothing() -> None:
    with shielded():
        pass
