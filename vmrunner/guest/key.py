"""The login key of one machine: made for it, handed over at boot, gone with it."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CREDENTIAL = "ssh.authorized_keys.root"
"""The system credential that systemd writes to root's authorized_keys (systemd.system-credentials(7))."""


@dataclass(frozen=True)
class LoginKey:
    """An ed25519 key pair: the private half in OpenSSH's PEM form, the public half as one `authorized_keys` line."""

    private: str
    public: str


def make_login_key() -> LoginKey:
    """Make a fresh key pair."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return LoginKey(private.decode(), f"{public.decode()} vmrunner\n")
