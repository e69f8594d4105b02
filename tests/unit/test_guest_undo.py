"""Undoing a run: the script, run by a real sh with stand-ins for what only a guest has, takes all away or says so."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from fake_qemu import write_program
from fake_sshd import FakeSshd, answer, running_sshd

from vmrunner.errors import GuestError, exit_code_of
from vmrunner.guest import inbox
from vmrunner.guest.inbox import GuestLayout, Job, render_mounts
from vmrunner.guest.ssh import Guest
from vmrunner.guest.undo import undo_run, undo_script
from vmrunner.host.deadline import Deadline

LAYOUT = GuestLayout(
    PurePosixPath("/home/u/my ws"),
    PurePosixPath("/home/u/my\tws\\t"),
    remapped=False,
    build=PurePosixPath("/home/u/it's $HOME"),
)
MOUNTS = render_mounts(Job(LAYOUT, ("nextest",), "user", store_bind=PurePosixPath("/home/u/my ws/store")))
RECORD = 'printf "%s\\0" {} "$@" >>"$TOLD"; printf "\\n" >>"$TOLD"'


@dataclass(frozen=True)
class Computer:
    """A directory that stands for a guest: its state directory, its table of mounts, and what commands were told."""

    base: Path

    @property
    def state(self) -> Path:
        """What the unit has as its working directory."""
        return self.base / "state"

    @property
    def proc_mounts(self) -> Path:
        """The table of mounts after all."""
        return self.base / "mounts"

    def undo(self, mounts: str = MOUNTS) -> subprocess.CompletedProcess[str]:
        """Run the script, with the guest's paths led here."""
        script = undo_script(mounts).replace("/proc/mounts", str(self.proc_mounts))
        script = script.replace(str(inbox.STATE), str(self.state))
        return subprocess.run(
            ["sh", "-c", script],
            env={"PATH": f"{self.base / 'bin'}:/usr/bin:/bin", "TOLD": str(self.base / "told")},
            cwd=self.base,
            capture_output=True,
            text=True,
            check=False,
        )

    def commands(self, name: str) -> list[list[str]]:
        """The arguments of each call of a stand-in."""
        calls = [line.split("\0")[:-1] for line in (self.base / "told").read_text().split("\n")[:-1]]
        return [arguments for program, *arguments in calls if program == name]


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    """A guest after a run: files in its directory, nothing mounted any more."""
    (tmp_path / "bin").mkdir()
    for name in ("systemctl", "umount"):
        write_program(tmp_path / "bin" / name, RECORD.format(name))
    computer = Computer(tmp_path)
    computer.proc_mounts.write_text("/dev/vda / ext4 rw 0 0\n")
    computer.state.mkdir()
    for name in ("file", ".hidden", "..two dots", "-r", "it's a name"):
        (computer.state / name).write_text("left by a test")
    upper = computer.state / "overlays" / "workspace" / "upper"
    upper.mkdir(parents=True)
    (upper / "written").write_text("left by a test")
    return computer


def left_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def test_the_directory_is_empty_again_whatever_the_names_in_it(computer: Computer) -> None:
    done = computer.undo()
    assert (done.returncode, done.stderr) == (0, "")
    assert left_in(computer.state) == []
    assert (computer.base / "told").exists()


def test_the_unit_is_stopped_before_anything_else(computer: Computer) -> None:
    computer.undo()
    assert computer.commands("systemctl")[0] == ["stop", "cargo-nextest.service"]
    assert (computer.base / "told").read_text().startswith("systemctl\0stop\0")


def test_what_was_mounted_last_goes_first_and_strange_paths_are_one_word_each(computer: Computer) -> None:
    computer.undo()
    assert computer.commands("umount")[0] == [
        "/home/u/my ws/store",
        "/home/u/it's $HOME",
        "/home/u/my\tws\\t",
        "/home/u/my ws",
        "/etc/resolv.conf",
        "/etc/hosts",
    ]


def test_a_run_that_mounted_nothing_is_undone_too(computer: Computer) -> None:
    assert computer.undo(mounts="# nothing\n\n").returncode == 0
    assert left_in(computer.state) == []


def test_undoing_twice_is_undoing_once(computer: Computer) -> None:
    assert [computer.undo().returncode, computer.undo().returncode] == [0, 0]


@pytest.mark.parametrize("share", ["in", "out"])
def test_a_share_that_stays_mounted_is_a_failure(computer: Computer, share: str) -> None:
    """QEMU refuses to save such a machine, and the next run would see this one's files."""
    computer.proc_mounts.write_text(f"{share} /run/vmrunner/{share} 9p rw 0 0\n")
    assert computer.undo().returncode != 0


@pytest.mark.parametrize("name", ["/run/vmrunner/inner", "/run/vmrunner/output", "/srv/run/vmrunner/in.d"])
def test_a_mount_that_only_looks_like_a_share_is_none(computer: Computer, name: str) -> None:
    computer.proc_mounts.write_text(f"x {name} tmpfs rw 0 0\n")
    assert computer.undo().returncode == 0


def test_a_mount_that_is_not_there_is_no_failure(computer: Computer) -> None:
    write_program(computer.base / "bin" / "umount", "echo 'not mounted' >&2; exit 32")
    assert computer.undo().returncode == 0


def guest_that(sshd: FakeSshd) -> Guest:
    guest = Guest(sshd.endpoint, alive=lambda: None)
    guest.connect(Deadline.after(10))
    return guest


def test_the_script_goes_to_the_guest_in_one_command() -> None:
    with running_sshd(answer()) as sshd, contextlib.closing(guest_that(sshd)) as guest:
        undo_run(guest, mounts=MOUNTS, deadline=Deadline.after(10))
        (command,) = sshd.commands
        assert undo_script(MOUNTS) in command


def test_a_failure_is_the_guests_and_says_what_to_do() -> None:
    busy = answer(1, stderr=b"umount: /run/vmrunner/in: target is busy.\n")
    with (
        running_sshd(busy) as sshd,
        contextlib.closing(guest_that(sshd)) as guest,
        pytest.raises(GuestError) as caught,
    ):
        undo_run(guest, mounts=MOUNTS, deadline=Deadline.after(10))
    assert exit_code_of(caught.value) == 23
    assert caught.value.message == "the run before could not be cleared away in the guest"
    assert "vmrunner reset" in str(caught.value.hint)
    assert caught.value.details == "umount: /run/vmrunner/in: target is busy."
