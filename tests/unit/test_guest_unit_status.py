"""What systemd says of the unit, read from `systemctl show`, whatever that prints."""

from __future__ import annotations

import pytest

from vmrunner.guest.unit import UnitStatus

ENDED = (
    "ActiveState=active\nSubState=exited\nLoadState=loaded\nResult=success\n"
    "ExecMainCode=1\nExecMainStatus=0\nMemoryPeak=123456\n"
)


def test_what_systemctl_shows() -> None:
    assert UnitStatus.parse(ENDED) == UnitStatus("active", "loaded", "success", 1, 0, 123456)


@pytest.mark.parametrize(
    ("state", "ended"),
    [("active", True), ("inactive", True), ("failed", True), ("activating", False), ("deactivating", False),
     ("reloading", False), ("unknown", False)],
)  # fmt: skip
def test_which_states_are_an_end(state: str, ended: bool) -> None:
    assert UnitStatus.parse(f"ActiveState={state}").ended is ended


@pytest.mark.parametrize(("code", "exited"), [("0", False), ("1", True), ("2", False), ("3", False)])
def test_only_a_main_process_that_ended_by_itself_exited(code: str, exited: bool) -> None:
    assert UnitStatus.parse(f"ExecMainCode={code}").exited is exited


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "Failed to connect to bus: No such file or directory",
        "=\n==\n=x",
        "ExecMainCode=\nExecMainStatus=-1\nMemoryPeak=[not set]",
        "ExecMainCode=one\nExecMainStatus=0x10\nMemoryPeak=infinity",
        "ExecMainCode=\u00b2\nExecMainStatus=\u2460",
        "\x00\ufffd\x1b[31mExecMainCode\x00=1",
    ],
)
def test_garbage_counts_as_never_run(text: str) -> None:
    assert UnitStatus.parse(text) == UnitStatus("unknown", "unknown", "unknown", 0, 0, None)


def test_a_value_may_hold_an_equals_sign() -> None:
    assert UnitStatus.parse("Result=a=b").result == "a=b"
