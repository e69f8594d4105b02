"""scripts/benchmarks: goals and their verdicts, tables, figures of runs, and the commands that are timed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks import image_files, suite_runs, virtme_ng
from benchmarks.commands import NotMeasured, timed
from benchmarks.figures import figures_of
from benchmarks.goals import GOALS, Figure, Goal, amount, goal_rows
from benchmarks.image_files import ImageFiles, copy_out, forget_others, image_of_crate
from benchmarks.process_memory import ProcessMemory, process_memory
from benchmarks.suite_runs import LESS_NEXTEST, WHOLE_COMMAND, MachineShape, SuiteRun, series, vmrunner_run
from benchmarks.tables import host, markdown_table, spread_table

CRATE = Path(__file__).resolve().parents[1] / "crates" / "mydns"
SHAPE = MachineShape(accelerator="tcg", cpu_model="max", cpus=2, memory=2 << 30, qemu="7.2.22")
AT_MOST = Goal("a", Figure.RESTORED_TEST, "<=", 2.5, "s")
AT_LEAST = Goal("a", Figure.COLD_BOOT_RATIO, ">=", 10, "times")
MORE_THAN = Goal("a", Figure.VIRTME_NG_RATIO, ">", 1, "times")


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("goal", "measured", "verdict"),
    [
        (AT_MOST, 2.4, "met"),
        (AT_MOST, 2.5, "met"),
        (AT_MOST, 3.0, "missed by 0.50 s (20%)"),
        (AT_MOST, 2.5001, "missed by 0.0001 s (0%)"),
        (AT_LEAST, 10.0, "met"),
        (AT_LEAST, 4.0, "missed by 6.0 times (60%)"),
        (MORE_THAN, 1.1, "met"),
        (MORE_THAN, 0.5, "missed by 0.5 times (50%)"),
        (AT_MOST, None, "not measured"),
    ],
)
def test_a_goal_is_met_or_missed_by_so_much(goal: Goal, measured: float | None, verdict: str) -> None:
    assert goal.verdict(measured) == verdict


def test_more_than_is_not_as_much_as() -> None:
    assert not MORE_THAN.is_met(1.0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(48.4, "ms", "48 ms"), (2.345, "s", "2.35 s"), (0, "s", "0.00 s"), (15, "MB", "15.0 MB"), (0.2, "ms", "0.2 ms")],
)  # fmt: skip
def test_amounts_have_their_units_and_sensible_decimals(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text  # type: ignore[arg-type]  # one of the units


def test_every_goal_has_its_row_and_says_where_nothing_was_measured() -> None:
    rows = goal_rows({Figure.RESTORE: 52.0, Figure.RESTORED_TEST: 2.0})
    assert [row[0] for row in rows] == [goal.what for goal in GOALS]
    assert rows[0][1:] == ("≤ 150 ms", "52 ms", "met")
    assert rows[1][1:] == ("≤ 2.5 s", "2.00 s", "met")
    assert rows[2][1:] == ("≤ 1.5 s", "2.00 s", "missed by 0.50 s (33%)")
    assert {row[3] for row in rows[3:]} == {"not measured"}


def test_every_figure_is_some_goals() -> None:
    assert {goal.figure for goal in GOALS} == set(Figure)


def test_a_table_is_markdown() -> None:
    assert markdown_table(("what", "s"), [("a", "1"), ("b", "")], align="lr").splitlines() == [
        "| what | s |",
        "| --- | ---: |",
        "| a | 1 |",
        "| b | |",
    ]


def test_a_spread_is_least_median_and_greatest() -> None:
    table = spread_table({"one": [3.0, 1.0, 2.5], "none": []})
    assert table.splitlines()[2:] == ["| one | 1.00 | 2.50 | 3.00 |"]


def test_the_host_is_named_by_its_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast One 3000\n")
    assert host(cpuinfo=cpuinfo).endswith("CPUs of Fast One 3000")
    cpuinfo.write_text("")
    assert host(cpuinfo=cpuinfo).endswith("unknown processor")


def test_a_series_holds_phases_in_order_and_what_is_left_without_nextest() -> None:
    runs = [SuiteRun(5.0, 1.0, {"stage": 0.1, "unit": 2.0}), SuiteRun(4.0, 0.5, {"stage": 0.2})]
    table = series(runs)
    assert list(table)[:2] == ["stage", "unit"]
    assert table["stage"] == [0.1, 0.2]
    assert table["unit"] == [2.0]
    assert table[WHOLE_COMMAND] == [5.0, 4.0]
    assert table[LESS_NEXTEST] == [4.0, 3.5]


def runs(*seconds: float, nextest: float = 1.0, running: float | None = None) -> list[SuiteRun]:
    return [SuiteRun(one, nextest, running_seconds=running) for one in seconds]


def test_figures_are_medians_and_their_ratios_in_the_goals_units() -> None:
    figures = figures_of(
        restored=runs(2.0, 3.0, 9.0, running=0.05),
        long_lived=runs(1.5, nextest=0.5),
        cold=runs(11.0, 13.0, 12.0),
        virtme=runs(6.0),
        idle=[ProcessMemory(50_000_000, 90_000_000), ProcessMemory(52_000_000, 95_000_000)],
    )
    assert figures == {
        Figure.RESTORE: 50.0,
        Figure.RESTORED_TEST: 2.0,
        Figure.COLD_BOOT_RATIO: 11.0 / 2.0,
        Figure.VIRTME_NG_RATIO: 6.0 / 3.0,
        Figure.LONG_LIVED_TEST: 1.0,
        Figure.PRIVATE_MEMORY: 51.0,
    }


def test_what_was_not_measured_has_no_figure() -> None:
    assert figures_of(cold=runs(11.0), virtme=runs(6.0)) == {}
    assert figures_of(restored=runs(2.0)) == {Figure.RESTORED_TEST: 1.0}


def test_memory_is_what_the_kernel_sums_up(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text(
        "00400000-7ffc ---p 00000000 00:00 0          [rollup]\n"
        "Rss:               90000 kB\nPss:               50000 kB\nPss_Anon:             10 kB\n"
        "Private_Clean:         4 kB\nPrivate_Dirty:      1000 kB\nShared_Clean:          8 kB\n"
    )
    memory = process_memory(7, proc=tmp_path)
    assert memory.private == 1004 * 1024
    assert memory.proportional == 50000 * 1024


def test_memory_of_a_real_process_is_more_than_nothing() -> None:
    memory = process_memory(os.getpid())
    assert 0 < memory.private <= memory.proportional


def test_memory_of_no_process_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="smaps_rollup cannot be read: No such file"):
        process_memory(7, proc=tmp_path)


def test_memory_needs_the_lines_it_adds(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text("Rss: 1 kB\n")
    with pytest.raises(NotMeasured, match="has no line 'Private_Clean'"):
        process_memory(7, proc=tmp_path)


def test_a_command_is_timed_and_its_output_kept(tmp_path: Path) -> None:
    done = timed(["sh", "-c", "sleep 0.1; pwd; echo $X >&2"], cwd=tmp_path, env={"X": "x"})
    assert done.seconds >= 0.1
    assert (done.stdout, done.stderr) == (f"{tmp_path}\n", "x\n")


def test_a_command_that_fails_says_how() -> None:
    with pytest.raises(NotMeasured, match=r"(?s)`sh -c .*` ended with exit code 3\nbecause$"):
        timed(["sh", "-c", "echo because; exit 3"])


def test_another_exit_code_may_be_as_good() -> None:
    assert timed(["sh", "-c", "exit 3"], codes=frozenset({3})).stdout == ""


def test_a_command_that_is_missing_is_named() -> None:
    with pytest.raises(NotMeasured, match="`no-such-program` cannot be started: No such file"):
        timed(["no-such-program"])


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(NotMeasured, match=r"was not done after 0 s|was not done after 1 s"):
        timed(["sh", "-c", f"sleep 60 & echo $! >{pid}; wait"], limit=0.3)
    for _ in range(100):
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", pid.read_text().strip()], check=False, capture_output=True, text=True
        )
        if not state.stdout.strip() or state.stdout.startswith("Z"):
            return
        time.sleep(0.02)
    pytest.fail("the child of a killed command is alive")


def test_a_run_of_vmrunner_is_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = {
        "phases": [{"name": "unit", "seconds": 0.5}],
        "nextest_seconds": 0.25,
        "start": "restored",
        "running_seconds": 0.05,
        "boot_seconds": 1.5,
        "machine": {"accelerator": "tcg", "cpu_model": "max", "cpus": 2, "memory": 2 << 30, "qemu": "7.2.22", "name": "n"},
    }  # fmt: skip
    (tmp_path / "report").write_text(json.dumps(report))
    monkeypatch.setattr(suite_runs, "VMRUNNER", program(tmp_path / "vmrunner", f"cat {tmp_path}/report"))
    run, told = vmrunner_run(["--accel", "tcg"])
    assert run.nextest_seconds == 0.25
    assert (run.start, run.running_seconds) == ("restored", 0.05)
    assert series([run])["QEMU's start to a running guest"] == [0.05]
    assert run.phases == {"unit": 0.5, "QEMU's start to SSH login": 1.5}
    assert run.less_nextest == run.seconds - 0.25
    assert MachineShape.of(told) == SHAPE
    assert SHAPE.title == "2 CPUs and 2048 MiB for the guest under tcg (max), QEMU 7.2.22"


def shown_image(directory: Path, **changes: object) -> str:
    return json.dumps(
        {
            "directory": str(directory), "name": "debian", "digest": "a" * 64, "kernel": "vmlinux",
            "root_disk": "root.img", "root_disk_format": "raw", "built_from": {"kernel": "6.12-amd64"}, **changes,
        }
    )  # fmt: skip


def test_the_image_is_the_one_that_vmrunner_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = program(tmp_path / "vmrunner", f"cat <<'end'\n{shown_image(tmp_path)}\nend")
    monkeypatch.setattr(image_files, "VMRUNNER", shown)
    image = image_of_crate()
    assert image.kernel == tmp_path / "vmlinux"
    assert image.root_disk == tmp_path / "root.img"
    assert image.kernel_release == "6.12-amd64"


@pytest.mark.parametrize("change", [{"root_disk_format": "qcow2"}, {"built_from": {}}])
def test_an_image_of_another_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    shown = program(tmp_path / "vmrunner", f"cat <<'end'\n{shown_image(tmp_path, **change)}\nend")
    monkeypatch.setattr(image_files, "VMRUNNER", shown)
    with pytest.raises(NotMeasured, match="the image debian is not one"):
        image_of_crate()


@pytest.fixture
def image(tmp_path: Path) -> ImageFiles:
    """An image whose root disk holds one file and one directory."""
    contents = tmp_path / "contents" / "usr" / "lib"
    contents.mkdir(parents=True)
    (contents / "one").write_text("first")
    (contents / "more").mkdir()
    (contents / "more" / "two").write_text("second")
    disk = tmp_path / "root.img"
    mke2fs = shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert mke2fs
    subprocess.run([mke2fs, "-q", "-t", "ext4", "-d", tmp_path / "contents", disk, "4M"], check=True)
    return ImageFiles(tmp_path, "a" * 64, tmp_path / "vmlinux", "6.12-amd64", disk)


def test_files_come_out_of_a_root_disk(image: ImageFiles, tmp_path: Path) -> None:
    out = tmp_path / "out"
    copy_out(image, files=["/usr/lib/one"], trees=["/usr/lib/more"], destination=out)
    assert (out / "one").read_text() == "first"
    assert (out / "more" / "two").read_text() == "second"
    assert sorted(path.name for path in out.iterdir()) == ["more", "one"]


def test_a_file_that_is_not_on_the_root_disk_is_named(image: ImageFiles, tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="/usr/lib/none could not be read"):
        copy_out(image, files=["/usr/lib/none"], trees=[], destination=tmp_path / "out")


def test_what_was_made_from_other_images_goes(tmp_path: Path) -> None:
    for name in ("kernel-a", "kernel-b", "state"):
        (tmp_path / name).mkdir()
    forget_others(tmp_path / "kernel-b", prefix="kernel-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel-b", "state"]


VIRTME = virtme_ng.VirtmeNg(
    program=Path("/bench/virtme/bin/vng"),
    kernel=Path("/bench/kernel/boot/vmlinux-6.12"),
    busybox=Path("/bench/kernel/busybox"),
    tools=Path("/bench/kernel/tools"),
)


def test_virtme_ng_gets_the_same_machine() -> None:
    command = shlex.join(virtme_ng.virtme_command(VIRTME, job=Path("/job dir"), shape=SHAPE))
    assert command.startswith("/bench/virtme/bin/vng --run /bench/kernel/boot/vmlinux-6.12 --disable-kvm ")
    assert "--cpus 2 --memory 2048M" in command
    assert "--rwdir '/job dir'" in command
    assert "--disable-kvm" not in virtme_ng.virtme_command(
        VIRTME, job=Path("/job"), shape=MachineShape("kvm", "host", 2, 2 << 30, "7.2.22")
    )


def test_virtme_ngs_guest_knows_the_names_that_the_crates_configuration_has() -> None:
    text = (CRATE / "vmrunner.yaml").read_text()
    assert dict(re.findall(r"^  ([\d.]+): \[(.*)\]$", text, re.MULTILINE)) == virtme_ng.HOSTS


@pytest.fixture
def fake_virtme(tmp_path: Path) -> virtme_ng.VirtmeNg:
    """A virtme-ng that runs the script here, without its mount, and ends with 255 as it does without udev."""
    script = (
        'while [ "$1" != --exec ]; do shift; done\n'
        'grep -v "^mount" "${2#sh }" | sh\n'
        "exit 255"
    )  # fmt: skip
    programs = tmp_path / "virtme" / "bin"
    programs.mkdir(parents=True)
    return virtme_ng.VirtmeNg(program(programs / "vng", script), Path("k"), Path("b"), tmp_path)


def nextest(tmp_path: Path, *, said: str, code: int) -> Path:
    return program(tmp_path / "cargo-nextest", f"[ $2 = archive ] && exit 0\necho '{said}'; exit {code}")


def test_a_run_in_virtme_ng_is_read_from_what_the_guest_left(
    fake_virtme: virtme_ng.VirtmeNg, tmp_path: Path
) -> None:
    tool = nextest(tmp_path, said="     Summary [   0.734s] 2 tests run: 2 passed, 0 skipped", code=0)
    run = virtme_ng.run_suite(fake_virtme, nextest=tool, shape=SHAPE)
    assert run.nextest_seconds == 0.734
    assert run.seconds == pytest.approx(run.phases["archive"] + run.phases["virtme-ng"])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


def test_tests_that_fail_in_virtme_ng_are_not_measured(
    fake_virtme: virtme_ng.VirtmeNg, tmp_path: Path
) -> None:
    tool = nextest(tmp_path, said="     Summary [   0.734s] 2 tests run: 1 passed, 1 failed", code=100)
    with pytest.raises(NotMeasured, match=r"(?s)nextest ended with 100\n.*1 failed"):
        virtme_ng.run_suite(fake_virtme, nextest=tool, shape=SHAPE)


def test_a_guest_that_does_not_come_up_is_not_measured(
    fake_virtme: virtme_ng.VirtmeNg, tmp_path: Path
) -> None:
    program(fake_virtme.program, "echo no kernel >&2; exit 255")
    with pytest.raises(NotMeasured, match=r"(?s)did not run the tests\nno kernel"):
        virtme_ng.run_suite(fake_virtme, nextest=nextest(tmp_path, said="", code=0), shape=SHAPE)


def test_importing_the_benchmarks_takes_only_the_standard_library() -> None:
    scripts = Path(suite_runs.__file__).parents[1]
    code = "import benchmarks.cold_boot, benchmarks.figures, benchmarks.process_memory, benchmarks.tables, benchmarks.virtme_ng"
    subprocess.run([sys.executable, "-I", "-S", "-B", "-c", f"import sys; sys.path.append({str(scripts)!r}); {code}"], check=True)  # fmt: skip
