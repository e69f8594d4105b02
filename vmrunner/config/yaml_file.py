"""vmrunner.yaml: found, parsed with line numbers, and read as text without guessing types."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from vmrunner.config.layer import Layer, Place, Problem, nearest
from vmrunner.config.rows import all_rows
from vmrunner.errors import ConfigError

FILE_NAME = "vmrunner.yaml"
SIZES_KEY = "sizes"
"""The key of a project's own sizes, each with the settings that it stands for."""

# Room for any real file; what is larger or deeper is a mistake, or meant to keep a parser busy.
_MOST_BYTES = 2**18
_DEEPEST = 8
_NULLS = ("", "~", "null", "Null", "NULL")


def find_file(directory: Path) -> Path | None:
    """The vmrunner.yaml of `directory`, or of the nearest parent up to the root of its git repository.

    Outside a repository only `directory` itself counts: nobody else's file in /tmp is to be obeyed.
    Raises ConfigError for a vmrunner.yml, which would otherwise be passed over silently.
    """
    start = directory.resolve()
    family = (start, *start.parents)
    root = next((index for index, parent in enumerate(family) if _exists(parent / ".git")), 0)
    for parent in family[: root + 1]:
        file = parent / FILE_NAME
        if _exists(file):
            return file
        other = file.with_suffix(".yml")
        if _exists(other):
            raise ConfigError(f"{other} is not read for its name", hint=f"rename it to {FILE_NAME}")
    return None


def _exists(path: Path) -> bool:
    """Path.exists, but False where a directory on the way may not be searched."""
    return os.access(path, os.F_OK)


def file_layer(file: Path, *, name: str) -> Layer:
    """What `file` sets; `name` is how messages call it. A key without a value sets nothing.

    Raises ConfigError where it cannot be read or is no YAML mapping; wrong keys are problems of the layer.
    """
    root = _compose(_read(file, name), name)
    layer = Layer()
    if root is None or _is_null(root):
        return layer
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            f"{name}:{_line(root)}: not a mapping of settings", hint="write lines of `key: value`"
        )
    for key, node in _entries(root, name, layer):
        if key.value == SIZES_KEY:
            _read_sizes(node, name, layer)
        else:
            _read_setting(key, node, name, layer)
    return layer


def _read_setting(key: yaml.ScalarNode, node: yaml.Node, name: str, layer: Layer) -> None:
    rows = {row.key: row for row in all_rows()}
    origin = f"{name}:{_line(key)}"
    row = rows.get(str(key.value))
    if row is None:
        word = str(key.value)
        hint = nearest(word.replace("_", "-"), [*rows, SIZES_KEY])
        layer.problems.append(Problem(origin, f"unknown key {word!r}", hint))
    elif not _is_null(node):
        layer.set(row.field, _value(node, (row.field,), name, layer), origin=origin)


def _read_sizes(node: yaml.Node, name: str, layer: Layer) -> None:
    """The project's own sizes: each a mapping of settings, of which `size` cannot be one."""
    if not isinstance(node, yaml.MappingNode):
        layer.problems.append(Problem(f"{name}:{_line(node)}", f"{SIZES_KEY}: not a mapping of sizes"))
        return
    for key, settings in _entries(node, name, layer):
        preset = layer.presets[str(key.value)] = Layer()
        if not isinstance(settings, yaml.MappingNode):
            layer.problems.append(
                Problem(f"{name}:{_line(settings)}", f"{SIZES_KEY}: {key.value}: not a mapping of settings")
            )
            continue
        for setting, value in _entries(settings, name, preset):
            if setting.value == "size":
                preset.problems.append(Problem(f"{name}:{_line(setting)}", "a size within a size"))
            else:
                _read_setting(setting, value, name, preset)


def _read(file: Path, name: str) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {name}") from None
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{name} is larger than {_MOST_BYTES} bytes", hint="is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}:{line}: not UTF-8 text", hint="save the file as UTF-8") from None


def _compose(text: str, name: str) -> yaml.Node | None:
    """The node tree. Plain parsing only: no anchors, no tags, nothing that a few bytes could blow up."""
    try:
        _refuse_tricks(text, name)
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{name}:{line}: not YAML: {error.problem}", details=str(error)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: not YAML: {error.reason}", details=str(error)) from error


def _refuse_tricks(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        where = f"{name}:{_line(event)}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{where}: anchors and aliases are not supported", hint="write the value out")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{where}: the tag {tag} is not supported", hint="leave the tag out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise ConfigError(f"{where}: nested more than {_DEEPEST} deep")


def _entries(node: yaml.MappingNode, name: str, layer: Layer) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """The entries whose keys are texts and new; the others are problems."""
    first: dict[str, int] = {}
    for key, value in node.value:
        origin = f"{name}:{_line(key)}"
        if not isinstance(key, yaml.ScalarNode):
            layer.problems.append(Problem(origin, "a key that is not a text"))
        elif key.value in first:
            text = f"key {key.value!r} is given twice (first in line {first[key.value]})"
            layer.problems.append(Problem(origin, text, "leave one out"))
        else:
            first[key.value] = _line(key)
            yield key, value


def _value(node: yaml.Node, place: Place, name: str, layer: Layer) -> object:
    """Texts, lists and mappings as they stand, noting the line of each."""
    layer.origins[place] = f"{name}:{_line(node)}"
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*place, index), name, layer) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return {
            key.value: _value(value, (*place, key.value), name, layer)
            for key, value in _entries(node, name, layer)
        }
    return None if _is_null(node) else str(node.value)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS


def _line(part: yaml.Node | yaml.Event) -> int:
    """Counted from 1, as editors do."""
    assert part.start_mark is not None
    return int(part.start_mark.line) + 1
