"""What Nix says with `--log-format internal-json`, as a state: what is done, what is under way, what went wrong.

Lines are `@nix {json}`; `action` is start, stop, result or msg. The numbers are those of Nix's `ActivityType` and
`ResultType` (src/libutil/logging.hh); the same lines come from Nix 2.8 and 2.26, which tests/unit/samples has. What is
not known is passed over, so that a newer Nix is shown less well instead of not at all.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from vmrunner.host.log_end import cleaned

_PREFIX: Final = "@nix "

_KEPT_ERRORS: Final = 50
_KEPT_WARNINGS: Final = 20
_KEPT_LOG_LINES: Final = 30
_KEPT_LOGS: Final = 200
_KEPT_PLAIN_LINES: Final = 40
_KEPT_POSITIONS: Final = 400
_KEPT_FILES: Final = 100_000
_LONGEST_LINE: Final = 500
_LONGEST_ERROR: Final = 8_000
_STORE_NAME: Final = re.compile(r"[0-9a-z]{32}-(.+?)(?:\.drv)?(?:[!^].*)?$")
_POSITION: Final = re.compile(r"\bat (/[^\s:«»][^:\n]*):(\d+)(?::\d+)?")
_READ: Final = re.compile(r"(?:evaluating file|copied source|copying) '(/[^']*)'(?: ->| to the store|$)")
_WARNING: Final = re.compile(r"(?:trace: )?(?:evaluation )?warning: (.*)", re.DOTALL)
# Warnings of Nix itself that nobody can do anything about, by how they begin.
_DULL_WARNINGS: Final = ("unable to download", "error: unable to", "dumping very large")


class _Kind(IntEnum):
    """Of an activity."""

    COPY_PATH = 100
    TRANSFER = 101
    COPY_PATHS = 103
    BUILDS = 104
    BUILD = 105
    SUBSTITUTE = 108


class _Result(IntEnum):
    LOG_LINE = 101
    BUILD_PHASE = 104
    PROGRESS = 105
    EXPECTED = 106


_FETCHING: Final = frozenset({_Kind.SUBSTITUTE, _Kind.COPY_PATH, _Kind.TRANSFER})


@dataclass(frozen=True)
class NixError:
    """One error. `text` is what went wrong; `positions` are `file:line`, innermost first, as far as they are known."""

    text: str
    positions: tuple[str, ...] = ()


@dataclass
class Count:
    """How many of a kind are done, expected in all, and failed."""

    done: int = 0
    expected: int = 0
    failed: int = 0

    def set(self, numbers: list[int]) -> None:
        """Take Nix's [done, expected, running, failed]."""
        self.done, self.expected, _, self.failed = numbers


@dataclass
class _Activity:
    kind: int
    name: str
    derivation: str = ""
    done: int = 0
    expected: int = 0
    phase: str = ""


