"""Getting inside a long-lived VM: programs, shells, its console, files both ways, and what it prints."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from long_lived import LongLivedVm
from shared_vm import ScriptedCrate, wait_until_gone
from terminal import terminal

MEBIBYTE = 1 << 20
BYTES = bytes(range(256)) * (3 * MEBIBYTE // 256) + b"\r\n\x03\x04"
PROMPT = r"root@vmrunner:[^\n]*# "
CTRL_C, CTRL_D, CTRL_RIGHT_BRACKET = "\x03", "\x04", "\x1d"
TOLD_SOON_SECONDS = 5.0
"""How long it may take until a dead machine is told, where it would else be waited for, for minutes."""


def piped(
    vm: LongLivedVm, verb: str, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """A verb with its name, with bytes in and bytes out."""
    return subprocess.run(
        [*vm.vmrunner.program, verb, vm.name, *arguments],
        env=vm.vmrunner.environment, input=stdin, capture_output=True, timeout=120, check=False,
    )  # fmt: skip


def wait_until_prints(vm: LongLivedVm, script: str, wanted: str) -> None:
    """Ask the guest again and again until it answers with that."""
    until = time.monotonic() + 20
    while (shown := vm.shell(script)) != wanted:
        assert time.monotonic() < until, shown


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("exec /no/such/program", 127)]
)
def test_exec_ends_as_the_program_ends(script: str, code: int, vm: LongLivedVm) -> None:
    finished = vm.run("exec", "--", "sh", "-c", script)
    assert finished.code == code
    assert finished.stdout == ""
    assert "error: " not in finished.stderr


def test_exec_passes_the_streams_on_apart_and_exactly(vm: LongLivedVm) -> None:
    done = piped(vm, "exec", "--", "sh", "-c", "tee /dev/stderr | sha256sum >&2; exit 3", stdin=BYTES)
    assert done.returncode == 3
    digest = f"{hashlib.sha256(BYTES).hexdigest()}  -\n".encode()
    assert done.stdout == b""
    assert done.stderr == BYTES + digest
    echoed = piped(vm, "exec", "--", "cat", stdin=BYTES)
    assert (echoed.returncode, echoed.stderr) == (0, b"")
    assert echoed.stdout == BYTES


def test_exec_gives_arguments_directory_and_variables_as_they_are(vm: LongLivedVm) -> None:
    program = ("sh", "-c", 'printf "%s|" "$PWD" "$WORD" "$@"', "sh", "a b", "$HOME", "it's", "")
    finished = vm.run("exec", "-w", "/usr/lib", "-e", "WORD=two words", "--", *program)
    assert finished.stdout == "/usr/lib|two words|a b|$HOME|it's||"
    nowhere = vm.run("exec", "-w", "/nowhere", "--", "true")
    assert nowhere.code == 125
    assert "/nowhere" in nowhere.stderr


def test_exec_ends_when_nobody_reads(vm: LongLivedVm) -> None:
    command = f'"$0" exec {vm.name} -- sh -c "echo \\$\\$ >/run/endless; exec yes" | head -n 2; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", command, *vm.vmrunner.program],
        env=vm.vmrunner.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "y\ny\n141\n"
    assert done.stderr == ""
    wait_until_prints(
        vm, "kill -0 $(cat /run/endless) 2>&1 || echo gone", "sh: 1: kill: No such process\n\ngone\n"
    )


def test_ctrl_c_ends_the_program_in_the_guest(vm: LongLivedVm) -> None:
    script = "trap 'echo cleaned >/run/trapped; exit 9' INT; echo ready >&2; while :; do sleep 0.1; done"
    running = vm.vmrunner.start("exec", vm.name, "--", "sh", "-c", script)
    running.wait_for("^ready$")
    running.press_ctrl_c()
    finished = running.finish(seconds=20)
    assert finished.code == 130
    assert finished.stderr == "ready\n"
    assert vm.shell("cat /run/trapped; pgrep -fc 'sleep 0[.]1' || :") == "cleaned\n0\n"


def test_exec_in_a_terminal(vm: LongLivedVm) -> None:
    with terminal(vm.vmrunner, "exec", "-t", vm.name, "--", "sh", "-i") as person:
        person.see("# ")
        person.type("stty size; tty; echo $TERM\n")
        person.see("40 100\r\n/dev/pts/[0-9]+\r\nxterm\r\n")
        assert person.is_raw
        person.resize(132, 50)
        person.type("sleep 0.5; stty size\n")
        person.see("50 132\r\n")
        person.type("sh -c 'echo be''gan; exec sleep 100'\n")
        person.see("began\r\n")
        person.type(CTRL_C)
        person.see("# ")
        person.type("exit 5\n")
        assert person.end() == 5
        assert not person.is_raw


def test_ssh_is_a_login_shell_in_a_terminal(vm: LongLivedVm) -> None:
    with terminal(vm.vmrunner, "ssh", vm.name) as person:
        person.see(PROMPT)
        person.type("echo $0 $HOME; stty size; pwd\n")
        person.see("/bin/bash /root\r\n40 100\r\n/root\r\n")
        person.resize(80, 25)
        person.type("sleep 0.5; stty size\n")
        person.see("25 80\r\n")
        person.see(PROMPT)
        person.type("false\n")
        # Only at the prompt after it: the kernel makes a NUL of a Ctrl-D that comes while the shell does not read keys.
        person.see("false\r\n")
        person.see(PROMPT)
        person.type(CTRL_D)
        assert person.end() == 1
        assert not person.is_raw


def test_ssh_without_a_terminal(vm: LongLivedVm) -> None:
    fed = piped(vm, "ssh", stdin=b"echo out; echo err >&2; tty; exit 4\n")
    assert fed.returncode == 4
    assert (fed.stdout, fed.stderr) == (b"out\nnot a tty\n", b"err\n")
    line = piped(vm, "ssh", "--", "echo *.service | wc -w; cd /etc/systemd && ls -d sys*")
    assert line.stdout.splitlines()[0] == b"1"
    assert b"system" in line.stdout.splitlines()


def test_console_is_a_terminal_for_one(vm: LongLivedVm) -> None:
    with terminal(vm.vmrunner, "console", vm.name) as person:
        person.see(r"leave the console with Ctrl-\].*stty rows 40 columns 100")
        person.type("\r")
        person.see(PROMPT)
        person.type("tty; stty rows 40 columns 100; stty size\r")
        person.see("/dev/ttyS0\r\n40 100\r\n")
        person.type("sh -c 'echo be''gan; exec sleep 100'\r")
        person.see("began\r\n")
        person.type(CTRL_C)
        person.see(PROMPT)
        second = vm.run("console")
        assert second.code == 2
        assert second.message == "this machine's console is already open in another terminal"
        assert "Ctrl-]" in second.hint
        person.type(CTRL_RIGHT_BRACKET)
        assert person.end() == 0
        assert not person.is_raw
    with terminal(vm.vmrunner, "console", vm.name) as person:
        person.see("leave the console")
        person.type(CTRL_RIGHT_BRACKET)
        assert person.end() == 0


def test_cp_of_a_file_keeps_bytes_mode_and_time(vm: LongLivedVm, tmp_path: Path) -> None:
    source, back = tmp_path / "a file", tmp_path / "back"
    source.write_bytes(BYTES)
    source.chmod(0o751)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    there = vm.vmrunner.run("cp", source, f"{vm.name}:/srv/copied")
    assert there.code == 0, there.stderr
    digest = hashlib.sha256(BYTES).hexdigest()
    assert vm.shell("stat -c '%a %Y' /srv/copied; sha256sum </srv/copied") == f"751 1000000000\n{digest}  -\n"
    assert vm.vmrunner.run("cp", f"{vm.name}:/srv/copied", back).code == 0
    assert back.read_bytes() == BYTES
    assert (back.stat().st_mode & 0o7777, back.stat().st_mtime) == (0o751, 1_000_000_000)


def test_cp_of_a_tree_both_ways(vm: LongLivedVm, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep" / "empty").mkdir(parents=True)
    (tree / "deep" / "script").write_text("#!/bin/sh\necho it runs\n")
    (tree / "deep" / "script").chmod(0o700)
    (tree / "link").symlink_to("deep/script")
    assert vm.vmrunner.run("cp", tree, f"{vm.name}:/srv").code == 0
    assert vm.shell("/srv/tree/link; readlink /srv/tree/link; ls -A /srv/tree/deep") == (
        "it runs\ndeep/script\nempty\nscript\n"
    )
    assert vm.vmrunner.run("cp", f"{vm.name}:/srv/tree/.", tmp_path / "back").code == 0
    assert (
        subprocess.run(["diff", "-r", "--no-dereference", tree, tmp_path / "back"], check=False).returncode
        == 0
    )
    assert (tmp_path / "back" / "deep" / "script").stat().st_mode & 0o777 == 0o700


def test_cp_of_what_is_not_there(vm: LongLivedVm, tmp_path: Path) -> None:
    here = vm.vmrunner.run("cp", tmp_path / "nothing", f"{vm.name}:/srv")
    assert (here.code, here.message) == (2, f"there is no `{tmp_path}/nothing` on this computer")
    there = vm.vmrunner.run("cp", f"{vm.name}:/srv/nothing", tmp_path)
    assert there.code == 2, there.stderr
    assert "/srv/nothing" in there.message
    assert list(tmp_path.iterdir()) == []
    refused = vm.vmrunner.run("cp", __file__, f"{vm.name}:/nothing/here")
    assert (refused.code, refused.message) == (2, "there is no `/nothing/here` in the guest")
    forbidden = vm.vmrunner.run("cp", __file__, f"{vm.name}:/proc/version")
    assert forbidden.code == 23, forbidden.stderr
    assert "/proc/version" in forbidden.message


def test_logs_of_all_kinds(vm: LongLivedVm, tmp_path: Path) -> None:
    vm.shell("echo on the console >/dev/ttyS0")
    assert "on the console" in vm.run("logs", "serial").stdout
    assert vm.run("logs", "qemu").code == 0
    crate = ScriptedCrate.make(tmp_path)
    following = vm.vmrunner.start("logs", vm.name, "-f")
    assert crate.run(vm.vmrunner, "true", "--vm", vm.name).code == 0
    vm.shell("echo afterwards >/dev/ttyS0")
    assert "scripted tests::script" in vm.run("logs", "unit").stdout
    labelled = vm.run("logs").stdout.rstrip("\n").split("\n")
    assert {line.partition(" | ")[0].rstrip() for line in labelled} <= {"serial", "unit", "qemu"}
    assert any(line.startswith("unit   |") and "1 passed" in line for line in labelled)
    time.sleep(1)
    following.press_ctrl_c()
    followed = following.finish(seconds=20)
    assert followed.code == 130
    assert "serial | afterwards" in followed.stdout
    assert "1 passed" in followed.stdout


def test_a_guest_that_dies_meanwhile_is_told_at_once(vm: LongLivedVm) -> None:
    running = vm.vmrunner.start("exec", vm.name, "--", "sh", "-c", "echo ready >&2; exec sleep 1000")
    running.wait_for("^ready$")
    following = vm.vmrunner.start("logs", "-f", vm.name)
    with (
        terminal(vm.vmrunner, "ssh", vm.name) as person,
        terminal(vm.vmrunner, "console", vm.name) as sitting,
    ):
        person.see(PROMPT)
        sitting.see("leave the console")
        pid = vm.pid
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        finished = running.finish(seconds=20)
        assert person.end() == 23
        assert sitting.end() == 0
        assert time.monotonic() - killed < TOLD_SOON_SECONDS
        sitting.see("the machine has ended")
        person.see(f"error: the VM `{vm.name}` died: its QEMU is gone")
        assert not person.is_raw
    assert following.finish(seconds=20).code == 0
    assert (finished.code, finished.message) == (23, f"the VM `{vm.name}` died: its QEMU is gone")
    wait_until_gone(pid)
    for verb in (("exec", "--", "true"), ("ssh",), ("console",)):
        again = vm.run(verb[0], *verb[1:])
        assert again.code == 23, again.stderr
        assert f"vmrunner up {vm.name}" in again.hint
    assert vm.run("logs", "serial").code == 0
