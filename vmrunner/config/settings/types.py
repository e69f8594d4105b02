"""What the groups of settings have in common: their base class, and types of values that more than one of them has."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from vmrunner.config import checks, cpu_values

Argument = Annotated[str, AfterValidator(checks.argument)]
CpuList = Annotated[str, AfterValidator(cpu_values.cpu_list)]
FilePath = Annotated[Path, BeforeValidator(checks.path, json_schema_input_type=Path)]
Switch = Annotated[
    Literal["on", "off"],
    BeforeValidator(checks.switch, json_schema_input_type=Literal["on", "off"] | bool),
]
ReadOnly = (AfterValidator(checks.read_only), PlainSerializer(dict))
"""What makes a mapping one that nobody can write to; last among its checks."""
NO_ENTRIES = partial(checks.read_only, {})


class Settings(BaseModel):
    """A group of settings; nothing in it can be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
