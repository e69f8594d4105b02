"""QMP against a small server: replies, refusals, events, and every way the peer can fail."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from fake_qmp import EventThen, HangUp, Refusal, Silence, qmp_session

from vmrunner.host.deadline import Deadline
from vmrunner.machine.monitor import CommandRefused, MachineEvent, MonitorLost, open_monitor


def soon(seconds: float = 5.0) -> Deadline:
    return Deadline.after(seconds)


def test_a_command_gets_its_reply_and_its_arguments_arrive() -> None:
    with qmp_session(query_status={"status": "running"}) as (sock, fake):
        with open_monitor(sock, deadline=soon()) as monitor:
            assert monitor.execute("query-status", {"a": 1}, deadline=soon()) == {"status": "running"}
        assert [request["execute"] for request in fake.asked] == ["qmp_capabilities", "query-status"]
        assert fake.asked[1]["arguments"] == {"a": 1}


def test_the_human_monitor_is_reached_through_qmp() -> None:
    with (
        qmp_session(human_monitor_command="some text\r\n") as (sock, fake),
        open_monitor(sock, deadline=soon()) as monitor,
    ):
        assert monitor.human("info usernet", deadline=soon()) == "some text\r\n"
        assert fake.asked[-1]["arguments"] == {"command-line": "info usernet"}


def test_a_refused_command_says_what_qemu_said_and_the_session_goes_on() -> None:
    with (
        qmp_session(stop=Refusal("Guest is not running"), cont={}) as (sock, _),
        open_monitor(sock, deadline=soon()) as monitor,
    ):
        with pytest.raises(CommandRefused, match=r"^Guest is not running$"):
            monitor.execute("stop", deadline=soon())
        with pytest.raises(CommandRefused, match="no-such has not been found"):
            monitor.execute("no-such", deadline=soon())
        assert monitor.execute("cont", deadline=soon()) == {}


def test_events_are_kept_in_their_order() -> None:
    data = {"guest": True, "reason": "guest-reset"}
    expected = (MachineEvent("STOP", {}), MachineEvent("SHUTDOWN", data))
    with (
        qmp_session(stop=EventThen("STOP", {}, {}), cont=EventThen("SHUTDOWN", data, {})) as (sock, _),
        open_monitor(sock, deadline=soon()) as monitor,
    ):
        monitor.execute("stop", deadline=soon())
        monitor.execute("cont", deadline=soon())
        patience = soon(2)
        while len(monitor.events) < 2 and patience.pause(0.005):
            pass
        assert monitor.events == expected


def test_events_outlive_the_connection() -> None:
    data = {"guest": False, "reason": "host-signal"}
    with (
        qmp_session(stop=EventThen("SHUTDOWN", data, {}), cont=HangUp()) as (sock, _),
        open_monitor(sock, deadline=soon()) as monitor,
    ):
        monitor.execute("stop", deadline=soon())
        with pytest.raises(MonitorLost):
            monitor.execute("cont", deadline=soon())
        assert monitor.events == (MachineEvent("SHUTDOWN", data),)


def test_a_peer_that_goes_away_during_a_command() -> None:
    with (
        qmp_session(cont=HangUp()) as (sock, _),
        open_monitor(sock, deadline=soon()) as monitor,
    ):
        with pytest.raises(MonitorLost, match="went away during `cont`"):
            monitor.execute("cont", deadline=soon())
        with pytest.raises(MonitorLost):
            monitor.execute("stop", deadline=soon())


def test_a_command_without_an_answer_ends_with_its_deadline() -> None:
    with (
        qmp_session(cont=Silence(), stop={}) as (sock, _),
        open_monitor(sock, deadline=soon()) as monitor,
    ):
        began = time.monotonic()
        with pytest.raises(MonitorLost, match="did not answer in time"):
            monitor.execute("cont", deadline=soon(0.1))
        assert time.monotonic() - began < 5
        assert monitor.execute("stop", deadline=soon()) == {}


def test_a_peer_that_closes_before_the_greeting() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with (
        ours,
        pytest.raises(MonitorLost, match="did not answer on its monitor"),
        open_monitor(ours, deadline=soon()),
    ):
        pass


def test_a_peer_that_does_not_speak_qmp() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        with pytest.raises(MonitorLost), open_monitor(ours, deadline=soon()):
            pass


def test_a_peer_that_never_answers_ends_with_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        began = time.monotonic()
        with pytest.raises(MonitorLost, match="in time"), open_monitor(ours, deadline=soon(0.1)):
            pass
        assert time.monotonic() - began < 5


def test_no_thread_is_left() -> None:
    with qmp_session() as (sock, _), open_monitor(sock, deadline=soon()):
        assert "qmp" in {thread.name for thread in threading.enumerate()}
    assert "qmp" not in {thread.name for thread in threading.enumerate()}
