"""Undoing a run: the guest's program takes all away that a run mounted and wrote, or says what stays."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_qemu import write_program
from fake_sshd import FakeSshd, answer, running_sshd

from vmrunner.errors import GuestError, exit_code_of
from vmrunner.guest.ssh import Guest
from vmrunner.guest.undo import undo_run, unmount_shares
from vmrunner.host.deadline import Deadline

PROGRAM = Path(__file__).parents[2] / "images" / "guest" / "usr" / "lib" / "vmrunner" / "prepare"
# In a mount namespace of its own, whatever is mounted is gone with the last process in it.
ALONE = ("unshare", "--map-root-user", "--mount", "--propagation", "private")
RUN = """
mkdir -p run/vmrunner/in/sources run/vmrunner/in/target run/vmrunner/out etc ws/target state
mount -t tmpfs state state
mount -t tmpfs in run/vmrunner/in
mount -t tmpfs out run/vmrunner/out
mkdir run/vmrunner/in/sources run/vmrunner/in/target run/vmrunner/out/store
echo '10.0.0.1 db' >run/vmrunner/in/hosts
for name in workspace target; do mkdir -p state/overlays/$name/upper state/overlays/$name/work; done
echo '127.0.0.1 localhost' >etc/hosts
mount --bind run/vmrunner/in/hosts etc/hosts
mkdir -p 'my ws/target'
over() {
  mount -t overlay "$1" -o "lowerdir=$BASE/run/vmrunner/in/$2,upperdir=state/overlays/$1/upper,workdir=state/overlays/$1/work" "$3"
}
over workspace sources 'my ws'
mkdir -p 'my ws/target'
over target target 'my ws/target'
mkdir 'my ws/deep' 'my ws/store'
mount -t tmpfs of-a-test 'my ws/deep'
mount --bind run/vmrunner/out/store 'my ws/store'
echo written >'my ws/file'
echo written >'my ws/target/file'
mkdir other
mount -t tmpfs other other
"""


def can_mount() -> bool:
    """Whether this user may do in a namespace what a guest's root does."""
    if shutil.which("perl") is None or shutil.which("unshare") is None:
        return False
    return subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode == 0


@dataclass(frozen=True)
class Ended:
    """What the program said, which mounts there are after it, and what is left in the unit's directory."""

    code: int
    stderr: str
    mounts: tuple[str, ...]
    left: tuple[str, ...]


Undo = Callable[..., Ended]


@pytest.fixture
def undo(tmp_path: Path) -> Undo:
    """Set up what a run leaves, run `before`, and then the guest's program with the guest's paths led to a directory."""
    if not can_mount():
        pytest.skip("perl and a mount namespace are needed")
    program = (
        PROGRAM.read_text()
        .replace("'9p'", "'tmpfs'")
        .replace("'/var/lib/cargo-nextest'", f"'{tmp_path}/state'")
    )
    program = program.replace("/sys/fs/cgroup", f"{tmp_path}/cgroup")
    program = program.replace("lowerdir=/run/vmrunner", f"lowerdir={tmp_path}/run/vmrunner")
    (tmp_path / "prepare").write_text(program)
    (tmp_path / "bin").mkdir()
    write_program(tmp_path / "bin" / "systemctl", 'echo "$@" >>"$BASE/systemctl"; eval "$ON_STOP"')

    def run(word: str = "undo", *, before: str = "", on_stop: str = "", setup: str = RUN) -> Ended:
        script = f"set -e\n{setup}\n{before}\nset +e\nperl prepare {word} 2>stderr; echo $? >code\n"
        script += 'cut -d" " -f2 /proc/mounts >mounts; (cd state && find . -mindepth 1) >left\n[ ! -e holder ] || kill $(cat holder) 2>/dev/null || :\n'
        environment = {
            "PATH": f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "BASE": str(tmp_path),
            "ON_STOP": on_stop,
        }
        subprocess.run([*ALONE, "sh", "-c", script], cwd=tmp_path, env=environment, check=True)
        mounts = [
            line for line in (tmp_path / "mounts").read_text().splitlines() if line.startswith(str(tmp_path))
        ]
        return Ended(
            int((tmp_path / "code").read_text()),
            (tmp_path / "stderr").read_text(),
            tuple(line.removeprefix(f"{tmp_path}/") for line in mounts),
            tuple(sorted(line.removeprefix("./") for line in (tmp_path / "left").read_text().splitlines())),
        )

    return run


