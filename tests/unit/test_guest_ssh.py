"""Logging in and running commands, against a real SSH server; and every way in which that can break."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import paramiko
import pytest
from fake_sshd import FakeSshd, answer, keep_running, running_sshd

from vmrunner.errors import BootTimeout, GuestError, GuestLost, exit_code_of
from vmrunner.guest.key import make_login_key
from vmrunner.guest.ssh import Completed, ConnectionLost, Endpoint, Guest, RemoteCommand
from vmrunner.host.deadline import Deadline


def soon(seconds: float = 5.0) -> Deadline:
    return Deadline.after(seconds)


def is_alive() -> None:
    """A machine that lives."""


@contextlib.contextmanager
def guest_at(endpoint: Endpoint) -> Iterator[Guest]:
    guest = Guest(endpoint, alive=is_alive)
    try:
        yield guest
    finally:
        guest.close()


@contextlib.contextmanager
def connected(sshd: FakeSshd) -> Iterator[Guest]:
    with guest_at(sshd.endpoint) as guest:
        guest.connect(soon())
        yield guest


def poll_for_ever(command: RemoteCommand) -> None:
    patience = soon()
    while patience.pause(0.005):
        command.poll()


def poll_until_done(guest: Guest, *argv: str) -> Completed:
    command = guest.begin(argv, deadline=soon())
    patience = soon()
    while (done := command.poll()) is None:
        assert patience.pause(0.0005)
    return done


def test_a_command_gives_its_code_and_both_streams() -> None:
    with running_sshd(answer(7, b"out\n\xff", b"err\n")) as sshd, connected(sshd) as guest:
        assert guest.connected
        assert guest.execute(["x"], deadline=soon()) == Completed(7, "out\n\ufffd", "err\n")
        assert poll_until_done(guest, "x").code == 7


def test_arguments_arrive_as_one_shell_line_that_means_them() -> None:
    with running_sshd() as sshd, connected(sshd) as guest:
        guest.execute(["sh", "-c", "echo $HOME; exit 1", "it's"], deadline=soon())
        assert sshd.commands == ["""sh -c 'echo $HOME; exit 1' 'it'"'"'s'"""]


def test_long_output_arrives_whole_and_endless_output_is_cut() -> None:
    with running_sshd(answer(0, b"x" * 300_000, b"y" * 200_000)) as sshd, connected(sshd) as guest:
        done = guest.execute(["x"], deadline=soon())
        assert (len(done.stdout), len(done.stderr)) == (300_000, 200_000)
    with running_sshd(answer(0, b"x" * 1_200_000)) as sshd, connected(sshd) as guest:
        assert len(guest.execute(["x"], deadline=soon()).stdout) == 1 << 20


def test_poll_gives_nothing_while_the_command_runs() -> None:
    with running_sshd(keep_running) as sshd, connected(sshd) as guest:
        command = guest.begin(["sleep", "60"], deadline=soon())
        assert command.poll() is None
        assert command.poll() is None


def test_output_that_comes_after_the_exit_status_is_not_lost() -> None:
    def status_first(_command: str, channel: paramiko.Channel) -> None:
        channel.send_exit_status(0)
        time.sleep(0.1)
        channel.sendall(b"late")
        channel.close()

    with running_sshd(status_first) as sshd, connected(sshd) as guest:
        assert guest.execute(["x"], deadline=soon()) == Completed(0, "late", "")


def test_an_end_is_never_taken_for_a_broken_connection() -> None:
    with running_sshd(answer(3, b"out")) as sshd, connected(sshd) as guest:
        for _ in range(10):
            assert poll_until_done(guest, "x") == Completed(3, "out", "")


def test_another_host_key_is_refused_and_nothing_is_sent() -> None:
    with running_sshd() as sshd:
        stranger = replace(sshd.endpoint, login_key=make_login_key())
        with guest_at(stranger) as guest, pytest.raises(GuestError, match="another host key") as caught:
            guest.connect(soon())
        assert exit_code_of(caught.value) == 23
        assert (
            caught.value.details
            == f"expected: {stranger.login_key.host_key}\nshown: {sshd.login_key.host_key}"
        )
        assert "nothing was sent" in str(caught.value.hint)
        assert sshd.logins == 0


def test_a_login_key_that_the_guest_does_not_know_is_refused_at_once() -> None:
    with running_sshd() as sshd:
        refused = sshd.endpoint
        sshd.login_key = make_login_key()
        with (
            guest_at(refused) as guest,
            pytest.raises(GuestError, match="does not take this machine's login key"),
        ):
            guest.connect(soon())
        assert sshd.logins == 0


def test_nobody_there_is_a_boot_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with (
        guest_at(Endpoint(port, make_login_key())) as guest,
        pytest.raises(BootTimeout, match="did not answer over SSH in time") as caught,
    ):
        guest.connect(soon(0.1))
    assert exit_code_of(caught.value) == 22
    assert caught.value.details == "last seen on the SSH port: nothing"


def banner_server(connections: list[socket.socket], *, then_close: bool = False) -> socket.socket:
    """Something that shows an SSH banner and then never goes on."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.sendall(b"SSH-2.0-stuck\r\n")
                if then_close:
                    sock.close()
                connections.append(sock)

    threading.Thread(target=serve, daemon=True).start()
    return listener


