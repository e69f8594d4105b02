"""The keys of one machine: made for it, handed over at boot, gone with it.

One secret is kept, the login key; the guest's host key is derived from it. So whoever may log in also knows whom to
expect, and no image carries a key that others have too.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CREDENTIAL: Final = "ssh.authorized_keys.root"
"""The system credential that systemd writes to root's authorized_keys (systemd.system-credentials(7))."""

HOST_KEY_CREDENTIAL: Final = "vmrunner.ssh_host_key"
"""The system credential that the guest's SSH server reads as its host key, in dropbear's form."""

_KIND: Final = b"ssh-ed25519"
_SEED_BYTES: Final = 32


@dataclass(frozen=True)
class LoginKey:
    """An ed25519 key pair: the private half in OpenSSH's PEM form, the public half as one `authorized_keys` line."""

    private: str
    public: str

    @cached_property
    def host_key(self) -> str:
        """The public half of the guest's host key: kind and key, without a comment."""
        public = self.host_private_key.public_key()
        line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return line.decode()

    @property
    def host_private_key(self) -> Ed25519PrivateKey:
        """The guest's host key. HKDF (RFC 5869) goes one way: who has it does not have the login key."""
        login = serialization.load_ssh_private_key(self.private.encode(), password=None)
        assert isinstance(login, Ed25519PrivateKey)
        derivation = HKDF(hashes.SHA256(), _SEED_BYTES, salt=None, info=HOST_KEY_CREDENTIAL.encode())
        return Ed25519PrivateKey.from_private_bytes(derivation.derive(login.private_bytes_raw()))

    @property
    def host_key_credential(self) -> str:
        """What tells a systemd guest its host key, as an SMBIOS type 11 string (systemd.system-credentials(7))."""
        encoded = base64.b64encode(_as_dropbear(self.host_private_key)).decode()
        return f"io.systemd.credential.binary:{HOST_KEY_CREDENTIAL}={encoded}"


def make_login_key() -> LoginKey:
    """Make a fresh key pair."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return LoginKey(private.decode(), f"{public.decode()} vmrunner\n")


def _as_dropbear(key: Ed25519PrivateKey) -> bytes:
    """A private key as dropbear keeps it: the kind, then seed and public half as one (buf_put_ed25519_priv_key)."""
    halves = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return b"".join(struct.pack(">I", len(part)) + part for part in (_KIND, halves))
