"""Disks and network cards besides the first, and what the guest reaches: read in the guest.

One VM serves all tests of this file that can share it.
"""

from __future__ import annotations

import http.server
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from long_lived import LongLivedVm
from shared_vm import shared_vm

from vmrunner.host.addresses import local_addresses

MARK = b"made by the host\n"
# Without a shell's tools for it: perl is in every image.
GET = """perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); alarm 5;
connect(S, sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or die "$!\\n";
syswrite(S, "GET / HTTP/1.0\\r\\n\\r\\n"); local $/; print <S>'"""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A port of this host's at which an HTTP server answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the host")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_address[1]
        listening.shutdown()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw image and a qcow2 file, each with a mark at its start."""
    directory = tmp_path_factory.mktemp("images")
    for name in ("a.img", "b.img"):
        (directory / name).write_bytes(MARK.ljust(1 << 20, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "a.img", "a.qcow2"], cwd=directory, check=True)
    return directory


@pytest.fixture(scope="module")
def vm(
    image: Path, tmp_path_factory: pytest.TempPathFactory, images: Path, server: int
) -> Iterator[LongLivedVm]:
    """A VM with more of everything."""
    flags = (
        "--empty-disk", "256M", "--empty-disk", "64M", "--overlay-disk", str(images / "a.qcow2"),
        "--readonly-disk", str(images / "b.img"), "--nics", "3", "--network", "user", "--dns", "192.0.2.53",
        "--host-access", "off", "--host-forward", f"7000:{server}",
    )  # fmt: skip
    with shared_vm("more", image=image, state=tmp_path_factory.mktemp("state"), flags=flags) as made:
        assert made.listing["start"] == "restored"
        yield made


def test_disks_besides_the_root(vm: LongLivedVm, images: Path) -> None:
    listed = vm.shell("lsblk -b -d -n -o NAME,SIZE,RO,SERIAL").splitlines()
    disks = {words[0]: words[1:] for words in map(str.split, listed) if words[0].startswith("vd")}
    assert disks["vdb"] == [str(256 << 20), "0", "empty-0"]
    assert disks["vdc"] == [str(64 << 20), "0", "empty-1"]
    assert disks["vdd"] == [str(1 << 20), "0", "overlay-0"]
    assert disks["vde"] == [str(1 << 20), "1", "readonly-0"]
    assert vm.shell("readlink -f /dev/disk/by-id/virtio-overlay-0") == "/dev/vdd\n"
    assert vm.shell("head -n 1 /dev/vdd; head -n 1 /dev/vde").encode() == MARK * 2
    vm.shell("echo kept >/dev/vdb; echo written >/dev/vdd; sync")
    assert vm.run("exec", "--", "sh", "-c", "echo no >/dev/vde").code != 0
    assert (images / "b.img").read_bytes().startswith(MARK)


def test_snapshots_hold_all_disks(vm: LongLivedVm) -> None:
    vm.shell("echo before >/dev/vdc; echo before >/root/file; sync")
    assert vm.vmrunner.run("snapshot", "save", vm.name, "one").code == 0
    vm.shell("echo later >/dev/vdc; echo later >/root/file; sync")
    restored = vm.vmrunner.run("snapshot", "restore", vm.name, "one")
    assert restored.code == 0, restored.stderr
    vm.shell("echo 3 >/proc/sys/vm/drop_caches")
    assert vm.shell("head -n 1 /dev/vdc; cat /root/file") == "before\nbefore\n"
    assert vm.shell("head -n 1 /dev/vdb") == "kept\n"


def test_more_network_cards(vm: LongLivedVm) -> None:
    cards = vm.shell("ls /sys/class/net").split()
    assert {"eth0", "eth1", "eth2"} <= set(cards)
    vm.shell("ip address add 10.0.3.15/24 dev eth1 && ip link set eth1 up")
    # QEMU's side of the network answers who has its address, and nothing more.
    vm.run("exec", "--", "sh", "-c", f"{GET} 10.0.3.2 9")
    assert "lladdr" in vm.shell("ip neighbour show 10.0.3.2 dev eth1")
    assert "inet " not in vm.shell("ip -4 -o address show dev eth2")


def test_another_name_server(vm: LongLivedVm) -> None:
    assert vm.shell("head -n 1 /etc/resolv.conf") == "nameserver 192.0.2.53\n"


def test_the_host_is_out_of_reach_but_for_what_is_forwarded(vm: LongLivedVm, server: int) -> None:
    assert vm.shell(f"{GET} 127.0.0.1 7000").endswith("from the host")
    for address in ("10.0.2.2", *local_addresses()):
        refused = vm.run("exec", "--", "sh", "-c", f"{GET} {address} {server}")
        assert refused.code != 0
        assert "ermission denied" in refused.stderr, address


def test_disks_are_kept_by_a_stop_and_made_anew_by_a_reset(vm: LongLivedVm, images: Path) -> None:
    vm.shell("sync")
    assert vm.run("stop").code == 0
    assert vm.run("up").code == 0
    assert vm.shell("head -n 1 /dev/vdb; head -n 1 /dev/vdd") == "kept\nwritten\n"
    assert vm.run("reset").code == 0
    assert vm.shell("head -c 2048 /dev/vdb | tr -d '\\0' | wc -c") == "0\n"
    assert vm.shell("head -n 1 /dev/vdd").encode() == MARK
    assert vm.shell("head -n 1 /etc/resolv.conf") == "nameserver 192.0.2.53\n"


def test_tests_without_a_network(vmrunner: CommandLine, copied_crate: Any) -> None:
    script = (
        "ls /sys/class/net; cat /sys/class/net/lo/flags; cat /proc/net/dev; ls /sys/fs/cgroup/cgroup.procs"
    )
    done = vmrunner.run(
        "test",
        copied_crate("scripted"),
        "--network",
        "none",
        "--env",
        f"SCRIPT={script}",
        "--",
        "--no-capture",
    )
    assert done.code == 0, done.stderr
    said = done.stdout + done.stderr
    assert "0x9" in said
    assert "eth0" not in said


def test_tests_reach_a_service_of_the_host(vmrunner: CommandLine, copied_crate: Any, server: int) -> None:
    script = f"{GET} 127.0.0.1 7001"
    done = vmrunner.run(
        "test", copied_crate("scripted"), "--host-forward", f"7001:{server}", "--env", f"SCRIPT={script}",
        "--", "--no-capture",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "from the host" in done.stdout + done.stderr


def test_a_port_that_the_guest_has_taken(vm: LongLivedVm, copied_crate: Any) -> None:
    # The session that starts it has the port itself until it ends. Of IPv4 and IPv6, dropbear is content with one.
    listen = (
        "perl -MSocket=:all -e 'socket(S, PF_INET6, SOCK_STREAM, 0); "
        "select(undef, undef, undef, 0.1) until bind(S, sockaddr_in6(7000, inet_pton(PF_INET6, q(::)))); "
        "listen(S, 1); open(M, q(>), q(/run/taken)); sleep 600'"
    )
    vm.shell(f"{listen} </dev/null >/dev/null 2>&1 &")
    time.sleep(2)
    assert vm.shell("ls /run/taken") == "/run/taken\n"
    warned = vm.run("exec", "--", "true")
    assert warned.code == 0
    assert "warning: the guest does not forward its port 7000" in warned.stderr
    failed = vm.vmrunner.run("test", copied_crate("scripted"), "--vm", vm.name, "--env", "SCRIPT=true")
    assert (failed.code, "does not forward its port 7000" in failed.message) == (23, True)
    assert "take another" in failed.hint
