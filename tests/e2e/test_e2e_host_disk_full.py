"""This host's disk has no room for what a guest writes: QEMU stops the guest, and that is told at once."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from long_lived import LongLivedVm
from run_record import assert_guest_ran
from shared_vm import shared_vm

SOON_SECONDS = 10.0
SHAPE = ("--memory", "512M", "--start", "booted")
WRITE = "dd if=/dev/zero of=/root/much bs=1M count=500 conv=fsync status=none"


@contextmanager
def little_room(place: Path, size: str) -> Iterator[Path]:
    """A file system of that size."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = f"size={size},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "vmrunner-test", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_run_ends_and_says_so(vmrunner: CommandLine, copied_crate: Any, tmp_path: Path) -> None:
    with little_room(tmp_path / "cache", "300m") as cache:
        short = CommandLine(vmrunner.state_home, cache, None, vmrunner.variables)
        done = short.run("test", copied_crate("scripted"), *SHAPE, "--env", f"SCRIPT={WRITE}")
        assert done.code == 20, done.stderr
        assert done.message.startswith("there is no room on this computer for what the guest writes")
        assert f"free some space where {cache}" in done.hint
        assert done.seconds - done.line("Starting 2 tests").seconds < SOON_SECONDS + 10
        assert_guest_ran(short.only_run)
        assert short.only_run.report["exit_code"] == 20
        short.assert_nothing_left(short.only_run)


@pytest.fixture
def cramped(image: Path) -> Iterator[tuple[LongLivedVm, Path]]:
    """A VM whose disk is on a small file system, and where that is."""
    with (
        tempfile.TemporaryDirectory(prefix="vm-") as place,
        little_room(Path(place) / "state", "200m") as state,
        shared_vm("cramped", image=image, state=state, flags=SHAPE) as vm,
    ):
        yield vm, state


def test_a_vm_goes_on_where_it_was_when_there_is_room(cramped: tuple[LongLivedVm, Path]) -> None:
    vm, state = cramped
    vm.shell(f"( {WRITE} && md5sum /root/much >/root/sum ) >/dev/null 2>&1 </dev/null &")
    waiting = vm.vmrunner.run("exec", vm.name, "--", "sh", "-c", "until test -e /root/sum; do sleep 1; done")
    assert waiting.code == 20, waiting.stderr
    for verb in (("exec", vm.name, "--", "true"), ("stop", vm.name), ("tune", vm.name, "--net-delay", "1ms")):
        refused = vm.vmrunner.run(*verb)
        assert refused.code == 20, refused.stderr
        assert refused.message.startswith("there is no room on this computer for what the guest writes")
        assert "any command for the VM lets it go on" in refused.hint
        assert refused.seconds < SOON_SECONDS

    subprocess.run(["mount", "-o", "remount,size=2g", state], check=True)
    written = vm.shell("until test -s /root/sum; do sleep 1; done; cat /root/sum")
    zeros = subprocess.run(
        "head -c 500M /dev/zero | md5sum", shell=True, check=True, capture_output=True, text=True
    )
    assert written.split()[0] == zeros.stdout.split()[0]
