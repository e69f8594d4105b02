"""What the manifest says about a system is read from its tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.errors import ImageBuildFailed
from vmrunner.image.system import installed_packages, interpreters, libraries, version_of

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


def _library(path: Path, *, machine: int = 62, elf_class: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF" + bytes([elf_class]) + bytes(13) + machine.to_bytes(2, "little") + bytes(44))


def test_libraries_of_the_default_directories_are_named_as_programs_name_them(tree: Path) -> None:
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "lib").symlink_to("usr/lib")
    _library(tree / "usr/lib/x86_64-linux-gnu/libpq.so.5.17")
    (tree / "usr/lib/x86_64-linux-gnu/libpq.so.5").symlink_to("libpq.so.5.17")
    _library(tree / "usr/lib/libplain.so")
    assert libraries(tree) == ("libplain.so", "libpq.so.5", "libpq.so.5.17")


def test_directories_that_ldconfig_is_told_of_count_too(tree: Path) -> None:
    (tree / "etc/ld.so.conf.d").mkdir(parents=True)
    (tree / "etc/ld.so.conf").write_text("# first\ninclude /etc/ld.so.conf.d/*.conf\n/opt/plain/lib\n")
    (tree / "etc/ld.so.conf.d/local.conf").write_text("# of libc\n/usr/local/lib # and more\n")
    _library(tree / "usr/local/lib/liblocal.so.1")
    _library(tree / "opt/plain/lib/libplain.so.2")
    _library(tree / "opt/other/lib/libother.so.3")
    assert libraries(tree) == ("liblocal.so.1", "libplain.so.2")


def test_what_the_loader_would_pass_over_is_no_library(tree: Path) -> None:
    directory = tree / "usr/lib/x86_64-linux-gnu"
    _library(directory / "libarm.so.1", machine=183)
    _library(directory / "libsmall.so.1", machine=3, elf_class=1)
    _library(directory / "plugin.o")
    (directory / "libscript.so").write_text("/* GNU ld script */\n")
    (directory / "libshort.so").write_bytes(b"\x7fELF")
    (directory / "libgone.so.1").symlink_to("/somewhere/libgone.so.1")
    (directory / "libdir.so.1").mkdir()
    assert libraries(tree) == ()


def test_links_between_directories_stay_in_the_tree(tree: Path) -> None:
    _library(tree / "etc/alternatives-dir/libblas.so.3.1")
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "etc/alternatives").symlink_to("/etc/alternatives-dir")
    (tree / "usr/lib/libblas.so.3").symlink_to("../../../../../etc/alternatives/libblas.so.3.1")
    assert libraries(tree) == ("libblas.so.3",)


def test_system_without_libraries(tmp_path: Path) -> None:
    assert libraries(tmp_path) == ()
