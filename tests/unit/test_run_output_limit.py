"""A guest that writes without end is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.config.units import Size
from vmrunner.errors import GuestError
from vmrunner.run.output_limit import OutputWatch


def test_what_is_below_the_limit_may_stay(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/file").write_bytes(b"x" * 100_000)
    OutputWatch(tmp_path, Size.parse("1M")).look()


def test_all_files_together_count(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    for number in range(12):
        (tmp_path / f"deep/er/{number}").write_bytes(b"x" * 100_000)
    with pytest.raises(GuestError, match="more than 1M") as caught:
        OutputWatch(tmp_path, Size.parse("1M")).look()
    assert "--output-limit" in str(caught.value.hint)


def test_links_lead_nowhere_and_holes_are_nothing(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    (share / "link").symlink_to(tmp_path / "big")
    (share / "loop").symlink_to(share)
    with (share / "hole").open("wb") as hole:
        hole.truncate(1 << 40)
    OutputWatch(share, Size.parse("1M")).look()


def test_it_does_not_look_all_the_time(tmp_path: Path) -> None:
    watch = OutputWatch(tmp_path, Size.parse("1M"))
    watch.look()
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    watch.look()
