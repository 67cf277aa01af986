"""Host names and addresses as logs write them, in canonical form; of a URL nothing but its host is kept."""

from __future__ import annotations

import ipaddress
import re

import pyarrow as pa

from appcadence.telemetry.readers._flows import translate

_LITERAL = re.compile(r"[0-9.]+|.*:.*|\[.*")
_URL = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


def host_name(text: str | None) -> str | None:
    """A host name in canonical form: lower case, without port and trailing dot; None for an address.

    >>> host_name("WWW.Example.com.:8080"), host_name("192.0.2.1:80"), host_name("[2001:db8::1]")
    ('www.example.com', None, None)
    """
    name = re.sub(r":\d*$", "", (text or "").strip().lower()).rstrip(".")
    return None if not name or _LITERAL.fullmatch(name) else name


def address(text: str) -> str | None:
    """An IP address in canonical form, any other text as it is; None for no text.

    >>> address("2001:0DB8:0000::0001"), address("192.0.2.1 ")
    ('2001:db8::1', '192.0.2.1')
    """
    text = text.strip()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text or None


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip())
    except ValueError:
        return False
    return True


def without_path(text: str) -> str:
    """What stands before the path of a URL, without scheme and user.

    >>> without_path("https://user:key@api.example.com:8443/v1?token=x#y")
    'api.example.com:8443'
    """
    text = re.split(r"[/?#\\]", _URL.sub("", text.strip()), maxsplit=1)[0]
    return text.rpartition("@")[2]


def parts(destination: pa.Array | pa.ChunkedArray) -> tuple[pa.DictionaryArray, pa.DictionaryArray]:
    """The host names and the addresses of destinations that may be either, URLs too; of a URL no more
    than that is kept."""
    hosts = translate(destination, lambda text: host_name(without_path(text)))
    literal = translate(destination, lambda text: _literal(without_path(text)))
    return hosts, literal


def _literal(text: str) -> str | None:
    bare = re.sub(r"^\[(.*)\](:\d*)?$", r"\1", text)
    for candidate in (bare, re.sub(r":\d*$", "", bare)):
        if is_address(candidate):
            return address(candidate)
    return None
