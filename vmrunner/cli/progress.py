"""Show events to a person: a spinner and bars on a terminal, plain lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import click

from vmrunner.cli import use_color
from vmrunner.events import Event, Note, Output, PhaseFinished, PhaseProgress, PhaseStarted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SIGN_OF_LIFE_SECONDS = 15.0
_QUIET_PHASES = frozenset(["mount", "unit"])
"""While these last, nextest itself is on the screen."""


class Lines:
    """Progress for a log: a line when a phase ends, and now and then one that says how far a long one is."""

    def __init__(self, *, stdout: BinaryIO) -> None:
        self._stdout = stdout
        self._spoke = time.monotonic()
        self._color = use_color(sys.stderr)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case PhaseStarted():
                self._started(event)
            case PhaseProgress():
                self._progress(event)
            case PhaseFinished():
                self._finished(event)
            case Note():
                self._note(event)
            case Output():
                self._output(event)

    def close(self) -> None:
        """Leave the screen as it is."""

    def _started(self, event: PhaseStarted) -> None:
        self._spoke = time.monotonic()
        if event.name not in _QUIET_PHASES:
            self._say(f"{event.text} …", dim=True)

    def _progress(self, event: PhaseProgress) -> None:
        if time.monotonic() - self._spoke > _SIGN_OF_LIFE_SECONDS:
            self._spoke = time.monotonic()
            amount = f"{event.done}/{event.total} {event.unit}".strip() if event.total else ""
            self._say("  " + " ".join(part for part in (event.name, amount, event.text) if part), dim=True)

    def _finished(self, event: PhaseFinished) -> None:
        if event.name in _QUIET_PHASES:
            return
        sign = "failed" if event.failed else "done"
        text = f": {event.text}" if event.text else ""
        self._say(f"  {event.name} {sign} in {event.seconds:.1f} s{text}", dim=not event.failed)

    def _note(self, event: Note) -> None:
        label = click.style("warning: ", fg="yellow", bold=True) if event.level == "warning" else "note: "
        self._say(f"{label}{event.text}")

    def _output(self, event: Output) -> None:
        stream = self._stdout if event.stream == "stdout" else sys.stderr.buffer
        stream.write(_labelled(event))
        stream.flush()

    def _say(self, text: str, *, dim: bool = False) -> None:
        click.secho(text, dim=dim or None, err=True, color=self._color)


class Terminal(Lines):
    """Progress for a person at a terminal: what is being done now, with a bar where the amount is known."""

    def __init__(self, *, stdout: BinaryIO) -> None:
        super().__init__(stdout=stdout)
        self._bars: Progress | None = None
        self._task: TaskID | None = None

    def close(self) -> None:
        """Take the bar off the screen and show the cursor again."""
        if self._bars:
            self._bars.stop()
            self._bars = None

    def _started(self, event: PhaseStarted) -> None:
        self.close()
        if event.name in _QUIET_PHASES:
            return
        self._bars = _make_bars()
        self._task = self._bars.add_task(event.text, total=None, detail="")
        self._bars.start()

    def _progress(self, event: PhaseProgress) -> None:
        if self._bars and self._task is not None:
            self._bars.update(self._task, completed=event.done, total=event.total, detail=event.text)

    def _finished(self, event: PhaseFinished) -> None:
        self.close()
        if event.name not in _QUIET_PHASES:
            sign = click.style("✗", fg="red") if event.failed else click.style("✓", fg="green")
            text = click.style(f" {event.text}", dim=True) if event.text else ""
            self._say(f"{sign} {event.name} {event.seconds:.1f} s{text}")

    def _note(self, event: Note) -> None:
        self._above(lambda: super(Terminal, self)._note(event))

    def _output(self, event: Output) -> None:
        self._above(lambda: super(Terminal, self)._output(event))

    def _above(self, show: Callable[[], None]) -> None:
        """Print while a bar is up, without the two mixing."""
        if self._bars:
            self._bars.stop()
        show()
        if self._bars:
            self._bars.start()


def _labelled(event: Output) -> bytes:
    """The output, each line with its shard in front; what has a label comes in whole lines."""
    if not event.label:
        return event.data
    prefix = f"[{event.label}] ".encode()
    return b"".join(prefix + line for line in event.data.splitlines(keepends=True))


def open_display(*, stdout: BinaryIO) -> Lines:
    """The display that fits stderr. What the tests print on their standard output goes to `stdout`."""
    if sys.stderr.isatty() and use_color(sys.stderr):
        return Terminal(stdout=stdout)
    return Lines(stdout=stdout)


def _make_bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[detail]}", style="dim"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
