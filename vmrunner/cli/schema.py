"""`vmrunner schema`: the JSON Schema of vmrunner.yaml, for editors."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of vmrunner.yaml.

    \b
    Example:
      vmrunner schema > vmrunner.schema.json
    """
    from vmrunner.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
