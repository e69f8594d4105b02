"""Weight and quota of real processes where this computer lets us, and by stand-ins for other kinds of computers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil
import pytest

from vmrunner.host.cgroups.hierarchy import Hierarchy
from vmrunner.host.cgroups.systemd_scope import SystemdScope
from vmrunner.host.cgroups.v2 import CgroupV2
from vmrunner.host.cpu_share import CpuShare, drop_group, obstacle, read_cpu_share, set_cpu_share

NAME = "vmrunner-unit-test"


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that takes all of a CPU."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    yield child.pid
    child.kill()
    child.wait()


def test_a_process_is_held_to_its_quota_and_let_go_again(busy: int) -> None:
    if reason := obstacle():
        pytest.skip(reason)
    assert set_cpu_share(NAME, busy, CpuShare(weight=50, quota=20)) == CpuShare(50, 20)
    assert read_cpu_share(NAME, busy) == CpuShare(50, 20)
    process = psutil.Process(busy)
    before, began = process.cpu_times().user, time.monotonic()
    time.sleep(1)
    used = (process.cpu_times().user - before) / (time.monotonic() - began)
    assert used < 0.45
    assert set_cpu_share(NAME, busy, CpuShare()) == CpuShare(100, None)
    process.kill()
    process.wait()
    drop_group(NAME)
    assert read_cpu_share(NAME, 1) == CpuShare()


def test_a_default_share_makes_no_group(busy: int) -> None:
    assert set_cpu_share(NAME, busy, CpuShare()) == CpuShare()


@pytest.mark.parametrize("share", [{"weight": 0}, {"weight": 10001}, {"quota": 0}])
def test_impossible_shares(share: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is not"):
        CpuShare(**share)


def test_a_name_is_no_path() -> None:
    with pytest.raises(ValueError, match="not a name"):
        drop_group("../x")


def systemd_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SystemdScope, Path]:
    """A computer that systemd runs, whose busctl moves the process and whose programs write down what they got."""
    tree, run, proc, programs = (tmp_path / name for name in ("tree", "run", "proc", "bin"))
    for directory in (tree / "system.slice", run / "systemd/system", run / "dbus", proc / "7", programs):
        directory.mkdir(parents=True)
    (run / "dbus/system_bus_socket").touch()
    (tree / "cgroup.controllers").write_text("cpu memory\n")
    (proc / "7/cgroup").write_text("0::/system.slice\n")
    group = tree / "system.slice/g.scope"
    for program, effect in (
        ("busctl", f'mkdir -p {group}; echo 50 >{group}/cpu.weight; echo "20000 100000" >{group}/cpu.max;'
                   f" echo 0::/system.slice/g.scope >{proc}/7/cgroup"),
        ("systemctl", f'echo 70 >{group}/cpu.weight; echo "max 100000" >{group}/cpu.max'),
    ):  # fmt: skip
        path = programs / program
        path.write_text(f'#!/bin/sh\necho "{program} $*" >>{tmp_path}/calls\n{effect}\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{Path(str(shutil.which('mkdir'))).parent}")
    return SystemdScope(Hierarchy(tree, PurePosixPath("/"), "", proc), run, uid=0), tmp_path / "calls"


def test_systemd_is_asked_for_a_scope_and_then_to_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, calls = systemd_computer(tmp_path, monkeypatch)
    assert way.obstacle() is None
    assert way.put("g", 7, CpuShare(50, 20)) == CpuShare(50, 20)
    assert way.put("g", 7, CpuShare(70)) == CpuShare(70, None)
    started, changed = calls.read_text().splitlines()
    assert "StartTransientUnit ssa(sv)a(sa(sv)) g.scope fail" in started
    assert started.endswith("PIDs au 1 7 CPUWeight t 50 CPUQuotaPerSecUSec t 200000 0")
    assert changed == "systemctl set-property --runtime g.scope CPUWeight=70 CPUQuota="


def test_a_user_without_the_controller_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = systemd_computer(tmp_path, monkeypatch)
    user = SystemdScope(root.tree, root.run, uid=1000)
    assert "loginctl enable-linger" in str(user.obstacle())
    (root.run / "user/1000").mkdir(parents=True)
    (root.run / "user/1000/bus").touch()
    assert "Delegate=pids memory cpu" in str(user.obstacle())


def delegated_computer(tmp_path: Path) -> CgroupV2:
    """Cgroup v2 with a user's slice, where process 7 is in a session's group; files stand in for the kernel's."""
    tree, proc = tmp_path / "tree", tmp_path / "proc"
    for group in (tree, tree / "user.slice", tree / "user.slice/session.scope"):
        group.mkdir(parents=True)
        (group / "cgroup.controllers").write_text("cpu memory\n")
        (group / "cgroup.subtree_control").write_text("memory\n")
        (group / "cgroup.procs").write_text("7\n" if group.name == "session.scope" else "")
        if group != tree:
            (group / "cgroup.type").write_text("domain\n")
    (proc / "7").mkdir(parents=True)
    (proc / "7/cgroup").write_text("0::/user.slice/session.scope\n")
    return CgroupV2(Hierarchy(tree, PurePosixPath("/"), "", proc))


def test_cgroup_v2_makes_a_group_where_the_controller_can_be_handed_down(tmp_path: Path) -> None:
    way = delegated_computer(tmp_path)
    assert way.put("g", 7, CpuShare(50, 20)) == CpuShare(50, 20)
    group = tmp_path / "tree/user.slice/g"
    assert (tmp_path / "tree/user.slice/cgroup.subtree_control").read_text() == "+cpu"
    assert (group / "cpu.weight").read_text() == "50"
    assert (group / "cpu.max").read_text() == "20000 100000"
    assert (group / "cgroup.procs").read_text() == "7"


def test_cgroup_v2_changes_the_group_that_is_there(tmp_path: Path) -> None:
    way = delegated_computer(tmp_path)
    way.put("g", 7, CpuShare(50, 20))
    (tmp_path / "proc/7/cgroup").write_text("0::/user.slice/g\n")
    assert way.holds("g", 7)
    assert way.put("g", 7, CpuShare(80)) == CpuShare(80, None)
    assert way.read("g", 7) == CpuShare(80, None)
    assert (tmp_path / "tree/user.slice/g/cpu.max").read_text() == "max 100000"


def test_cgroup_v2_without_the_controller_says_so(tmp_path: Path) -> None:
    way = delegated_computer(tmp_path)
    (tmp_path / "tree/cgroup.controllers").write_text("memory\n")
    assert not way.present()
    assert "it takes Linux 4.15" in str(way.obstacle())
