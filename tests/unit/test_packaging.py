"""What the package promises as a whole: it starts at once, and its texts agree on what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vmrunner
from vmrunner.image import prerequisites

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "vmrunner"
HEAVY = ["cryptography", "paramiko", "pydantic", "qemu.qmp", "rich", "yaml", "zstandard"]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_nothing_heavy_is_imported_to_say_hello(argument: str) -> None:
    code = (
        "import sys; from vmrunner.cli import run; code = run([sys.argv[1]]);"
        "print(code, *(name for name in sys.argv[2:] if name in sys.modules), file=sys.stderr)"
    )
    assert python("-c", code, argument, *HEAVY).stderr.split() == ["0"]


def test_every_heavy_package_of_that_list_would_be_noticed() -> None:
    for name in HEAVY:
        __import__(name)
        assert name in sys.modules


def test_the_version_answers_and_its_time_is_told(record_property: Callable[[str, object], None]) -> None:
    began = time.monotonic()
    python("-c", "pass")
    bare = time.monotonic() - began
    began = time.monotonic()
    said = python("-m", "vmrunner", "--version").stdout
    whole = time.monotonic() - began
    record_property("version_seconds", round(whole, 3))
    print(f"`vmrunner --version` took {whole:.3f} s, of which Python itself {bare:.3f} s")
    assert said == f"vmrunner {vmrunner.__version__}\n"


def test_every_package_that_a_hint_names_is_installed_by_the_setup_script() -> None:
    setup = (ROOT / "scripts" / "setup").read_text()
    installed = {name for line in re.findall(r"^  \S+:(\S+)$", setup, re.MULTILINE) for name in line.split()}
    installed |= set(re.findall(r"debian-archive-keyring|uidmap", setup))
    hints = (
        match.split()
        for path in PACKAGE.rglob("*.py")
        for match in re.findall(r"\bapt(?:-get)? install ((?:[a-z][a-z0-9+.-]+ ?)+)", path.read_text())
    )
    hinted = {name for names in hints for name in names} | set(prerequisites._PACKAGE_OF.values())
    assert {"qemu-utils", "mmdebstrap"} <= hinted
    assert hinted <= installed


def test_the_oldest_python_is_the_same_everywhere(project: dict[str, Any]) -> None:
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert "sys.version_info < (3, 11)" in (ROOT / "scripts" / "setup").read_text()


def test_the_extras_that_the_setup_script_installs_exist(project: dict[str, Any]) -> None:
    assert {"nextest", "dev"} <= project["project"]["optional-dependencies"].keys()
