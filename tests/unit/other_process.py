"""Python run in another process for as long as a block lasts, for what two processes do to each other."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def other_process(code: str) -> Iterator[subprocess.Popen[str]]:
    """Run `code` until the block ends; it prints `ready` where the block is to start, and reads stdin to its end."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdin
    assert child.stdout
    try:
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()
