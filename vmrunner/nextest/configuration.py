"""nextest's configuration: what vmrunner adds to it, and where the JUnit report will therefore lie.

Order of strength (nexte.st/docs/configuration): command line, environment, the repository's
`.config/nextest.toml`, tool configuration, nextest's defaults. vmrunner writes a tool configuration, so
everything that a repository says stays as it is: fail-fast, retries, timeouts, its own report.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vmrunner.nextest.arguments import option_value

DEFAULT_PROFILE = "default"
JUNIT_NAME = "junit.xml"
_REPOSITORY_CONFIG = ".config/nextest.toml"
_LONGEST_INHERITANCE = 32


@dataclass(frozen=True)
class JunitLocation:
    """Where the report will be.

    `store` is the repository's own store directory, relative to its workspace root or absolute; None where the
    tool configuration's holds. `file` is relative to the store: `<profile>/<path>`.
    """

    store: PurePosixPath | None
    file: PurePosixPath


def selected_profile(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """The profile of a run with these arguments, where nextest's environment holds `environment`."""
    return option_value(arguments, "-P", "--profile") or environment.get("NEXTEST_PROFILE") or DEFAULT_PROFILE


def tool_config(store: PurePosixPath) -> str:
    """The text of the tool configuration: reports go to `store`, an absolute path in the guest.

    An absolute store keeps nextest from writing into the sources; it makes `<store>/<profile>` before it runs.
    """
    return (
        f"[store]\ndir = {json.dumps(str(store))}\n\n"
        f"[profile.default.junit]\npath = {json.dumps(JUNIT_NAME)}\n"
        "store-success-output = true\nstore-failure-output = true\n"
    )


def junit_location(workspace: Path, profile: str, *, config_file: str | None = None) -> JunitLocation:
    """Where nextest will write the report of a run of the sources in `workspace` with `profile`.

    `config_file` is what the user gave as `--config-file`. A configuration that cannot be read or understood
    changes nothing here: nextest itself says so, with its own exit code 96.
    """
    config = _read_toml(workspace / (config_file or _REPOSITORY_CONFIG))
    store = _table(config, "store").get("dir")
    path = _junit_path(_table(config, "profile"), profile)
    return JunitLocation(
        PurePosixPath(store) if isinstance(store, str) else None, PurePosixPath(profile) / path
    )


def required_nextest(workspace: Path, *, config_file: str | None = None) -> str | None:
    """The nextest version that the sources in `workspace` ask for at least (nexte.st/docs/configuration/minimum-versions).

    None where they ask for none; nextest itself warns where it is older than the one they recommend.
    """
    wanted = _read_toml(workspace / (config_file or _REPOSITORY_CONFIG)).get("nextest-version")
    version = wanted.get("required") if isinstance(wanted, dict) else wanted
    return version if isinstance(version, str) else None


def _junit_path(profiles: Mapping[str, Any], profile: str) -> str:
    """The first `junit.path` on the way from `profile` to the default profile (nextest's `inherits`)."""
    name = profile
    for _ in range(_LONGEST_INHERITANCE):
        path = _table(_table(profiles, name), "junit").get("path")
        if isinstance(path, str):
            return path
        if name == DEFAULT_PROFILE:
            break
        parent = _table(profiles, name).get("inherits", DEFAULT_PROFILE)
        name = parent if isinstance(parent, str) else DEFAULT_PROFILE
    return JUNIT_NAME


def _table(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _read_toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return {}
