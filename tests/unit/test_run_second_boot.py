"""Which machines are booted a second time, and how often."""

from __future__ import annotations

import pytest
from sample_plans import sample_plan

from vmrunner.errors import BootCrashed, BootError, BootTimeout, GuestError, GuestLost, VmrunnerError
from vmrunner.events import Event, Note
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu import SEVERAL_CPUS_DEFECT
from vmrunner.run.second_boot import boot_reliably

CRASHED = BootCrashed("the guest's kernel panicked while it booted", hint="this QEMU has a defect")
BREAKING = sample_plan(may_break_booting=True)


class Boots:
    """What each boot in turn ends with; `begun` counts them."""

    def __init__(self, *ends: VmrunnerError | str) -> None:
        self._ends = ends
        self.begun = 0

    def __call__(self) -> str:
        end = self._ends[self.begun]
        self.begun += 1
        if isinstance(end, VmrunnerError):
            raise end
        return end


def test_a_boot_that_goes_well_is_the_only_one() -> None:
    boots, told = Boots("up"), list[Event]()
    assert boot_reliably(BREAKING, boots, emit=told.append, deadline=Deadline.after(9)) == "up"
    assert (boots.begun, told) == (1, [])


def test_a_machine_that_may_break_is_booted_once_more_and_a_note_says_why() -> None:
    boots, told = Boots(CRASHED, "up"), list[Event]()
    assert boot_reliably(BREAKING, boots, emit=told.append, deadline=Deadline.after(9)) == "up"
    assert boots.begun == 2
    assert told == [
        Note(
            "the guest's kernel panicked while it booted, and it is started once more: "
            + SEVERAL_CPUS_DEFECT,
            "warning",
        )
    ]


def test_other_errors_count_where_more_is_done_than_to_boot() -> None:
    boots, told = Boots(GuestLost("the guest rebooted itself"), "up"), list[Event]()
    deadline = Deadline.after(9)
    assert boot_reliably(BREAKING, boots, also=(GuestError,), emit=told.append, deadline=deadline) == "up"
    (note,) = told
    assert isinstance(note, Note)
    assert "QEMU 8.1 and newer do not have it" in note.text


def test_a_machine_that_breaks_twice_is_given_up() -> None:
    boots = Boots(CRASHED, CRASHED, "up")
    with pytest.raises(BootCrashed):
        boot_reliably(BREAKING, boots, emit=lambda _: None, deadline=Deadline.after(9))
    assert boots.begun == 2


@pytest.mark.parametrize(
    ("may_break", "error", "seconds"),
    [(False, CRASHED, 9.0), (True, BootTimeout("it took too long"), 9.0), (True, CRASHED, 0.0)],
    ids=["a sound QEMU", "another error", "no time left"],
)
def test_all_else_is_booted_once(may_break: bool, error: BootError, seconds: float) -> None:
    boots, told = Boots(error, "up"), list[Event]()
    plan = sample_plan(may_break_booting=may_break)
    with pytest.raises(BootError) as caught:
        boot_reliably(plan, boots, emit=told.append, deadline=Deadline.after(seconds))
    assert caught.value is error
    assert (boots.begun, told) == (1, [])
