"""Whether the guest's nextest is new enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.errors import ArchiveError
from vmrunner.nextest.abilities import GuestAbilities
from vmrunner.nextest.configuration import required_nextest
from vmrunner.nextest.versions import check_required, is_older_than_maker


def guest(nextest: str | None) -> GuestAbilities:
    return GuestAbilities("nixos", "x86_64", "2.42", frozenset(), frozenset(), nextest=nextest)


def configured(directory: Path, text: str) -> str | None:
    (directory / ".config").mkdir()
    (directory / ".config/nextest.toml").write_text(text)
    return required_nextest(directory)


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ('nextest-version = "0.9.55"', "0.9.55"),
        ('nextest-version = { required = "0.9.55", recommended = "0.9.60" }', "0.9.55"),
        ('nextest-version = { recommended = "0.9.60" }', None),
        ("nextest-version = 9", None),
        ("[profile.default]\nretries = 1", None),
        ("not toml", None),
    ],
)
def test_what_a_project_requires(tmp_path: Path, text: str, required: str | None) -> None:
    assert configured(tmp_path, text) == required


def test_a_configuration_that_was_named_counts_instead(tmp_path: Path) -> None:
    (tmp_path / "ci.toml").write_text('nextest-version = "0.9.99"')
    assert required_nextest(tmp_path, config_file="ci.toml") == "0.9.99"
    assert required_nextest(tmp_path) is None


@pytest.mark.parametrize(
    ("carried", "whose", "advice"),
    [
        (False, "that of the image `nixos`, 0.9.100", "use an image with a newer cargo-nextest"),
        (True, "this host's, 0.9.100", "install a newer cargo-nextest here"),
    ],
)
def test_a_project_that_requires_a_newer_one(carried: bool, whose: str, advice: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        check_required("0.9.148", guest=guest("0.9.100"), arguments=[], carried=carried)
    assert caught.value.exit_code == 24
    assert caught.value.message == (
        f"the project requires nextest 0.9.148 (`nextest-version`), but the guest runs {whose}"
    )
    assert advice in str(caught.value.hint)
    assert "--override-version-check" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("has", "required"),
    [
        ("0.9.148", "0.9.148"),
        ("0.9.148", "0.9.55"),
        ("0.10.0", "0.9.148"),
        ("0.9.148", "0.9"),
        ("0.9.148-b.1", "0.9.148"),
        ("0.9.148", None),
        (None, "0.9.148"),
        ("0.9.148", "soon"),
    ],
)
def test_a_nextest_that_is_new_enough_or_not_known(has: str | None, required: str | None) -> None:
    check_required(required, guest=guest(has), arguments=[], carried=False)


def test_whoever_overrides_nextests_check_overrides_this_one() -> None:
    arguments = ["--override-version-check"]
    check_required("9.0.0", guest=guest("0.9.100"), arguments=arguments, carried=False)
    with pytest.raises(ArchiveError):
        check_required("9.0.0", guest=guest("0.9.100"), arguments=["--", *arguments], carried=False)


def test_an_older_nextest_than_the_archives_maker() -> None:
    assert is_older_than_maker(guest("0.9.72"), "0.9.148")
    assert not is_older_than_maker(guest("0.9.148"), "0.9.148")
    assert not is_older_than_maker(guest(None), "0.9.148")
