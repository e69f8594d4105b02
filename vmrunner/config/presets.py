"""Settings by one name: `size: large`. Weaker than everything that is set by itself, stronger than the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vmrunner.config.layer import Layer
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError

NAMES = ("small", "medium", "large", "host")
"""The sizes that there are without a project's own."""

_FIXED: Mapping[str, Mapping[str, str]] = {
    "small": {"cpus": "1", "memory": "1G", "disk": "8G"},
    "medium": {"cpus": "2", "memory": "2G", "disk": "8G"},
    "large": {"cpus": "4", "memory": "8G", "disk": "32G"},
}
_STEP = 256 << 20


def preset_layer(name: str, *, own: Mapping[str, Layer], origin: str) -> Layer:
    """What the size `name` sets; a project's own of the same name has its way. `origin` is where the size was named.

    Raises ConfigError where there is no such size.
    """
    if name in own:
        return own[name]
    if name != "host" and name not in _FIXED:
        names = [*NAMES, *own]
        raise ConfigError(
            f"{origin}: there is no size {name!r} (want {', '.join(names)})",
            hint="a project's own sizes are in `sizes:` of its vmrunner.yaml",
        )
    layer = Layer()
    for field, value in (_of_host() if name == "host" else _FIXED[name]).items():
        layer.set(field, value, origin=f"size {name}")
    return layer


def _of_host() -> dict[str, str]:
    """All CPUs that this process may use, and half of the memory, in steps, so that a template fits the next run too."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return {"cpus": str(len(os.sched_getaffinity(0))), "memory": str(Size(max(memory // _STEP, 1) * _STEP))}
