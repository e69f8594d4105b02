"""Root in a kernel of its own, and a network that reaches outside only where the project asks for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from command_line import CommandLine
from crate_copies import CopyCrate
from run_record import assert_guest_ran

PRIVILEGED_TESTS = {
    "runs_in_the_guest",
    "user_is_root",
    "network_namespace",
    "mounted_tmpfs",
    "loaded_module",
    "port_53",
    "host_name",
    "kernel_setting",
}
OUTSIDE = """\
//! Whether the guest reaches a service of the host: QEMU's user network shows the host as 10.0.2.2.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[test]
fn host_is_reached() {
    let port: u16 = std::env::var("HOST_PORT").expect("it is set").parse().expect("it is a port");
    let address = SocketAddr::from(([10, 0, 2, 2], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("the host answers");
    stream.write_all(b"from the guest").expect("the host reads");
}
"""


@contextmanager
def listening_host() -> Iterator[tuple[int, list[bytes]]]:
    """A service on the host's loopback: its port, and what each client sent to it."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    received.append(client.recv(100))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], received
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    ("network", "code", "outcome", "sent"),
    [("restricted", 100, "failed", []), ("user", 0, "passed", [b"from the guest"])],
)
def test_root_in_a_kernel_of_its_own(
    network: str,
    code: int,
    outcome: str,
    sent: list[bytes],
    vmrunner_in_place: CommandLine,
    copied_crate: CopyCrate,
) -> None:
    crate = copied_crate("privileged")
    (crate / "tests").mkdir()
    (crate / "tests" / "outside.rs").write_text(OUTSIDE)
    with listening_host() as (port, received):
        finished = vmrunner_in_place.run(
            "test", crate, "--network", network, "--env", f"HOST_PORT={port}", "--", "--no-fail-fast"
        )
    assert finished.code == code, finished.stderr
    run = vmrunner_in_place.only_run
    assert_guest_ran(run)
    assert run.outcomes == {**dict.fromkeys(PRIVILEGED_TESTS, "passed"), "host_is_reached": outcome}
    assert received == sent
