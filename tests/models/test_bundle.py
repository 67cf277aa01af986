"""A bundle is whole and of this schema, or it is refused."""

import contextlib
import hashlib
import io
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from handmade import calibration, detector
from hypothesis import given, settings
from hypothesis import strategies as st

from appcadence.errors import BundleError
from appcadence.features.catalog import NAMES
from appcadence.models import bundle
from appcadence.models.eligibility import STRATA
from appcadence.models.reference import BINS, DECILES, Reference

WIDE = len(NAMES) * BINS


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "model"
    bundle.save(heard(), path)
    return path


def heard(**parts):
    """A detector that reaches what it was calibrated on, 40 units in ten device-days."""
    return detector(**{"calibration": dict.fromkeys(STRATA, calibration(40))} | parts)


def test_every_altered_part_is_refused(saved, tmp_path):
    for part in sorted(p.name for p in saved.iterdir()):
        copy = tmp_path / part
        shutil.copytree(saved, copy)
        data = bytearray((copy / part).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / part).write_bytes(data)
        if part == bundle.MANIFEST:
            # The manifest vouches for the parts; a change of it changes the id, or is refused.
            with contextlib.suppress(BundleError):
                assert bundle.load(copy)[1] != bundle.load(saved)[1]
            continue
        with pytest.raises(BundleError, match="altered"):
            bundle.load(copy)
        (copy / part).unlink()
        with pytest.raises(BundleError, match="missing"):
            bundle.load(copy)


def test_another_feature_schema_is_refused_with_both_versions(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "old")
    manifest = json.loads((saved / bundle.MANIFEST).read_text())
    (tmp_path / "old" / bundle.MANIFEST).write_text(json.dumps(manifest | {"feature_schema": "cafe"}))
    with pytest.raises(BundleError, match=f"cafe.*{manifest['feature_schema']}"):
        bundle.load(tmp_path / "old")


def test_a_damaged_list_of_features_is_no_other_schema(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "damaged")
    text = (saved / bundle.MANIFEST).read_text()
    (tmp_path / "damaged" / bundle.MANIFEST).write_text(text.replace(f'"{NAMES[2]}"', f'"{NAMES[2]}x"'))
    with pytest.raises(BundleError, match=r"manifest.json is damaged .*copy the bundle again"):
        bundle.load(tmp_path / "damaged")


@pytest.mark.parametrize(("change", "said"), [(-1, "format 5, this version reads 6"), (1, "format 7")])
def test_another_format_is_refused(saved, tmp_path, change, said):
    shutil.copytree(saved, tmp_path / "other")
    manifest = json.loads((saved / bundle.MANIFEST).read_text())
    other = manifest | {"format": bundle.FORMAT + change}
    (tmp_path / "other" / bundle.MANIFEST).write_text(json.dumps(other))
    with pytest.raises(BundleError, match=said):
        bundle.load(tmp_path / "other")


def test_a_bundle_is_read_as_it_was_saved(saved, tmp_path):
    read, identity = bundle.load(saved)
    assert bundle.save(read, tmp_path / "again") == identity
    for part in saved.iterdir():
        assert (tmp_path / "again" / part.name).read_bytes() == part.read_bytes()


def resealed(saved, copy, part, data):
    """A copy of a bundle whose manifest vouches for another part."""
    shutil.copytree(saved, copy)
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    manifest["parts"][part] = hashlib.sha256(data).hexdigest()
    (copy / part).write_bytes(data)
    (copy / bundle.MANIFEST).write_text(json.dumps(manifest))
    return copy


def test_weights_that_are_no_numbers_are_refused(saved, tmp_path):
    with np.load(saved / "arrays.npz") as archive:
        arrays = dict(archive)
    for wrong in ([[np.nan, 1.0]] * 3, [[1.0, np.inf]] * 3, [1.0, 1.0]):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays | {"weights": np.array(wrong)})
        copy = resealed(saved, tmp_path / str(wrong[0]), "arrays.npz", buffer.getvalue())
        with pytest.raises(BundleError, match="weights are not 3 x 2 finite numbers") as error:
            bundle.load(copy)
        assert str(error.value).startswith(f"the model {copy}: ")


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damage_that_the_manifest_vouches_for_is_one_sentence(saved, tmp_path_factory, data):
    part = data.draw(st.sampled_from(sorted(p.name for p in saved.iterdir() if p.suffix != ".json")))
    whole = bytearray((saved / part).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)) | st.none())
    copy = resealed(saved, tmp_path_factory.mktemp("damaged") / "model", part, bytes(whole[:cut]))
    try:
        bundle.load(copy)
    except BundleError as error:
        assert str(copy) in str(error)


@pytest.mark.parametrize(
    "odd", [pa.array([1.0] * WIDE), pa.array([np.nan] * WIDE), pa.nulls(WIDE, pa.int32())]
)
def test_a_drift_reference_holds_counts_alone(odd):
    counts = np.ones((1, len(NAMES), BINS), np.int64)
    table = Reference(np.zeros((len(NAMES), DECILES)), pd.Index(["phone"]), counts, np.ones(1), 0).to_arrow()
    again = Reference.from_arrow(table, np.zeros((len(NAMES), DECILES)), 0)
    assert (again.counts == counts).all() and again.attributed.tolist() == [1]
    for place, column in (1, odd.slice(0, 1)), (2, pa.FixedSizeListArray.from_arrays(odd, WIDE)):
        damaged = table.set_column(place, table.column_names[place], column)
        with pytest.raises(BundleError, match="not all whole numbers"):
            Reference.from_arrow(damaged, np.zeros((len(NAMES), DECILES)), 0)