@contextlib.contextmanager
def stuck_guest(alive: object = is_alive, *, then_close: bool = False) -> Iterator[Guest]:
    connections: list[socket.socket] = []
    with banner_server(connections, then_close=then_close) as listener:
        endpoint = Endpoint(listener.getsockname()[1], make_login_key())
        guest = Guest(endpoint, alive=alive)  # type: ignore[arg-type]  # callable, as the tests pass it
        try:
            yield guest
        finally:
            guest.close()
            listener.shutdown(socket.SHUT_RDWR)
            for sock in connections:
                sock.close()


def test_a_login_that_hangs_until_the_deadline_is_a_boot_timeout_too() -> None:
    with stuck_guest() as guest:
        began = time.monotonic()
        with pytest.raises(BootTimeout) as caught:
            guest.connect(soon(0.15))
        assert time.monotonic() - began < 5
        assert "ConnectionLost" in str(caught.value.details)


def test_a_server_that_hangs_up_after_its_banner_is_tried_again() -> None:
    with stuck_guest(then_close=True) as guest, pytest.raises(BootTimeout) as caught:
        guest.connect(soon(0.15))
    assert "last seen on the SSH port: " in str(caught.value.details)
    assert "nothing" not in str(caught.value.details)


def test_a_machine_that_dies_while_a_login_hangs_is_noticed() -> None:
    dies_at = time.monotonic() + 0.1

    def alive() -> None:
        if time.monotonic() > dies_at:
            raise GuestLost("QEMU was killed by SIGKILL")

    with stuck_guest(alive) as guest:
        with pytest.raises(GuestLost):
            guest.connect(soon())
        assert time.monotonic() - dies_at < 0.5


def test_a_machine_that_dies_while_a_command_runs_is_noticed() -> None:
    dead = threading.Event()

    def alive() -> None:
        if dead.is_set():
            raise GuestLost("the guest rebooted itself")

    with running_sshd(lambda _command, _channel: dead.set()) as sshd:
        guest = Guest(sshd.endpoint, alive=alive)
        guest.connect(soon())
        began = time.monotonic()
        with pytest.raises(GuestLost):
            guest.execute(["sleep", "60"], deadline=soon())
        assert time.monotonic() - began < 5
        guest.close()


def test_a_connection_that_breaks_in_the_middle_of_a_command_can_be_made_again() -> None:
    with running_sshd(keep_running) as sshd, connected(sshd) as guest:
        command = guest.begin(["sleep", "60"], deadline=soon())
        assert command.poll() is None
        sshd.drop_connections()
        with pytest.raises(ConnectionLost, match="broke while a command ran"):
            poll_for_ever(command)
        sshd.run = answer(0, b"again")
        guest.connect(soon())
        assert guest.execute(["x"], deadline=soon()).stdout == "again"
        assert sshd.logins == 2


def test_a_command_on_a_broken_connection() -> None:
    with running_sshd() as sshd, connected(sshd) as guest:
        sshd.drop_connections()
        patience = soon()
        while guest.connected:
            assert patience.pause(0.005)
        with pytest.raises(ConnectionLost):
            guest.begin(["x"], deadline=soon())


def test_a_command_without_a_connection() -> None:
    with running_sshd() as sshd, guest_at(sshd.endpoint) as guest:
        assert not guest.connected
        with pytest.raises(ConnectionLost, match="there is no connection"):
            guest.begin(["x"], deadline=soon())


def test_a_command_that_does_not_end_in_time() -> None:
    with running_sshd(keep_running) as sshd, connected(sshd) as guest:
        with pytest.raises(ConnectionLost, match="`sleep` did not end in the guest in time"):
            guest.execute(["sleep", "60"], deadline=soon(0.05))
        assert guest.connected


def test_a_command_that_was_killed_has_no_exit_code_of_its_own() -> None:
    def close_without_status(_command: str, channel: paramiko.Channel) -> None:
        channel.close()

    with (
        running_sshd(close_without_status) as sshd,
        connected(sshd) as guest,
        pytest.raises(ConnectionLost, match="broke while a command ran"),
    ):
        guest.execute(["x"], deadline=soon())


def test_closing_is_for_good_and_may_be_repeated() -> None:
    with running_sshd() as sshd, connected(sshd) as guest:
        guest.close()
        guest.close()
        assert not guest.connected


def test_login_keys_are_fresh_and_in_openssh_form() -> None:
    one, other = make_login_key(), make_login_key()
    assert one != other
    assert one.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert one.public.startswith("ssh-ed25519 ")
    assert one.public.endswith(" vmrunner\n")
