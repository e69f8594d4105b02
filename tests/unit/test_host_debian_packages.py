"""Asking dpkg which package has a library, for a better hint and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_qemu import write_program

from vmrunner.host.debian_packages import package_with


@pytest.mark.parametrize(
    ("answer", "package"),
    [
        ("echo 'libpq5:amd64: /usr/lib/x86_64-linux-gnu/libpq.so.5'", "libpq5"),
        ("echo 'libpq5: /usr/lib/libpq.so.5'", "libpq5"),
        ("echo 'libpq5:amd64, libpq5-dev:amd64: /usr/lib'", "libpq5"),
        (
            "printf 'diversion by glx from: /usr/lib/libGL.so.1\\nlibgl1:amd64: /usr/lib/libGL.so.1\\n'",
            "libgl1",
        ),
        ("echo 'no path found' >&2; exit 1", None),
        ("exit 2", None),
        (":", None),
    ],
)
def test_what_dpkg_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, package: str | None
) -> None:
    write_program(tmp_path / "dpkg-query", f'[ "$2" = "*/libpq.so.5" ] || exit 9\n{answer}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert package_with("libpq.so.5") == package


def test_another_distribution_has_no_dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package_with("libpq.so.5") is None


def test_a_dpkg_that_cannot_be_started_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "dpkg-query"
    program.write_text("#!/no/such/shell\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package_with("libpq.so.5") is None