NOTHING_WRITTEN = (
    "overlays",
    "overlays/target",
    "overlays/target/upper",
    "overlays/target/work",
    "overlays/workspace",
    "overlays/workspace/upper",
    "overlays/workspace/work",
)


def test_all_that_the_run_mounted_and_wrote_is_gone_and_nothing_else(undo: Undo, tmp_path: Path) -> None:
    ended = undo()
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.mounts == ("state", "other")
    assert ended.left == NOTHING_WRITTEN
    assert not (tmp_path / "systemctl").exists()


@pytest.mark.parametrize("name", ["file", ".hidden", "..two", "'-r'", "'it is'", "'new\nline'"])
def test_whatever_a_test_left_in_the_units_directory_goes(undo: Undo, name: str) -> None:
    ended = undo(before=f"echo x >state/{name}; mkdir -p state/a/b; echo x >state/a/b/c")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.left == NOTHING_WRITTEN


def test_undoing_what_is_undone_is_no_error(undo: Undo) -> None:
    assert undo(before="perl prepare undo").code == 0


def test_where_no_run_was_there_is_nothing_to_undo(undo: Undo) -> None:
    assert undo(setup="mkdir state").code == 0


def test_to_unmount_leaves_what_the_run_wrote(undo: Undo) -> None:
    ended = undo("unmount")
    assert ended.code == 0
    assert ended.mounts == ("state", "other")
    assert "overlays/workspace/upper/file" in ended.left


BUSY = "sleep 20 <run/vmrunner/in/hosts >/dev/null 2>&1 & echo $! >holder"


def test_a_process_of_the_unit_that_holds_a_share_is_ended_with_the_unit(undo: Undo, tmp_path: Path) -> None:
    ended = undo(
        before=BUSY, on_stop="kill $(cat holder); while kill -0 $(cat holder) 2>/dev/null; do :; done"
    )
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.mounts == ("state", "other")
    assert (tmp_path / "systemctl").read_text() == "stop cargo-nextest.service\n"


def test_processes_that_the_unit_left_are_ended_though_they_hold_nothing(undo: Undo, tmp_path: Path) -> None:
    group = "cgroup/system.slice/cargo-nextest.service"
    assert undo(before=f"mkdir -p {group}; echo 123 >{group}/cgroup.procs").code == 0
    assert (tmp_path / "systemctl").exists()


def test_a_share_that_somebody_else_holds_is_an_error(undo: Undo) -> None:
    ended = undo(before=BUSY, on_stop="true")
    assert ended.code != 0
    assert "what the run before mounted is still in use: Device or resource busy" in ended.stderr
    assert "run/vmrunner/in" in ended.mounts


def test_shares_that_are_in_use_are_not_unmounted_for_a_snapshot(undo: Undo, tmp_path: Path) -> None:
    ended = undo("unmount", before=BUSY)
    assert ended.code != 0
    assert "the shares are in use" in ended.stderr
    assert not (tmp_path / "systemctl").exists()


def connected(sshd: FakeSshd) -> Guest:
    guest = Guest(sshd.endpoint, alive=lambda: None)
    guest.connect(Deadline.after(10))
    return guest


@pytest.mark.parametrize(
    ("ask", "word", "said", "advice"),
    [
        (undo_run, "undo", "the run before could not be cleared away in the guest", "vmrunner reset"),
        (unmount_shares, "unmount", "its state cannot be saved", "fuser -vm"),
    ],
)
def test_the_guest_is_asked_once_and_its_failure_says_what_to_do(
    ask: Callable[..., None], word: str, said: str, advice: str
) -> None:
    with running_sshd(answer()) as sshd, contextlib.closing(connected(sshd)) as guest:
        ask(guest, deadline=Deadline.after(10))
        assert sshd.commands == [f"/usr/lib/vmrunner/prepare {word}"]
        sshd.run = answer(16, stderr=b"prepare: Device or resource busy\n")
        with pytest.raises(GuestError) as caught:
            ask(guest, deadline=Deadline.after(10))
    assert exit_code_of(caught.value) == 23
    assert said in caught.value.message
    assert advice in str(caught.value.hint)
    assert caught.value.details == "prepare: Device or resource busy"
