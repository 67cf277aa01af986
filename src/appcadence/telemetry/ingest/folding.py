"""Parts of apps counted for their app during conversion, whatever the reader; the id as logged is kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.app_ids import WORKS_FOR_OTHERS, app_of
from appcadence.telemetry.names import encode, translate, value_of
from appcadence.telemetry.schema import DIRECTORY_TABLES

RAW = "source_app_id"


class Folding:
    """Folds ids by the apps that inventories have named so far, in the directory or in this conversion."""

    def __init__(self, installed: Iterable[str] = ()) -> None:
        self._installed = set(installed)

    def apply(self, table: str, batch: pa.Table) -> pa.Table:
        """The batch with each id folded, and the id as logged in `source_app_id`; metadata is kept.

        Display names are not ids and stay. A process that works for others gets the attribution "process".
        """
        if "app_id" not in batch.column_names:
            return batch
        if table == "inventory":
            self._installed.update(encode(batch["app_id"]).dictionary.to_pylist())
            return batch
        raw = encode(batch["app_id"])
        folded = translate(raw, lambda name: app_of(name, self._installed))
        if "app_attribution" in batch.column_names:
            how = batch["app_attribution"].cast(pa.string()).combine_chunks()
            shown = pc.equal(how, "display_name")
            folded = encode(pc.if_else(shown, raw.cast(pa.string()), folded.cast(pa.string())))
            serves = value_of(folded, lambda name: name in WORKS_FOR_OTHERS, False)
            exact = np.asarray(pc.equal(how, "exact"))
            how = pc.if_else(pa.array(serves & exact), "process", how)
            batch = _with(batch, "app_attribution", how)
        if any(column.name == RAW for column in DIRECTORY_TABLES[table].columns):
            batch = _with(batch, RAW, _raw(batch, raw, folded))
        return _with(batch, "app_id", folded)


def _raw(batch: pa.Table, raw: pa.DictionaryArray, folded: pa.DictionaryArray) -> pa.Array:
    """What the source called each app, null where that is its id; a column of the reader takes precedence."""
    before, after = raw.cast(pa.string()), folded.cast(pa.string())
    as_logged = pc.if_else(pc.fill_null(pc.not_equal(before, after), False), before, None)
    if RAW not in batch.column_names:
        return as_logged
    return pc.coalesce(batch[RAW].cast(pa.string()).combine_chunks(), as_logged)


def _with(batch: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = batch.schema.get_field_index(name)
    return batch.append_column(name, column) if place < 0 else batch.set_column(place, name, column)
