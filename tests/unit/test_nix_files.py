"""The .nix files as text: Nix can read them, they are laid out alike, and they keep off what nixpkgs moved away from."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from nix_store import STAND_IN, NixStore
from nix_values import NIX, SAMPLES

OURS = sorted(NIX.rglob("*.nix"))
ALL = sorted([*OURS, *STAND_IN.parent.rglob("*.nix")])
MOST_COLUMNS = 100
SECRETS_OF_A_HOST = ["getEnv", "currentSystem", "currentTime", "NIX_PATH"]

all_files = pytest.mark.parametrize("file", ALL, ids=lambda file: str(file.relative_to(NIX.parent)))
our_files = pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)


def code(file: Path) -> str:
    """A file without its comments: what stands behind # outside of strings, or at the start of a line in them."""
    return re.sub(r"(?m)(^|(?<=\s))#(?!!).*$", "", file.read_text())


def test_there_are_the_files_that_are_promised() -> None:
    promised = {"archive", "check", "default", "guest", "image", "nixpkgs", "package", "shell"}
    assert promised <= {file.stem for file in OURS}


def test_nix_reads_every_file(nix_store: NixStore) -> None:
    parsed = nix_store.run("nix-instantiate", "--parse", *ALL)
    assert (parsed.returncode, parsed.stderr) == (0, "")


def test_a_file_that_nix_cannot_read_would_be_noticed(nix_store: NixStore, tmp_path: Path) -> None:
    (tmp_path / "broken.nix").write_text("{ a = 1 }")
    assert nix_store.run("nix-instantiate", "--parse", tmp_path / "broken.nix").returncode == 1


@all_files
def test_layout(file: Path) -> None:
    text = file.read_text()
    assert "\t" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert not re.search(r"\n\n\n", text)
    for number, line in enumerate(text.splitlines(), start=1):
        assert line == line.rstrip(), f"line {number} ends in a space"
        assert len(line) <= MOST_COLUMNS, f"line {number} has {len(line)} columns"


@all_files
def test_indentation_is_in_steps_of_two(file: Path) -> None:
    # The text of a string may be laid out as it likes.
    text = re.sub(r"(?s)''(?:'''|''\$|''\\|.)*?''(?![$'\\])", "''''", file.read_text())
    odd = [line for line in text.splitlines() if (len(line) - len(line.lstrip())) % 2]
    assert odd == []


@all_files
def test_a_file_says_what_it_is_for(file: Path) -> None:
    assert file.name == "user_hosts.nix" or file.read_text().startswith("# ")


@our_files
def test_what_is_built_does_not_depend_on_who_builds_it(file: Path) -> None:
    assert not re.search(r"<[a-z][\w./-]*>", code(file)), "a search path"
    assert [word for word in SECRETS_OF_A_HOST if word in code(file)] == []


@our_files
def test_no_flakes_and_no_experimental_features(file: Path) -> None:
    assert not re.search(r"getFlake|fetchTree|experimental", code(file))


@our_files
def test_no_file_asks_for_a_system_feature(file: Path) -> None:
    assert "requiredSystemFeatures" not in code(file)
    assert "runInLinuxVM" not in code(file)
    assert "make-disk-image" not in code(file)


@our_files
def test_shares_are_not_those_of_the_test_driver(file: Path) -> None:
    assert "qemu-vm" not in code(file)
    assert "virtualisation" not in code(file)


@our_files
def test_the_root_is_not_named_on_the_kernel_command_line(file: Path) -> None:
    assert not re.search(r"[\s\"]root=", code(file))


def test_comments_are_left_out_and_strings_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.nix").write_text("# root=\n{ a = 1; # root=\n  b = \"c#d\"; s = ''\n#!/bin/sh\n''; }\n")
    assert "root=" not in code(tmp_path / "a.nix")
    assert "c#d" in code(tmp_path / "a.nix")
    assert "#!/bin/sh" in code(tmp_path / "a.nix")


@pytest.fixture
def pin() -> dict[str, Any]:
    """nix/nixpkgs.json."""
    content: dict[str, Any] = json.loads((NIX / "nixpkgs.json").read_text())
    return content


def test_the_pin_is_one_commit_with_its_hash(pin: dict[str, Any]) -> None:
    assert pin.keys() == {"revision", "url", "hash", "minimumNix"}
    assert re.fullmatch(r"[0-9a-f]{40}", pin["revision"])
    assert re.fullmatch(r"sha256-[A-Za-z0-9+/]{43}=", pin["hash"])
    assert pin["url"] == f"https://github.com/NixOS/nixpkgs/archive/{pin['revision']}.tar.gz"
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", pin["minimumNix"])


