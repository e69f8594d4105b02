"""Which signal ended a remote command: the part of SSH's session protocol that paramiko leaves out.

sshd tells how a command ended by one of two requests on its channel (RFC 4254, 6.10): `exit-status` with a number, or
`exit-signal` with the name of a signal. paramiko knows the first only, and says -1 for the second.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import paramiko

# Transport -> channel id -> name of the signal.
_SIGNALS: WeakKeyDictionary[paramiko.Transport, dict[int, str]] = WeakKeyDictionary()


def heed_exit_signals(transport: paramiko.Transport) -> None:
    """Have the transport remember the signals that end commands on it; call it before its first channel."""
    from paramiko.common import MSG_CHANNEL_REQUEST

    _SIGNALS[transport] = {}
    # paramiko has no public place for channel requests of the other side; a test with a killed command holds this.
    transport._channel_handler_table = {  # type: ignore[attr-defined]  # left out of the stubs
        **transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_REQUEST: _handle_request,
    }


def signal_that_ended(channel: paramiko.Channel) -> int | None:
    """The number of the signal that ended the channel's command; None where it was none, or not one of this system's."""
    name = _SIGNALS.get(channel.get_transport(), {}).get(channel.get_id())
    return getattr(signal.Signals, f"SIG{name}", None) if name else None


def _handle_request(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Note an `exit-signal`, and hand everything else to paramiko."""
    import paramiko

    ahead = paramiko.Message(message.get_remainder())
    if ahead.get_text() == "exit-signal":
        ahead.get_boolean()
        _SIGNALS[channel.get_transport()][channel.get_id()] = ahead.get_text()
    else:
        channel._handle_request(message)  # type: ignore[attr-defined]  # left out of the stubs
