"""`--nix-store copy`: what an archive's programs need of this host's store is built into the nixos image."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import PROGRAM, CommandLine
from nix_store import STAND_IN, NixStore, make_store
from run_record import assert_guest_ran
from test_vm_nix_store import StoreLinked, build_libraries, this_hosts_libraries

# Programs look for store paths in /nix/store only: there is a store of the test's own there, for its commands alone.
WITH_OWN_STORE = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    'mount --bind "$0" /nix && exec "$@"',
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NixStore, tuple[str, ...]]]:
    """The store, and what to put before a command that is to see it as /nix."""
    if shutil.which("nix-build") is None:
        pytest.skip("nix-build is not on PATH")
    if os.geteuid() != 0:
        pytest.skip("only root can mount a store over /nix")
    made = Path("/nix").is_dir()
    Path("/nix").mkdir(exist_ok=True)
    store = make_store(tmp_path_factory.mktemp("nix") / "own")
    (store.directory / "store").mkdir()
    yield store, (*WITH_OWN_STORE, str(store.directory))
    store.remove()
    if not made:
        Path("/nix").rmdir()


@pytest.fixture(scope="module")
def variables(own: tuple[NixStore, tuple[str, ...]], debian_image: Path) -> dict[str, str]:
    """Nix's default store, and all else as the tests have it."""
    store, _ = own
    kept = {name: value for name, value in store.variables.items() if not name.endswith("_DIR")}
    places = {
        "NIX_CONF_DIR": "/nix/conf",
        "NIX_STATE_DIR": "/nix/state",
        "NIX_LOG_DIR": "/nix/log",
        "NIXPKGS_STAND_IN_IMAGE": str(debian_image),
    }
    return {**kept, **places}


def test_the_image_has_what_the_programs_need(
    own: tuple[NixStore, tuple[str, ...]],
    variables: dict[str, str],
    tmp_path: Path,
) -> None:
    _, prefix = own
    built = subprocess.run(
        [*prefix, "nix-build", "--expr", build_libraries(this_hosts_libraries()), "-o", tmp_path / "libraries"],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    linked = StoreLinked.make(built.stdout.strip(), tmp_path)
    vmrunner = CommandLine(
        tmp_path / "state", tmp_path / "cache", None, {**variables, "VMRUNNER_START": "booted"},
        program=(*prefix, str(PROGRAM)),
    )  # fmt: skip
    script = f"{linked.loader_in_use}; ! grep -q ' 9p .*store' /proc/mounts; ! grep -q /run/vmrunner/store /proc/mounts"
    finished = linked.crate.run(
        vmrunner, script, "--image", "nixos", "--nixpkgs", str(STAND_IN), "--nix-store", "copy"
    )
    assert finished.code == 0, finished.stderr
    assert_guest_ran(vmrunner.only_run)
