"""What `vmrunner doctor` asks about QEMU: version, accelerator, port forwarding, shares."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vmrunner.events import silent
from vmrunner.host.accelerator import choose_accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.doctor import Check, Question
from vmrunner.host.process import CommandResult, run_command
from vmrunner.host.qemu import find_qemu, find_qemu_img

_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(?P<port>\d+)\s")
_KEPT_ERROR_LINES = 5


def qemu_questions() -> tuple[Question, ...]:
    """All about QEMU, in the order a person reads it."""
    return (
        Question("qemu", lambda _: [check_qemu()]),
        Question("qemu-img", lambda _: [check_qemu_img()]),
        Question("setpriv", lambda _: [check_setpriv()]),
        Question("accelerator", lambda deadline: [check_accelerator(deadline)]),
        Question("port forwarding", lambda deadline: [check_port_forwarding(deadline)]),
        Question("shares", lambda deadline: [check_shares(deadline)]),
    )


def check_qemu() -> Check:
    """Whether QEMU is there and new enough; raises HostError otherwise."""
    qemu = find_qemu()
    return Check("qemu", "ok", f"{qemu.version} ({qemu.path})")


def check_qemu_img() -> Check:
    """The same for qemu-img."""
    program = find_qemu_img()
    return Check("qemu-img", "ok", f"{program.version} ({program.path})")


def check_setpriv() -> Check:
    """Whether QEMU can be tied to vmrunner's life."""
    found = shutil.which("setpriv")
    if found:
        return Check("setpriv", "ok", found)
    return Check("setpriv", "problem", "`setpriv` is not on PATH", "sudo apt install util-linux")


def check_accelerator(deadline: Deadline) -> Check:
    """Which accelerator a machine would get, with every probe made to find out (never a remembered one)."""
    qemu = find_qemu()
    chosen = choose_accelerator("auto", qemu=qemu, emit=silent, deadline=deadline, fresh=True)
    lines = [f"{chosen.kind}, CPU model {chosen.cpu_model}: {chosen.reason}"]
    for attempt in chosen.attempts:
        verdict = "works" if attempt.works else "fails"
        lines.append(
            f"tried {attempt.kind} {attempt.cpu_model}: {verdict} after {attempt.seconds:.2g} s, {attempt.saw}"
        )
    if chosen.kind == "kvm":
        return Check("accelerator", "ok", "\n".join(lines))
    advice = "tests run in emulation, slower; a computer with hardware KVM runs them faster"
    if not qemu.emulates_several_cpus:
        lines.append(f"QEMU {qemu.version} now and then breaks a guest with several CPUs")
        advice += "; QEMU 8.1 or newer emulates several CPUs without a defect"
    return Check("accelerator", "warning", "\n".join(lines), advice)


def check_port_forwarding(deadline: Deadline) -> Check:
    """Whether QEMU's user network forwards a port of its choice, as each machine's SSH needs."""
    result = _stopped_machine(
        ["-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"],
        commands=["info usernet"],
        deadline=deadline,
    )
    forward = _FORWARD.search(result.stdout)
    if result.code == 0 and forward:
        return Check(
            "port forwarding", "ok", f"127.0.0.1:{forward['port']} was forwarded to a guest's port 22"
        )
    return Check(
        "port forwarding",
        "problem",
        f"QEMU set up no forward to a guest: {_last_words(result)}",
        "install a QEMU with the user network (slirp) built in, such as Debian's",
    )


def check_shares(deadline: Deadline) -> Check:
    """Whether QEMU can export a directory to a guest (9p), in its sandbox."""
    with tempfile.TemporaryDirectory(prefix="vmrunner-doctor-") as directory:
        result = _stopped_machine(
            [
                *("-fsdev", f"local,id=share,path={directory},security_model=none,readonly=on"),
                *("-device", "virtio-9p-pci,fsdev=share,mount_tag=share"),
            ],
            commands=[],
            deadline=deadline,
        )
    if result.code == 0:
        return Check("shares", "ok", "QEMU exports directories over 9p, in its sandbox")
    return Check(
        "shares",
        "problem",
        f"QEMU cannot export a directory: {_last_words(result)}",
        "install a QEMU with VirtFS (9p) and seccomp built in, such as Debian's",
    )


def _stopped_machine(
    arguments: Sequence[str], *, commands: Sequence[str], deadline: Deadline
) -> CommandResult:
    """Make a machine that never runs, give its monitor these commands, and quit it."""
    with tempfile.TemporaryDirectory(prefix="vmrunner-doctor-") as directory:
        script = Path(directory) / "monitor"
        script.write_text("\n".join([*commands, "quit", ""]))
        argv: list[str | Path] = [
            find_qemu().path,
            *("-M", "q35", "-accel", "tcg", "-m", "16", "-S", "-sandbox", "on"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-monitor", "stdio"),
            *arguments,
        ]
        return run_command(argv, deadline=deadline, check=False, stdin=script)


def _last_words(result: CommandResult) -> str:
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    return "\n".join(lines[-_KEPT_ERROR_LINES:]) or f"exit code {result.code}"
