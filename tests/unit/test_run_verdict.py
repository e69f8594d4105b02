"""From the unit's status to nextest's exit code, or to the error that says why there is none."""

from __future__ import annotations

import pytest

from vmrunner.errors import GuestOutOfMemory, UnitFailed, UsageError, VmrunnerError, exit_code_of
from vmrunner.guest.unit import UnitStatus
from vmrunner.nextest import exit_codes
from vmrunner.run.verdict import nextest_exit_code


def status(
    main_code: int = 1,
    main_status: int = 0,
    result: str = "success",
    load_state: str = "loaded",
    peak: int | None = None,
) -> UnitStatus:
    return UnitStatus("active", load_state, result, main_code, main_status, peak)


def error_of(
    found: UnitStatus, *, started: bool = True, log_tail: str = "", journal: str = ""
) -> VmrunnerError:
    with pytest.raises(VmrunnerError) as caught:
        nextest_exit_code(found, started=started, log_tail=log_tail, journal=journal)
    return caught.value


@pytest.mark.parametrize("code", sorted(exit_codes.PUBLISHED))
def test_published_codes_pass_through(code: int) -> None:
    result = "success" if code == 0 else "exit-code"
    assert nextest_exit_code(status(1, code, result), started=True, log_tail="", journal="") == code


@pytest.mark.parametrize(
    ("found", "started", "kind", "message"),
    [
        (status(1, 200, "exit-code"), False, UnitFailed,
         "cargo-nextest.service ended without having run nextest (exit code 200)"),
        (status(1, 0), False, UnitFailed, "cargo-nextest.service ended without having run nextest (exit code 0)"),
        (status(0, 0, "resources"), False, UnitFailed,
         "cargo-nextest.service ended without having run nextest (its main process never ran; systemd says: resources)"),
        (status(2, 15, "signal"), False, UnitFailed,
         "cargo-nextest.service ended without having run nextest (killed by SIGTERM)"),
        (status(2, 9, "signal"), True, UnitFailed, "nextest did not end by itself: killed by SIGKILL"),
        (status(3, 11, "core-dump"), True, UnitFailed, "nextest did not end by itself: killed by SIGSEGV"),
        (status(2, 250, "signal"), True, UnitFailed, "nextest did not end by itself: killed by signal 250"),
        (status(1, 127, "exit-code"), True, UnitFailed, "nextest did not end by itself: exit code 127"),
        (status(1, 1, "exit-code"), True, UnitFailed, "nextest did not end by itself: exit code 1"),
        (status(1, 2, "exit-code"), True, UsageError, "nextest did not take its arguments"),
        (status(2, 9, "oom-kill"), True, GuestOutOfMemory, "the guest ran out of memory and killed the tests"),
        (status(2, 9, "oom-kill", peak=1 << 30), True, GuestOutOfMemory,
         "the guest ran out of memory and killed the tests; its memory peaked at 1 GiB"),
        (status(1, 100, "oom-kill"), True, GuestOutOfMemory, "the guest ran out of memory and killed the tests"),
        (status(0, 0, load_state="not-found"), False, UnitFailed,
         "the guest has no usable cargo-nextest.service (systemd says: not-found)"),
        (UnitStatus.parse(""), True, UnitFailed,
         "the guest has no usable cargo-nextest.service (systemd says: unknown)"),
    ],
)  # fmt: skip
def test_all_else_is_an_error(found: UnitStatus, started: bool, kind: type, message: str) -> None:
    error = error_of(found, started=started)
    assert type(error) is kind
    assert error.message == message
    assert exit_code_of(error) == (2 if kind is UsageError else 23)


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        (status(2, 9, "oom-kill"), "give the machine more with `--memory`"),
        (status(load_state="masked"), "the image does not keep the guest contract"),
        (status(1, 2, "exit-code"), "see what follows `--`"),
    ],
)
def test_what_to_do(found: UnitStatus, hint: str) -> None:
    assert error_of(found).hint == hint


def test_the_details_hold_what_there_is_to_look_at() -> None:
    error = error_of(status(2, 9, "signal"), log_tail="PASS [0.1s] demo", journal="Main process exited")
    assert error.details == (
        "cargo-nextest.service: ActiveState=active Result=signal ExecMainCode=2 ExecMainStatus=9\n"
        "last lines of nextest's log:\nPASS [0.1s] demo\n"
        "last lines of the unit's journal:\nMain process exited"
    )
    assert len(str(error_of(status(2, 9, "signal")).details).splitlines()) == 1


def test_wrong_arguments_are_shown_in_nextests_own_words() -> None:
    assert error_of(status(1, 2), log_tail="error: unexpected argument '--x'").details == (
        "error: unexpected argument '--x'"
    )
