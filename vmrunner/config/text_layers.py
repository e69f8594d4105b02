"""The layers that are words: environment variables and command-line flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vmrunner.config.layer import Layer, Problem, nearest
from vmrunner.config.rows import VARIABLE_PREFIX, Row, all_rows

FILE_VARIABLE = f"{VARIABLE_PREFIX}CONFIG"
"""Names the file to read in place of the one that would be found."""

FILE_FLAG = "--config"


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """What VMRUNNER_* variables set. An empty one sets nothing; an unknown one is a problem.

    Lists are split as a shell would; `hosts` is `name=address,name=address`.
    """
    layer = Layer()
    rows = {row.variable: row for row in all_rows()}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(VARIABLE_PREFIX) or variable == FILE_VARIABLE:
            continue
        if variable not in rows:
            layer.problems.append(Problem(variable, "unknown variable", nearest(variable, rows)))
        elif text:
            row = rows[variable]
            _set_text(layer, row, text, origin=variable)
    return layer


def flag_layer(flags: Mapping[str, object]) -> Layer:
    """What flags set, by field name: a text, or a sequence of texts for a flag that can be repeated.

    Other values are taken as they are, so that a caller in Python may give typed ones. None is "not given".
    Raises KeyError for a name that is no field.
    """
    layer = Layer()
    rows = {row.field: row for row in all_rows()}
    for name, value in flags.items():
        row = rows[name]
        if value is None:
            continue
        if row.kind == "mapping" and isinstance(value, list | tuple):
            _set_pairs(layer, row, value, origin=row.flag)
        else:
            layer.set(name, value, origin=row.flag)
    return layer


def _set_text(layer: Layer, row: Row, text: str, *, origin: str) -> None:
    if row.kind == "value":
        layer.set(row.field, text, origin=origin)
        return
    try:
        words = row.option.split(text)
    except ValueError as error:
        problem = Problem(origin, f"cannot be split into words: {text!r} ({str(error).lower()})")
        layer.problems.append(problem)
        return
    if row.kind == "mapping":
        _set_pairs(layer, row, words, origin=origin)
    else:
        layer.set(row.field, words, origin=origin)


def _set_pairs(layer: Layer, row: Row, words: Sequence[str], *, origin: str) -> None:
    assert row.option.pairs is not None
    try:
        layer.set(row.field, row.option.pairs(words), origin=origin)
    except ValueError as error:
        layer.problems.append(Problem(origin, str(error)))
