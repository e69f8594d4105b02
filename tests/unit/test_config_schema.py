"""The JSON Schema: what an editor is told about vmrunner.yaml."""

from __future__ import annotations

import json

from vmrunner.config.rows import all_rows
from vmrunner.config.schema import json_schema


def test_keys_are_those_of_the_file() -> None:
    schema = json_schema()
    assert list(schema["properties"]) == [*(row.key for row in all_rows()), "sizes"]
    assert "cpu-model" in schema["properties"]
    assert schema["additionalProperties"] is False
    assert schema["title"] == "vmrunner.yaml"


def test_descriptions_are_the_help() -> None:
    properties = json_schema()["properties"]
    assert properties.pop("sizes")["description"]
    assert {key: value["description"] for key, value in properties.items()} == {
        row.key: row.option.help for row in all_rows()
    }


def test_types_limits_and_defaults() -> None:
    properties = json_schema()["properties"]
    assert properties["memory"]["default"] == "2G"
    assert properties["timeout"]["default"] == "1h"
    assert properties["accel"]["enum"] == ["auto", "kvm", "tcg"]
    assert (properties["cpus"]["minimum"], properties["cpus"]["maximum"]) == (1, 255)
    assert properties["packages"]["type"] == "array"
    assert properties["hosts"]["type"] == "object"


def test_one_host_name_and_unquoted_env_values_are_fine() -> None:
    properties = json_schema()["properties"]
    kinds = [kind["type"] for kind in properties["hosts"]["additionalProperties"]["anyOf"]]
    assert kinds == ["string", "array"]
    assert properties["env"]["additionalProperties"]["type"] == ["string", "number", "boolean", "null"]


def test_schema_is_json_and_refers_to_nothing_else() -> None:
    text = json.dumps(json_schema())
    assert "$ref" not in text
    assert json.loads(text) == json_schema()
