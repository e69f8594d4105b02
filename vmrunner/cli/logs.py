"""`vmrunner logs`: what a VM printed."""

from __future__ import annotations

import sys
from typing import get_args

import click

from vmrunner.host.log_end import cleaned
from vmrunner.host.signals import interruptible
from vmrunner.run.vm_logs import LOG_KINDS, LogKind, read_logs

_LABEL_WIDTH = max(map(len, LOG_KINDS))


@click.command("logs")
@click.argument("name")
@click.argument("kinds", nargs=-1, type=click.Choice(get_args(LogKind)), metavar="[serial|unit|qemu]...")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the VM ends or Ctrl-C.")
def command(name: str, kinds: tuple[LogKind, ...], follow: bool) -> None:
    """Print what the VM NAME has printed: on its serial console, in the unit of its last test run, and QEMU itself.

    Without a choice it is all of them, each line labelled. What a terminal would act on is left out on a terminal.

    \b
    Examples:
      vmrunner logs db
      vmrunner logs -f db serial
    """
    chosen = kinds or LOG_KINDS
    lines = _Lines(labelled=len(chosen) > 1)
    with interruptible():
        for kind, data in read_logs(name, chosen, follow=follow):
            lines.write(kind, data)
        lines.close()


class _Lines:
    """Standard output, on which pieces of several logs come together line by line."""

    def __init__(self, *, labelled: bool) -> None:
        self._labelled = labelled
        self._clean = sys.stdout.isatty()
        self._begun: dict[LogKind, bytes] = {}

    def write(self, kind: LogKind, data: bytes) -> None:
        """Print the lines that are complete, and with one log alone what has begun."""
        if not self._labelled and not self._clean:
            self._print(data)
            return
        *lines, rest = (self._begun.pop(kind, b"") + data).split(b"\n")
        for line in lines:
            self._print_line(kind, line)
        if rest:
            self._begun[kind] = rest

    def close(self) -> None:
        """Print the lines that never ended."""
        for kind, rest in self._begun.items():
            self._print_line(kind, rest)
        self._begun.clear()

    def _print_line(self, kind: LogKind, line: bytes) -> None:
        label = f"{kind:<{_LABEL_WIDTH}} | ".encode() if self._labelled else b""
        shown = line.rstrip(b"\r")
        if self._clean:
            shown = cleaned(shown.decode(errors="replace")).encode()
        self._print(label + shown + b"\n")

    @staticmethod
    def _print(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
