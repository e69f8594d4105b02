"""What Nix 2.8 and 2.26 said when they were run on tests/e2e/nix_failures.nix, with `-vv --show-trace`.

Recorded with the programs of Debian 12 and trixie, one file for each attribute or cause; the first line is the exit code.
Only directories were renamed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from vmrunner.errors import ImageBuildFailed
from vmrunner.image.nixos.build_log import BuildLog
from vmrunner.image.nixos.ended import Ended
from vmrunner.image.nixos.failure import nix_failure

VERSIONS: Final = ("2.8", "2.26")
_SAMPLES: Final = Path(__file__).parent / "samples"
NIX_STORE: Final = Path("/nix/store")


def sample(version: str, name: str) -> tuple[int, list[str]]:
    """The exit code, and the lines of standard error."""
    first, *lines = (_SAMPLES / f"nix-{version}" / f"{name}.log").read_text().splitlines()
    return int(first.removeprefix("exit code ")), lines


def log_of(lines: list[str]) -> BuildLog:
    """The state after these lines."""
    log = BuildLog()
    for line in lines:
        log.take(line)
    return log


def failure_of(version: str, name: str) -> ImageBuildFailed:
    """What that failure means."""
    code, lines = sample(version, name)
    return nix_failure(Ended(("/usr/bin/nix-build", "/x"), code, (NIX_STORE,)), log_of(lines))


def said(**message: object) -> str:
    """A line of internal-json."""
    return "@nix " + json.dumps(message)


def started(identity: int, kind: int, *fields: object, text: str = "") -> str:
    """An activity begins."""
    return said(action="start", id=identity, type=kind, fields=fields, text=text, level=3, parent=0)


def came(identity: int, kind: int, *fields: object) -> str:
    """An activity has a result."""
    return said(action="result", id=identity, type=kind, fields=fields)


def stopped(identity: int) -> str:
    """An activity ends."""
    return said(action="stop", id=identity)


def message(text: str, *, level: int = 0, **more: object) -> str:
    """Nix says something."""
    return said(action="msg", level=level, msg=text, **more)
