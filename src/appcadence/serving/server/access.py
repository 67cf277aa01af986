"""Who may ask: the token, and what a server without one guards against."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from appcadence._inputs import check_private, open_input
from appcadence.errors import AppcadenceError
from appcadence.telemetry.addresses import is_loopback

MIN_TOKEN_CHARACTERS = 32
MIN_DISTINCT_CHARACTERS = 10
MAX_TOKEN_BYTES = 4096
_MAKE_ONE = "make one with: umask 077; openssl rand -hex 32 > FILE"


def read_token(file: Path) -> str:
    """The token in a file that its owner alone may read.

    Raises:
        AppcadenceError: others may read or write it, or it is too easy to guess.
        OSError: it cannot be read.
    """
    with open_input(file) as stream:
        check_private(file, stream, AppcadenceError)
        content = stream.read(MAX_TOKEN_BYTES + 1)
    token = content.decode("latin-1").strip()
    if len(content) > MAX_TOKEN_BYTES or not all("!" <= c <= "~" for c in token):
        raise AppcadenceError(f"{file} holds no token: one word of printable ASCII; {_MAKE_ONE}")
    if len(token) < MIN_TOKEN_CHARACTERS or len(set(token)) < MIN_DISTINCT_CHARACTERS:
        raise AppcadenceError(
            f"the token in {file} is easy to guess: {len(token)} characters, {len(set(token))} of them "
            f"distinct; it takes {MIN_TOKEN_CHARACTERS} and {MIN_DISTINCT_CHARACTERS}; {_MAKE_ONE}"
        )
    return token


def bears(authorization: str, token: str) -> bool:
    """Whether an Authorization header bears the token; takes as long whatever it is."""
    given = f"{authorization[:7].title()}{authorization[7:]}".encode()
    wanted = f"Bearer {token}".encode()
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(wanted).digest())


def names_loopback(host: str) -> bool:
    """Whether a Host header names this machine; a web page whose own name leads here has another there."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_loopback(name.strip("[]"))
