"""The frame of `vmrunner doctor`: questions about this computer, each answered by checks within a short time.

A room asks its own questions (`host_questions` in `vmrunner.host.checks`, others above); the command line puts
them together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vmrunner.errors import VmrunnerError
from vmrunner.host.deadline import Deadline

Status = Literal["ok", "warning", "problem"]

QUESTION_SECONDS = 10.0
"""The most one question about a host may take; on a sound one each takes well under one second."""


@dataclass(frozen=True)
class Check:
    """One answer. A `problem` keeps `vmrunner test` from working, a `warning` only makes it worse."""

    name: str
    status: Status
    found: str
    """What is there, for people; may have several lines."""
    advice: str | None = None
    """What to do about it."""


@dataclass(frozen=True)
class Question:
    """Something to find out: `ask` gives one check or several and holds to the deadline it is handed."""

    name: str
    ask: Callable[[Deadline], Sequence[Check]]


def run_checks(
    questions: Sequence[Question], *, deadline: Deadline, each: float = QUESTION_SECONDS
) -> tuple[Check, ...]:
    """Ask every question in turn; one may take `each` seconds.

    One that ends in a VmrunnerError is a problem with its message and hint; one that breaks in any other way is
    reported as broken, and the rest are asked all the same.
    """
    return tuple(check for question in questions for check in _ask(question, deadline.within(each)))


def problem_of(name: str, error: VmrunnerError) -> Check:
    """The check `name`, which ended in `error`."""
    found = error.message if error.details is None else f"{error.message}\n{error.details}"
    return Check(name, "problem", found, error.hint)


def _ask(question: Question, deadline: Deadline) -> Sequence[Check]:
    began = time.monotonic()
    try:
        return tuple(question.ask(deadline))
    except VmrunnerError as error:
        return (problem_of(question.name, error),)
    except Exception as error:  # a broken check is a finding, and the others still tell something
        seconds = time.monotonic() - began
        found = f"the check itself failed after {seconds:.1f} s: {type(error).__name__}: {error}"
        return (Check(question.name, "problem", found, "please report this as a bug in vmrunner"),)
