"""The exit codes that nextest publishes, and what each says.

Source: `nextest-metadata/src/exit_codes.rs` in nextest's repository (`NextestExitCode`). vmrunner passes on these
codes and no others, so that a caller can tell a verdict of nextest from an accident.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
USAGE_ERROR: Final = 2
"""What nextest's argument parser exits with; it is not in the published table."""
NO_TESTS_RUN: Final = 4
RERUN_TESTS_OUTSTANDING: Final = 5
SETUP_ERROR: Final = 96
TEST_RUN_FAILED: Final = 100
BUILD_FAILED: Final = 101
TEST_LIST_CREATION_FAILED: Final = 104
SETUP_SCRIPT_FAILED: Final = 105

PUBLISHED: Final[dict[int, str]] = {
    OK: "all tests passed",
    NO_TESTS_RUN: "no tests were selected to run",
    RERUN_TESTS_OUTSTANDING: "the tests that ran passed, but others of the rerun are still outstanding",
    10: "nextest is older than the recommended version",
    70: "nextest could not start a test through its second process",
    80: "an update of nextest is available",
    81: "a downgrade of nextest was asked for but not done",
    82: "an update of nextest was cancelled",
    90: "an update of nextest could not be downloaded",
    92: "nextest is older than the repository or a tool requires",
    93: "this build of nextest cannot update itself",
    94: "a filterset could not be parsed",
    95: "an experimental feature of nextest was used without being enabled",
    SETUP_ERROR: "nextest could not be set up: its configuration, profile, archive or store is unusable",
    TEST_RUN_FAILED: "one or more tests failed",
    BUILD_FAILED: "the tests could not be built",
    102: "`cargo metadata` failed",
    103: "the archive could not be written",
    TEST_LIST_CREATION_FAILED: "the tests could not be listed",
    SETUP_SCRIPT_FAILED: "a setup script failed",
    106: "an incomplete run was replayed",
    110: "nextest could not write its output",
}


def is_published(code: int) -> bool:
    """Whether nextest documents `code`, so that it can be passed on as a verdict."""
    return code in PUBLISHED


def meaning(code: int) -> str:
    """What `code` says, in a few words without a full stop, also for codes that are not published."""
    if code == USAGE_ERROR:
        return "nextest did not understand its arguments"
    return PUBLISHED.get(code, f"nextest ended with {code}, which is not one of its published exit codes")
