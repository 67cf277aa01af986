"""Names replaced as logs are converted: display names by bundle ids, what tells of a person by hashes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from appcadence._files import read_bytes
from appcadence.errors import TelemetryError
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.inventory.sources import read_app_map
from appcadence.telemetry.schema import NAME

_LOCAL = (".local", ".lan", ".home", ".internal", ".localdomain", ".home.arpa")
_MIN_KEY_BYTES = 16


@dataclass(frozen=True)
class Renaming:
    """What to replace; empty = nothing."""

    apps: Mapping[str, str] = field(default_factory=dict)
    """Bundle ids by display name."""
    key: bytes | None = None
    """Key of the hashes that stand for device ids and user-chosen host names; None = keep them."""

    @classmethod
    def read(cls, app_map: Path | None, keyfile: Path | None) -> Renaming:
        """Read a CSV file with the columns app_name and app_id, and a file that holds a key.

        Raises:
            TelemetryError: a file cannot be read, a column or value is absent, one name has two ids, or the
                key is shorter than 16 bytes.
        """
        return cls(
            {} if app_map is None else read_app_map(app_map),
            None if keyfile is None else _key(keyfile),
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
            if "device_id" in columns:
                columns["device_id"] = _replaced(columns["device_id"], self.device)
            if "dest_host" in columns:
                columns["dest_host"] = _replaced(columns["dest_host"], self._host)
        return pa.table(columns).replace_schema_metadata(batch.schema.metadata)

    @property
    def fingerprint(self) -> str | None:
        """Tells keys apart without telling what they are; None = names are kept."""
        return None if self.key is None else self._hash("key", "")

    def check(self, directory: TelemetryDirectory) -> None:
        """Refuse a directory whose names were kept, or replaced by another key.

        Raises:
            TelemetryError: it does.
        """
        keys = {entry["key"] for entry in directory.sources if "key" in entry}
        if keys <= {self.fingerprint}:
            return
        if self.key is None:
            raise TelemetryError(
                f"{directory.path} holds pseudonyms, beside which no clear names may stand; give the key "
                "that it was made with, or another directory",
                "keyfile",
            )
        clear = None in keys
        what = "clear names, beside which pseudonyms hide nothing" if clear else "pseudonyms by another key"
        raise TelemetryError(f"{directory.path} holds {what}; convert into another directory", "keyfile")

    def device(self, name: str) -> str:
        """What stands for the name of a device."""
        return name if self.key is None else self._hash("device", name)

    def _hash(self, kind: str, name: str) -> str:
        digest = hmac.new(self.key or b"", f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()
        return f"{kind}-{digest[:16]}"

    def _host(self, name: str) -> str:
        """A name that people give to their own machines: of one label, or under a local domain."""
        own = name.endswith(_LOCAL) or "." not in name.strip(".")
        return self._hash("host", name) if own and name and ":" not in name else name


def _replaced(column: pa.ChunkedArray, new: Callable[[str], str]) -> pa.Array:
    """A name column with each distinct name replaced; several may become one."""
    array = one_array(column if pa.types.is_dictionary(column.type) else column.cast(NAME))
    names = pa.array([new(name) for name in array.dictionary.to_pylist()], pa.string())
    return names.take(array.indices).cast(NAME)


def _key(path: Path) -> bytes:
    try:
        key = read_bytes(path).strip()
    except OSError as error:
        raise TelemetryError(
            f"{path} cannot be read ({error.strerror}); expected a file with a key"
        ) from None
    if len(key) < _MIN_KEY_BYTES:
        raise TelemetryError(f"{path} holds {len(key)} bytes; a key has at least {_MIN_KEY_BYTES}")
    return key
