"""A small QMP server: it stands in for QEMU's monitor, in a thread or as a program that stands in for QEMU.

Standard library only, so that the program starts fast.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GREETING = {
    "QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}
}
ALWAYS: dict[str, Any] = {"qmp_capabilities": {}, "quit": {}, "query-status": {"status": "running"}}
USERNET = (
    "Hub -1 (net0):\r\n"
    "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22     0     0\r\n"
)


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error."""

    text: str


@dataclass(frozen=True)
class EventThen:
    """An event before the answer."""

    name: str
    data: dict[str, Any]
    answer: Any


class Silence:
    """No answer at all."""


class HangUp:
    """The connection ends instead of an answer."""


@dataclass
class FakeQmp:
    """The server's side of a session: what it answers to each command, and what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def serve(self, sock: socket.socket) -> None:
        """Speak QMP until the peer goes, or hangs up as told."""
        with sock:
            self._send(sock, GREETING)
            for request in _requests(sock):
                command = request["execute"]
                self.asked.append(request)
                answer = self.answers.get(command, ALWAYS.get(command))
                if isinstance(answer, HangUp):
                    return
                if isinstance(answer, EventThen):
                    stamp = {"seconds": 1, "microseconds": 2}
                    self._send(sock, {"event": answer.name, "data": answer.data, "timestamp": stamp})
                    answer = answer.answer
                if not isinstance(answer, Silence):
                    self._send(sock, _reply(request, answer))
                if command == "quit":
                    return

    @staticmethod
    def _send(sock: socket.socket, message: dict[str, Any]) -> None:
        sock.sendall(json.dumps(message).encode() + b"\r\n")


def _requests(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """JSON objects as they come; nothing separates them, or the blank that a passed descriptor comes with."""
    text = ""
    while chunk := sock.recv(65536):
        text = (text + chunk.decode()).lstrip()
        try:
            request, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            continue
        text = text[end:]
        yield request


def _reply(request: dict[str, Any], answer: Any) -> dict[str, Any]:
    """QMP hands the `id` of a request back, if it has one."""
    given = {"id": request["id"]} if "id" in request else {}
    if answer is None:
        answer = Refusal(f"The command {request['execute']} has not been found")
    if isinstance(answer, Refusal):
        return {"error": {"class": "GenericError", "desc": answer.text}, **given}
    return {"return": answer, **given}


@contextmanager
def qmp_session(**answers: Any) -> Iterator[tuple[socket.socket, FakeQmp]]:
    """A connected socket with a fake monitor at its other end; `_` in names stands for `-`."""
    ours, theirs = socket.socketpair()
    fake = FakeQmp({name.replace("_", "-"): answer for name, answer in answers.items()})
    thread = threading.Thread(target=fake.serve, args=(theirs,), daemon=True)
    thread.start()
    try:
        yield ours, fake
    finally:
        ours.close()
        thread.join(5)
        assert not thread.is_alive()


def write_fake_qemu(directory: Path, body: str = "serve()") -> Path:
    """A program that finds its monitor's socket in its arguments, as QEMU does, and a `qemu-img` beside it.

    `body` is Python; in it `serve(**answers)` speaks QMP until `quit`, and `serial` is the path of the serial log.
    """
    program = directory / "qemu-system-x86_64"
    program.write_text(
        f"#!{sys.executable} -SE\n"
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from fake_qmp import *; from fake_qmp import child_parts\n"
        "serve, serial = child_parts(sys.argv)\n"
        f"{body}\n"
    )
    program.chmod(0o755)
    img = directory / "qemu-img"
    img.write_text('#!/bin/sh\nfor word; do case $word in *.qcow2) : >"$word";; esac; done\n')
    img.chmod(0o755)
    return program


def child_parts(argv: list[str]) -> tuple[Any, Path]:
    """What `write_fake_qemu` gives to its body."""
    fds = [word.split("fd=")[1] for word in argv if word.startswith("socket,id=monitor,fd=")]
    listening = [_value(word, "path") for word in argv if word.startswith("socket,id=monitor,path=")]
    serial = [_value(word, "path") for word in argv if word.startswith("file,id=serial,")]
    serial += [_value(word, "logfile") for word in argv if word.startswith("socket,id=serial,")]

    def serve(**answers: Any) -> None:
        monitor = FakeQmp({"human-monitor-command": USERNET})
        monitor.answers |= {name.replace("_", "-"): answer for name, answer in answers.items()}
        if fds:
            monitor.serve(socket.socket(fileno=int(fds[0])))
        else:
            _serve_all(monitor, listening[0])

    return serve, Path(serial[0])


def _serve_all(monitor: FakeQmp, path: str) -> None:
    """One client after the other, as QEMU has it, until one says `quit`."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while not any(request["execute"] == "quit" for request in monitor.asked):
            monitor.serve(server.accept()[0])


def _value(option: str, key: str) -> str:
    return next(part.removeprefix(f"{key}=") for part in option.split(",") if part.startswith(f"{key}="))
