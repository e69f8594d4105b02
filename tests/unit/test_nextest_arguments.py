"""nextest's command line in the guest."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from vmrunner.errors import UsageError
from vmrunner.nextest.arguments import (
    GuestPaths,
    NextestArguments,
    guest_command,
    option_value,
    require_prebuilt,
    split_arguments,
)

PATHS = GuestPaths(
    nextest=PurePosixPath("/in/bin/cargo-nextest"),
    binaries_metadata=PurePosixPath("/in/binaries-metadata.json"),
    cargo_metadata=PurePosixPath("/in/cargo-metadata.json"),
    tool_config=PurePosixPath("/in/nextest.toml"),
)


def test_the_whole_command() -> None:
    assert guest_command(["-P", "ci", "--", "--exact", "a"], paths=PATHS, color=False) == [
        "/in/bin/cargo-nextest",
        "nextest",
        "run",
        "--binaries-metadata",
        "/in/binaries-metadata.json",
        "--cargo-metadata",
        "/in/cargo-metadata.json",
        "--tool-config-file",
        "vmrunner:/in/nextest.toml",
        "--color",
        "never",
        "--no-input-handler",
        "-P",
        "ci",
        "--",
        "--exact",
        "a",
    ]


def test_remaps_only_where_the_paths_do_not_hold() -> None:
    remapped = GuestPaths(
        nextest=PATHS.nextest,
        binaries_metadata=PATHS.binaries_metadata,
        cargo_metadata=PATHS.cargo_metadata,
        tool_config=PATHS.tool_config,
        workspace_remap=PurePosixPath("/srv/ws"),
        target_dir_remap=PurePosixPath("/srv/target"),
    )
    command = " ".join(guest_command([], paths=remapped, color=True))
    assert "--workspace-remap /srv/ws --target-dir-remap /srv/target" in command
    assert "remap" not in " ".join(guest_command([], paths=PATHS, color=True))


def test_color_where_it_is_wanted() -> None:
    command = guest_command([], paths=PATHS, color=True)
    assert command[command.index("--color") + 1] == "always"


@pytest.mark.parametrize("given", [["--color", "auto"], ["--color=auto"]])
def test_the_users_own_color_is_not_given_twice(given: list[str]) -> None:
    command = guest_command(given, paths=PATHS, color=True)
    assert [word for word in command if word.startswith("--color")] == given[:1]


def test_an_option_of_nextest_is_not_given_twice() -> None:
    assert guest_command(["--no-input-handler"], paths=PATHS, color=True).count("--no-input-handler") == 1


@pytest.mark.parametrize(
    ("arguments", "build", "run"),
    [
        ([], [], []),
        (["--release", "-E", "test(a)"], ["--release"], ["-E", "test(a)"]),
        (["-p", "core", "name"], ["-p", "core"], ["name"]),
        (["-pcore", "name"], ["-pcore"], ["name"]),
        (["--package=core", "-P", "ci"], ["--package=core"], ["-P", "ci"]),
        (["-Fa,b", "--features", "c", "--retries", "2"], ["-Fa,b", "--features", "c"], ["--retries", "2"]),
        (["--target", "x", "--lib", "--no-fail-fast"], ["--target", "x", "--lib"], ["--no-fail-fast"]),
        (["--test"], ["--test"], []),
        (["--", "--release", "--archive-file"], [], ["--", "--release", "--archive-file"]),
        (["-Zx", "--timings=html"], ["-Zx", "--timings=html"], []),
    ],
)
def test_what_to_build_is_told_from_how_to_run(
    arguments: list[str], build: list[str], run: list[str]
) -> None:
    assert split_arguments(arguments) == NextestArguments(tuple(build), tuple(run))


@pytest.mark.parametrize(
    "option",
    [
        "--archive-file",
        "--archive-format",
        "--binaries-metadata",
        "--build-dir-remap",
        "--cargo-metadata",
        "--extract-overwrite",
        "--extract-to",
        "--manifest-path",
        "--persist-extract-tempdir",
        "--target-dir-remap",
        "--workspace-remap",
    ],
)
@pytest.mark.parametrize("form", ["{} x", "{}=x"])
def test_options_that_only_vmrunner_can_set(option: str, form: str) -> None:
    with pytest.raises(UsageError) as caught:
        split_arguments(["name", *form.format(option).split()])
    assert caught.value.exit_code == 2
    assert f"`{option}`" in caught.value.message
    assert caught.value.hint


def test_an_archive_that_is_built_cannot_be_built_otherwise() -> None:
    with pytest.raises(UsageError) as caught:
        require_prebuilt(split_arguments(["--release", "name"]))
    assert "`--release`" in caught.value.message
    assert caught.value.hint
    assert "-E" in caught.value.hint


def test_arguments_without_anything_to_build_fit_an_archive() -> None:
    require_prebuilt(split_arguments(["-P", "ci", "-E", "package(core)"]))


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["-P", "ci"], "ci"),
        (["-Pci"], "ci"),
        (["-P=ci"], "ci"),
        (["--profile", "ci"], "ci"),
        (["--profile=ci"], "ci"),
        (["--profile", "ci", "--profile", "two"], "two"),
        (["name"], None),
        (["--", "-P", "ci"], None),
        (["--profile"], None),
        (["--profiles=ci"], None),
    ],
)
def test_the_value_of_an_option(arguments: list[str], value: str | None) -> None:
    assert option_value(arguments, "-P", "--profile") == value
