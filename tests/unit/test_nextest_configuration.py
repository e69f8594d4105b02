"""nextest's configuration and the place of the JUnit report."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath

import pytest

from vmrunner.nextest.configuration import JunitLocation, junit_location, selected_profile, tool_config


def workspace(directory: Path, config: str) -> Path:
    (directory / ".config").mkdir()
    (directory / ".config" / "nextest.toml").write_text(config)
    return directory


def test_the_argument_beats_the_environment() -> None:
    assert selected_profile(["--profile=ci"], {"NEXTEST_PROFILE": "env"}) == "ci"
    assert selected_profile([], {"NEXTEST_PROFILE": "env"}) == "env"
    assert selected_profile([], {}) == "default"
    assert selected_profile([], {"NEXTEST_PROFILE": ""}) == "default"


def test_the_tool_configuration_changes_nothing_but_the_report() -> None:
    config = tomllib.loads(tool_config(PurePosixPath('/out/a "store"')))
    assert config == {
        "store": {"dir": '/out/a "store"'},
        "profile": {
            "default": {
                "junit": {"path": "junit.xml", "store-success-output": True, "store-failure-output": True}
            }
        },
    }


def test_a_repository_without_configuration(tmp_path: Path) -> None:
    assert junit_location(tmp_path, "default") == JunitLocation(None, PurePosixPath("default/junit.xml"))


def test_a_profile_has_a_directory_of_its_own(tmp_path: Path) -> None:
    location = junit_location(workspace(tmp_path, "[profile.ci]\nretries = 2\n"), "ci")
    assert location == JunitLocation(None, PurePosixPath("ci/junit.xml"))


def test_a_profile_with_a_name_for_its_report(tmp_path: Path) -> None:
    root = workspace(tmp_path, '[profile.named.junit]\npath = "mine.xml"\n')
    assert junit_location(root, "named").file == PurePosixPath("named/mine.xml")
    assert junit_location(root, "other").file == PurePosixPath("other/junit.xml")


def test_the_default_profile_names_the_reports_of_all(tmp_path: Path) -> None:
    root = workspace(tmp_path, '[profile.default.junit]\npath = "all.xml"\n[profile.ci]\nretries = 1\n')
    assert junit_location(root, "ci").file == PurePosixPath("ci/all.xml")


def test_profiles_inherit(tmp_path: Path) -> None:
    config = '[profile.base.junit]\npath = "base.xml"\n[profile.mid]\ninherits = "base"\n'
    root = workspace(tmp_path, config + '[profile.ci]\ninherits = "mid"\n')
    assert junit_location(root, "ci").file == PurePosixPath("ci/base.xml")


def test_profiles_that_inherit_in_a_circle_are_nextests_business(tmp_path: Path) -> None:
    root = workspace(tmp_path, '[profile.a]\ninherits = "b"\n[profile.b]\ninherits = "a"\n')
    assert junit_location(root, "a").file == PurePosixPath("a/junit.xml")


def test_the_repositorys_own_store_beats_the_tool_configuration(tmp_path: Path) -> None:
    root = workspace(tmp_path, '[store]\ndir = "usr/store"\n')
    assert junit_location(root, "default").store == PurePosixPath("usr/store")


@pytest.mark.parametrize("path", ["/tmp/report.xml", "../../report.xml"])
def test_a_report_outside_the_store_keeps_its_place(tmp_path: Path, path: str) -> None:
    root = workspace(tmp_path, f'[profile.default.junit]\npath = "{path}"\n')
    assert junit_location(root, "default").file == PurePosixPath("default") / path
    named = junit_location(tmp_path, "default", config_file="none.toml")
    assert named.file == PurePosixPath("default/junit.xml")


def test_another_configuration_file(tmp_path: Path) -> None:
    root = workspace(tmp_path, '[store]\ndir = "one"\n')
    (root / "other.toml").write_text('[store]\ndir = "two"\n')
    assert junit_location(root, "default", config_file="other.toml").store == PurePosixPath("two")


@pytest.mark.parametrize(
    "config", ["[profile", "store = 1\nprofile = 2\n", "[profile]\nci = 3\n", "[store]\ndir = 4\n", "\x00"]
)
def test_a_malformed_configuration_is_left_to_nextest(tmp_path: Path, config: str) -> None:
    expected = JunitLocation(None, PurePosixPath("ci/junit.xml"))
    assert junit_location(workspace(tmp_path, config), "ci") == expected
