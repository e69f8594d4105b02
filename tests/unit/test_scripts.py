"""scripts/test, scripts/demo, scripts/bench and .ci/run, with fakes in place of the programs that they run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FAKE = """\
#!/bin/sh
name=$(basename "$0")
echo "$name $*" >>"$CALLS"
if read line; then echo "$name was given input: $line" >>"$CALLS"; fi
case " $FAILING " in *" $name:"*) code=${FAILING##*$name:}; exit "${code%% *}" ;; esac
case "$name" in
pytest) echo "3 passed in 0.01s" ;;
vmrunner) cat "$REPORT" ;;
python) cat "$MEMORY" ;;
esac
"""


class Clone:
    """A clone of the repository in which setup, cargo and all of .venv are fakes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written = root / "calls"
        self.report = root / "report"
        self.report.touch()
        self.memory = root / "memory"
        self.memory.touch()
        shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / ".ci", root / ".ci")
        (root / "tests" / "crates" / "mydns").mkdir(parents=True)
        (root / ".venv" / "bin").mkdir(parents=True)
        (root / "own").mkdir()
        fakes = [root / "own" / "cargo", root / "scripts" / "setup"]
        fakes += [root / ".venv" / "bin" / name for name in ("ruff", "mypy", "pytest", "vmrunner", "python")]
        for path in fakes:
            path.write_text(FAKE)
            path.chmod(0o755)

    def run(
        self, script: str, *arguments: str, failing: str = "", typed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a script from elsewhere. `failing` names programs and exit codes: `mypy:1 cargo:100`."""
        environment = {
            "PATH": f"{self.root / 'own'}:{os.environ['PATH']}",
            "HOME": str(self.root),
            "CALLS": str(self.written),
            "REPORT": str(self.report),
            "MEMORY": str(self.memory),
            "FAILING": failing,
            "CI": "true",
        }
        return subprocess.run(
            [self.root / script, *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            input=typed,
            cwd="/",
            env=environment,
        )

    @property
    def calls(self) -> list[str]:
        """Every call of a fake, in order."""
        return self.written.read_text().splitlines()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A fresh clone."""
    return Clone(tmp_path)


@pytest.mark.parametrize("script", ["scripts/test", ".ci/run"])
def test_everything_is_checked_and_the_tests_have_the_last_word(clone: Clone, script: str) -> None:
    done = clone.run(script, typed="nobody reads this\n")
    assert done.returncode == 0
    assert clone.calls == ["setup --dev", "ruff format --check .", "ruff check .", "mypy ", "pytest "]
    assert done.stdout.splitlines()[-1] == "3 passed in 0.01s"


def test_each_stage_tells_its_time(clone: Clone) -> None:
    lines = clone.run("scripts/test").stdout
    for name in ("setup", "format", "lint", "types"):
        assert f"== {name}: 0.0 s" in lines


@pytest.mark.parametrize("failing", ["ruff:1", "mypy:1"])
def test_all_static_checks_are_made_before_one_of_them_ends_it(clone: Clone, failing: str) -> None:
    assert clone.run("scripts/test", failing=failing).returncode == 1
    assert clone.calls[-1] == "mypy "


def test_a_failed_setup_ends_it_with_its_own_code(clone: Clone) -> None:
    assert clone.run("scripts/test", failing="setup:20").returncode == 20
    assert clone.calls == ["setup --dev"]


def test_failed_tests_are_the_exit_code(clone: Clone) -> None:
    assert clone.run("scripts/test", failing="pytest:1").returncode == 1


def test_arguments_go_to_pytest(clone: Clone) -> None:
    clone.run("scripts/test", "--unit", "-k", "a b")
    assert clone.calls[-1] == "pytest --override-ini=testpaths=tests/unit -k a b"


def test_the_demo_tells_that_it_fails_here_and_passes_there(clone: Clone) -> None:
    done = clone.run("scripts/demo", failing="cargo:100")
    assert done.returncode == 0
    assert clone.calls == [
        "setup ",
        "vmrunner image build --image debian",
        "cargo nextest run",
        "vmrunner test",
    ]
    assert "It fails here" in done.stdout
    assert "It passes in the virtual machine" in done.stdout


def test_the_demo_tells_that_it_passes_here_where_there_is_dns(clone: Clone) -> None:
    done = clone.run("scripts/demo")
    assert done.returncode == 0
    assert "It passes here" in done.stdout


def test_the_demo_does_not_take_a_broken_build_for_a_failed_test(clone: Clone) -> None:
    assert "says nothing about them" in clone.run("scripts/demo", failing="cargo:101").stdout


def test_the_demo_runs_its_own_vmrunner_and_the_users_own_cargo(clone: Clone) -> None:
    for name, verdict in (("vmrunner", "exit 99"), ("cargo", "exit 100")):
        (clone.root / "own" / name).write_text(f"#!/bin/sh\n{verdict}\n")
        (clone.root / "own" / name).chmod(0o755)
    done = clone.run("scripts/demo")
    assert done.returncode == 0
    assert "It fails here" in done.stdout


def test_the_demo_ends_where_the_image_cannot_be_built(clone: Clone) -> None:
    assert clone.run("scripts/demo", failing="vmrunner:21").returncode == 21
    assert "cargo nextest run" not in clone.calls


def report(*, boot: float) -> str:
    return json.dumps(
        {
            "phases": [{"name": "stage", "seconds": 0.1}, {"name": "unit", "seconds": boot / 2}],
            "start": "booted",
            "boot_seconds": boot,
            "nextest_seconds": 0.0,
            "machine": {
                "accelerator": "tcg",
                "cpu_model": "max",
                "cpus": 2,
                "memory": 1 << 30,
                "qemu": "7.2.22",
            },
        }
    )


def memory(*, private: int) -> str:
    machines = [{"private": private, "proportional": 60_000_000}] * 3
    return json.dumps({"restored": machines, "logged_in": machines})


def test_bench_leaves_no_vm(clone: Clone) -> None:
    clone.report.write_text(report(boot=4.0))
    clone.memory.write_text(memory(private=1))
    clone.run("scripts/bench", "--runs", "1", "--comparison-runs", "0")
    verbs = [call.split() for call in clone.calls if call.startswith(("vmrunner up", "vmrunner rm"))]
    (_, up, name, *_), (_, rm, *_, removed) = verbs
    assert (up, rm, removed) == ("up", "rm", name)


def test_bench_prints_a_table(clone: Clone) -> None:
    clone.report.write_text(report(boot=4.0))
    clone.memory.write_text(memory(private=52_000_000))
    done = clone.run("scripts/bench", "--runs", "2", "--comparison-runs", "0", "--", "--accel", "tcg")
    assert done.returncode == 0, done.stdout
    runs = [call for call in clone.calls if call.startswith("vmrunner test")]
    in_vm = [run for run in runs if " --vm " in run]
    assert (len(runs), len(in_vm)) == (6, 3)  # the first one of each is not measured
    assert all(run.endswith("tests/crates/mydns --format json --accel tcg") for run in runs[:3])
    assert runs[3:] == in_vm
    assert "2 CPUs and 1024 MiB for the guest under tcg (max), QEMU 7.2.22" in done.stdout
    assert "| unit | 2.00 | 2.00 | 2.00 |" in done.stdout
    assert "| QEMU's start to SSH login | 4.00 | 4.00 | 4.00 |" in done.stdout
    assert "| restored, nobody logged in | 52, 52, 52 | 60, 60, 60 |" in done.stdout
    assert "not measured |" in done.stdout  # no goal is about a machine that was booted


def test_bench_measures_nothing_where_the_tests_do_not_pass(clone: Clone) -> None:
    done = clone.run("scripts/bench", failing="vmrunner:22")
    assert done.returncode == 22
    assert "ended with exit code 22" in done.stdout
