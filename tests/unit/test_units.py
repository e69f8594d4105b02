"""Sizes and durations: what is read, what is refused, and that both spellings come back."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from vmrunner.config.units import Duration, Size


class Pair(BaseModel):
    size: Size
    duration: Duration


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1K", 1024),
        ("512M", 512 * 2**20),
        ("512m", 512 * 2**20),
        ("2G", 2**31),
        ("2GiB", 2**31),
        ("2 GB", 2**31),
        (" 1.5G ", 3 * 2**29),
        ("0.1M", 104857),
        ("3T", 3 * 2**40),
        (4096, 4096),
        ("123456789012345678", 123456789012345678),
    ],
)
def test_size_is_read(text: str | int, size: int) -> None:
    assert Size.parse(text) == size


@pytest.mark.parametrize(
    "text", ["", "lots", "-1", "1e3", "2P", "G", "1,5G", "1..5G", "٣G", "9" * 400, True, "1_0"]
)
def test_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a size: .* \(want for example 512M or 2G\)$"):
        Size.parse(text)


@pytest.mark.parametrize("text", ["0", "1000", "1K", "1536M", "2G", "3T"])
def test_size_is_written_as_it_is_read(text: str) -> None:
    assert str(Size.parse(text)) == text
    assert Size.parse(str(Size.parse(text))) == Size.parse(text)


def test_size_is_written_in_the_largest_exact_unit() -> None:
    assert str(Size.parse("1.5G")) == "1536M"
    assert str(Size.parse("2048M")) == "2G"
    assert str(Size(2**30 + 1)) == "1073741825"


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (2**45, "32 TiB")])
def test_size_for_people_is_short(size: int, text: str) -> None:
    assert Size(size).for_people() == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("1.5s", 1.5),
        ("0.25", 0.25),
        ("30m", 1800),
        ("30min", 1800),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("2H", 7200),
        (90, 90),
        (0.5, 0.5),
    ],
)
def test_duration_is_read(text: str | float, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "1d", "1h30", "30m5", "m", "inf", "nan", "1e3", "9" * 400, True]
)
def test_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a duration: .* \(want for example 90s, 30m or 1h30m\)$"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.00001, "0s"),
        (0.25, "0.25s"),
        (10, "10s"),
        (90, "1m30s"),
        (3600, "1h"),
        (5405.125, "1h30m5.125s"),
    ],
)
def test_duration_is_written_by_parts(seconds: float, text: str) -> None:
    assert str(Duration(seconds)) == text
    assert Duration.parse(text) == pytest.approx(seconds, abs=0.001)


def test_values_already_read_stay_exact() -> None:
    tiny = Duration(0.00001)
    assert Duration.parse(tiny) is tiny
    assert Size.parse(Size(5)) == 5


def test_models_hold_typed_values_and_print_text() -> None:
    pair = Pair.model_validate({"size": "2G", "duration": "1h30m"})
    assert isinstance(pair.size, Size)
    assert isinstance(pair.duration, Duration)
    assert pair.model_dump_json() == '{"size":"2G","duration":"1h30m"}'


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("size", ["2G", "1.5GiB", "512m"], ["lots", "-1G"]),
        ("duration", ["90", "30m", "1h30m"], ["soon", "1h30"]),
    ],
)
def test_schema_patterns_agree_with_the_readers(field: str, good: list[str], bad: list[str]) -> None:
    pattern = Pair.model_json_schema()["properties"][field]["anyOf"][0]["pattern"]
    assert all(re.search(pattern, text) for text in good)
    assert not any(re.search(pattern, text) for text in bad)
