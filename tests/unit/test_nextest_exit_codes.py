"""nextest's published exit codes."""

from __future__ import annotations

import pytest

from vmrunner.errors import VmrunnerError
from vmrunner.nextest import exit_codes


@pytest.mark.parametrize("code", [0, 4, 5, 10, 70, 80, 81, 82, 90, 92, 93, 94, 95, 96, *range(100, 107), 110])
def test_published_codes_have_a_meaning(code: int) -> None:
    assert exit_codes.is_published(code)
    assert exit_codes.meaning(code)
    assert not exit_codes.meaning(code).endswith(".")


@pytest.mark.parametrize("code", [1, 2, 3, 97, 107, 111, 127, 130, 137, 143, -9])
def test_other_codes_are_no_verdict(code: int) -> None:
    assert not exit_codes.is_published(code)


def test_an_unknown_code_is_named_in_its_meaning() -> None:
    assert "137" in exit_codes.meaning(137)


def test_the_parsers_own_code_is_explained() -> None:
    assert "arguments" in exit_codes.meaning(exit_codes.USAGE_ERROR)


def test_no_code_of_vmrunner_can_be_taken_for_one_of_nextest() -> None:
    waiting, codes = [VmrunnerError], set()
    while waiting:
        error = waiting.pop()
        codes.add(error.exit_code)
        waiting += error.__subclasses__()
    assert not codes & exit_codes.PUBLISHED.keys()
