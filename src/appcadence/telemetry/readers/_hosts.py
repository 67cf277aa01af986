"""Host names and addresses as logs write them, in canonical form; of a URL only the host is kept."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from appcadence._types import Mask
from appcadence.telemetry.addresses import canonical, is_address
from appcadence.telemetry.names import Column, translate, value_of

MAX_HOST = 253
"""Characters of a DNS name (RFC 1035). A client may state a longer one, which names nothing."""
TOO_LONG = f"the host name is longer than {MAX_HOST} characters"
_LITERAL = re.compile(r"[0-9.]+|.*:.*|\[.*")
_SCHEMES = {"http": "80", "https": "443", "ftp": "21"}
_PORT = re.compile(r"(\d+)(?:\.0+|/[A-Za-z]+| ?\([\w-]+\))|[A-Za-z][\w-]* ?\((\d+)\)", re.ASCII)
"""A port as spreadsheets write it ("443.0"), with its protocol, or beside the name of its service."""
_ENDS = re.compile(r"^\[(.*)\](:\d*)?$")
_WHOLE = re.compile(r"/(32|128)$")
_URL = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


def host_name(text: str | None) -> str | None:
    """A host name in canonical form: lower case, without port and trailing dot; None for an address.

    >>> host_name("WWW.Example.com.:8080"), host_name("192.0.2.1:80"), host_name("[2001:db8::1]")
    ('www.example.com', None, None)
    """
    name = re.sub(r":\d*$", "", (text or "").strip().lower()).rstrip(".")
    return None if not name or _LITERAL.fullmatch(name) else name


def names_host(text: str) -> bool:
    """Whether a name or a URL names a host, and not its address."""
    return host_name(without_path(text)) is not None


def too_long(hosts: Column) -> Mask:
    """(n,) which names are longer than a host name may be."""
    return np.asarray(value_of(hosts, lambda text: len(host_name(text) or "") > MAX_HOST, False))


def without_path(text: str) -> str:
    """The part of a URL before its path, without scheme and user.

    >>> without_path("https://user:key@api.example.com:8443/v1?token=x#y")
    'api.example.com:8443'
    """
    text = re.split(r"[/?#\\]", _URL.sub("", text.strip()), maxsplit=1)[0]
    return text.rpartition("@")[2]


def url_port(text: str) -> str | None:
    """The port that a URL names or that its scheme implies; None if it has neither.

    >>> url_port("https://api.example.com/v1"), url_port("[2001:db8::1]:8443"), url_port("192.0.2.1")
    ('443', '8443', None)
    """
    end = re.search(r"(?:^|[^:]|\]):(\d{1,5})$", without_path(text))
    return end[1] if end else _SCHEMES.get(text.partition("://")[0].strip().lower())


def port(text: str) -> str | None:
    """The port in a number, a URL or an address; None if a URL names none or the number is a type of ICMP;
    otherwise the text itself.

    >>> port("0x1bb"), port("443.0"), port("443/tcp"), port("https (443)"), port("https://api.example.com/v1")
    ('443', '443', '443', '443', '443')
    >>> port("8.3"), port("x")
    (None, 'x')
    """
    if text.lower().startswith("0x"):
        try:
            return str(int(text, 16))
        except ValueError:
            return text
    if said := _PORT.fullmatch(text):
        return said[1] or said[2]
    # A URL need not name a port, and ICMP has a type such as "8.3" instead.
    return text if text.lstrip("-").isdigit() else url_port(text) or (None if set("./") & set(text) else text)


def parts(destination: Column) -> tuple[pa.DictionaryArray, pa.DictionaryArray]:
    """The host names and the addresses of destinations that may be either, or URLs, of which no more than
    that is kept."""
    hosts = translate(destination, lambda text: host_name(without_path(text)))
    literal = translate(destination, lambda text: _literal(without_path(text)))
    return hosts, literal


def address(text: str) -> str | None:
    """As `canonical`, but also for an address in brackets, with a port, or as a network of one address.

    >>> address("[2001:DB8::1]:443"), address("192.0.2.1:443"), address("192.0.2.1/32"), address("x")
    ('2001:db8::1', '192.0.2.1', '192.0.2.1', 'x')
    """
    found = canonical(text)
    return found if found is None or is_address(found) else _literal(_WHOLE.sub("", text)) or found


def _literal(text: str) -> str | None:
    bare = _ENDS.sub(r"\1", text)
    return next((canonical(t) for t in (bare, re.sub(r":\d*$", "", bare)) if is_address(t)), None)
