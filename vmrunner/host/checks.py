"""What `vmrunner doctor` asks about this computer itself: Python, QEMU, space, directories, Nix."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from vmrunner.config.units import Size
from vmrunner.host.deadline import Deadline
from vmrunner.host.doctor import Check, Question, Status
from vmrunner.host.facts import HostFacts, read_facts
from vmrunner.host.paths import cache_dir, runtime_dir, state_dir
from vmrunner.host.process import run_command
from vmrunner.host.qemu_checks import qemu_questions

OLDEST_PYTHON = (3, 11)

MEMORY_WANTED = Size.parse("1536M")
"""A guest of 1 GiB, QEMU's own and the build of a test archive beside it."""

DISK_NEEDED = Size.parse("1G")
DISK_WANTED = Size.parse("5G")
"""A Debian image while it is built takes about 1 GiB; templates and runs add to that."""

SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket (unix(7): 108 with the final zero)."""

SOCKET_NAME_BYTES = 48
"""What is put below the runtime directory: a machine's name and the socket's."""


def host_questions() -> tuple[Question, ...]:
    """Everything this room can ask, in the order a person reads it."""
    return (
        Question("python", lambda _: [check_python(sys.version_info[:3])]),
        *qemu_questions(),
        Question("memory and disk", lambda _: check_space(read_facts())),
        Question("directories", lambda _: check_directories()),
        Question("nix", check_nix),
    )


def check_python(version: tuple[int, ...]) -> Check:
    """Whether this Python is new enough."""
    found = f"{'.'.join(map(str, version))} ({sys.executable})"
    if version >= OLDEST_PYTHON:
        return Check("python", "ok", found)
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Check("python", "problem", found, f"install Python {oldest} or newer")


def check_space(facts: HostFacts) -> list[Check]:
    """Whether memory and disk suffice for a guest and an image."""
    of = f"{Size(facts.memory_available).for_people()} available of {Size(facts.memory_total).for_people()}"
    enough = facts.memory_available >= MEMORY_WANTED
    memory = Check(
        "memory",
        "ok" if enough else "warning",
        f"{of}, {facts.cpus} processors ({facts.distribution})",
        None if enough else "close programs, or give the machine less: `memory: 512M` in vmrunner.yaml",
    )
    return [
        memory,
        _disk("disk for images", facts.cache_free, "XDG_CACHE_HOME"),
        _disk("disk for runs", facts.state_free, "XDG_STATE_HOME"),
    ]


def _disk(name: str, free: int, variable: str) -> Check:
    found = f"{Size(free).for_people()} free"
    if free >= DISK_WANTED:
        return Check(name, "ok", found)
    status: Status = "warning" if free >= DISK_NEEDED else "problem"
    advice = f"free some (`vmrunner image prune` helps), or set {variable} to a directory on a larger disk"
    return Check(name, status, found, advice)


def check_directories() -> list[Check]:
    """Whether vmrunner's directories can be written and nobody else can look in."""
    wanted: tuple[tuple[str, Callable[[], Path], str], ...] = (
        ("cache directory", cache_dir, "XDG_CACHE_HOME"),
        ("state directory", state_dir, "XDG_STATE_HOME"),
        ("runtime directory", runtime_dir, "XDG_RUNTIME_DIR"),
    )
    return [check_directory(name, find, variable) for name, find, variable in wanted]


def check_directory(name: str, find: Callable[[], Path], variable: str) -> Check:
    """One of vmrunner's directories, made by `find`, moved by the environment's `variable`."""
    try:
        directory = find()
    except OSError as error:
        return Check(
            name, "problem", f"cannot be made: {error}", f"set {variable} to a directory you may write"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        return Check(
            name, "problem", f"{directory} is not writable", f"set {variable} to a directory you may write"
        )
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        return Check(
            name, "warning", f"{directory} is open to others (mode {mode:o})", f"chmod 700 {directory}"
        )
    longest = len(os.fsencode(directory)) + SOCKET_NAME_BYTES
    if variable == "XDG_RUNTIME_DIR" and longest >= SOCKET_PATH_BYTES:
        found = f"{directory} is too long for sockets: {longest} bytes with a machine's name"
        return Check(
            name,
            "problem",
            found,
            f"set {variable} to a shorter path; {SOCKET_PATH_BYTES} bytes is the limit",
        )
    return Check(name, "ok", str(directory))


def check_nix(deadline: Deadline) -> list[Check]:
    """Whether NixOS images can be built; nothing is wrong where they cannot."""
    if shutil.which("nix-build") is None:
        return [Check("nix", "ok", "not installed; Debian images do not need it")]
    result = run_command(["nix-build", "--version"], deadline=deadline, check=False)
    if result.code == 0:
        return [Check("nix", "ok", result.stdout.strip())]
    said = f"`nix-build --version` failed with exit code {result.code}: {result.stderr.strip()}"
    return [Check("nix", "warning", said, "repair Nix, or use `--image debian`")]
