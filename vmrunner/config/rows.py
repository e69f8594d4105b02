"""The rows of Config, with every name of an option derived from its field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from vmrunner.config.model import Config
from vmrunner.config.option import Group, Option

VARIABLE_PREFIX = "VMRUNNER_"

Kind = Literal["value", "list", "mapping"]


@dataclass(frozen=True)
class Row:
    """One option in all its spellings.

    `kind` says how layers combine: a stronger value or list replaces a weaker one, mappings merge by key.
    `choices` are the words it takes; empty where others are possible too.
    """

    field: str
    kind: Kind
    option: Option
    choices: tuple[str, ...]
    is_path: bool
    default: str

    @property
    def key(self) -> str:
        """The key in vmrunner.yaml: `cpu-model`."""
        return self.field.replace("_", "-")

    @property
    def flag(self) -> str:
        """The flag, named for one value where it can be repeated: `--cpu-model`, `--package`."""
        return f"--{self.key if self.kind == 'value' else self.key.removesuffix('s')}"

    @property
    def variable(self) -> str:
        """The environment variable: `VMRUNNER_CPU_MODEL`."""
        return VARIABLE_PREFIX + self.field.upper()


@cache
def all_rows() -> tuple[Row, ...]:
    """Every row, in the order of Config."""
    defaults = Config()
    return tuple(_row(name, info, getattr(defaults, name)) for name, info in Config.model_fields.items())


def rows_of(*groups: Group) -> tuple[Row, ...]:
    """The rows of `groups`, in the order of Config."""
    return tuple(row for row in all_rows() if row.option.group in groups)


def _row(name: str, info: FieldInfo, default: object) -> Row:
    option = next(item for item in info.metadata if isinstance(item, Option))
    types = _plain_types(info.annotation)
    return Row(
        field=name,
        kind=_kind(info.annotation),
        option=option,
        choices=tuple(word for kind in types if get_origin(kind) is Literal for word in get_args(kind)),
        is_path=Path in types,
        default="" if default is None or default in ((), {}) else str(default),
    )


def _kind(annotation: Any) -> Kind:  # noqa: ANN401 -- an annotation has no narrower type
    origin = get_origin(annotation)
    if origin is tuple:
        return "list"
    return "mapping" if isinstance(origin, type) and issubclass(origin, Mapping) else "value"


def _plain_types(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- an annotation has no narrower type
    """The members of a union (or the one type there is), without their metadata."""
    if get_origin(annotation) is Literal or not get_args(annotation):
        return (annotation,)
    if hasattr(annotation, "__metadata__"):
        return _plain_types(get_args(annotation)[0])
    return tuple(kind for member in get_args(annotation) for kind in _plain_types(member))
