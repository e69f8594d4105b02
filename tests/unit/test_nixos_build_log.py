"""Nix's internal-json as a state: counts, what is under way, logs, errors, warnings, and files that were read."""

from __future__ import annotations

from pathlib import Path

import pytest
from nix_samples import VERSIONS, came, log_of, message, said, sample, started, stopped

from vmrunner.image.nixos.build_log import BuildLog, short_name

DERIVATION = "/nix/store/" + "a" * 32 + "-linux-6.12.drv"
OUTPUT = "/nix/store/" + "b" * 32 + "-glibc-2.40"


@pytest.mark.parametrize("version", VERSIONS)
def test_build_that_went_well(version: str) -> None:
    log = log_of(sample(version, "fine")[1])
    assert (log.builds.done, log.builds.expected, log.builds.failed) == (1, 1, 0)
    assert log.now == ""
    assert log.errors == []
    (derivation,) = log.logged
    assert log.log_of(derivation) == ["working"]


@pytest.mark.parametrize("version", VERSIONS)
def test_path_that_was_fetched(version: str) -> None:
    log = log_of(sample(version, "substituted")[1])
    assert (log.copies.done, log.copies.expected) == (1, 1)
    assert log.bytes_expected == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_failed_builder_with_its_last_lines(version: str) -> None:
    log = log_of(sample(version, "dependency")[1])
    assert log.builds.failed == 1
    assert "failed with exit code 3" in log.errors[0].text
    (derivation,) = log.logged
    assert log.log_of(derivation)[-2:] == ["line 49", "no such thing"]
    assert len(log.log_of(derivation)) == 30


@pytest.mark.parametrize("version", VERSIONS)
def test_error_has_no_colours_and_says_where(version: str) -> None:
    (error,) = log_of(sample(version, "evaluation")[1]).errors
    assert error.text == "services.example needs a port"
    assert error.positions[0] == "/home/user/project/module.nix:2"


@pytest.mark.parametrize("version", VERSIONS)
def test_files_that_were_evaluated(version: str) -> None:
    log = log_of(sample(version, "evaluation")[1])
    assert log.files_read == {Path("/home/user/project/module.nix")}
    assert log.files_complete


def test_what_is_built_now_has_its_name_and_phase() -> None:
    lines = [started(1, 105, DERIVATION, "", 1, 1)]
    assert log_of(lines).now == "building linux-6.12"
    lines.append(came(1, 104, "installPhase"))
    assert log_of(lines).now == "building linux-6.12 (installPhase)"
    lines += [started(2, 105, DERIVATION.replace("linux", "jq"), "", 1, 1)]
    assert log_of(lines).now == "building linux-6.12 (installPhase) and 1 more"
    assert log_of([*lines, stopped(1), stopped(2)]).now == ""


def test_download_counts_bytes_of_what_is_finished_too() -> None:
    lines = [
        started(1, 102),
        came(1, 106, 101, 30_000_000),
        started(2, 108, OUTPUT, "https://cache.example"),
        started(3, 101, "https://cache.example/nar/1.nar.xz"),
        came(3, 105, 10_000_000, 10_000_000, 0, 0),
    ]
    assert log_of(lines).now == "fetching glibc-2.40 (10.0 of 30.0 MB)"
    lines += [
        stopped(3),
        started(4, 101, "https://cache.example/nar/2.nar.xz"),
        came(4, 105, 5_000_000, 0, 0, 0),
    ]
    log = log_of(lines)
    assert (log.bytes_done, log.bytes_expected) == (15_000_000, 30_000_000)


def test_copies_and_builds_are_counted_by_their_kind() -> None:
    log = log_of([started(1, 103), started(2, 104), came(1, 105, 3, 9, 2, 1), came(2, 105, 1, 4, 1, 0)])
    assert (log.copies.done, log.copies.expected, log.copies.failed) == (3, 9, 1)
    assert (log.builds.done, log.builds.expected) == (1, 4)


