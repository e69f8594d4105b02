"""`image: nixos` from the command line: Nix builds it, and it boots, runs tests and goes again.

nixpkgs is the stand-in, so the system inside is the Debian image's; all that calls Nix, roots, reads and boots is real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CRATES, CommandLine
from crate_copies import CopyCrate
from nix_store import STAND_IN, NixStore
from real_nix import modern_nix, nix_of_file
from run_record import assert_guest_ran

__all__ = ["modern_nix", "nix_of_file"]  # fixtures

MYDNS = CRATES / "mydns"
NIXOS = ("--image", "nixos", "--nixpkgs", STAND_IN)
BROKEN_MODULE = "{ networking.hosts = }\n"


@pytest.fixture(scope="module")
def command_line(
    nix_of_file: NixStore,
    debian_image: Path,
    target_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[CommandLine]:
    """The program with an empty cache and a Nix store that is empty too."""
    home = tmp_path_factory.mktemp("home")
    variables: dict[str, str | None] = {
        **nix_of_file.variables,
        "NIXPKGS_STAND_IN_IMAGE": str(debian_image),
        "VMRUNNER_START": "booted",
    }
    line = CommandLine(home / "state", home / "cache", target_directory, variables)
    if nix_of_file.programs:
        line = line.with_variables(PATH=f"{nix_of_file.programs}:{line.environment['PATH']}")
    yield line
    line.abandon_all()


def roots(store: NixStore) -> str:
    return store.run("nix-store", "--gc", "--print-roots").stdout


def test_it_is_built_booted_kept_and_removed(command_line: CommandLine, nix_of_file: NixStore) -> None:
    first = command_line.run("test", MYDNS, *NIXOS)
    assert first.code == 0, first.stderr
    assert "2 passed" in first.stderr
    assert "Building the NixOS image" in first.stderr
    assert_guest_ran(command_line.only_run)
    assert command_line.only_run.report["machine"]["image"] == "nixos"

    (listed,) = json.loads(command_line.run("image", "list", "--json").stdout)
    image = Path(listed["directory"])
    manifest = json.loads((image / "manifest.json").read_text())
    assert manifest["built_from"]["nixpkgs"] == str(STAND_IN)
    assert manifest["built_from"]["nixpkgs_version"].startswith("26.11")
    store_path = str((image / "gc-root").resolve())
    assert store_path in roots(nix_of_file)
    nix_of_file.run("nix-store", "--gc")
    assert Path(store_path).is_dir()

    again = command_line.run("plan", MYDNS, *NIXOS, "--json")
    assert json.loads(again.stdout)["image"]["built"] is True

    assert command_line.run("image", "prune").code == 0
    assert store_path not in roots(nix_of_file)
    nix_of_file.run("nix-store", "--gc")
    assert not Path(store_path).exists()


def test_auto_takes_it_where_nix_is(command_line: CommandLine) -> None:
    planned = command_line.run("plan", MYDNS, "--image", "auto", "--nixpkgs", STAND_IN)
    assert planned.code == 0, planned.stderr
    assert "image: nixos (nix-build is on PATH)" in planned.stderr


def test_it_keeps_the_guest_contract(command_line: CommandLine) -> None:
    verified = command_line.run("image", "verify", *NIXOS, "--json")
    found = json.loads(verified.stdout)
    assert [check for check in found["checks"] if check["status"] != "ok"] == []
    assert verified.code == 0


def test_a_module_with_a_mistake_is_named_and_nothing_falls_back(
    command_line: CommandLine, copied_crate: CopyCrate
) -> None:
    """Its path counts from vmrunner.yaml, wherever vmrunner is called."""
    crate = copied_crate("mydns")
    (crate / "vm.nix").write_text(BROKEN_MODULE)
    (crate / "vmrunner.yaml").write_text(f"image: auto\nnixpkgs: {STAND_IN}\nmodules: [vm.nix]\n")
    failed = command_line.run("test", crate)
    assert failed.code == 21
    assert "vm.nix:1" in failed.stderr
    assert "syntax error" in failed.stderr
    assert "debian" not in failed.stderr


def test_a_pin_that_this_nix_is_too_old_for(command_line: CommandLine, nix_of_file: NixStore) -> None:
    if nix_of_file.programs:
        pytest.skip("a modern Nix would download the pin")
    failed = command_line.run("image", "build", "--image", "nixos")
    assert failed.code == 21
    assert "needs Nix 2.18 or newer" in failed.message
    assert failed.seconds < 10


def test_ctrl_c_while_nix_builds_leaves_nothing(command_line: CommandLine, copied_crate: CopyCrate) -> None:
    crate = copied_crate("mydns")
    slow = '{ pkgs, ... }: { environment.systemPackages = [ (pkgs.runCommand "slow" { } "sleep 600; touch $out") ]; }\n'
    (crate / "vm.nix").write_text(slow)
    images = command_line.cache_home / "vmrunner" / "images"
    before = sorted(images.iterdir())
    running = command_line.start("image", "build", *NIXOS, "--module", crate / "vm.nix")
    running.wait_for("Building the NixOS image")
    running.press_ctrl_c()
    finished = running.finish(seconds=30)
    assert finished.code == 130
    assert sorted(images.iterdir()) == before
