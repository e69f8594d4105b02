"""The guest's programs `prepare` and `unit` run here: their paths led to a directory, their mounts in a namespace."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_qemu import write_program

PROGRAMS = Path(__file__).parents[2] / "images" / "guest" / "usr" / "lib" / "vmrunner"
UNIT = "cargo-nextest.service"
# In a mount namespace of its own, whatever is mounted is gone with the last process in it.
ALONE = ("unshare", "--map-root-user", "--mount", "--propagation", "private")
_PATHS = {
    "/run/vmrunner": "run/vmrunner",
    "/run/machine-id": "run/machine-id",
    "/var/lib/cargo-nextest": "state",
    "/sys/fs/cgroup": "cgroup",
    "/proc/sys/kernel": "kernel",
    "/etc/": "etc/",
}


def led_here(text: str, directory: Path) -> str:
    """A text with the guest's paths led to this directory."""
    for theirs, ours in _PATHS.items():
        text = text.replace(theirs, f"{directory}/{ours}")
    return text


def install_programs(directory: Path) -> None:
    """Put the guest's programs there; shares are empty file systems in memory, and a start has 0.1 s."""
    program = led_here((PROGRAMS / "prepare").read_text(), directory)
    for theirs, ours in {"'9p'": "'tmpfs'", "$options . $cache": "''", "1 .. 500": "1 .. 5"}.items():
        assert theirs in program
        program = program.replace(theirs, ours)
    (directory / "prepare").write_text(program)
    (directory / "unit").write_text(led_here((PROGRAMS / "unit").read_text(), directory))
    for name in ("run", "etc", "kernel", "bin"):
        (directory / name).mkdir()


def can_mount() -> bool:
    """Whether this user may do in a namespace what a guest's root does."""
    if shutil.which("perl") is None or shutil.which("unshare") is None:
        return False
    return subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode == 0


@dataclass(frozen=True)
class GuestPrograms:
    """A directory that has the guest's programs, and stands for the root of its file system.

    A file `systemctl` there has what the stand-in for that program was told.
    """

    directory: Path

    def run(self, script: str, *, on_stop: str = "", on_restart: str = "") -> str:
        """Run shell lines in a mount namespace, up to the first that fails; what they print.

        `on_stop` and `on_restart` are what systemctl does.
        """
        environment = {
            "PATH": f"{self.directory}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "BASE": str(self.directory),
            "ON_STOP": on_stop,
            "ON_RESTART": on_restart,
        }
        done = subprocess.run(
            [*ALONE, "sh", "-c", f"set -e\n{script}"],
            cwd=self.directory,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def asked_of_systemctl(self) -> list[str]:
        """The words of each call."""
        told = self.directory / "systemctl"
        return told.read_text().splitlines() if told.exists() else []


def guest_programs(directory: Path) -> GuestPrograms:
    """The guest's programs in that directory; the test is skipped where they cannot be run."""
    if not can_mount():
        pytest.skip("perl and a mount namespace are needed")
    install_programs(directory)
    by_verb = 'case "$1" in stop) eval "$ON_STOP";; restart) eval "$ON_RESTART";; esac'
    write_program(directory / "bin" / "systemctl", f'echo "$@" >>"$BASE/systemctl"; {by_verb}')
    return GuestPrograms(directory)
