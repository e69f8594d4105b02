"""What came of one change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """A setting before and after, as read from QEMU, the guest or this host's kernel.

    `seen_by` says which of them, `remark` what a person should know besides (empty for nothing). `complete` is whether
    all that was asked for has come about.
    """

    setting: str
    before: str
    after: str
    seen_by: str
    remark: str = ""
    complete: bool = True
