"""scripts/setup on computers that lack something: what it says, what it installs, when it stops.

The computer is a directory of programs: links to real ones, and fakes that write down how they were called.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REAL = ("bash", "cat", "dirname", "env", "flock", "rm", "sed", "sha256sum", "touch", "true")
SYSTEM_PROGRAMS = ("qemu-system-x86_64", "qemu-img", "setpriv", "mmdebstrap", "mke2fs", "tar")

FAKE_PYTHON = """\
#!/bin/sh
echo "python $*" >>"$CALLS"
case "$*" in
  --version) echo "Python 3.11.2" ;;
  "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
esac
"""
WRITES_DOWN = """\
#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
"""
WITHOUT_PASSWORD = """\
#!/bin/sh
[ "$1" != -n ] || shift
exec "$@"
"""
FAILS = """\
#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
echo "no, I will not" >&2
exit 1
"""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
pytestmark = pytest.mark.skipif(
    not KEYRING.exists(), reason="scripts/setup has not been run on this computer"
)


@dataclass(frozen=True)
class Computer:
    """A computer with a clone of the repository, and what was run on it."""

    root: Path

    @property
    def programs(self) -> Path:
        return self.root / "bin"

    @property
    def clone(self) -> Path:
        return self.root / "clone"

    @property
    def calls(self) -> list[str]:
        """Every call of a fake program, in order."""
        written = self.root / "calls"
        return written.read_text().splitlines() if written.exists() else []

    def has(self, name: str, script: str = WRITES_DOWN) -> None:
        """Install a fake program."""
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def lacks(self, *names: str) -> None:
        for name in names:
            (self.programs / name).unlink()

    def setup(
        self, *arguments: str, prefix: tuple[str, ...] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run scripts/setup; nothing but this computer's programs is on its PATH."""
        environment = {
            "PATH": str(self.programs),
            "HOME": str(self.root),
            "CALLS": str(self.root / "calls"),
        }
        return subprocess.run(
            [*prefix, str(self.clone / "scripts" / "setup"), *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=environment | variables,
        )


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    """A computer that has everything."""
    made = Computer(tmp_path)
    made.programs.mkdir()
    (made.clone / "scripts").mkdir(parents=True)
    shutil.copy2(ROOT / "scripts" / "setup", made.clone / "scripts")
    shutil.copy2(ROOT / "pyproject.toml", made.clone)
    for name in (*REAL, "basename", "cp", "mkdir"):
        found = shutil.which(name)
        assert found, name
        (made.programs / name).symlink_to(found)
    for name in (*SYSTEM_PROGRAMS, "newuidmap", "cc", "cargo", "cargo-nextest", "apt-get"):
        made.has(name)
    made.has("python3", FAKE_PYTHON)
    return made


@pytest.fixture(scope="module")
def ordinary() -> tuple[str, ...]:
    """What to put before a command so that it is not run by root: a user namespace in which nobody is."""
    if os.geteuid() != 0:
        return ()
    unshare = shutil.which("unshare") or "unshare"
    if subprocess.run([unshare, "--user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("root here cannot make a user namespace, in which it would be an ordinary user")
    return (unshare, "--user")


def pip_calls(computer: Computer) -> list[str]:
    return [call for call in computer.calls if "-m pip" in call]


def apt_calls(computer: Computer) -> list[str]:
    return [call for call in computer.calls if call.startswith("apt-get")]


def test_with_all_there_only_the_package_is_installed(computer: Computer) -> None:
    done = computer.setup()
    assert done.returncode == 0, done.stderr
    assert apt_calls(computer) == []
    assert [call.split()[-1] for call in pip_calls(computer)] == [str(computer.clone)]
    assert "installing into" in done.stderr
    assert done.stdout == ""


def test_the_second_time_does_nothing(computer: Computer) -> None:
    computer.setup()
    done = computer.setup()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(pip_calls(computer)) == 1


def test_changed_requirements_are_installed(computer: Computer) -> None:
    computer.setup()
    with (computer.clone / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    computer.setup()
    assert len(pip_calls(computer)) == 2


def test_what_testing_takes_comes_with_dev_and_stays(computer: Computer) -> None:
    computer.setup()
    assert computer.setup("--dev").returncode == 0
    assert computer.setup().returncode == 0
    assert [call.split()[-1].removeprefix(str(computer.clone)) for call in pip_calls(computer)] == [
        "",
        "[dev]",
    ]


def test_nextest_comes_from_pypi_where_path_has_none(computer: Computer) -> None:
    computer.lacks("cargo-nextest")
    computer.setup("--dev")
    assert pip_calls(computer)[0].endswith("[nextest,dev]")


def test_a_failed_pip_is_tried_again(computer: Computer) -> None:
    computer.has("python3", FAKE_PYTHON.replace("esac", '"-m pip"*) exit 1 ;;\nesac'))
    assert computer.setup().returncode == 20
    assert computer.setup().returncode == 20
    assert len(pip_calls(computer)) == 2


def test_root_installs_what_is_missing_without_asking(computer: Computer) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root")
    computer.lacks("mmdebstrap", "qemu-img")
    done = computer.setup()
    assert done.returncode == 0, done.stderr
    update, install = apt_calls(computer)
    assert update.endswith("update")
    assert install.endswith("install -y --no-install-recommends qemu-utils mmdebstrap")
    assert "installing system packages: qemu-utils mmdebstrap" in done.stderr


def test_a_user_with_sudo_installs_what_is_missing_without_asking(
    computer: Computer, ordinary: tuple[str, ...]
) -> None:
    computer.lacks("mmdebstrap", "newuidmap")
    computer.has("sudo", WITHOUT_PASSWORD)
    done = computer.setup(prefix=ordinary)
    assert done.returncode == 0, done.stderr
    assert apt_calls(computer)[1].endswith("mmdebstrap uidmap")


@pytest.mark.parametrize("sudo", [FAILS, None], ids=["with a password", "without sudo"])
def test_a_user_who_may_not_install_gets_the_command(
    computer: Computer, ordinary: tuple[str, ...], sudo: str | None
) -> None:
    computer.lacks("qemu-system-x86_64", "cc", "newuidmap")
    if sudo:
        computer.has("sudo", sudo)
    done = computer.setup(prefix=ordinary)
    assert done.returncode == 20
    assert apt_calls(computer) == []
    assert pip_calls(computer) == []
    assert done.stderr.splitlines()[-1].strip() == (
        "sudo apt-get install --no-install-recommends qemu-system-x86 uidmap gcc libc6-dev"
    )


def test_another_distribution_gets_the_list(computer: Computer) -> None:
    computer.lacks("apt-get", "mmdebstrap")
    done = computer.setup()
    assert done.returncode == 20
    assert "missing: mmdebstrap" in done.stderr


def test_apt_that_fails_ends_it(computer: Computer, ordinary: tuple[str, ...]) -> None:
    computer.lacks("mmdebstrap")
    computer.has("sudo", WITHOUT_PASSWORD)
    computer.has("apt-get", FAILS)
    done = computer.setup(prefix=ordinary)
    assert done.returncode == 20
    assert "no, I will not" in done.stderr
    assert "apt-get update failed" in done.stderr
    assert pip_calls(computer) == []


def test_python_that_is_too_old(computer: Computer) -> None:
    computer.has("python3", FAILS)
    done = computer.setup()
    assert done.returncode == 20
    assert "error: Python 3.11 or newer was not found" in done.stderr


def test_a_newer_python_beside_an_old_one_is_found(computer: Computer) -> None:
    computer.has("python3", FAILS)
    computer.has("python3.12", FAKE_PYTHON)
    assert computer.setup().returncode == 0


def test_the_python_that_was_named_is_taken_or_refused(computer: Computer) -> None:
    done = computer.setup(PYTHON="/nowhere/python3")
    assert done.returncode == 20
    assert "/nowhere/python3 was not found" in done.stderr


def test_no_cargo(computer: Computer) -> None:
    computer.lacks("cargo")
    done = computer.setup()
    assert done.returncode == 20
    assert "cargo was not found" in done.stderr
    assert "https://rustup.rs" in done.stderr


def test_cargo_without_a_toolchain(computer: Computer) -> None:
    computer.has("cargo", FAILS)
    done = computer.setup()
    assert done.returncode == 20
    assert "does not work: no, I will not" in done.stderr


def test_an_unknown_argument_shows_the_usage(computer: Computer) -> None:
    done = computer.setup("--deb")
    assert done.returncode == 2
    assert "scripts/setup --dev" in done.stderr
    assert computer.calls == []