@dataclass
class BuildLog:
    """The state that follows from the lines so far. Its size is bounded, whatever is printed."""

    builds: Count = field(default_factory=Count)
    copies: Count = field(default_factory=Count)
    errors: list[NixError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plain: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_PLAIN_LINES))
    """The last lines that were not Nix's JSON."""
    files_read: set[Path] = field(default_factory=set)
    """Files and directories that the evaluation evaluated or copied into the store."""
    files_complete: bool = True
    """False where there were more than are kept."""
    _running: dict[int, _Activity] = field(default_factory=dict)
    _logs: OrderedDict[str, deque[str]] = field(default_factory=OrderedDict)
    _expected_bytes: dict[int, int] = field(default_factory=dict)
    _finished_bytes: int = 0

    def take(self, line: str) -> None:
        """Take one line of Nix's standard error."""
        if not line.startswith(_PREFIX):
            self._take_plain(line)
            return
        try:
            message = json.loads(line[len(_PREFIX) :])
        except (ValueError, RecursionError):
            self._take_plain(line)
            return
        if not isinstance(message, dict):
            return
        match message.get("action"):
            case "start":
                self._start(message)
            case "stop":
                self._stop(message.get("id"))
            case "result":
                self._result(message)
            case "msg":
                self._message(message)
            case _:
                pass

    @property
    def bytes_done(self) -> int:
        """Bytes downloaded so far."""
        return self._finished_bytes + sum(one.done for one in self._transfers())

    @property
    def bytes_expected(self) -> int:
        """Bytes that are known to be wanted."""
        known = self._finished_bytes + sum(max(one.done, one.expected) for one in self._transfers())
        return max(known, sum(self._expected_bytes.values()))

    @property
    def now(self) -> str:
        """What is under way, for a person; empty where nothing is known to be."""
        running = list(self._running.values())
        building = [
            f"{one.name} ({one.phase})" if one.phase else one.name
            for one in running
            if one.kind == _Kind.BUILD
        ]
        if building:
            more = f" and {len(building) - 1} more" if len(building) > 1 else ""
            return f"building {building[0]}{more}"
        fetching = [one.name for one in running if one.kind in _FETCHING]
        if fetching:
            total = f" ({_megabytes(self.bytes_done)} of {_megabytes(self.bytes_expected)} MB)"
            return f"fetching {fetching[0]}{total if self.bytes_expected else ''}"
        return ""

    def log_of(self, derivation: str) -> list[str]:
        """The last lines that the builder of that derivation printed."""
        return list(self._logs.get(derivation, ()))

    @property
    def logged(self) -> list[str]:
        """The derivations whose builders printed something, the one that began last at the end."""
        return list(self._logs)

    def _start(self, message: Mapping[str, Any]) -> None:
        kind, identity, fields = message.get("type"), message.get("id"), _list(message.get("fields"))
        text = str(message.get("text", ""))
        self._note_read(text)
        subject = str(fields[0]) if fields else ""
        if isinstance(kind, int) and isinstance(identity, int):
            derivation = subject if kind == _Kind.BUILD else ""
            self._running[identity] = _Activity(kind, short_name(subject) or cleaned(text), derivation)

    def _stop(self, identity: object) -> None:
        if isinstance(identity, int) and (activity := self._running.pop(identity, None)):
            if activity.kind == _Kind.TRANSFER:
                self._finished_bytes += activity.done
            self._expected_bytes.pop(identity, None)

    def _result(self, message: Mapping[str, Any]) -> None:
        identity, fields = message.get("id"), _list(message.get("fields"))
        if not isinstance(identity, int) or identity not in self._running:
            return
        activity = self._running[identity]
        match message.get("type"), fields:
            case _Result.LOG_LINE, [line, *_] if activity.kind == _Kind.BUILD:
                self._keep_log_line(activity.derivation, str(line))
            case _Result.BUILD_PHASE, [name, *_]:
                activity.phase = cleaned(str(name))[:_LONGEST_LINE]
            case _Result.PROGRESS, [int(), int(), int(), int()]:
                self._progress(activity, fields)
            case _Result.EXPECTED, [_Kind.TRANSFER, int(count)]:
                self._expected_bytes[identity] = count
            case _:
                pass

    def _progress(self, activity: _Activity, numbers: list[int]) -> None:
        match activity.kind:
            case _Kind.BUILDS:
                self.builds.set(numbers)
            case _Kind.COPY_PATHS:
                self.copies.set(numbers)
            case _:
                activity.done, activity.expected = numbers[0], numbers[1]

    def _message(self, message: Mapping[str, Any]) -> None:
        text = cleaned(str(message.get("msg", "")))
        if "raw_msg" in message and message.get("level") == 0:
            self._keep_error(cleaned(str(message["raw_msg"])), (*_places(message), *_places_in(text)))
        elif message.get("level") == 0 and text.startswith("error:"):
            self._keep_error(text.removeprefix("error:").strip(), _places_in(text))
        elif (match := _WARNING.match(text)) and not match[1].startswith(_DULL_WARNINGS):
            warning = match[1].strip()[:_LONGEST_ERROR]
            if warning not in self.warnings and len(self.warnings) < _KEPT_WARNINGS:
                self.warnings.append(warning)
        else:
            self._note_read(text)

    def _take_plain(self, line: str) -> None:
        text = cleaned(line)[:_LONGEST_LINE]
        self.plain.append(text)
        if text.startswith("error:"):
            self._keep_error(text.removeprefix("error:").strip(), ())

    def _keep_error(self, text: str, positions: tuple[str, ...]) -> None:
        if len(self.errors) < _KEPT_ERRORS:
            self.errors.append(
                NixError(text[:_LONGEST_ERROR], tuple(dict.fromkeys(positions))[:_KEPT_POSITIONS])
            )

    def _keep_log_line(self, derivation: str, line: str) -> None:
        kept = self._logs.setdefault(derivation, deque(maxlen=_KEPT_LOG_LINES))
        kept.append(cleaned(line)[:_LONGEST_LINE])
        if len(self._logs) > _KEPT_LOGS:
            self._logs.popitem(last=False)

    def _note_read(self, text: str) -> None:
        if match := _READ.match(text):
            if len(self.files_read) >= _KEPT_FILES:
                self.files_complete = False
            else:
                self.files_read.add(Path(match[1]))

    def _transfers(self) -> list[_Activity]:
        return [one for one in self._running.values() if one.kind == _Kind.TRANSFER]


def short_name(path: str) -> str:
    """`linux-6.12` for `/nix/store/<hash>-linux-6.12.drv`; the last part of anything else."""
    last = path.rstrip("/").rpartition("/")[2]
    match = _STORE_NAME.match(last)
    return cleaned(match[1] if match else last)[:_LONGEST_LINE]


def _places(message: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the error is and through what it was reached, from the fields of the message."""
    steps = [message, *_list(message.get("trace"))[:_KEPT_POSITIONS]]
    return tuple(place for step in steps if isinstance(step, Mapping) and (place := _place(step)))


def _place(step: Mapping[str, Any]) -> str:
    file, line = step.get("file"), step.get("line")
    if not isinstance(file, str) or not file.startswith("/") or not isinstance(line, int):
        return ""
    return f"{re.sub(r':[0-9]+:[0-9]+$', '', file)}:{line}"  # Nix 2.26 has line and column in the name too


def _places_in(text: str) -> tuple[str, ...]:
    return tuple(f"{match[1]}:{match[2]}" for match in _POSITION.finditer(text[:_LONGEST_ERROR]))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}"
