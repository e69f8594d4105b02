"""The JSON Schema of vmrunner.yaml, for editors."""

from __future__ import annotations

from typing import Any

from vmrunner.config.model import Config
from vmrunner.config.rows import all_rows
from vmrunner.config.yaml_file import SIZES_KEY

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema: every key with its type, default and help."""
    fields = Config.model_json_schema()["properties"]
    properties = {}
    for row in all_rows():
        described = {key: value for key, value in fields[row.field].items() if key != "title"}
        properties[row.key] = {"description": row.option.help, **described}
    properties[SIZES_KEY] = {
        "description": "sizes of this project's own, each with the settings that it stands for",
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {key: value for key, value in properties.items() if key != "size"},
            "additionalProperties": False,
        },
    }
    return {
        "$schema": _DIALECT,
        "title": "vmrunner.yaml",
        "description": "Settings of vmrunner; environment variables and flags are stronger.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
