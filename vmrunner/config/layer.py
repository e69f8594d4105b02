"""A layer: what one source (file, environment, flags) sets, unchecked, and where each part of it was written."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vmrunner.config.model import Config
from vmrunner.config.rows import all_rows
from vmrunner.errors import ConfigError

_NOT_WHOLE = "not a whole number: {input!r}"
_NOT_MAPPING = "not a mapping: {input!r} (want lines of `name: value`)"
_TEXTS = {
    "int_parsing": _NOT_WHOLE,
    "int_parsing_size": _NOT_WHOLE,
    "int_type": _NOT_WHOLE,
    "int_from_float": _NOT_WHOLE,
    "greater_than_equal": "too small: {input!r} (want {ge} or more)",
    "less_than_equal": "too large: {input!r} (want {le} or less)",
    "literal_error": "not a choice: {input!r} (want {expected})",
    "tuple_type": "not a list: {input!r} (want for example [first, second])",
    "too_short": "an empty list",
    "mapping_type": _NOT_MAPPING,
    "dict_type": _NOT_MAPPING,
    "string_type": "not a text: {input!r}",
    "path_type": "not a path: {input!r}",
}

Place = tuple[str | int, ...]
"""Where a value stands: `("memory",)`, or `("hosts", "10.0.2.2", 0)` for the first name of that address."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it was written, what it is, and what to do (empty where that says it all)."""

    origin: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


@dataclass
class Layer:
    """Raw values by field, the origin of every place in them, and the problems met while reading.

    `presets` are the sizes that a file defines, by name.
    """

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    presets: dict[str, Layer] = field(default_factory=dict)

    def set(self, name: str, value: object, *, origin: str) -> None:
        """Give the field `name` a raw value."""
        self.values[name] = value
        self.origins[(name,)] = origin

    def known_place(self, place: Place) -> Place:
        """`place`, or the nearest place round it that has an origin."""
        return next(place[:end] for end in range(len(place), 0, -1) if place[:end] in self.origins)

    def origin_of(self, place: Place) -> str:
        """Where `place`, or what is round it, was written."""
        return self.origins[self.known_place(place)]

    def check(self) -> Config | None:
        """The layer as a Config in which `model_fields_set` are the fields it sets.

        None where a value is wrong: `problems` then says all that is.
        """
        try:
            return Config.model_validate(self.values)
        except ValidationError as error:
            self.problems += _problems(self, error.errors())
            return None


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one ConfigError for all `problems`, the first as its message; nothing where there are none."""
    if not problems:
        return
    first, *others = problems
    details = "\n".join(f"{problem}{f' ({problem.hint})' if problem.hint else ''}" for problem in others)
    raise ConfigError(
        str(first), hint=first.hint or None, details=f"also wrong:\n{details}" if others else None
    )


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint that names the member of `words` nearest to `word`, or where all of them are listed."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean {close[0]!r}?" if close else "`vmrunner test --help` lists every setting"


def _problems(layer: Layer, errors: Sequence[ErrorDetails]) -> list[Problem]:
    """One problem a place: a union reports each of its members' complaints about the same value."""
    found: dict[Place, Problem] = {}
    order = list(layer.origins)
    rows = {row.field: row for row in all_rows()}
    for error in sorted(errors, key=lambda error: order.index(layer.known_place(error["loc"]))):
        row = rows[str(error["loc"][0])]
        origin = layer.origin_of(error["loc"])
        # A flag and a variable name the option themselves; a line of the file does not.
        prefix = "" if origin in (row.flag, row.variable) else f"{row.key}: "
        found.setdefault(layer.known_place(error["loc"]), Problem(origin, prefix + _text(error)))
    return list(found.values())


def _text(error: ErrorDetails) -> str:
    """The complaint in this program's words, always with the value that is wrong."""
    context: Mapping[str, Any] = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    fallback = (
        f"{error['msg'][:1].lower()}{error['msg'][1:].replace('{', '{{').replace('}', '}}')}: {{input!r}}"
    )
    return _TEXTS.get(error["type"], fallback).format(input=error["input"], **context)
