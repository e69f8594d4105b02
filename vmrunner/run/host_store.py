"""Whether a run's machine can see this host's Nix store, and whether its programs need to."""

from __future__ import annotations

from pathlib import Path

from vmrunner.config.model import Config
from vmrunner.host.nix_store import builds_into_store, find_host_store
from vmrunner.nextest.preflight import StoreNeeds


def shared_store(config: Config, needs: StoreNeeds | None) -> Path | None:
    """The store that a new machine gets as a share; None for none.

    `needs` is None as long as the archive is not known: then `auto` guesses. A machine that need not have it is better
    off without: another device is another memory template.
    """
    store = find_host_store()
    if store is None or config.nix_store in ("copy", "off"):
        return None
    if config.nix_store == "auto":
        if needs is None:
            wanted = config.archive is not None or builds_into_store(store)
        else:
            wanted = bool(needs.from_host)
        return store.directory if wanted else None
    return store.directory


def lays_store(config: Config, needs: StoreNeeds, *, shared: bool) -> bool:
    """Whether the programs of the run are to see the host's store: where they need it, or it was asked for.

    `shared`: the machine can; a long-lived one may have been made with other settings than the run's.
    """
    return shared and config.nix_store != "off" and (bool(needs.from_host) or config.nix_store == "share")
