"""Sizes and durations: text at the edge, typed values inside."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_SIZE = re.compile(
    r"(?P<number>\d{1,18}(?:\.\d{1,9})?)\s*(?P<unit>[KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII
)
_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MILLISECOND = 0.001
_DURATION = re.compile(
    r"(?:(\d{1,9})h)?\s*(?:(\d{1,9})m(?:in)?)?\s*(?:(\d{1,9}(?:\.\d{1,9})?)s)?\s*(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
    r"|(\d{1,9}(?:\.\d{1,9})?)",
    re.IGNORECASE | re.ASCII,
)


class Size(int):
    """A number of bytes, written as QEMU writes it: `512M`, `2G`, `1.5GiB`; powers of 1024."""

    @classmethod
    def parse(cls, text: str | int) -> Self:
        """Read a size; raises ValueError with an example where `text` is none."""
        if isinstance(text, cls):
            return text
        match = _SIZE.fullmatch(str(text).strip())
        if match is None:
            raise ValueError(f"not a size: {text!r} (want for example 512M or 2G)")
        return cls(Fraction(match["number"]) * _FACTORS[match["unit"].upper()])

    def __str__(self) -> str:
        """The shortest exact spelling: `2G`, `1536M`, `1000`."""
        for unit in ("T", "G", "M", "K"):
            if self and not self % _FACTORS[unit]:
                return f"{int(self) // _FACTORS[unit]}{unit}"
        return str(int(self))

    def for_people(self) -> str:
        """Rounded to three digits: `1.46 GiB`."""
        value = float(self)
        for unit in ("B", "KiB", "MiB", "GiB"):
            if value < 1024:
                return f"{value:.3g} {unit}"
            value /= 1024
        return f"{value:.3g} TiB"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 -- pydantic's signature
        """Let pydantic read text and numbers."""
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """What an editor checks while vmrunner.yaml is typed."""
        return {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[KMGTkmgt]?(i?B)?$"},
                {"type": "integer"},
            ]
        }


class Duration(float):
    """A number of seconds, written `90`, `90s`, `30m`, `1h30m`, `250ms`; each part of a longer one has its unit."""

    @classmethod
    def parse(cls, text: str | float) -> Self:
        """Read a duration; raises ValueError with an example where `text` is none."""
        if isinstance(text, cls):
            return text
        match = _DURATION.fullmatch(str(text).strip())
        if match is None or not any(match.groups()):
            raise ValueError(f"not a duration: {text!r} (want for example 90s, 30m or 1h30m)")
        hours, minutes, seconds, thousandths, bare = (float(part or 0) for part in match.groups())
        return cls(hours * 3600 + minutes * 60 + seconds + thousandths / 1000 + bare)

    def __str__(self) -> str:
        """The spelling that `parse` reads back, exact to the millisecond: `1h30m`, `90s` as `1m30s`."""
        minutes, seconds = divmod(float(self), 60)
        hours, minutes = divmod(int(minutes), 60)
        parts = [
            f"{hours}h" if hours else "",
            f"{minutes}m" if minutes else "",
            f"{seconds:.3f}".rstrip("0").rstrip(".") + "s" if seconds >= _MILLISECOND else "",
        ]
        return "".join(parts) or "0s"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 -- pydantic's signature
        """Let pydantic read text and numbers."""
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """What an editor checks while vmrunner.yaml is typed."""
        return {
            "anyOf": [
                {"type": "string", "pattern": r"^((\d+h)?\s*(\d+m(in)?)?\s*(\d+(\.\d+)?s)?|\d+(\.\d+)?)$"},
                {"type": "number"},
            ]
        }
