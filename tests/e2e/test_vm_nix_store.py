"""Programs whose loader and libraries are in this host's Nix store run in the Debian image, which has no store."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import CommandLine
from crate_copies import archive_crate, copy_crate
from long_lived import LongLivedVm
from run_record import assert_guest_ran
from shared_vm import ScriptedCrate, shared_vm

LOADER = Path("/lib64/ld-linux-x86-64.so.2")
LIBRARIES = ("libc.so.6", "libm.so.6", "libgcc_s.so.1")
NIX = (
    "nix-build",
    "--option",
    "sandbox",
    "false",
    "--option",
    "build-users-group",
    "",
    "--option",
    "substitute",
    "false",
)
# The parent of the script is the test's program.
FROM_THE_STORE = "grep -q '{store_path}/lib/libc.so.6' /proc/$PPID/maps"


@dataclass(frozen=True)
class StoreLinked:
    """An archive of the crate `scripted` whose programs have their loader and libraries in `store_path`."""

    store_path: str
    crate: ScriptedCrate

    @classmethod
    def make(cls, store_path: str, place: Path) -> StoreLinked:
        """Build the archive below `place`, as cargo builds it where the linker comes from Nix."""
        crate = copy_crate("scripted", place / "scripted")
        loader, libraries = f"{store_path}/lib/{LOADER.name}", f"{store_path}/lib"
        (crate / ".cargo").mkdir()
        flags = [f"link-arg=-Wl,--dynamic-linker={loader}", f"link-arg=-Wl,-rpath,{libraries}"]
        arguments = ", ".join(f'"-C", "{flag}"' for flag in flags)
        (crate / ".cargo" / "config.toml").write_text(f"[build]\nrustflags = [{arguments}]\n")
        archive = archive_crate(crate, place / "scripted.tar.zst")
        return cls(store_path, ScriptedCrate(crate, archive))

    @property
    def loader_in_use(self) -> str:
        """A script that fails where the program that runs it has its libraries from elsewhere."""
        return FROM_THE_STORE.format(store_path=self.store_path)


def this_hosts_libraries() -> list[Path]:
    """The loader, and the C library that goes with it."""
    asked = [subprocess.check_output(["cc", f"-print-file-name={name}"], text=True) for name in LIBRARIES]
    return [LOADER, *(Path(path.strip()) for path in asked)]


def build_libraries(files: list[Path]) -> str:
    """A Nix expression that copies them into a store path, with a shell and nothing else."""
    script = f"/bin/mkdir -p $out/lib && /bin/cp -L {' '.join(map(str, files))} $out/lib/"
    return (
        'derivation { name = "vmrunner-test-glibc"; system = builtins.currentSystem; builder = "/bin/sh";'
        f' args = [ "-c" "{script}" ]; }}'
    )


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A path in this computer's own store, for programs only look there; it is gone afterwards."""
    if shutil.which("nix-build") is None:
        pytest.skip("nix-build is not on PATH")
    if os.geteuid() != 0 or "NIX_STORE_DIR" in os.environ:
        pytest.skip("only root can build in /nix/store without a daemon")
    files = this_hosts_libraries()
    missing = [path for path in files if not path.is_file()]
    if missing:
        pytest.skip(f"this host has no {missing[0]}")
    link = tmp_path_factory.mktemp("nix") / "result"
    environment = {**os.environ, "NIX_PATH": "", "NIX_REMOTE": ""}
    built = subprocess.run(
        [*NIX, "--expr", build_libraries(files), "--out-link", link],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    path = built.stdout.strip()
    derivation = subprocess.check_output(["nix-store", "-q", "--deriver", path], env=environment, text=True)
    yield path
    link.unlink()
    subprocess.run(
        ["nix-store", "--delete", path, derivation.strip()],
        env=environment, capture_output=True, check=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store_linked(store_path: str, tmp_path_factory: pytest.TempPathFactory) -> StoreLinked:
    """One archive for all tests of this file."""
    return StoreLinked.make(store_path, tmp_path_factory.mktemp("linked"))


def test_the_guest_sees_what_the_programs_need(vmrunner: CommandLine, store_linked: StoreLinked) -> None:
    """Only they see it: what is mounted for them is not there for others, and nothing can be written to it."""
    script = (
        f"{store_linked.loader_in_use}; ! touch {store_linked.store_path}/x; nsenter --mount=/proc/1/ns/mnt "
        f"test ! -e {store_linked.store_path}; grep -x '10.9.8.7 db.test' /etc/hosts; grep -qx '127.0.0.1.*' /etc/hosts"
    )
    finished = store_linked.crate.run(vmrunner, script, "--host", "db.test=10.9.8.7")
    assert finished.code == 0, finished.stderr
    assert_guest_ran(vmrunner.only_run)


def test_a_guest_that_must_not_see_the_store_is_not_started(
    vmrunner: CommandLine, store_linked: StoreLinked
) -> None:
    finished = store_linked.crate.run(vmrunner, "true", "--nix-store", "off")
    assert finished.code == 24
    assert finished.message.startswith("`debug/deps/scripted-")
    assert (
        f" needs {store_linked.store_path}, which this host has, but the image `debian` does not"
        in finished.message
    )
    assert finished.message.endswith("and `nix-store` is off")
    assert "`--nix-store share`" in finished.hint
    assert "start" not in vmrunner.only_run.phases


def test_a_store_path_that_was_collected_is_named(
    vmrunner: CommandLine, store_linked: StoreLinked, tmp_path: Path
) -> None:
    """As where an archive comes from another computer."""
    empty = tmp_path / "store"
    empty.mkdir()
    elsewhere = vmrunner.with_variables(NIX_STORE_DIR=str(empty))
    finished = store_linked.crate.run(elsewhere, "true")
    assert finished.code == 24
    assert (
        f"needs {store_linked.store_path}, which is neither in the image `debian` nor on this host"
        in finished.message
    )
    assert f"nix-store --realise {store_linked.store_path}" in finished.hint


@pytest.fixture(scope="module")
def vm_with_store(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongLivedVm]:
    """A VM that was made with the store."""
    with shared_vm(
        "stored", image=image, state=tmp_path_factory.mktemp("state"), flags=["--nix-store", "share"]
    ) as vm:
        yield vm


def test_each_run_in_a_long_lived_vm_sees_the_store_and_leaves_no_mount(
    vm_with_store: LongLivedVm, store_linked: StoreLinked
) -> None:
    before = vm_with_store.shell("cut -d' ' -f2 /proc/mounts | sort")
    for _ in range(2):
        finished = store_linked.crate.run(
            vm_with_store.vmrunner, store_linked.loader_in_use, "--vm", "stored"
        )
        assert finished.code == 0, finished.stderr
    assert vm_with_store.shell("/usr/lib/vmrunner/prepare undo; cut -d' ' -f2 /proc/mounts | sort") == before


def test_a_vm_that_was_made_without_the_store_cannot_run_them(
    vm: LongLivedVm, store_linked: StoreLinked
) -> None:
    finished = store_linked.crate.run(vm.vmrunner, "true", "--vm", vm.name)
    assert finished.code == 24
    assert "the machine was made without this host's store" in finished.message
    assert "`--nix-store share`" in finished.hint
