"""A guest on its way down: what systemd says of its shutdown target decides whether the unit's end means anything."""

from __future__ import annotations

import pytest

from vmrunner.guest.unit import UnitStatus

ENDED = "ActiveState={state}\nLoadState=loaded\nResult={result}\nExecMainCode=1\nExecMainStatus={status}\n"
FAILED = ENDED.format(state="failed", result="exit-code", status=100)
PASSED = ENDED.format(state="active", result="success", status=0)


@pytest.mark.parametrize(
    ("target", "down"),
    [
        ("ActiveState=inactive\nLoadState=loaded\nJob=412\n", True),
        ("ActiveState=active\nLoadState=loaded\n", True),
        ("ActiveState=inactive\nLoadState=loaded\n", False),
        ("ActiveState=inactive\nLoadState=loaded\nJob=\n", False),
    ],
)
def test_shutdown_is_seen_by_its_job(target: str, down: bool) -> None:
    status = UnitStatus.parse(f"{FAILED}\n{target}")
    assert status.shutting_down is down
    assert status.cut_short is down
    assert (status.active_state, status.main_status) == ("failed", 100)


def test_job_of_the_unit_itself_is_no_shutdown() -> None:
    status = UnitStatus.parse(f"Job=7\n{FAILED}\nActiveState=inactive\n")
    assert not status.shutting_down


def test_what_passed_before_the_shutdown_has_passed() -> None:
    status = UnitStatus.parse(f"{PASSED}\nActiveState=inactive\nJob=412\n")
    assert status.shutting_down
    assert not status.cut_short


def test_answer_without_the_target_says_nothing_of_a_shutdown() -> None:
    assert not UnitStatus.parse(FAILED).shutting_down
    assert not UnitStatus.parse("").shutting_down
