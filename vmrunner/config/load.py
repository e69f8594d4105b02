"""Default < vmrunner.yaml < VMRUNNER_* < flags: the layers become one Config that knows where it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmrunner.config.layer import Layer, raise_problems
from vmrunner.config.model import Config
from vmrunner.config.presets import preset_layer
from vmrunner.config.rows import Row, all_rows
from vmrunner.config.text_layers import FILE_VARIABLE, environment_layer, flag_layer
from vmrunner.config.yaml_file import file_layer, find_file

DEFAULT = "default"


@dataclass(frozen=True)
class Loaded:
    """A Config, the origin of each setting by key (`default`, `vmrunner.yaml:3`, `--memory`), the file read if any.

    A mapping that came from several places names them all, the weakest first: `vmrunner.yaml:3, --env`.
    """

    config: Config
    sources: Mapping[str, str]
    file: Path | None


def load_config(
    *, directory: Path, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Loaded:
    """Read all layers, check them, and merge them.

    `file` (else VMRUNNER_CONFIG in `environ`) names the file to read; without either it is the vmrunner.yaml of
    `directory` or of a parent inside the same git repository. `flags` are given by field name.

    A stronger value or list replaces a weaker one. Mappings merge: `env` by variable, `hosts` by host name.
    Paths become absolute: those in the file count from its directory, the others from the current one.

    Raises ConfigError naming the origin of everything that is wrong.
    """
    path, name = _choose_file(directory, file, environ)
    layers = [file_layer(path, name=name)] if path else []
    layers += [environment_layer(environ), flag_layer(flags)]
    values: dict[str, Any] = {}
    sources = {row.key: DEFAULT for row in all_rows()}
    from_file = [*layers[0].presets.values(), layers[0]] if path else []
    for layer, config in _with_preset(_checked(layers), layers[0].presets):
        base = path.absolute().parent if path and any(layer is one for one in from_file) else Path.cwd()
        for row in all_rows():
            if row.field in config.model_fields_set:
                _merge(values, sources, row, value=_anchored(getattr(config, row.field), base), layer=layer)
    return Loaded(Config.model_validate(values), sources, path)


def _choose_file(directory: Path, file: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, str]:
    """The file to read and how to call it: as the user did, or as seen from `directory`."""
    if file is None and (text := environ.get(FILE_VARIABLE)):
        file = Path(text)
    if file is not None:
        return file, str(file)
    found = find_file(directory)
    return found, os.path.relpath(found, directory.resolve()) if found else ""


def _checked(layers: Sequence[Layer]) -> list[tuple[Layer, Config]]:
    """Each layer with its settings. Raises ConfigError naming the origin of everything that is wrong."""
    checked = [(layer, config) for layer in layers if (config := layer.check())]
    raise_problems([problem for layer in layers for problem in layer.problems])
    return checked


def _with_preset(checked: list[tuple[Layer, Config]], own: Mapping[str, Layer]) -> list[tuple[Layer, Config]]:
    """The layers over that of the size which the strongest of them names. Raises ConfigError."""
    raise_problems([problem for layer in own.values() for problem in layer.problems])
    for layer, config in reversed(checked):
        if config.size is not None:
            preset = preset_layer(config.size, own=own, origin=layer.origins["size",])
            return [*_checked([preset]), *checked]
    return checked


def _anchored(value: object, base: Path) -> object:
    if isinstance(value, tuple):
        return tuple(_anchored(item, base) for item in value)
    return base / value if isinstance(value, Path) else value


def _merge(
    values: dict[str, Any],
    sources: dict[str, str],
    row: Row,
    *,
    value: Any,  # noqa: ANN401 -- any field's
    layer: Layer,
) -> None:
    """Lay one setting of `layer` over what weaker layers gave."""
    origin = layer.origins[(row.field,)]
    if row.kind == "mapping" and values.get(row.field):
        weaker = values[row.field]
        value = _merge_hosts(weaker, value) if row.field == "hosts" else {**weaker, **value}
        origin = f"{sources[row.key]}, {origin}"
    values[row.field] = value
    sources[row.key] = origin


def _merge_hosts(
    weaker: Mapping[str, tuple[str, ...]], stronger: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Address -> names, where a name that `stronger` has keeps none of its weaker addresses.

    Host names are compared without regard to case (RFC 1035).
    """
    taken = {name.lower() for names in stronger.values() for name in names}
    merged = {
        address: tuple(name for name in names if name.lower() not in taken)
        for address, names in weaker.items()
    }
    for address, names in stronger.items():
        merged[address] = (*merged.get(address, ()), *names)
    return {address: names for address, names in merged.items() if names}
