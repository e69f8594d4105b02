"""Real Nix, each way in which it can fail: the error that comes out of it, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from nix_store import NixStore
from real_nix import modern_nix, nix, nix_of_file

from vmrunner.errors import ImageBuildFailed, RunTimeout, exit_code_of
from vmrunner.events import Phase, silent
from vmrunner.host.deadline import Deadline
from vmrunner.image.nixos.nix_build import BuildResult, add_root, build

__all__ = ["modern_nix", "nix", "nix_of_file"]

EXPRESSIONS = Path(__file__).with_name("nix_failures.nix")
NIX_CONF = "sandbox = false\nsubstituters =\n"
INTERRUPTED = """
import sys
from pathlib import Path
from vmrunner.errors import Interrupted
from vmrunner.events import Phase, silent
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.image.nixos.nix_build import build
try:
    with interruptible():
        build(
            Path(sys.argv[1]), attribute="sleeping", arguments={"directory": sys.argv[2]},
            out_link=Path(sys.argv[2], "result"), current=Phase("build", silent), deadline=Deadline.after(60),
        )
except Interrupted as error:
    sys.exit(error.exit_code)
"""


def built(attribute: str, directory: Path, *, seconds: float = 60) -> BuildResult:
    return build(
        EXPRESSIONS,
        attribute=attribute,
        arguments={"directory": str(directory)},
        out_link=directory / "result",
        current=Phase("build", silent),
        deadline=Deadline.after(seconds),
    )


def failure(attribute: str, directory: Path) -> ImageBuildFailed:
    with pytest.raises(ImageBuildFailed) as caught:
        built(attribute, directory)
    assert exit_code_of(caught.value) == 21
    assert caught.value.hint
    assert not os.path.lexists(directory / "result")
    return caught.value


def configured(nix: NixStore, monkeypatch: pytest.MonkeyPatch, directory: Path, text: str) -> None:
    """Other settings of Nix, for one test."""
    directory.joinpath("conf").mkdir()
    directory.joinpath("conf/nix.conf").write_text(NIX_CONF + text)
    monkeypatch.setenv("NIX_CONF_DIR", str(directory / "conf"))


def sleepers() -> list[int]:
    """Builders of this test's store which sleep; those of another run of the tests are none of ours."""
    store = os.environ["NIX_STORE_DIR"]
    found = []
    for one in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            asleep = one.info["cmdline"] == ["/bin/sleep", "1000"]
            if asleep and one.environ().get("NIX_STORE", "").startswith(store):
                found.append(one.pid)
    return found


def test_build_that_goes_well(nix: NixStore, tmp_path: Path) -> None:
    result = built("fine", tmp_path)
    assert result.path.parent == nix.directory / "store"
    assert result.path.read_text() == f"{tmp_path}\n"
    assert (tmp_path / "result").readlink() == result.path


def test_evaluated_files_are_known(nix: NixStore, tmp_path: Path) -> None:
    (tmp_path / "module.nix").write_text(
        f"{{ value = (import {EXPRESSIONS} {{ directory = {tmp_path}/module.nix; }}).fine; }}"
    )
    assert built("evaluation", tmp_path).files_read == frozenset({tmp_path / "module.nix", EXPRESSIONS})


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("builder", "building broken failed with exit code 3"),
        ("dependency", "building broken failed with exit code 3"),
        ("noOutput", "building forgetful failed to produce output path"),
        ("killed", "building killed failed due to signal 9"),
        ("hash", "the hash of fixed is not the one that was given"),
        ("feature", "building demanding needs the system feature vmrunner-test"),
        ("system", "foreign must be built on riscv64-linux"),
        ("searchPath", "asks for <nixpkgs>, but neither NIX_PATH nor channels are used"),
        ("tooOld", "this nixpkgs needs Nix 99.1 or newer"),
        ("option", "services.example.port must be set"),
        ("nosuch", "attribute 'nosuch'"),
        ("download", "http://127.0.0.1:9/archive.tar.gz cannot be downloaded: could"),
        ("builtinDownload", "http://127.0.0.1:9/archive.tar.gz cannot be downloaded: could"),
    ],
)
def test_failure_says_what_it_is(nix: NixStore, tmp_path: Path, attribute: str, message: str) -> None:
    assert message in failure(attribute, tmp_path).message


def test_log_that_the_hint_names_is_there(nix: NixStore, tmp_path: Path) -> None:
    error = failure("dependency", tmp_path)
    assert (error.details or "").endswith("line 49\nno such thing")
    command = (error.hint or "").split("`")[1].split()
    assert command[0] == "nix-store"
    shown = nix.run(command[0], *command[1:])
    assert shown.stdout.splitlines()[0] == "line 0"


def test_mistake_in_a_module(nix: NixStore, tmp_path: Path) -> None:
    (tmp_path / "module.nix").write_text('{\n  value = throw "services.example needs a port";\n}\n')
    error = failure("evaluation", tmp_path)
    assert f"{tmp_path}/module.nix:2: services.example needs a port" in error.message


def test_syntax_error(nix: NixStore, tmp_path: Path) -> None:
    (tmp_path / "syntax.nix").write_text("{ broken =\n")
    assert f"at {tmp_path}/syntax.nix:" in failure("syntax", tmp_path).message


