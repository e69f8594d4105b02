"""Finding QEMU: its version, and what is said where it is missing, broken or too old."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_qemu import fake_qemu, write_program

from vmrunner.errors import HostError, exit_code_of
from vmrunner.host import qemu
from vmrunner.host.qemu import Qemu, find_qemu, find_qemu_img


@pytest.fixture(autouse=True)
def _path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")


def test_version_is_the_number_without_the_distributions_suffix(tmp_path: Path) -> None:
    fake_qemu(tmp_path, {}, version="7.2.22")
    found = find_qemu()
    assert found == Qemu(tmp_path / "qemu-system-x86_64", "7.2.22")
    assert found.version_tuple == (7, 2, 22)


def test_versions_compare_as_numbers() -> None:
    assert Qemu(Path("q"), "10.0.2").version_tuple > Qemu(Path("q"), "9.2.0").version_tuple


def test_missing_qemu_names_the_package() -> None:
    with pytest.raises(HostError, match=r"`qemu-system-x86_64` is not on PATH") as caught:
        find_qemu()
    assert exit_code_of(caught.value) == 20
    assert caught.value.hint == "sudo apt install qemu-system-x86"


def test_other_architecture_has_its_own_program_and_package() -> None:
    with pytest.raises(HostError, match="`qemu-system-aarch64`") as caught:
        find_qemu("aarch64")
    assert caught.value.hint == "sudo apt install qemu-system-arm"


@pytest.mark.parametrize("version", ["6.2.0", "7.1.0"])
def test_too_old_says_both_versions(tmp_path: Path, version: str) -> None:
    fake_qemu(tmp_path, {}, version=version)
    with pytest.raises(HostError, match=r"7\.2 or newer") as caught:
        find_qemu()
    assert version in caught.value.message
    assert caught.value.hint is not None


def test_oldest_version_is_enough(tmp_path: Path) -> None:
    fake_qemu(tmp_path, {}, version="7.2.0")
    assert find_qemu().version_tuple >= qemu.MINIMUM_VERSION


def test_broken_qemu_shows_its_words(tmp_path: Path) -> None:
    write_program(tmp_path / "qemu-system-x86_64", "echo 'libfoo.so: cannot open' >&2; exit 127")
    with pytest.raises(HostError, match="failed with exit code 127") as caught:
        find_qemu()
    assert "libfoo.so: cannot open" in (caught.value.details or "")


def test_program_without_a_version_is_told(tmp_path: Path) -> None:
    write_program(tmp_path / "qemu-system-x86_64", "echo hello")
    with pytest.raises(HostError, match="names no version") as caught:
        find_qemu()
    assert caught.value.details == "hello"


def test_program_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "VERSION_SECONDS", 0.2)
    write_program(tmp_path / "qemu-system-x86_64", "while :; do :; done")
    with pytest.raises(HostError, match=r"did not answer within 0\.2 s"):
        find_qemu()


def test_qemu_img_is_found_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        find_qemu_img()
    assert caught.value.hint == "sudo apt install qemu-utils"
    write_program(tmp_path / "qemu-img", "echo 'qemu-img version 9.2.0 (Debian 1:9.2.0+ds-2)'")
    assert find_qemu_img().version == "9.2.0"
