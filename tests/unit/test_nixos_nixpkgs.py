"""Which nixpkgs a setting means, and whether the Nix at hand is new enough for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_nix import FakeNix, install_fake_nix

from vmrunner.errors import ConfigError, ImageBuildFailed, exit_code_of
from vmrunner.events import Phase, silent
from vmrunner.host.deadline import Deadline
from vmrunner.host.paths import data_dir
from vmrunner.image.nixos.nix_build import NixVersion
from vmrunner.image.nixos.nixpkgs import (
    Nixpkgs,
    NpinsSource,
    PathSource,
    PinSource,
    Source,
    UrlSource,
    check_nix,
    parse_source,
    resolve,
)

HASH = "sha256-RYEMTlGCVc67pxVxjOlGd8w6fpF7Bur7gKL88FB0WTs="
URL = "https://github.com/NixOS/nixpkgs/archive/c05d.tar.gz"
OLD = NixVersion(Path("/usr/bin/nix-build"), "2.8.0", (2, 8, 0))
NEW = NixVersion(Path("/usr/bin/nix-build"), "2.26.3", (2, 26, 3))


@pytest.fixture
def fake_nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNix:
    return install_fake_nix(tmp_path / "nix-programs", monkeypatch)


def a_nixpkgs(directory: Path, *, version: str = "26.11", **files: str) -> Path:
    (directory / "lib").mkdir(parents=True)
    (directory / "lib/.version").write_text(version)
    for name, text in files.items():
        (directory / f"lib/{name}.nix").write_text(text)
    return directory


def some_npins(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "default.nix").write_text("{ nixpkgs.outPath = /x; }")
    (directory / "sources.json").write_text("{}")
    return directory


def wrong(text: str, directory: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_source(text, directory=directory)
    assert exit_code_of(caught.value) == 2
    assert text in caught.value.message
    assert caught.value.hint
    return caught.value


def test_nothing_said_is_the_pin(tmp_path: Path) -> None:
    assert parse_source(None, directory=tmp_path) == PinSource()


@pytest.mark.parametrize("text", ["clone", "./clone", "../here/clone", "{}/clone"])
def test_directory_relative_to_the_settings(tmp_path: Path, text: str) -> None:
    clone = a_nixpkgs(tmp_path / "here" / "clone")
    assert parse_source(text.format(clone.parent), directory=tmp_path / "here") == PathSource(clone)


def test_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    clone = a_nixpkgs(tmp_path / "clone")
    assert parse_source("~/clone", directory=Path("/")) == PathSource(clone)


def test_link_means_what_it_points_to_now(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(a_nixpkgs(tmp_path / "one"))
    assert parse_source("link", directory=tmp_path) == PathSource(tmp_path / "one")


def test_url_with_its_hash(tmp_path: Path) -> None:
    assert parse_source(f"{URL}#{HASH}", directory=tmp_path) == UrlSource(URL, HASH)
    assert parse_source(f"file:///x.tar.gz#{HASH}", directory=tmp_path) == UrlSource("file:///x.tar.gz", HASH)


@pytest.mark.parametrize("prefix", ["", "sha256:"])
def test_hash_as_nix_prefetch_url_prints_it(tmp_path: Path, prefix: str) -> None:
    """`nix-hash --to-base32` gives this for the hash of the other tests."""
    text = f"{URL}#{prefix}0fsrfi8g1z52h3xyl1kvj5z3mk3p8vlqqw8mlyxwwmc2a570r0a5"
    assert parse_source(text, directory=tmp_path) == UrlSource(URL, HASH)


def test_impossible_hash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no SHA-256"):
        parse_source(f"{URL}#{'z' * 52}", directory=tmp_path)


def test_npins_directory(tmp_path: Path) -> None:
    pins = some_npins(tmp_path / "npins")
    assert parse_source("npins", directory=tmp_path) == NpinsSource(pins)
    assert parse_source("./npins", directory=tmp_path) == NpinsSource(pins)


def test_directory_may_have_the_name_of_a_channel(tmp_path: Path) -> None:
    clone = a_nixpkgs(tmp_path / "nixpkgs")
    assert parse_source("nixpkgs", directory=tmp_path) == PathSource(clone)


@pytest.mark.parametrize("text", [URL, f"{URL}#", f"{URL}#md5-x", f"{URL}#{HASH[:-3]}"])
def test_url_without_a_hash(tmp_path: Path, text: str) -> None:
    assert "nix-prefetch-url --unpack" in (wrong(text, tmp_path).hint or "")


def test_no_such_directory(tmp_path: Path) -> None:
    assert f"there is no directory {tmp_path}/nowhere" in wrong("./nowhere", tmp_path).message


def test_directory_that_is_no_nixpkgs(tmp_path: Path) -> None:
    assert "no file lib/.version" in wrong(".", tmp_path).message


@pytest.mark.parametrize(
    "files",
    [
        {"minver": '# Expose the minimum required version\n"2.18"\n'},
        {
            "minfeatures": 'condition = builtins ? nixVersion && builtins.compareVersions "2.18" builtins.nixVersion != 1;'
        },
    ],
)
def test_nix_that_is_too_old_is_told_before_anything_is_evaluated(
    tmp_path: Path, files: dict[str, str]
) -> None:
    nixpkgs = a_nixpkgs(tmp_path, version="26.11\n", **files)
    with pytest.raises(ImageBuildFailed) as caught:
        check_nix(nixpkgs, OLD)
    assert caught.value.message == "nixpkgs 26.11 needs Nix 2.18 or newer, but /usr/bin/nix-build is 2.8.0"
    assert "25.05 or older" in (caught.value.hint or "")
    check_nix(nixpkgs, NEW)


def test_versions_are_numbers_not_text(tmp_path: Path) -> None:
    check_nix(a_nixpkgs(tmp_path / "a", minver='"2.3.17"\n'), OLD)
    check_nix(a_nixpkgs(tmp_path / "b", minver='"2.8"\n'), OLD)
    check_nix(a_nixpkgs(tmp_path / "c"), OLD)


def resolved(source: Source, nix: NixVersion, tmp_path: Path) -> Nixpkgs:
    return resolve(
        source,
        nix=nix,
        scratch=tmp_path / "source.json",
        current=Phase("x", silent),
        deadline=Deadline.after(20),
    )


def test_pin_is_not_even_fetched_by_a_nix_that_is_too_old(tmp_path: Path, fake_nix: FakeNix) -> None:
    with pytest.raises(
        ImageBuildFailed, match=r"which vmrunner pins, needs Nix 2\.18 or newer, but .* is 2\.8\.0"
    ):
        resolved(PinSource(), OLD, tmp_path)
    assert fake_nix.calls == []


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        (UrlSource(URL, HASH), {"url": URL, "hash": HASH}),
        (NpinsSource(Path("/pins")), {"npins": "/pins"}),
        (PinSource(), None),
    ],
)
def test_sources_as_nix_gets_them(
    tmp_path: Path, fake_nix: FakeNix, source: Source, asked: dict[str, str] | None
) -> None:
    path = a_nixpkgs(tmp_path / "found")
    fake_nix.program(
        "nix-instantiate",
        f'for last; do case "$last" in *source.json) cat "$last" > {tmp_path}/seen;; esac; done\n'
        f"""echo '{{"path":"{path}","version":"26.11pre","revision":"c05d"}}'""",
    )
    assert resolved(source, NEW, tmp_path) == Nixpkgs(path=path, version="26.11pre", revision="c05d")
    (call,) = fake_nix.calls
    assert call[0] == "nix-instantiate"
    assert str(data_dir("nix") / "nixpkgs.nix") in call
    assert ("--argstr" in call) == (asked is not None)
    if asked:
        assert json.loads((tmp_path / "seen").read_text()) == asked
    assert not (tmp_path / "source.json").exists()


def test_fetched_nixpkgs_may_still_need_a_newer_nix(tmp_path: Path, fake_nix: FakeNix) -> None:
    path = a_nixpkgs(tmp_path / "found", minver='"2.18"')
    fake_nix.program("nix-instantiate", f"""echo '{{"path":"{path}","version":"25.11","revision":null}}'""")
    with pytest.raises(ImageBuildFailed, match=r"nixpkgs 26\.11 needs Nix 2\.18"):
        resolved(UrlSource(URL, HASH), OLD, tmp_path)


def test_answer_that_is_none(tmp_path: Path, fake_nix: FakeNix) -> None:
    fake_nix.program("nix-instantiate", "echo '{}'")
    with pytest.raises(ImageBuildFailed, match="does not say where nixpkgs is"):
        resolved(UrlSource(URL, HASH), NEW, tmp_path)