class TestWhichNixpkgs:
    """nix/nixpkgs.nix."""

    @pytest.fixture
    def resolve(self, nix_store: NixStore, tmp_path: Path) -> Any:
        def ask(source: dict[str, str]) -> Any:
            (tmp_path / "source.json").write_text(json.dumps(source))
            return nix_store.evaluate(NIX / "nixpkgs.nix", "--argstr", "source", tmp_path / "source.json")

        return ask

    def test_a_path(self, resolve: Any) -> None:
        assert resolve({"path": str(STAND_IN)}) == {
            "path": str(STAND_IN),
            "version": "26.11",
            "revision": None,
        }

    def test_a_release_says_its_own_version_and_revision(self, resolve: Any, tmp_path: Path) -> None:
        nixpkgs = tmp_path / "release"
        (nixpkgs / "lib").mkdir(parents=True)
        (nixpkgs / "lib/.version").write_text("26.05\n")
        (nixpkgs / ".version-suffix").write_text(".1234.abcdef")
        (nixpkgs / ".git-revision").write_text("abcdef\n")
        expected = {"path": str(nixpkgs), "version": "26.05.1234.abcdef", "revision": "abcdef"}
        assert resolve({"path": str(nixpkgs)}) == expected

    def test_an_archive_with_its_hash(self, resolve: Any, nix_store: NixStore, tmp_path: Path) -> None:
        archive, digest = packed(nix_store, tmp_path)
        found = resolve({"url": f"file://{archive}", "hash": digest})
        assert found["version"] == "26.11"
        assert found["path"].startswith(nix_store.variables["NIX_STORE_DIR"])
        assert found["path"].endswith("-source")

    def test_an_npins_directory(self, resolve: Any, tmp_path: Path) -> None:
        npins = tmp_path / "npins"
        npins.mkdir()
        (npins / "default.nix").write_text(
            f'{{ nixpkgs = {{ outPath = "{STAND_IN}"; revision = "abc"; }}; }}'
        )
        assert resolve({"npins": str(npins)}) == {
            "path": str(STAND_IN),
            "version": "26.11",
            "revision": "abc",
        }

    @pytest.mark.parametrize(
        ("pins", "said"),
        [
            ("{ naersk = { }; }", "no pin called"),
            ('{ nixpkgs.outPath = "/nowhere"; }', "no nixpkgs at /nowhere"),
        ],
    )
    def test_what_is_wrong_is_said(self, nix_store: NixStore, tmp_path: Path, pins: str, said: str) -> None:
        (tmp_path / "default.nix").write_text(pins)
        (tmp_path / "source.json").write_text(json.dumps({"npins": str(tmp_path)}))
        arguments = ("--eval", "--strict", "--json", "--argstr", "source", tmp_path / "source.json")
        tried = nix_store.run("nix-instantiate", *arguments, NIX / "nixpkgs.nix")
        assert tried.returncode == 1
        assert said in tried.stderr

    def test_a_file_of_wishes_says_all_at_once(self, nix_store: NixStore, tmp_path: Path) -> None:
        (tmp_path / "kept.txt").write_text("kept")
        kept = nix_store.run("nix-store", "--add", tmp_path / "kept.txt").stdout.strip()
        spec = {
            "nixpkgs": str(STAND_IN),
            "revision": "f" * 40,
            "system": "x86_64-linux",
            "modules": [str(SAMPLES / "user.nix")],
            "storePaths": [kept],
        }
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        tried = nix_store.run(
            *("nix-instantiate", "--eval", "--strict", "--argstr", "spec", tmp_path / "spec.json"),
            *(NIX, "-A", "image.manifest"),
        )
        assert tried.returncode == 0, tried.stderr
        manifest = json.loads(json.loads(tried.stdout))
        assert manifest["built_from"]["nixpkgs_revision"] == "f" * 40
        assert manifest["built_from"]["modules"] == str(SAMPLES / "user.nix")


def packed(store: NixStore, directory: Path) -> tuple[Path, str]:
    """The stand-in as an archive, and the hash of what is in it."""
    archive = directory / "nixpkgs.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", STAND_IN.parent, STAND_IN.name], check=True)
    digest = bytes.fromhex(store.run("nix-hash", "--type", "sha256", STAND_IN).stdout)
    return archive, f"sha256-{base64.b64encode(digest).decode()}"
