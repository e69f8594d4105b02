"""The JSON Schema of vmrunner.yaml, for editors."""

from __future__ import annotations

from typing import Any

from vmrunner.config.model import Config
from vmrunner.config.rows import all_rows

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema: every key with its type, default and help."""
    fields = Config.model_json_schema()["properties"]
    properties = {}
    for row in all_rows():
        described = {key: value for key, value in fields[row.field].items() if key != "title"}
        properties[row.key] = {"description": row.option.help, **described}
    return {
        "$schema": _DIALECT,
        "title": "vmrunner.yaml",
        "description": "Settings of vmrunner; environment variables and flags are stronger.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
