"""Undoing a run: the guest's program takes all away that a run mounted and wrote, or says what stays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_sshd import FakeSshd, answer, running_sshd
from guest_programs import UNIT, guest_programs

from vmrunner.errors import GuestError, exit_code_of
from vmrunner.guest.ssh import Guest
from vmrunner.guest.undo import clear_away, unmount_shares
from vmrunner.host.deadline import Deadline

RUN = """
mkdir -p run/vmrunner/in run/vmrunner/out state
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


@dataclass(frozen=True)
class Ended:
    """What the program said and asked, which mounts there are after it, and what is left in the unit's directory."""

    code: int
    stderr: str
    mounts: tuple[str, ...]
    left: tuple[str, ...]
    asked_of_systemctl: tuple[str, ...]


Undo = Callable[..., Ended]


@pytest.fixture
def undo(tmp_path: Path) -> Undo:
    """Set up what a run leaves, run `before`, and then the guest's program with the guest's paths led to a directory."""
    programs = guest_programs(tmp_path)

    def run(word: str = "undo", *, before: str = "", on_stop: str = "", setup: str = RUN) -> Ended:
        script = f"{setup}\n{before}\nset +e\nperl prepare {word} 2>stderr; echo $? >code\n"
        script += 'cut -d" " -f2 /proc/mounts >mounts; (cd state && find . -mindepth 1) >left\n[ ! -e holder ] || kill $(cat holder) 2>/dev/null || :\n'
        programs.run(script, on_stop=on_stop)
        mounts = [
            line for line in (tmp_path / "mounts").read_text().splitlines() if line.startswith(str(tmp_path))
        ]
        return Ended(
            int((tmp_path / "code").read_text()),
            (tmp_path / "stderr").read_text(),
            tuple(line.removeprefix(f"{tmp_path}/") for line in mounts),
            tuple(sorted(line.removeprefix("./") for line in (tmp_path / "left").read_text().splitlines())),
            tuple(programs.asked_of_systemctl),
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
    assert ended.asked_of_systemctl == ()
    assert not (tmp_path / "run/vmrunner/gate").exists()


def test_a_unit_that_ran_is_stopped_so_that_it_can_be_started_again(undo: Undo, tmp_path: Path) -> None:
    """It stays active when its process has ended well; that there was a run is known by its mounts."""
    ended = undo(before="touch run/vmrunner/mounted")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.asked_of_systemctl == ("stop cargo-nextest.service",)
    assert ended.mounts == ("state", "other")
    assert not (tmp_path / "run/vmrunner/mounted").exists()


def test_a_unit_that_waits_for_its_run_has_nothing_to_be_undone(undo: Undo, tmp_path: Path) -> None:
    """All was cleared away before it was started; what is there since then belongs to the person at the machine."""
    process = f"mkdir -p cgroup/system.slice/{UNIT}; echo 1 >cgroup/system.slice/{UNIT}/cgroup.procs"
    ended = undo(before=f"mkfifo run/vmrunner/gate; {process}")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.asked_of_systemctl == ()
    assert (tmp_path / "run/vmrunner/gate").is_fifo()
    assert "overlays/workspace/upper/file" in ended.left


@pytest.mark.parametrize("name", ["file", ".hidden", "..two", "'-r'", "'it is'", "'new\nline'"])
def test_whatever_a_test_left_in_the_units_directory_goes(undo: Undo, name: str) -> None:
    ended = undo(before=f"echo x >state/{name}; mkdir -p state/a/b; echo x >state/a/b/c")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.left == NOTHING_WRITTEN


def test_undoing_what_is_undone_is_no_error(undo: Undo) -> None:
    assert undo(before="perl prepare undo").code == 0


def test_where_no_run_was_there_is_nothing_to_undo(undo: Undo) -> None:
    assert undo(setup="mkdir state").code == 0


def test_to_unmount_leaves_what_the_run_wrote(undo: Undo, tmp_path: Path) -> None:
    ended = undo("unmount", before="touch run/vmrunner/mounted")
    assert ended.code == 0
    assert ended.mounts == ("state", "other")
    assert "overlays/workspace/upper/file" in ended.left
    assert not (tmp_path / "run/vmrunner/mounted").exists()


BUSY = "sleep 20 <run/vmrunner/in/hosts >/dev/null 2>&1 & echo $! >holder"


def test_a_process_of_the_unit_that_holds_a_share_is_ended_with_the_unit(undo: Undo) -> None:
    ended = undo(
        before=f"{BUSY}; touch run/vmrunner/mounted",
        on_stop="kill $(cat holder); while kill -0 $(cat holder) 2>/dev/null; do :; done",
    )
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.mounts == ("state", "other")
    assert ended.asked_of_systemctl == ("stop cargo-nextest.service",)


def test_processes_that_the_unit_left_are_ended_though_they_hold_nothing(undo: Undo) -> None:
    group = f"cgroup/system.slice/{UNIT}"
    ended = undo(before=f"mkdir -p {group}; echo 123 >{group}/cgroup.procs")
    assert ended.code == 0
    assert ended.asked_of_systemctl == ("stop cargo-nextest.service",)


def test_a_share_that_somebody_else_holds_is_an_error(undo: Undo, tmp_path: Path) -> None:
    ended = undo(before=f"{BUSY}; touch run/vmrunner/mounted")
    assert ended.code != 0
    assert "what the run before mounted is still in use: Device or resource busy" in ended.stderr
    assert "run/vmrunner/in" in ended.mounts
    assert (tmp_path / "run/vmrunner/mounted").exists(), "the next attempt stops the unit too"


def test_shares_that_are_in_use_are_not_unmounted_for_a_snapshot(undo: Undo) -> None:
    ended = undo("unmount", before=BUSY)
    assert ended.code != 0
    assert "the shares are in use" in ended.stderr
    assert ended.asked_of_systemctl == ()


def connected(sshd: FakeSshd) -> Guest:
    guest = Guest(sshd.endpoint, alive=lambda: None)
    guest.connect(Deadline.after(10))
    return guest


@pytest.mark.parametrize(
    ("ask", "words", "said", "advice"),
    [
        (clear_away, "undo arm", "the run before could not be cleared away in the guest", "vmrunner reset"),
        (unmount_shares, "unmount", "its state cannot be saved", "fuser -vm"),
    ],
)
def test_the_guest_is_asked_once_and_its_failure_says_what_to_do(
    ask: Callable[..., None], words: str, said: str, advice: str
) -> None:
    with running_sshd(answer()) as sshd, contextlib.closing(connected(sshd)) as guest:
        ask(guest, deadline=Deadline.after(10))
        assert sshd.commands == [f"/usr/lib/vmrunner/prepare {words}"]
        sshd.run = answer(16, stderr=b"prepare: Device or resource busy\n")
        with pytest.raises(GuestError) as caught:
            ask(guest, deadline=Deadline.after(10))
    assert exit_code_of(caught.value) == 23
    assert said in caught.value.message
    assert advice in str(caught.value.hint)
    assert caught.value.details == "prepare: Device or resource busy"
