"""The settings that make a long-lived VM what it is, and whether a later `up` asks for the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from vmrunner.config.load import DEFAULT, Loaded
from vmrunner.config.model import Config
from vmrunner.config.option import SHAPE
from vmrunner.config.rows import rows_of
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError, ImageError
from vmrunner.events import silent
from vmrunner.image.request import ImageRequest
from vmrunner.image.resolve import locate_image
from vmrunner.machine.vm_record import VmRecord, VmState

_OWN: Final = {row.field for row in rows_of(*SHAPE)} | {"hostname", "machine_id", "nix_store"}
# How it is started is kept for `reset`, but may be another each time.
_KEPT: Final = _OWN | {"start", "boot_timeout"}
_IMAGE: Final = {"image", "packages", "modules", "nixpkgs"}


def kept_settings(config: Config) -> dict[str, Any]:
    """What a VM's record keeps of the settings, as JSON; what is for the tests alone (`hosts`, `env`) is not kept."""
    return config.model_dump(mode="json", include=_KEPT)


def config_of(record: VmRecord) -> Config:
    """The settings that the VM was made with; the others have their defaults."""
    return Config.model_validate(record.settings)


def larger_disk(record: VmRecord, loaded: Loaded) -> Size | None:
    """The size that was asked for a VM's disk, where the VM does not run and the disk has less: it can grow."""
    given = loaded.sources.get("disk", DEFAULT) != DEFAULT
    wanted = loaded.config.disk
    return (
        wanted if given and record.state is not VmState.RUNNING and wanted > record.plan.disk.size else None
    )


def refuse_other_settings(record: VmRecord, loaded: Loaded, *, leave_out: Collection[str] = ()) -> None:
    """Raise ConfigError where settings that were given, not left at their defaults, are not those of the VM."""
    differences = list(_differences(record, loaded, leave_out))
    if differences:
        raise ConfigError(
            f"the VM `{record.name}` has other settings than were asked for",
            hint=f"leave them out to use it as it is, change it with `vmrunner tune {record.name}`, `vmrunner rm {record.name}`"
            " first to make it anew, or take another name",
            details="\n".join(differences),
        )


def _differences(record: VmRecord, loaded: Loaded, leave_out: Collection[str]) -> Iterator[str]:
    wanted, has = kept_settings(loaded.config), record.settings
    same_image = None
    for field in sorted(_OWN.difference(leave_out)):
        key = field.replace("_", "-")
        source = loaded.sources.get(key, DEFAULT)
        if source == DEFAULT or wanted[field] == has.get(field):
            continue
        if field in _IMAGE:
            if same_image is None:
                same_image = _names_image_of(record, loaded.config)
            if same_image:
                continue
        if wanted[field] in ("auto", _found(record).get(field)):
            continue
        yield f"{key}: {_plain(wanted[field])} ({source}), the VM has {_plain(has.get(field))}"


def _found(record: VmRecord) -> dict[str, str]:
    """What the VM got where its settings left the choice open."""
    return {"accel": record.plan.accelerator, "cpu_model": record.plan.cpu_model}


def _names_image_of(record: VmRecord, config: Config) -> bool:
    """Whether what was asked for is the VM's image under another name."""
    try:
        located = locate_image(ImageRequest.of(config), emit=silent)
    except (ImageError, ConfigError):
        return False
    return located.image.manifest.digest == record.image_digest


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
