"""Names replaced during conversion: display names by bundle ids, names that point to a person by hashes."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from appcadence._inputs import check_private, open_input
from appcadence.errors import TelemetryError
from appcadence.telemetry.addresses import LOCAL_DOMAINS, LOCAL_NETWORKS, Network, is_local, is_within, parsed
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.inventory.sources import read_app_map
from appcadence.telemetry.schema import NAME

_log = logging.getLogger(__name__)
_LOCAL = (
    *LOCAL_DOMAINS,
    *(".intranet", ".corp", ".private", ".fritz.box", ".in-addr.arpa", ".ip6.arpa"),
)
_PRIVATE = LOCAL_NETWORKS[:6]
"""Private and link-local networks; loopback, multicast and broadcast point to nobody."""
_MIN_KEY_BYTES = 16
_MIN_DISTINCT_BYTES = 8
_MAX_KEY_BYTES = 4096
_FORM = "2"
"""The version of what is replaced and how; the first had no number, and kept addresses and file names."""


@dataclass(frozen=True)
class Renaming:
    """What to replace; empty = nothing."""

    apps: Mapping[str, str] = field(default_factory=dict)
    """Bundle ids by display name."""
    key: bytes | None = None
    """Key of the hashes that stand for names of people's devices, machines and files; None = keep them."""
    local_nets: tuple[Network, ...] = ()
    """Where the monitored devices are, besides the networks that are always local."""

    @classmethod
    def read(
        cls, app_map: Path | None, keyfile: Path | None, local_nets: tuple[Network, ...] = ()
    ) -> Renaming:
        """Read a CSV file with the columns app_name and app_id, and a file that holds a key.

        Raises:
            TelemetryError: a file cannot be read, a column or value is absent, one name has two ids, or the
                key is shorter than 16 bytes or easy to guess.
        """
        return cls(
            {} if app_map is None else read_app_map(app_map),
            None if keyfile is None else _key(keyfile),
            local_nets,
        )

    def apply(self, batch: pa.Table) -> pa.Table:
        """The batch with its names replaced; metadata is kept."""
        columns = {name: batch[name] for name in batch.column_names}
        if self.apps and "app_attribution" in columns:
            shown = pc.equal(columns["app_attribution"].cast(pa.string()), "display_name")
            named = _replaced(columns["app_id"], lambda name: self.apps.get(name, name))
            columns["app_id"] = pc.if_else(
                shown, named.cast(pa.string()), columns["app_id"].cast(pa.string())
            ).cast(NAME)
        if self.key is not None:
            column = columns.get("device_id", pa.array([], pa.string()))
            devices = frozenset(column.unique().cast(pa.string()).to_pylist())
            new = {
                "device_id": self.device,
                "dest_host": lambda name: self._host(name, devices),
                "dest_ip": lambda name: self._address(name, devices),
                "file": self.file,
            }
            for name in new.keys() & columns.keys():
                columns[name] = _replaced(columns[name], new[name])
        return pa.table(columns).replace_schema_metadata(batch.schema.metadata)

    @property
    def fingerprint(self) -> str | None:
        """Distinguishes keys without revealing them; None = names are kept."""
        return None if self.key is None else self._hash("key", _FORM)

    def check(self, directory: TelemetryDirectory) -> None:
        """Refuse a directory whose names were kept, or replaced with another key.

        Raises:
            TelemetryError: the directory is such a one.
        """
        keys = {entry["key"] for entry in directory.sources if "key" in entry}
        if keys <= {self.fingerprint}:
            return
        if self.key is None:
            raise TelemetryError(
                f"{directory.path} holds pseudonyms, which must not be mixed with clear names; give the key "
                "that it was made with, or another directory",
                "keyfile",
            )
        if self._hash("key", "") in keys:
            raise TelemetryError(
                f"{directory.path} holds pseudonyms of an older form, which hides less; convert the logs "
                "again, into another directory"
            )
        clear = None in keys
        what = "clear names, beside which pseudonyms hide nothing" if clear else "pseudonyms by another key"
        raise TelemetryError(f"{directory.path} holds {what}; convert into another directory", "keyfile")

    def device(self, name: str) -> str:
        """The replacement for the name of a device."""
        return name if self.key is None else self._hash("device", name)

    def file(self, name: str) -> str:
        """The replacement for the name of a file, which often names a person or a device."""
        return name if self.key is None else self._hash("file", name)

    def _hash(self, kind: str, name: str) -> str:
        return f"{kind}-{self._digest(kind, name).hex()[:16]}"

    def _digest(self, kind: str, name: str) -> bytes:
        # A name may have bytes that cannot be decoded.
        text = f"{kind}\0{name}".encode(errors="surrogateescape")
        return hmac.new(self.key or b"", text, hashlib.sha256).digest()

    def _host(self, name: str, devices: frozenset[str]) -> str:
        """The replacement for a name of people's own machines: one label, or under a local domain."""
        if parsed(name.partition("%")[0]) is not None:
            return self._address(name, devices)
        plain = name.rstrip(".").lower()
        if not plain or not (plain.endswith(_LOCAL) or "." not in plain):
            return name
        return self._hash("host", name) + (".local" if is_local(name) else "")

    def _address(self, name: str, devices: frozenset[str]) -> str:
        """A local address to replace that of a monitored device or a machine on its networks."""
        address = name.partition("%")[0]
        own = name in devices or is_within(address, (*_PRIVATE, *self.local_nets))
        digest = self._digest("address", name)
        return str(ipaddress.IPv6Address(b"\xfd" + digest[:15])) if own else name


def _replaced(column: pa.ChunkedArray, new: Callable[[str], str]) -> pa.Array:
    """A name column with each distinct name replaced; several may become one."""
    array = one_array(column if pa.types.is_dictionary(column.type) else column.cast(NAME))
    names = pa.array([new(name) for name in array.dictionary.to_pylist()], pa.string())
    return names.take(array.indices).cast(NAME)


def _key(path: Path) -> bytes:
    try:
        with open_input(path) as stream:
            key = stream.read(_MAX_KEY_BYTES).strip()
            try:
                check_private(path, stream, TelemetryError)
            except TelemetryError as error:  # who has read it can also undo later replacements
                _log.warning("appcadence: warning: %s", error)
    except OSError as error:
        raise TelemetryError(
            f"{path} cannot be read ({error.strerror}); expected a file with a key"
        ) from None
    if len(key) < _MIN_KEY_BYTES:
        raise TelemetryError(f"{path} holds {len(key)} bytes; a key needs at least {_MIN_KEY_BYTES}")
    if len(set(key)) < _MIN_DISTINCT_BYTES or key in (key + key)[1:-1]:
        raise TelemetryError(
            f"the key in {path} is easy to guess: it repeats itself, or has few different bytes; make one: "
            "(umask 077; head -c 32 /dev/urandom > key)"
        )
    return key
