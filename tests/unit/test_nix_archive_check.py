"""nix/archive.nix, check.nix, package.nix and shell.nix, evaluated."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from nix_store import STAND_IN, NixStore
from nix_values import NIX, Values

import vmrunner

ROOT = NIX.parent


def archive_command(script: str) -> list[str]:
    """The words of the command that makes the archive."""
    joined = script.replace("\\\n", " ")
    (line,) = [line for line in joined.splitlines() if line.startswith("cargo nextest archive")]
    return shlex.split(line)


def vmrunner_command(check: dict[str, Any]) -> list[str]:
    """The words of the command that runs the tests."""
    script = check["buildCommand"].replace("\\\n", " ")
    (line,) = [line for line in script.splitlines() if line.lstrip().startswith("vmrunner test")]
    return shlex.split(line.partition("||")[0])


class TestArchive:
    """nix/archive.nix."""

    def test_nextest_makes_it_and_runs_nothing(self, nix_values: Values) -> None:
        plain = nix_values["archive"]["plain"]
        words = archive_command(plain["buildPhase"])
        assert words[words.index("--archive-format") + 1] == "tar-zst"
        assert words[words.index("--archive-file") + 1] == "archive.tar.zst"
        assert plain["doCheck"] is False
        assert "cargo-nextest" in plain["nativeBuildInputs"]

    def test_the_dependencies_are_those_of_the_sources_lock_file(self, nix_values: Values) -> None:
        plain = nix_values["archive"]["plain"]
        assert plain["cargoLock"] == {"lockFile": f"{plain['src']}/Cargo.lock"}

    def test_another_way_to_dependencies_takes_its_place(self, nix_values: Values) -> None:
        own = nix_values["archive"]["own"]
        assert own["cargoHash"].startswith("sha256-")
        assert "cargoLock" not in own

    def test_what_cargo_is_to_build_can_be_said(self, nix_values: Values) -> None:
        assert "--all-features" in archive_command(nix_values["archive"]["own"]["buildPhase"])

    def test_all_else_goes_on_to_the_builder(self, nix_values: Values) -> None:
        own = nix_values["archive"]["own"]
        assert (own["name"], own["RUSTFLAGS"]) == ("mydns-tests-1.2", "-g")
        assert own["nativeBuildInputs"][0] == "perl"
        assert own["meta"]["license"]["shortName"] == "mit"
        assert own["meta"]["description"]

    def test_the_builder_gets_nothing_that_is_meant_for_us(self, nix_values: Values) -> None:
        for made in nix_values["archive"].values():
            assert not {"craneLib", "rustPlatform", "cargoExtraArgs"} & made.keys()

    @pytest.mark.parametrize(("name", "phase"), [("plain", "installPhase"), ("crane", "installPhaseCommand")])
    def test_store_paths_within_are_named_outside(self, nix_values: Values, name: str, phase: str) -> None:
        script = nix_values["archive"][name][phase]
        assert re.search(r"cp \S*archive\.tar\.zst \$out", script)
        assert "$out/references" in script

    def test_nothing_is_stripped_or_patched(self, nix_values: Values) -> None:
        assert {made["dontFixup"] for made in nix_values["archive"].values()} == {True}

    def test_crane_is_asked_as_crane_wants_it(self, nix_values: Values) -> None:
        crane = nix_values["archive"]["crane"]
        assert crane["cargoArtifacts"] == "/artifacts"
        assert crane["doInstallCargoArtifacts"] is False
        assert archive_command(crane["buildPhaseCargoCommand"])[:3] == ["cargo", "nextest", "archive"]
        assert not {"buildPhase", "installPhase", "cargoLock"} & crane.keys()


class TestCheck:
    """nix/check.nix."""

    def test_the_archive_is_run_on_the_image(self, nix_values: Values) -> None:
        words = vmrunner_command(nix_values["check"]["plain"])
        assert words[words.index("--image") + 1] == "/image"
        assert words[words.index("--archive") + 1] == "/archive/archive.tar.zst"
        assert words[-1] == "/sources"
        assert nix_values["check"]["plain"]["nativeBuildInputs"] == ["vmrunner"]

    def test_no_template_is_made_for_a_single_run_unless_it_is_asked_for(self, nix_values: Values) -> None:
        plain, own = (vmrunner_command(nix_values["check"][name]) for name in ("plain", "own"))
        assert plain[plain.index("--start") + 1] == "booted"
        assert "--start" not in own

    def test_settings_take_the_place_of_the_sources_own(self, nix_values: Values) -> None:
        plain, own = (vmrunner_command(nix_values["check"][name]) for name in ("plain", "own"))
        assert "--config" not in plain
        assert own[own.index("--config") + 1].endswith("-vmrunner.yaml")

    def test_flags_and_arguments_for_nextest_come_where_they_belong(self, nix_values: Values) -> None:
        words = vmrunner_command(nix_values["check"]["own"])
        assert words[words.index("--") :] == ["--", "-E", "test(dns)"]
        assert words[words.index("--") - 1] == "/other sources"
        assert "--network=user" in words[: words.index("/other sources")]

    def test_the_exit_code_is_kept_and_shown(self, nix_values: Values) -> None:
        script = nix_values["check"]["plain"]["buildCommand"]
        assert 'exit "$code"' in script
        assert re.search(r'echo ".*exit code \$code" >&2', script)

    def test_nothing_is_written_outside_of_the_build(self, nix_values: Values) -> None:
        script = nix_values["check"]["plain"]["buildCommand"]
        set_in_build = set(re.findall(r'(\w+)="\$TMPDIR', script))
        assert {"HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"} <= set_in_build

    def test_keeping_a_result_does_not_keep_the_image(self, nix_values: Values) -> None:
        plain = nix_values["check"]["plain"]
        assert plain["unsafeDiscardReferences"] == {"out": True}
        # Nix heeds it only there.
        assert plain["__structuredAttrs"] is True

    def test_it_has_the_name_that_it_is_given(self, nix_values: Values) -> None:
        assert [nix_values["check"][name]["name"] for name in ("plain", "own")] == ["vmrunner-test", "dns"]


@pytest.mark.parametrize("what", ["image", "rootDisk", "archive", "check", "package", "shell"])
def test_any_builder_will_do(nix_values: Values, what: str) -> None:
    assert nix_values["features"][what] == []


class TestPackage:
    """nix/package.nix and nix/shell.nix."""

    @pytest.fixture
    def project(self) -> dict[str, Any]:
        """The table `project` of pyproject.toml."""
        table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return table

    def test_it_is_of_the_version_of_its_sources(self, nix_values: Values) -> None:
        assert nix_values["package"]["name"] == f"vmrunner-{vmrunner.__version__}"

    def test_it_depends_on_what_pyproject_names(self, nix_values: Values, project: dict[str, Any]) -> None:
        names = {re.split(r"[<>=]", line)[0].replace(".", "-").lower() for line in project["dependencies"]}
        assert set(nix_values["package"]["dependencies"]) == names

    def test_it_says_what_pyproject_says(self, nix_values: Values, project: dict[str, Any]) -> None:
        meta = nix_values["package"]["meta"]
        assert meta["description"] == project["description"]
        assert meta["mainProgram"] in project["scripts"]
        assert {license["shortName"] for license in meta["license"]} == {"asl20", "mit"}

    def test_its_sources_are_all_that_is_installed_and_no_more(self, nix_values: Values) -> None:
        source = Path(nix_values["package"]["source"])
        top = {path.name for path in source.iterdir()}
        assert top == {"README.md", "images", "nix", "pyproject.toml", "vmrunner"}
        files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
        assert {path.suffix for path in files if path.parts[0] == "vmrunner"} <= {".py", ".typed"}
        for name in ("nix/guest.nix", "images/guest/usr/lib/vmrunner/prepare", "vmrunner/cli/__init__.py"):
            assert Path(name) in files

    def test_qemu_is_on_its_path(self, nix_values: Values) -> None:
        assert "-qemu-1/bin" in " ".join(nix_values["package"]["makeWrapperArgs"])

    def test_an_installed_vmrunner_says_that_it_is_not_packaged_from_there(
        self, nix_store: NixStore, tmp_path: Path
    ) -> None:
        installed = tmp_path / "_data/nix"
        installed.mkdir(parents=True)
        for file in NIX.iterdir():
            (installed / file.name).write_bytes(file.read_bytes())
        arguments = ("--eval", installed, "-A", "package.name", "--argstr", "nixpkgs", STAND_IN)
        tried = nix_store.run("nix-instantiate", *arguments)
        assert tried.returncode == 1
        assert "source tree" in tried.stderr

    def test_the_shell_has_what_developing_takes(self, nix_values: Values) -> None:
        shell = nix_values["shell"]
        assert {"cargo", "cargo-nextest", "pytest"} <= set(shell["packages"])
        assert shell["inputs"] == ["vmrunner"]

    def test_the_shell_is_there_both_ways(self, nix_store: NixStore, nix_values: Values) -> None:
        pkgs = f"import {STAND_IN} {{ }}"
        alone = nix_store.run("nix-instantiate", NIX / "shell.nix", "--arg", "pkgs", pkgs)
        assert alone.returncode == 0, alone.stderr
        assert alone.stdout.strip().endswith("-shell.drv")
        assert nix_values["shell"]["drvPath"].endswith("-shell.drv")
