"""nextest's command line in the guest, and the configuration that goes with it; all of it pure.

The archive is extracted on the host, so nextest runs from its metadata (`--binaries-metadata`,
`--cargo-metadata`). nextest then refuses every option that chooses what to build, so those are told apart here:
they belong to `cargo nextest archive`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vmrunner.errors import UsageError

TOOL_NAME = "vmrunner"

_RESERVED = {
    "--archive-file": "use `--archive FILE` of vmrunner",
    "--archive-format": "the archive is named by `--archive FILE` of vmrunner",
    "--extract-to": "vmrunner extracts the archive where its paths hold",
    "--extract-overwrite": "vmrunner extracts the archive where its paths hold",
    "--persist-extract-tempdir": "vmrunner keeps extracted archives by itself",
    "--binaries-metadata": "use `--archive FILE` of vmrunner",
    "--cargo-metadata": "use `--archive FILE` of vmrunner",
    "--target-dir-remap": "vmrunner puts the target directory where it lay",
    "--build-dir-remap": "vmrunner puts the build directory where it lay",
    "--workspace-remap": "vmrunner puts the sources where they lay",
    "--manifest-path": "name the workspace to vmrunner: `vmrunner test DIRECTORY`",
}
_BUILD_FLAGS = frozenset(
    [
        "--workspace",
        "--all",
        "--lib",
        "--bins",
        "--examples",
        "--tests",
        "--benches",
        "--all-targets",
        "--all-features",
        "--no-default-features",
        "--release",
        "-r",
        "--unit-graph",
        "--frozen",
        "--locked",
        "--offline",
        "--cargo-quiet",
        "--cargo-verbose",
        "--ignore-rust-version",
        "--future-incompat-report",
        "--timings",
    ]
)
_BUILD_OPTIONS = frozenset(
    [
        "--package",
        "-p",
        "--exclude",
        "--bin",
        "--example",
        "--test",
        "--bench",
        "--features",
        "-F",
        "--build-jobs",
        "--cargo-profile",
        "--target",
        "--target-dir",
        "--cargo-message-format",
        "--config",
        "-Z",
    ]
)
_SHORT_BUILD_OPTIONS = ("-p", "-F", "-Z")


@dataclass(frozen=True)
class NextestArguments:
    """A user's arguments, told apart: `build` goes to `cargo nextest archive`, `run` to nextest in the guest."""

    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestPaths:
    """Where nextest finds its things in the guest; a remap is None where the original path holds."""

    nextest: PurePosixPath
    binaries_metadata: PurePosixPath
    cargo_metadata: PurePosixPath
    tool_config: PurePosixPath
    workspace_remap: PurePosixPath | None = None
    target_dir_remap: PurePosixPath | None = None


def split_arguments(arguments: Sequence[str]) -> NextestArguments:
    """Tell apart what a user wants to build from how it is to be run; what follows a `--` is for the tests.

    Raises UsageError for an option that only vmrunner can set.
    """
    build: list[str] = []
    run: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            run += arguments[position:]
            break
        option, has_value = word.split("=", 1)[0], "=" in word
        if option in _RESERVED:
            raise UsageError(f"`{option}` is set by vmrunner and cannot be given", hint=_RESERVED[option])
        length = 2 if option in _BUILD_OPTIONS and not has_value else 1
        (build if _is_build_option(option) else run).extend(arguments[position : position + length])
        position += length
    return NextestArguments(tuple(build), tuple(run))


def _is_build_option(option: str) -> bool:
    glued = option.startswith(_SHORT_BUILD_OPTIONS) and not option.startswith("--")
    return option in _BUILD_FLAGS or option in _BUILD_OPTIONS or glued


def require_prebuilt(arguments: NextestArguments) -> None:
    """Raise UsageError where a user chooses what to build although the archive is already built."""
    if arguments.build:
        raise UsageError(
            f"`{arguments.build[0]}` chooses what to build, but the archive is already built",
            hint="select tests with a filterset, for example -E 'package(NAME)' or -E 'binary_id(NAME)'",
        )


def guest_command(run_arguments: Sequence[str], *, paths: GuestPaths, color: bool) -> list[str]:
    """The command that runs the tests in the guest; a user's own `--color` or `--no-input-handler` stays his.

    Without `--no-input-handler` nextest would read its terminal for keys; nobody is there to press them.
    """
    command = [
        str(paths.nextest),
        "nextest",
        "run",
        "--binaries-metadata",
        str(paths.binaries_metadata),
        "--cargo-metadata",
        str(paths.cargo_metadata),
    ]
    if paths.workspace_remap:
        command += ["--workspace-remap", str(paths.workspace_remap)]
    if paths.target_dir_remap:
        command += ["--target-dir-remap", str(paths.target_dir_remap)]
    command += ["--tool-config-file", f"{TOOL_NAME}:{paths.tool_config}"]
    if option_value(run_arguments, "--color") is None:
        command += ["--color", "always" if color else "never"]
    if not has_flag(run_arguments, "--no-input-handler"):
        command.append("--no-input-handler")
    return [*command, *run_arguments]


def option_value(arguments: Sequence[str], *names: str) -> str | None:
    """The last value given to any of `names` before `--`: `--name x`, `--name=x`, `-Nx`; None where there is none."""
    value = None
    words = _options(arguments)
    for position, word in enumerate(words):
        for name in names:
            short = not name.startswith("--")
            if word == name and position + 1 < len(words):
                value = words[position + 1]
            elif word.startswith(f"{name}="):
                value = word.removeprefix(f"{name}=")
            elif short and word.startswith(name) and word != name:
                value = word.removeprefix(name)
    return value


def has_flag(arguments: Sequence[str], name: str) -> bool:
    """Whether the option `name`, one without a value, is given before `--`."""
    return name in _options(arguments)


def _options(arguments: Sequence[str]) -> Sequence[str]:
    words = list(arguments)
    return words[: words.index("--")] if "--" in words else words
