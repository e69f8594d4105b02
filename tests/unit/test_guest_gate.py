"""A unit that was started before its run is known: it waits at a gate, and is let go with all that the run mounts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from guest_programs import UNIT, GuestPrograms, guest_programs, led_here

from vmrunner.guest.inbox import Job, layout_for, render_mounts
from vmrunner.guest.preparation import Preparation, clear_away_and_arm

GROUP = f"cgroup/system.slice/{UNIT}"
RECORD_PROCESS = f"mkdir -p {GROUP}; echo $! >{GROUP}/cgroup.procs"
START_UNIT = f"sh unit >printed 2>&1 & {RECORD_PROCESS}"
SHARES = """mkdir -p run/vmrunner/in run/vmrunner/out state
mount -t tmpfs in run/vmrunner/in
mount -t tmpfs out run/vmrunner/out
mkdir run/vmrunner/in/sources run/vmrunner/in/target run/vmrunner/out/store
echo source >run/vmrunner/in/sources/lib.rs
echo built >run/vmrunner/in/target/binary
echo '10.0.0.1 db' >run/vmrunner/in/hosts
echo 'nameserver 10.0.2.3' >run/vmrunner/in/resolv.conf
echo 'echo ran' >run/vmrunner/in/run
echo the image >etc/hosts
echo the image >etc/resolv.conf
cp table run/vmrunner/in/mounts"""
# An overlay's upper directory must not be on an overlay, as this directory may be.
STATE = "mkdir -p state; mount -t tmpfs state state"


@pytest.fixture
def programs(tmp_path: Path) -> GuestPrograms:
    """The guest's programs, with the mounts of a plain run."""
    programs = guest_programs(tmp_path)
    give_mounts(programs)
    return programs


def give_mounts(programs: GuestPrograms, *, store: str | None = None, build: str | None = None) -> None:
    """Write the host's table of mounts for a workspace in `home/my ws`, led to the directory."""
    home = programs.directory / "home"
    workspace = home / "my ws"
    layout = layout_for(workspace, workspace / "tar\tget\\", home / build if build else None)
    assert not layout.remapped
    bind = PurePosixPath(workspace / store) if store else None
    table = render_mounts(Job(layout, ("true",), "restricted", store_bind=bind))
    (programs.directory / "table").write_text(led_here(table, programs.directory))


def test_the_workspace_is_there_and_what_is_written_goes_to_the_disk(programs: GuestPrograms) -> None:
    shown = programs.run(
        f"""{STATE}; {SHARES}
        perl prepare mounts
        cat home/'my ws'/lib.rs home/'my ws'/"$(printf 'tar\\tget\\\\')"/binary
        echo changed >home/'my ws'/lib.rs
        cat run/vmrunner/in/sources/lib.rs state/overlays/workspace/upper/lib.rs etc/hosts etc/resolv.conf
        test -f run/vmrunner/mounted
        """
    )
    assert shown.splitlines() == [
        "source", "built", "source", "changed", "10.0.0.1 db", "the image", "nameserver 10.0.2.3",
    ]  # fmt: skip


def test_a_build_directory_and_a_store_of_their_own_are_the_same_files_seen_twice(
    programs: GuestPrograms,
) -> None:
    give_mounts(programs, store="deep/my store", build="scratch/deep/build")
    shown = programs.run(
        f"""{STATE}; {SHARES}
        perl prepare mounts
        cat home/scratch/deep/build/binary
        echo report >home/'my ws'/deep/'my store'/junit.xml
        cat run/vmrunner/out/store/junit.xml
        """
    )
    assert shown.split() == ["built", "report"]


def test_overlays_that_are_there_already_are_kept(programs: GuestPrograms) -> None:
    """A template's guest has them."""
    made = "mkdir -p state/overlays/workspace/upper state/overlays/workspace/work"
    made += (
        " state/overlays/target/upper state/overlays/target/work; echo kept >state/overlays/target/upper/old"
    )
    shown = programs.run(
        f"""{STATE}; {SHARES}; {made}; perl prepare mounts; cat home/'my ws'/"$(printf 'tar\\tget\\\\')"/old"""
    )
    assert shown == "kept\n"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("rm run/vmrunner/in/mounts", "in/mounts: No such file or directory"),
        ("rm run/vmrunner/in/hosts", "in/hosts: No such file or directory"),
        ("rm etc/hosts", "etc/hosts: No such file or directory"),
        ("rmdir run/vmrunner/in/sources", "home/my ws: No such file or directory"),
    ],
)
def test_a_mount_that_fails_says_what_and_why_and_the_unit_is_not_let_go(
    programs: GuestPrograms, broken: str, said: str
) -> None:
    setup = f"{STATE}; {SHARES}; mkfifo run/vmrunner/gate; rm -f run/vmrunner/in/sources/lib.rs"
    shown = programs.run(f"{setup}; {broken}; ! perl prepare run=r1 mounts go 2>&1")
    assert said in shown
    assert (programs.directory / "run/vmrunner/gate").is_fifo()
    assert not (programs.directory / "run/vmrunner/mounted").exists()
    assert not (programs.directory / "run/vmrunner/run").is_symlink()


