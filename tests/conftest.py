"""For all tests: signals as a terminal gives them, also under `nohup` or in a background job that ignores some."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Un-ignore what vmrunner, rightly, leaves ignored where it finds it so; children inherit it from here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
