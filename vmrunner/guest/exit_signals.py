"""Which signal ended a remote command: the part of SSH's session protocol that paramiko leaves out.

sshd tells how a command ended by one of two requests on its channel (RFC 4254, 6.10): `exit-status` with a number, or
`exit-signal` with the name of a signal. paramiko knows the first only, and says -1 for the second.
"""

from __future__ import annotations

import signal
from typing import Any, ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST


class SignalAwareTransport(paramiko.Transport):
    """A paramiko transport that remembers the signals which ended commands."""

    # paramiko has no public place for channel requests of the other side; a test with a killed command holds this.
    _channel_handler_table: ClassVar[dict[int, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- paramiko's own
        super().__init__(*args, **kwargs)
        self.exit_signals: dict[int, str] = {}


def signal_that_ended(channel: paramiko.Channel) -> int | None:
    """The number of the signal that ended the channel's command; None where it was none, or not one of this system's."""
    transport = channel.get_transport()
    if not isinstance(transport, SignalAwareTransport):
        return None
    name = transport.exit_signals.get(channel.get_id())
    return getattr(signal.Signals, f"SIG{name}", None) if name else None


def _handle_request(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Note an `exit-signal`, and hand everything else to paramiko."""
    ahead = paramiko.Message(message.get_remainder())
    if ahead.get_text() == "exit-signal":
        ahead.get_boolean()
        transport = channel.get_transport()
        assert isinstance(transport, SignalAwareTransport)
        transport.exit_signals[channel.get_id()] = ahead.get_text()
    else:
        channel._handle_request(message)  # type: ignore[attr-defined]  # left out of the stubs


SignalAwareTransport._channel_handler_table = {
    **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # left out of the stubs
    MSG_CHANNEL_REQUEST: _handle_request,
}
