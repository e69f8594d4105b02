"""What the manifest says about a system is read from its tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.errors import ImageBuildFailed
from vmrunner.image.system import host_key, installed_packages, interpreters, version_of

STATUS = """\
Package: systemd
Status: install ok installed
Version: 257.13-1~deb13u1
Description: system and service manager
 a second line: with a colon
Conffiles:
 /etc/systemd/journald.conf 0123

Package: libc6
Status: install ok installed
Version: 2.41-12+deb13u5

Package: gone
Status: deinstall ok config-files
Version: 1.0
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "etc/ssh/ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAC3 root@builder\n")
    return tmp_path


def test_only_installed_packages_count(tree: Path) -> None:
    assert installed_packages(tree) == {"systemd": "257.13-1~deb13u1", "libc6": "2.41-12+deb13u5"}


@pytest.mark.parametrize(
    ("version", "upstream"),
    [("257.13-1~deb13u1", "257.13"), ("2.41-12+deb13u5", "2.41"), ("1:10.0p1-7", "10.0"), ("252", "252")],
)
def test_upstream_version(version: str, upstream: str) -> None:
    assert version_of("p", {"p": version}) == upstream


def test_missing_package_is_named() -> None:
    with pytest.raises(ImageBuildFailed, match="has no systemd"):
        version_of("systemd", {})


def test_host_key_has_no_comment(tree: Path) -> None:
    assert host_key(tree) == "ssh-ed25519 AAAAC3"


@pytest.mark.parametrize("content", [None, "", "ssh-ed25519"])
def test_missing_host_key(tree: Path, content: str | None) -> None:
    path = tree / "etc/ssh/ssh_host_ed25519_key.pub"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ImageBuildFailed, match="no ed25519 host key"):
        host_key(tree)


def test_loader_behind_the_merged_usr_links_is_found(tree: Path) -> None:
    (tree / "usr/lib64").mkdir(parents=True)
    (tree / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (tree / "lib64").symlink_to("usr/lib64")
    (tree / "usr/lib/x86_64-linux-gnu/ld.so").write_text("")
    (tree / "usr/lib64/ld-linux-x86-64.so.2").symlink_to("/usr/lib/x86_64-linux-gnu/ld.so")
    assert interpreters(tree) == ("/lib64/ld-linux-x86-64.so.2",)


def test_link_of_the_guest_is_not_followed_to_this_computer(tree: Path) -> None:
    (tree / "lib").mkdir()
    (tree / "lib/ld-musl-x86_64.so.1").symlink_to("/bin/sh")
    assert interpreters(tree) == ()


def test_loader_that_links_to_itself_does_not_exist(tree: Path) -> None:
    (tree / "lib").mkdir()
    (tree / "lib/ld-linux.so.2").symlink_to("ld-linux.so.2")
    assert interpreters(tree) == ()
