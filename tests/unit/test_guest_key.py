"""The keys of a machine: the host key comes from the login key, and not the other way."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vmrunner.guest.key import HOST_KEY_CREDENTIAL, LoginKey, make_login_key


def test_each_machine_has_keys_of_its_own() -> None:
    one, other = make_login_key(), make_login_key()
    assert len({one.private, other.private}) == 2
    assert len({one.host_key, other.host_key, one.public, other.public}) == 4


def test_the_host_key_is_found_again_from_a_kept_login_key() -> None:
    key = make_login_key()
    assert LoginKey(key.private, key.public).host_key == key.host_key
    kind, text = key.host_key.split()
    assert kind == "ssh-ed25519"
    assert base64.b64decode(text)[4:15] == b"ssh-ed25519"


def test_the_credential_is_a_dropbear_key_file() -> None:
    """`string kind, string seed and public half` of dropbear's buf_put_ed25519_priv_key (src/ed25519.c)."""
    key = make_login_key()
    start = f"io.systemd.credential.binary:{HOST_KEY_CREDENTIAL}="
    assert key.host_key_credential.startswith(start)
    file = base64.b64decode(key.host_key_credential.removeprefix(start))
    assert file[:19] == b"\0\0\0\x0bssh-ed25519\0\0\0\x40"
    seed, public = file[19:51], file[51:]
    private = Ed25519PrivateKey.from_private_bytes(seed)
    assert private.public_key().public_bytes_raw() == public
    shown = private.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    assert shown.decode() == key.host_key


def test_the_guest_is_not_told_the_login_key() -> None:
    key = make_login_key()
    login = serialization.load_ssh_private_key(key.private.encode(), password=None)
    assert isinstance(login, Ed25519PrivateKey)
    assert base64.b64encode(login.private_bytes_raw()).decode()[:40] not in key.host_key_credential
    assert key.host_private_key.private_bytes_raw() != login.private_bytes_raw()