@pytest.mark.parametrize(
    "line",
    [
        "@nix {",
        "@nix []",
        "@nix 1",
        "@nix " + "[" * 100_000,
        said(action="new in 2099", id=1),
        said(action="start"),
        said(action="start", id="x", type="y", fields=7),
        said(action="stop", id=[]),
        said(action="result", id=99, type=101, fields=["of nothing"]),
        came(1, 105, "a", "b", "c", "d"),
        came(1, 106),
        came(1, 999, 1),
        said(action="msg"),
        message("error", level=0, raw_msg="x", trace=[7, {"file": 3, "line": "x"}], file=None, line=None),
        "\x00\x1b[31m\ufffd",
        "",
    ],
)
def test_what_is_not_understood_is_passed_over(line: str) -> None:
    log = log_of([started(1, 105, DERIVATION, "", 1, 1), line, came(1, 101, "after it")])
    assert log.log_of(DERIVATION) == ["after it"]


def test_plain_lines_are_kept_and_their_errors_are_errors() -> None:
    log = log_of(["\x1b[31mfree text\x1b[0m", "error: unrecognised flag '--x'", "Try 'nix-build --help'"])
    assert list(log.plain) == ["free text", "error: unrecognised flag '--x'", "Try 'nix-build --help'"]
    assert [error.text for error in log.errors] == ["unrecognised flag '--x'"]


def test_traces_are_no_errors_and_warnings_are_told_once() -> None:
    log = log_of(
        [
            message("trace: hello"),
            message("trace: \x1b[1;31mevaluation warning:\x1b[0m services.x is deprecated"),
            message("\x1b[35;1mevaluation warning:\x1b[0m services.x is deprecated", level=1),
            message("trace: warning: old", level=0),
            message("warning: error: unable to download 'https://x': no; retrying in 3 ms", level=1),
        ]
    )
    assert log.errors == []
    assert log.warnings == ["services.x is deprecated", "old"]


def test_sources_that_are_copied_count_as_read_and_builtin_files_do_not() -> None:
    log = log_of(
        [
            message("copied source '/home/user/it''s' -> '/nix/store/x'", level=5),
            message("evaluating file '/home/user/a file.nix'", level=4),
            message("evaluating file '<nix/derivation-internal.nix>'", level=4),
            started(5, 0, text="copying '/home/user/tree' to the store"),
            started(6, 0, text="copying '«https://x»/' to the store"),
        ]
    )
    assert Path("/home/user/a file.nix") in log.files_read
    assert Path("/home/user/tree") in log.files_read
    assert all(str(path).startswith("/home") for path in log.files_read)


def test_memory_is_bounded_whatever_is_printed() -> None:
    log = BuildLog()
    for number in range(400):
        log.take(started(number, 105, f"/nix/store/{number:032}-x.drv"))
        log.take(came(number, 101, "y" * 10_000))
        log.take(message("z" * 9_000, raw_msg=f"{number}" + "z" * 9_000))
        log.take(message(f"evaluation warning: {number}", level=1))
        log.take("free" * 1000)
    assert len(log.logged) == 200
    assert max(len(line) for name in log.logged for line in log.log_of(name)) == 500
    assert len(log.errors) == 50 and max(len(error.text) for error in log.errors) == 8_000
    assert (len(log.warnings), len(log.plain)) == (20, 40)


def test_too_many_files_are_not_taken_for_all() -> None:
    log = BuildLog(files_read={Path(f"/{number}") for number in range(100_000)})
    log.take(message("evaluating file '/x.nix'", level=4))
    assert not log.files_complete


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (DERIVATION, "linux-6.12"),
        (OUTPUT, "glibc-2.40"),
        (DERIVATION + "!out", "linux-6.12"),
        (DERIVATION + "^out", "linux-6.12"),
        ("https://x.example/a.tar.gz", "a.tar.gz"),
        ("", ""),
    ],
)
def test_names_for_people(path: str, name: str) -> None:
    assert short_name(path) == name