def test_hash_of_a_tarball(nix: NixStore, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    subprocess.run(["tar", "-czf", tmp_path / "archive.tar.gz", "-C", tmp_path, "tree"], check=True)
    error = failure("fetch", tmp_path)
    assert f"the hash of file://{tmp_path}/archive.tar.gz is not" in error.message
    assert "\ngot:    sha256:" in (error.details or "")


def test_time_out_of_nix_itself(nix: NixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(nix, monkeypatch, tmp_path, "build-users-group =\ntimeout = 1\n")
    assert "Nix gave up building sleepy after 1 seconds" in failure("sleeping", tmp_path).message


def test_daemon_that_does_not_run(nix: NixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_REMOTE", "daemon")
    assert "the Nix daemon cannot be reached at /" in failure("fine", tmp_path).message


@pytest.mark.skipif(os.geteuid() != 0, reason="Nix looks at build users only as root")
@pytest.mark.parametrize(("group", "state"), [("nogroup", "has no members"), ("nosuch", "does not exist")])
def test_no_build_users(
    nix: NixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, state: str
) -> None:
    configured(nix, monkeypatch, tmp_path, f"build-users-group = {group}\n")
    assert f"the group {group} of its build users {state}" in failure("fine", tmp_path).message


def test_store_that_cannot_be_written(nix: NixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_STATE_DIR", "/sys/kernel/nix")
    error = failure("fine", tmp_path)
    assert error.message.startswith("Nix cannot use /sys/kernel/nix")


@pytest.mark.parametrize(
    ("size", "reason"), [("8m", "database or disk is full"), ("24m", "No space left on device")]
)
def test_full_disk(
    nix: NixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str, reason: str
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        monkeypatch.setenv("NIX_STORE_DIR", str(small / "store"))
        monkeypatch.setenv("NIX_STATE_DIR", str(small / "state"))
        error = failure("full", tmp_path)
    finally:
        subprocess.run(["umount", small], check=True)
    assert error.message == "the disk filled up while the NixOS image was built"
    assert reason in (error.details or "")


@pytest.fixture
def daemon(nix: NixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nix builds in its daemon, as it does for the users of most computers."""
    if os.geteuid() != 0:
        pytest.skip("the daemon of this store must be root's")
    # A socket's path must be short.
    directory = Path(tempfile.mkdtemp(prefix="nix-"))
    monkeypatch.setenv("NIX_DAEMON_SOCKET_PATH", str(directory / "socket"))
    # Else a daemon whose store is not there yet may take itself for the daemon to ask.
    (nix.directory / "state").mkdir(exist_ok=True)
    process = subprocess.Popen(
        ["nix-daemon"],
        env={**os.environ, "NIX_REMOTE": "local"}, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 20
    while not (directory / "socket").exists() and time.monotonic() < until:
        time.sleep(0.05)
    monkeypatch.setenv("NIX_REMOTE", "daemon")
    yield
    process.terminate()
    process.wait(20)
    shutil.rmtree(directory)


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("attribute", "message", "detail"),
    [
        ("dependency", "building broken failed with exit code 3", "no such thing"),
        ("killed", "building killed failed due to signal 9", "signal 9"),
        ("hash", "the hash of fixed is not the one that was given", "got:    sha256-"),
        ("feature", "building demanding needs the system feature vmrunner-test", "exit code: 1"),
        ("builtinDownload", "http://127.0.0.1:9/archive.tar.gz cannot be downloaded: could", "exit code: 1"),
    ],
)
def test_failure_in_the_daemon(tmp_path: Path, attribute: str, message: str, detail: str) -> None:
    error = failure(attribute, tmp_path)
    assert message in error.message
    assert detail in (error.details or "")


@pytest.mark.usefixtures("daemon")
def test_build_and_deadline_in_the_daemon(tmp_path: Path) -> None:
    path = built("fine", tmp_path).path
    add_root(path, tmp_path / "root", deadline=Deadline.after(20))
    assert (tmp_path / "root").readlink() == path
    before = sleepers()
    with pytest.raises(RunTimeout, match="it was building sleepy"):
        built("sleeping", tmp_path, seconds=2)
    until = time.monotonic() + 10  # the daemon notices that its client is gone
    while sleepers() != before and time.monotonic() < until:
        time.sleep(0.05)
    assert sleepers() == before


def test_deadline(nix: NixStore, tmp_path: Path) -> None:
    before = sleepers()
    with pytest.raises(RunTimeout, match="it was building sleepy") as caught:
        built("sleeping", tmp_path, seconds=3)
    assert exit_code_of(caught.value) == 25
    assert sleepers() == before
    assert not os.path.lexists(tmp_path / "result")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_build_leaves_nothing(
    nix: NixStore, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    before = sleepers()
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(EXPRESSIONS), str(tmp_path)])
    until = time.monotonic() + 30
    while sleepers() == before and time.monotonic() < until and child.poll() is None:
        time.sleep(0.05)
    assert len(sleepers()) == len(before) + 1
    child.send_signal(number)
    assert child.wait(30) == code
    assert sleepers() == before
    assert not os.path.lexists(tmp_path / "result")
    assert built("fine", tmp_path).path.exists()
