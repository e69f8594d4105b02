"""What the files of nix/ evaluate to, with the stand-in for nixpkgs: Nix is asked once for all tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from nix_store import STAND_IN, NixStore

NIX: Final = Path(__file__).resolve().parents[2] / "nix"
SAMPLES: Final = Path(__file__).parent / "samples"

Values = dict[str, Any]


@pytest.fixture(scope="session")
def nix_values(nix_store: NixStore) -> Values:
    """The value of samples/nix_values.nix."""
    values: Values = nix_store.evaluate(
        # Paths that come out are there to be looked at.
        *("--read-write-mode", SAMPLES / "nix_values.nix"),
        *("--argstr", "nix", NIX, "--argstr", "nixpkgs", STAND_IN),
        # Without a Debian image, so that nothing is built to find out what is in it.
        environment={"NIXPKGS_STAND_IN_IMAGE": ""},
    )
    return values
