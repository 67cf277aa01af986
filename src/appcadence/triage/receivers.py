"""Where alerts are sent: a syslog server (RFC 5424) or a webhook, and what each can know of the outcome."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from appcadence._version import VERSION
from appcadence.errors import AppcadenceError
from appcadence.telemetry.addresses import is_loopback

TIMEOUT_SECONDS = 10.0
"""For each step of talking to a receiver."""
_FACILITY = 16  # local0
_SYSLOG_SEVERITY = {"low": 5, "medium": 4, "high": 2}
_UNSURE_STATUS = (502, 504)
"""HTTP statuses of a proxy that does not know what the server behind it did."""
_MAX_ANSWER_BYTES = 1 << 16


class NotTaken(Exception):
    """The receiver certainly did not take a document.

    Attributes:
        all: nothing else would be taken now, either.
    """

    def __init__(self, why: str, *, all: bool) -> None:
        super().__init__(why)
        self.all = all


@dataclass(frozen=True)
class Syslog:
    """A syslog server: RFC 5424 over TCP with octet counting (RFC 6587), a connection a message, or UDP.

    Syslog has no answer. Over TCP a message counts as taken when the server has closed the connection cleanly
    after it; over UDP, when it has been sent.
    """

    host: str
    port: int
    udp: bool = False

    @property
    def identity(self) -> str:
        """The name of this receiver in the ledger."""
        return self.place

    @property
    def place(self) -> str:
        """The name of it in messages: without a path, which may hold a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"syslog {'udp' if self.udp else 'tcp'}://{host}:{self.port}"

    def send(self, document: Mapping[str, Any], key: str) -> None:
        """Send one document and return when it is taken.

        Raises:
            NotTaken: it was not.
            OSError, http.client.HTTPException: nobody can know.
        """
        message = syslog_message(document)
        if self.udp:
            self._send_datagram(message)
            return
        try:
            connection = socket.create_connection((self.host, self.port), TIMEOUT_SECONDS)
        except OSError as error:
            raise NotTaken(_reason(error), all=True) from None
        with connection:
            connection.sendall(b"%d %b" % (len(message), message))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    def _send_datagram(self, message: bytes) -> None:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as sender:
                sender.sendto(message, address)
        except OSError as error:
            raise NotTaken(_reason(error), all=False) from None


@dataclass(frozen=True)
class Webhook:
    """An address that takes a document by POST, as JSON, with its key as `Idempotency-Key`.

    Any status of 200 to 299 says that it took it. Redirects are not followed, and TLS is verified.
    """

    url: str

    @property
    def identity(self) -> str:
        return f"webhook {self.url}"

    @property
    def place(self) -> str:
        parts = urlsplit(self.url)
        return f"webhook {parts.scheme}://{parts.netloc}"

    def send(self, document: Mapping[str, Any], key: str) -> None:
        parts = urlsplit(self.url)
        connection = _connection(parts)
        try:
            try:
                connection.connect()
            except (OSError, http.client.HTTPException) as error:
                raise NotTaken(_reason(error), all=True) from None
            headers = {
                "Content-Type": "application/json",
                "Idempotency-Key": key,
                "User-Agent": f"appcadence/{VERSION}",
            }
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, json.dumps(document).encode(), headers)
            answer = connection.getresponse()
            answer.read(_MAX_ANSWER_BYTES)
        finally:
            connection.close()
        if answer.status in _UNSURE_STATUS:
            raise OSError(f"it answered {answer.status}")
        if not 200 <= answer.status < 300:
            raise NotTaken(f"it answered {answer.status}", all=answer.status >= 500 or answer.status == 429)


Receiver = Syslog | Webhook


def syslog_message(document: Mapping[str, Any]) -> bytes:
    """An ECS document as an RFC 5424 message: its status as MSGID, and itself, as ASCII JSON, as the text."""
    own = document.get("appcadence", {})
    priority = _FACILITY * 8 + _SYSLOG_SEVERITY.get(own.get("severity"), _SYSLOG_SEVERITY["low"])
    host = "".join(c for c in socket.gethostname() if "!" <= c <= "~")[:255] or "-"
    time, status = document.get("@timestamp", "-"), own.get("status", "new")
    head = f"<{priority}>1 {time} {host} appcadence - {status} - "
    return (head + json.dumps(document, separators=(",", ":"))).encode()


def syslog(text: str, *, allow_remote: bool = False) -> Syslog:
    """The receiver of HOST:PORT, or of tcp://HOST:PORT or udp://HOST:PORT.

    Raises:
        AppcadenceError: it is none, or another machine and that is not allowed.
    """
    parts = _split(text if "://" in text else f"tcp://{text}", "syslog")
    more = parts.path or parts.query or parts.fragment or parts.username is not None
    if parts.scheme not in ("tcp", "udp") or parts.port is None or more:
        raise AppcadenceError(
            f"{text!r} is not a syslog server; expected HOST:PORT or udp://HOST:PORT", "syslog"
        )
    host = _allowed(parts, allow_remote, "syslog")
    return Syslog(host, parts.port, parts.scheme == "udp")


def webhook(text: str, *, allow_remote: bool = False) -> Webhook:
    """The receiver of a URL.

    Raises:
        AppcadenceError: it is no http or https URL, or another machine and that is not allowed.
    """
    parts = _split(text, "webhook")
    sound = parts.scheme in ("http", "https") and not parts.fragment and parts.username is None
    if not sound or not all("!" <= c <= "~" for c in text):
        raise AppcadenceError(
            "the webhook is no URL to post to; expected http:// or https://, without a user or a fragment",
            "webhook",
        )
    _allowed(parts, allow_remote, "webhook")
    return Webhook(text)


def _split(text: str, argument: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port, (parts.hostname or "").encode("idna")  # which fail where they are none
    except ValueError as error:
        raise AppcadenceError(f"the {argument} receiver is no address ({error})", argument) from None
    return parts


def _allowed(parts: SplitResult, allow_remote: bool, argument: str) -> str:
    host = parts.hostname
    if not host:
        raise AppcadenceError(f"the {argument} receiver names no host", argument)
    if not allow_remote and not is_loopback(host):
        raise AppcadenceError(
            f"the {argument} receiver {host} is another machine, to which alerts are sent only where that is "
            "allowed",
            "allow_remote",
        )
    return host


def _connection(parts: SplitResult) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_SECONDS, context=context)
    return http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