def test_host_names_of_the_project_go_before_the_guests_own_until_all_is_undone(
    programs: GuestPrograms,
) -> None:
    """The guest's may be a link to where nobody can write, as on NixOS, and empty ones are fine."""
    shown = programs.run(
        f"""{STATE}; {SHARES}
        mkdir static; mv etc/hosts static/image-hosts; ln -s ../static/image-hosts etc/hosts
        perl prepare mounts; cat etc/hosts; echo --
        perl prepare unmount; cat etc/hosts; echo --
        mount -t tmpfs in run/vmrunner/in; mkdir run/vmrunner/in/sources run/vmrunner/in/target; cp table run/vmrunner/in/mounts
        : >run/vmrunner/in/hosts; touch run/vmrunner/in/resolv.conf
        perl prepare mounts; cat etc/hosts
        """
    )
    assert shown.split("--\n") == ["10.0.0.1 db\nthe image\n", "the image\n", "the image\n"]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_hosts_store_is_mounted_where_the_run_says_so_and_taken_away_with_the_shares(
    programs: GuestPrograms, wanted: bool
) -> None:
    program = programs.directory / "prepare"
    asked = f"{programs.directory}/run/vmrunner/in/host-store"
    text = program.read_text()
    assert asked in text
    # The stand-in for the `in` share is empty.
    program.write_text(text.replace(asked, f"{programs.directory}/wanted"))
    if wanted:
        (programs.directory / "wanted").touch()
    count = f"grep -c ' {programs.directory}/run/vmrunner/store ' /proc/mounts || :"
    shown = programs.run(f"{STATE}; {SHARES}; perl prepare shares; {count}; perl prepare unmount; {count}")
    assert shown.split() == ["1" if wanted else "0", "0"]


def test_for_one_run_all_is_mounted_once(programs: GuestPrograms) -> None:
    (_, *words) = Preparation().command_for_run("r1")
    words.remove("shares")
    asked = " ".join(words)
    count = f"grep -c ' {programs.directory}/\\(home\\|etc\\)' /proc/mounts"
    shown = programs.run(
        f"{STATE}; {SHARES}; perl prepare {asked}; {count}; perl prepare {asked}; {count}; readlink run/vmrunner/run"
    )
    assert shown.split() == ["4", "4", "r1"]


def test_shares_are_mounted_the_one_read_only(programs: GuestPrograms) -> None:
    shown = programs.run("perl prepare shares; grep run/vmrunner /proc/mounts")
    mounts = [line.split() for line in shown.splitlines()]
    assert [(line[0], line[3].split(",")[0]) for line in mounts] == [("in", "ro"), ("out", "rw")]


def test_an_armed_unit_waits_and_goes_on_with_the_mounts_of_its_run(programs: GuestPrograms) -> None:
    arm = " ".join(clear_away_and_arm()[1:])
    shown = programs.run(
        f"""{STATE}; {SHARES}
        perl prepare {arm}
        test -p run/vmrunner/gate; kill -0 $(cat {GROUP}/cgroup.procs); test ! -s printed
        grep -c ' '$BASE/run/vmrunner/ /proc/mounts || :
        {SHARES}
        echo "cat home/'my ws'/lib.rs" >run/vmrunner/in/run
        perl prepare run=r1 undo mounts go
        until [ -s printed ]; do sleep 0.01; done
        cat printed
        """,
        on_restart=START_UNIT,
    )
    assert shown.split() == ["0", "source"], "the shares go when it is armed, and the run brings its own"
    assert programs.asked_of_systemctl == [f"restart --no-block {UNIT}"]
    assert not (programs.directory / "run/vmrunner/gate").exists()


def test_a_unit_is_armed_anew_where_the_gate_is_still_there(programs: GuestPrograms) -> None:
    programs.run("mkdir run/vmrunner; mkfifo run/vmrunner/gate; perl prepare arm", on_restart=RECORD_PROCESS)
    assert (programs.directory / "run/vmrunner/gate").is_fifo()
    assert programs.asked_of_systemctl == [f"restart --no-block {UNIT}"]


@pytest.mark.parametrize(
    ("on_restart", "said"), [("exit 1", f"{UNIT} cannot be started"), ("", f"{UNIT} did not start")]
)
def test_a_unit_that_cannot_be_armed_is_an_error(programs: GuestPrograms, on_restart: str, said: str) -> None:
    assert f"prepare: {said}" in programs.run("! perl prepare arm 2>&1", on_restart=on_restart)


def test_only_root_may_open_the_gate(programs: GuestPrograms) -> None:
    programs.run("perl prepare arm", on_restart=RECORD_PROCESS)
    assert (programs.directory / "run/vmrunner/gate").stat().st_mode & 0o777 == 0o600


def test_a_gate_at_which_nobody_waits_is_taken_away(programs: GuestPrograms) -> None:
    """The unit that comes later finds none, and goes on."""
    gate = programs.directory / "run/vmrunner/gate"
    gate.parent.mkdir()
    os.mkfifo(gate)
    programs.run("perl prepare go")
    assert not gate.exists()


def test_where_no_unit_is_armed_there_is_nothing_to_let_go(programs: GuestPrograms) -> None:
    programs.run("perl prepare go")
    assert programs.asked_of_systemctl == []


def start_unit(programs: GuestPrograms) -> subprocess.Popen[str]:
    inbox = programs.directory / "run/vmrunner/in"
    inbox.mkdir(parents=True)
    (inbox / "run").write_text("echo ran; exit 104\n")
    return subprocess.Popen(["sh", programs.directory / "unit"], stdout=subprocess.PIPE, text=True)


def test_a_unit_without_a_gate_runs_at_once_and_ends_as_its_script_does(programs: GuestPrograms) -> None:
    with start_unit(programs) as unit:
        assert unit.communicate(timeout=10)[0] == "ran\n"
    assert unit.returncode == 104


def test_a_unit_at_the_gate_runs_when_somebody_opens_it(programs: GuestPrograms) -> None:
    gate = programs.directory / "run/vmrunner/gate"
    gate.parent.mkdir()
    os.mkfifo(gate)
    with start_unit(programs) as unit:
        with pytest.raises(subprocess.TimeoutExpired):
            unit.wait(0.2)
        programs.run("perl prepare go")
        assert unit.communicate(timeout=10)[0] == "ran\n"
    assert unit.returncode == 104
