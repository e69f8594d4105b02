"""A Nix program that failed: how it ended, and its messages, before anybody says what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.errors import ImageBuildFailed
from vmrunner.host.paths import data_dir
from vmrunner.image.nixos.build_log import BuildLog

MOST_LINES: Final = 40
_MOST_POSITIONS: Final = 8


@dataclass(frozen=True)
class Ended:
    """A Nix program that ended with an exit code other than 0. Mistakes below `foreign` are not the user's."""

    argv: tuple[str, ...]
    code: int
    foreign: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """`nix-build`."""
        return Path(self.argv[0]).name


@dataclass(frozen=True)
class Failure:
    """What is known about a failure: how the program ended, and its messages."""

    ended: Ended
    log: BuildLog

    @property
    def text(self) -> str:
        """All error messages; where there is none, the last plain lines."""
        return "\n".join(error.text for error in self.log.errors) or "\n".join(self.log.plain)

    @property
    def last_lines(self) -> list[str]:
        """The end of the messages."""
        return self.text.splitlines()[-MOST_LINES:]

    @property
    def builder_lines(self) -> list[str]:
        """What is kept of all that builders printed."""
        return [line for name in self.log.logged for line in self.log.log_of(name)]

    @property
    def own_positions(self) -> list[str]:
        """Positions in the user's files, innermost first: neither in vmrunner's expressions nor in nixpkgs or the store."""
        foreign = (data_dir("nix"), *self.ended.foreign)
        places = self.log.errors[0].positions if self.log.errors else ()
        return [place for place in places if not any(Path(place).is_relative_to(one) for one in foreign)]

    @property
    def first_with_positions(self) -> list[str]:
        """The first message and where it is, in the user's files if it comes from there."""
        error = self.log.errors[0] if self.log.errors else None
        if error is None:
            return list(self.log.plain)
        places = self.own_positions[:_MOST_POSITIONS] or list(error.positions[:_MOST_POSITIONS])
        return [*error.text.splitlines()[:MOST_LINES], *(f"  at {place}" for place in places)]

    def explained(self, message: str, *, hint: str, lines: list[str] | None = None) -> ImageBuildFailed:
        """The error; `lines` are shown instead of the end of the messages."""
        shown = lines if lines is not None else self.last_lines
        head = [f"command: {' '.join(self.ended.argv)}", f"exit code: {self.ended.code}"]
        return ImageBuildFailed(message, hint=hint, details="\n".join([*head, *shown]))
