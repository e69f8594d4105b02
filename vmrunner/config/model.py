"""Every setting, one row each: type, default, limits, group, help. All other forms are derived from here.

The field `cpu_model` is the key `cpu-model` in vmrunner.yaml, the flag `--cpu-model` and the variable
`VMRUNNER_CPU_MODEL`; fields that hold many values have a repeatable flag named for one (`packages`, `--package`).
`vmrunner.config.rows` derives these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from vmrunner.config import checks
from vmrunner.config.option import Option, parse_env_pairs, parse_host_pairs, split_at_commas
from vmrunner.config.units import Duration, Size

PackageName = Annotated[str, AfterValidator(checks.package_name)]
CpuModel = Annotated[str, AfterValidator(checks.cpu_model)]
KernelArgument = Annotated[str, AfterValidator(checks.kernel_argument)]
Argument = Annotated[str, AfterValidator(checks.argument)]
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
FilePath = Annotated[Path, BeforeValidator(checks.path, json_schema_input_type=Path)]
ReadOnly = (AfterValidator(checks.read_only), PlainSerializer(dict))
NO_ENTRIES = partial(checks.read_only, {})


class Config(BaseModel):
    """What the user asked for, complete and checked; nothing in it can be changed.

    Sizes are bytes, durations seconds. Raises pydantic's ValidationError; `vmrunner.config.load` turns that into
    a ConfigError that names where the value came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Annotated[
        Literal["auto", "debian", "nixos"] | FilePath,
        BeforeValidator(checks.image_name, json_schema_input_type=Literal["auto", "debian", "nixos"] | str),
        Option("image", "IMAGE", "what to boot: auto (nixos where nix-build is on PATH, else debian), debian, "
               "nixos, or the directory of an image"),
    ] = "auto"  # fmt: skip
    packages: Annotated[
        tuple[PackageName, ...],
        Option("image", "NAME", "a Debian package to add to the debian image"),
    ] = ()
    modules: Annotated[
        tuple[FilePath, ...],
        Option("image", "FILE", "a NixOS module to add to the nixos image"),
    ] = ()
    nixpkgs: Annotated[
        str | Path | None,
        BeforeValidator(checks.path_or_hashed_url, json_schema_input_type=str | None),
        Option("image", "NIXPKGS", "the nixpkgs that the nixos image is made of: its directory, that of npins, or "
               "URL#HASH of a tarball; without one it is vmrunner's own pin"),
    ] = None  # fmt: skip

    # Without an IOMMU that remaps interrupts, an x86 guest has 8-bit APIC ids, of which one is broadcast.
    cpus: Annotated[
        int,
        Field(ge=1, le=255),
        Option("machine", "NUMBER", "virtual CPUs"),
    ] = 2
    memory: Annotated[
        Size,
        AfterValidator(checks.between("128M", "64T")),
        Option("machine", "SIZE", "memory of the guest"),
    ] = Size.parse("2G")
    disk: Annotated[
        Size,
        AfterValidator(checks.between("1G", "64T")),
        Option(
            "machine", "SIZE", "size the root disk is grown to; only what is written takes room on the host"
        ),
    ] = Size.parse("8G")
    accel: Annotated[
        Literal["auto", "kvm", "tcg"],
        Option(
            "machine", "ACCEL", "accelerator: auto (KVM where it is proved to work, else TCG), kvm or tcg"
        ),
    ] = "auto"
    cpu_model: Annotated[
        CpuModel,
        Option(
            "machine",
            "MODEL",
            "CPU model as QEMU's -cpu takes it; auto takes what works with the accelerator",
        ),
    ] = "auto"
    network: Annotated[
        Literal["restricted", "user"],
        Option("machine", "MODE", "what the guest reaches: nothing outside itself (restricted) or what this host "
               "reaches (user)"),
    ] = "restricted"  # fmt: skip
    kernel_args: Annotated[
        tuple[KernelArgument, ...],
        Option("machine", "ARG", "a word to add to the kernel command line"),
    ] = ()
    qemu_args: Annotated[
        tuple[Argument, ...],
        Option("machine", "ARG", "an argument to add to QEMU's own; the last resort"),
    ] = ()

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

    archive: Annotated[
        FilePath | None,
        Option(
            "archive", "FILE", "a nextest archive built elsewhere; without one it is built from the workspace"
        ),
    ] = None
    cargo_args: Annotated[
        tuple[Argument, ...],
        Option("archive", "ARG", "an argument for `cargo nextest archive`"),
    ] = ()
    nextest_args: Annotated[
        tuple[Argument, ...],
        Option("archive", "ARG", "an argument for nextest in the guest, put before those given after --"),
    ] = ()
    nix_store: Annotated[
        Literal["auto", "share", "copy", "off"],
        Option("archive", "HOW", "how store paths that the archive's programs need come to the guest: auto (share, where "
               "they seem to need it), share (it sees this host's store), copy (into the nixos image) or off"),
    ] = "auto"  # fmt: skip

    start: Annotated[
        Literal["auto", "restored", "booted"],
        Option("run", "HOW", "how the machine starts: auto (restored from a memory template, which the first run "
               "makes; booted where that does not go), restored or booted"),
    ] = "auto"  # fmt: skip
    shards: Annotated[
        int,
        Field(ge=1, le=256),
        Option("run", "NUMBER", "machines to share the tests between, each with its slice of them"),
    ] = 1
    keep: Annotated[
        Literal["never", "on-failure", "always"],
        Option(
            "run", "WHEN", "when to keep the run's machine as a long-lived VM: never, on-failure or always"
        ),
    ] = "never"

    timeout: Annotated[
        Duration,
        AfterValidator(checks.lasting_at_most("720h")),
        Option("run", "TIME", "how long the whole run may take"),
    ] = Duration.parse("1h")
    boot_timeout: Annotated[
        Duration,
        AfterValidator(checks.lasting_at_most("720h")),
        Option("run", "TIME", "how long the guest may take until it answers"),
    ] = Duration.parse("5m")
    format: Annotated[
        Literal["text", "json"],
        Option("run", "FORMAT", "what the report on standard output is: text or json"),
    ] = "text"

    def guest_env(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`env` with the host's values filled in from `environ`; a variable the host lacks is left out.

        The host's values are not kept in the Config, so that a printed one shows no secrets.
        """
        given = {name: environ.get(name) if value is None else value for name, value in self.env.items()}
        return {name: value for name, value in given.items() if value is not None}
