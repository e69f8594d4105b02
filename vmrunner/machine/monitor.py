"""QMP for code that is not async: one thread runs qemu.qmp's event loop; commands block with a deadline.

This is the only corner of the program with asyncio in it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from qemu.qmp import EventListener, ExecInterruptedError, QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from vmrunner.host.deadline import Deadline

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_CANCEL_SECONDS = 2.0


class MonitorLost(Exception):
    """The connection to QEMU's monitor is gone or never came up; the process itself says why."""


class CommandRefused(Exception):
    """QEMU answered a command with an error; the text is QEMU's."""


@dataclass(frozen=True)
class MachineEvent:
    """One QMP event: its name, such as `SHUTDOWN`, and its data."""

    name: str
    data: Mapping[str, Any]


class Monitor:
    """A live QMP session. Made by `open_monitor`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._client = QMPClient("vmrunner")
        self._client.logger.setLevel(logging.CRITICAL)
        self._events: list[MachineEvent] = []
        self._pump: concurrent.futures.Future[None] | None = None

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline
    ) -> Any:  # noqa: ANN401 -- QMP's replies are JSON
        """Run one QMP command and return its reply.

        Raises CommandRefused with QEMU's words, MonitorLost where QEMU is gone or does not answer in time.
        """
        log.debug("qmp: %s %s", command, arguments or "")
        try:
            return self._call(self._client.execute(command, dict(arguments) if arguments else None), deadline)
        except ExecuteError as error:
            raise CommandRefused(str(error)) from error
        except (ExecInterruptedError, QMPError, EOFError) as error:
            raise MonitorLost(f"QEMU's monitor went away during `{command}`") from error

    def human(self, line: str, *, deadline: Deadline) -> str:
        """Run a command of QEMU's human monitor, for the few things QMP lacks; errors come back as plain text."""
        return str(self.execute("human-monitor-command", {"command-line": line}, deadline=deadline))

    def pass_descriptor(self, name: str, fd: int, *, deadline: Deadline) -> None:
        """Give QEMU a duplicate of an open descriptor, for commands that refer to it by `name` (QMP `getfd`).

        Raises as `execute` does.
        """

        async def send() -> None:
            self._client.send_fd_scm(fd)

        try:
            self._call(send(), deadline)
        except (OSError, QMPError) as error:
            raise MonitorLost("QEMU's monitor does not take descriptors") from error
        self.execute("getfd", {"fdname": name}, deadline=deadline)

    @property
    def events(self) -> tuple[MachineEvent, ...]:
        """Every event so far, oldest first."""
        return tuple(self._events)

    def _connect(self, endpoint: socket.socket, deadline: Deadline) -> None:
        listener = EventListener()
        self._client.register_listener(listener)
        self._pump = asyncio.run_coroutine_threadsafe(self._keep_events(listener), self._loop)
        try:
            self._call(self._client.connect(endpoint), deadline)
        except (QMPError, OSError, EOFError) as error:
            raise MonitorLost("QEMU did not answer on its monitor") from error

    async def _keep_events(self, listener: EventListener) -> None:
        async for message in listener:
            event = MachineEvent(str(message["event"]), dict(message.get("data", {})))  # type: ignore[call-overload]  # a JSON object
            log.debug("qmp event: %s", event)
            self._events.append(event)

    def _close(self) -> None:
        if self._pump:
            self._pump.cancel()
        try:
            self._call(self._client.disconnect(), Deadline.after(2))
        except (QMPError, OSError, EOFError, MonitorLost) as error:
            log.debug("qmp disconnect: %s", error)

    def _call(self, coroutine: Coroutine[Any, Any, _T], deadline: Deadline) -> _T:
        # The loop itself keeps the time, because it also waits until what it cancels has come to its end: qemu.qmp
        # cannot disconnect while a cancelled `connect` is still clearing up.
        seconds = deadline.remaining
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, seconds), self._loop)
        try:
            return future.result(seconds + _CANCEL_SECONDS)
        except TimeoutError as error:
            future.cancel()
            raise MonitorLost("QEMU's monitor did not answer in time") from error


@contextmanager
def open_monitor(endpoint: socket.socket, *, deadline: Deadline) -> Iterator[Monitor]:
    """Negotiate QMP on a connected socket; raises MonitorLost where QEMU does not take part."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="qmp", daemon=True)
    thread.start()
    monitor = Monitor(loop)
    try:
        monitor._connect(endpoint, deadline)
        yield monitor
    finally:
        monitor._close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        if not thread.is_alive():
            loop.close()
