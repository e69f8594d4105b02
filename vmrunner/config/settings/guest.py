"""Names and variables in the guest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from vmrunner.config import checks
from vmrunner.config.option import Option, parse_env_pairs, parse_host_pairs, split_at_commas
from vmrunner.config.settings.types import NO_ENTRIES, Argument, ReadOnly, Settings

Address = Annotated[str, AfterValidator(checks.address)]
# Unquoted numbers and booleans are texts here too, though an editor's YAML takes them for more.
EnvValue = Annotated[Argument | None, WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]
MachineId = Annotated[str, AfterValidator(checks.machine_id)]
HostNames = Annotated[
    tuple[Annotated[str, AfterValidator(checks.host_name)], ...],
    BeforeValidator(checks.one_or_many, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
VariableName = Annotated[str, AfterValidator(checks.variable_name)]


class GuestSettings(Settings):
    """The guest."""

    hosts: Annotated[
        Mapping[Address, HostNames],
        *ReadOnly,
        Option("guest", "NAME=ADDRESS", "a host name that the tests resolve to an address; in vmrunner.yaml "
               "address: [names]", split=split_at_commas, pairs=parse_host_pairs),
    ] = Field(default_factory=NO_ENTRIES)  # fmt: skip
    env: Annotated[
        Mapping[VariableName, EnvValue],
        *ReadOnly,
        Option("guest", "NAME[=VALUE]", "an environment variable for the tests; without a value the host's is "
               "taken, if it has one", pairs=parse_env_pairs),
    ] = Field(default_factory=NO_ENTRIES)  # fmt: skip

    hostname: Annotated[
        Annotated[str, AfterValidator(checks.host_name)] | None,
        Option("guest", "NAME", "the guest's own host name; without one it has the image's"),
    ] = None
    machine_id: Annotated[
        MachineId,
        Option("guest", "ID", "the guest's /etc/machine-id: shared (one for all machines restored from a template), "
               "random, or 32 hexadecimal digits"),
    ] = "shared"  # fmt: skip
