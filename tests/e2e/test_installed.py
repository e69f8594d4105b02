"""The package as a user gets it: built, installed into an environment of its own, run from an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import vmrunner

ROOT = Path(__file__).resolve().parents[2]
DATA_DIRECTORIES = ("images", "nix")

pytestmark = pytest.mark.e2e


def run(argv: Sequence[str | Path], *, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; nothing of the caller's Python path or vmrunner's settings reaches it."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VMRUNNER_"))
    }
    return subprocess.run(
        argv, check=False, capture_output=True, text=True, cwd=cwd, env=environment | variables
    )


def succeed(argv: Sequence[str | Path], *, cwd: Path, **variables: str) -> str:
    """What a program that must not fail printed."""
    done = run(argv, cwd=cwd, **variables)
    assert done.returncode == 0, f"{argv} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def source_files() -> list[Path]:
    """What a commit would hold, relative to the root: tracked files, and new ones that are not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = succeed(command, cwd=ROOT).split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file()]


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel except its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the sources: what lies about in a working tree must not be needed, nor be packaged."""
    copy = tmp_path_factory.mktemp("clone")
    for path in source_files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes((ROOT / path).read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip makes of the sources."""
    built = tmp_path_factory.mktemp("wheel")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    succeed([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", built, sources], cwd=built)
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that holds the wheel and what it depends on."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    pip: list[str | Path] = [environment / "bin" / "pip", "--disable-pip-version-check"]
    succeed([*pip, "install", "--quiet", wheel], cwd=environment)
    return environment / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty directory, which is the user's home too."""
    directory = tmp_path / "empty"
    directory.mkdir()
    return directory


def test_the_wheel_holds_the_program_and_its_data_and_nothing_else(sources: Path, wheel: Path) -> None:
    expected = {
        f"vmrunner/_data/{path}" if path.parts[0] in DATA_DIRECTORIES else str(path): (
            sources / path
        ).read_bytes()
        for path in (path.relative_to(sources) for path in sources.rglob("*") if path.is_file())
        if path.parts[0] in ("vmrunner", *DATA_DIRECTORIES)
    }
    assert "vmrunner/_data/images/debian.yaml" in expected
    assert contents(wheel) == expected


def test_an_sdist_makes_the_same_wheel(sources: Path, wheel: Path, tmp_path: Path) -> None:
    # Without --sdist or --wheel, build makes the wheel of the sdist that it has just made.
    succeed([sys.executable, "-m", "build", "--outdir", tmp_path, sources], cwd=tmp_path)
    (of_the_sdist,) = tmp_path.glob("*.whl")
    assert len(list(tmp_path.glob("*.tar.gz"))) == 1
    assert contents(of_the_sdist) == contents(wheel)


def test_nothing_comes_from_the_source_tree(installed: Path, elsewhere: Path) -> None:
    code = "import vmrunner; from vmrunner.host.paths import data_dir; print(vmrunner.__file__, data_dir('images'))"
    for found in succeed([installed / "python", "-c", code], cwd=elsewhere).split():
        assert Path(found).is_relative_to(installed.parent)
        assert Path(found).exists()


def test_it_tells_its_version(installed: Path, elsewhere: Path) -> None:
    said = succeed([installed / "vmrunner", "--version"], cwd=elsewhere)
    assert said == f"vmrunner {vmrunner.__version__}\n"


def test_doctor_answers_every_question(installed: Path, elsewhere: Path) -> None:
    done = run([installed / "vmrunner", "doctor"], cwd=elsewhere, HOME=str(elsewhere))
    # 20: this computer may lack something (cargo-nextest, say), which doctor then names.
    assert done.returncode in (0, 20), done.stderr
    for topic in ("python", "qemu", "accelerator", "cargo-nextest", "debian images"):
        assert f" {topic} " in done.stdout
    assert "the check itself failed" not in done.stdout


def test_plan_shows_the_settings_and_the_qemu_command(installed: Path, elsewhere: Path) -> None:
    plan: list[str | Path] = [
        installed / "vmrunner",
        "plan",
        "--json",
        "--image",
        "debian",
        "--accel",
        "tcg",
        "--memory",
        "768M",
    ]
    document = json.loads(succeed(plan, cwd=elsewhere, HOME=str(elsewhere)))
    assert document["sources"]["memory"] == "--memory"
    assert document["accelerator"]["kind"] == "tcg"
    assert document["image"]["built"] is False
    assert any("qemu-system-" in argument for argument in document["qemu"])
