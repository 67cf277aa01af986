"""A bundle is whole and of this schema, or it is refused."""

import contextlib
import json
import shutil

import pytest
from handmade import detector

from appcadence.errors import BundleError
from appcadence.models import bundle


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "model"
    bundle.save(detector(), path)
    return path


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


@pytest.mark.parametrize(("change", "said"), [(-1, "format 4, this version reads 5"), (1, "format 6")])
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
