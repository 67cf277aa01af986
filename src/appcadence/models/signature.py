"""Signatures of bundles: Ed25519 (RFC 8032) over the manifest, which holds the checksum of every part.

The signature is the file `signature.json` of the bundle and not part of its id. The private key is a PEM file
that only its owner may read. The public key is text, "ed25519:" and 32 bytes in base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appcadence._extras import require
from appcadence._files import check_output, sync, write_text
from appcadence._inputs import check_private, open_input, read_bytes
from appcadence.config import KEY_PREFIX
from appcadence.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = "signature.json"
_PURPOSE = b"appcadence bundle manifest\0"
"""Prefix of the signed bytes, so that a signature for another purpose is not valid for a bundle."""
_MAX_BYTES = 4096


@dataclass(frozen=True)
class Trust:
    """Which bundles may be loaded; by default all that are whole and, if signed, signed correctly.

    Raises:
        BundleError: the keys are one text instead of a list.
    """

    model_id: str | None = None
    """The only id allowed; None = any."""
    keys: Sequence[str] = ()
    """Public keys, one of which must have signed; empty = unsigned bundles are allowed."""

    def __post_init__(self) -> None:
        # Of a text, any part would pass for a key.
        if isinstance(self.keys, str | bytes):
            raise BundleError(
                f"trusted_keys is of type {type(self.keys).__name__}; give a list of public keys"
            )

    def check(self, path: Path, manifest: bytes, identity: str) -> str | None:
        """The public key that signed a manifest; None = it is not signed.

        Raises:
            BundleError: the signature is wrong, or the bundle may not be loaded.
            MissingExtraError: it is signed, and `cryptography` is not installed.
        """
        if self.model_id is not None:
            if not re.fullmatch("[0-9a-f]{64}", wanted := self.model_id.strip().lower()):
                raise BundleError(
                    f"a model's id is 64 hexadecimal digits, got {self.model_id!r}", "expect_model"
                )
            if wanted != identity:
                raise BundleError(f"{path} has the id {identity}, not {wanted} as expected", "expect_model")
        signer = _signer(path / FILE, manifest)
        if not self.keys or signer in self.keys:
            return signer
        said = "is not signed" if signer is None else f"is signed by {signer}"
        raise BundleError(f"{path} {said}; only models that a trusted key signed are loaded")


ANY = Trust()


def make_key(path: str | Path) -> str:
    """Write a new private key to a new file that only its owner may read; return the public key.

    Raises:
        BundleError: the file exists.
        OSError: it cannot be written.
    """
    require("sign", "cryptography")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    try:
        handle = os.open(check_output(path, BundleError), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BundleError(f"{path} is there already; a key is never replaced: choose another file") from None
    with os.fdopen(handle, "wb") as stream:
        stream.write(text)
    sync(Path(path))
    return _text(key.public_key().public_bytes_raw())


def read_key(path: str | Path) -> Ed25519PrivateKey:
    """The private key in a file.

    Raises:
        BundleError: the file holds no key, or others may read it.
        OSError: it cannot be read.
    """
    require("sign", "cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with open_input(path) as stream:
        check_private(path, stream, BundleError)
        text = stream.read(_MAX_BYTES)
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise BundleError(f"{path} holds no Ed25519 key without a passphrase, in PEM; make one")
    return key


def sign(bundle: Path, manifest: bytes, key_file: str | Path) -> str:
    """Sign a manifest, replacing an earlier signature; return the public key.

    Raises:
        BundleError, OSError: as `read_key`, or the signature cannot be written.
    """
    key = read_key(key_file)
    signer = _text(key.public_key().public_bytes_raw())
    made = base64.b64encode(key.sign(_PURPOSE + manifest)).decode()
    write_text(bundle / FILE, json.dumps({"key": signer, "signature": made}, indent=1) + "\n")
    return signer


def _signer(file: Path, manifest: bytes) -> str | None:
    if not os.path.lexists(file):
        return None
    require("sign", "cryptography")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        said = json.loads(read_bytes(file, _MAX_BYTES))
        key, made = (
            base64.b64decode(said[name].removeprefix(KEY_PREFIX), validate=True)
            for name in ("key", "signature")
        )
        Ed25519PublicKey.from_public_bytes(key).verify(made, _PURPOSE + manifest)
    except InvalidSignature:
        raise BundleError(f"{file}: the signature is not of this model; copy the bundle again") from None
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError, binascii.Error):
        raise BundleError(f"{file} is no signature; copy the bundle again") from None
    return _text(key)


def _text(key: bytes) -> str:
    return KEY_PREFIX + base64.b64encode(key).decode()
