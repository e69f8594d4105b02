"""What one option is besides its type and default: its group, help, and how its text forms are read."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Group = Literal[
    "image", "machine", "cpu", "memory", "disk", "network", "devices", "kernel", "guest", "archive", "run"
]
SHAPE: Final[tuple[Group, ...]] = (
    "image", "machine", "cpu", "memory", "disk", "network", "devices", "kernel",
)  # fmt: skip
"""The groups that make a machine what it is; the others are of its guest's names, and of what is run in it."""


@dataclass(frozen=True)
class Option:
    """Metadata of a Config field: `Annotated[Size, Option(...)]`.

    `help` is one sentence without a full stop; the flag's help, the JSON Schema and the README table show it.
    `split` cuts the text of an environment variable into the words that a repeated flag would give.
    `pairs` turns such words into a mapping, for mapping fields; it raises ValueError for a malformed word.
    """

    group: Group
    metavar: str
    help: str
    split: Callable[[str], list[str]] = shlex.split
    pairs: Callable[[Sequence[str]], Mapping[str, object]] | None = None


def split_at_commas(text: str) -> list[str]:
    """The non-empty parts of `a,b`, stripped."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_host_pairs(words: Sequence[str]) -> dict[str, list[str]]:
    """Turn `NAME=ADDRESS` words into address -> names; raises ValueError for a word without `=`."""
    hosts: dict[str, list[str]] = {}
    for word in words:
        name, equals, address = word.partition("=")
        if not equals:
            raise ValueError(f"not NAME=ADDRESS: {word!r} (want for example db.test=10.0.2.2)")
        hosts.setdefault(address.strip(), []).append(name.strip())
    return hosts


def parse_env_pairs(words: Sequence[str]) -> dict[str, str | None]:
    """Turn `NAME=VALUE` and `NAME` words into a mapping; a bare NAME has the value None (the host's)."""
    env: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        env[name] = value if equals else None
    return env


def pairs_like(form: str, example: str) -> Callable[[Sequence[str]], dict[str, str]]:
    """What turns `NAME=VALUE` words into a mapping; for a word without `=` it raises ValueError that shows `example`."""

    def parse(words: Sequence[str]) -> dict[str, str]:
        pairs = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise ValueError(f"not {form}: {word!r} (want for example {example})")
            pairs[name.strip()] = value.strip()
        return pairs

    return parse
