"""The reference model: equal builds give equal bytes, and what is shipped knows nobody."""

import re

import make_reference as made
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from appcadence.models import bundle
from appcadence.models.bundle import SHIPPED, reference_model, starting_model
from appcadence.models.eligibility import STRATA
from appcadence.telemetry.simulate.fleet import simulate

MAX_BYTES = 2_000_000
SMALL = ((4, 3, 9001, 0.4), (3, 3, 9002, 1.0))


@pytest.fixture
def small(monkeypatch):
    """The fleets of a build that takes seconds."""
    monkeypatch.setattr(made, "FLEETS", SMALL)


def names_of(tables):
    """Every device, app and destination of some telemetry."""
    columns = {"flows": ("device_id", "app_id", "dest_host", "dest_ip")}
    columns |= dict.fromkeys(("activity", "notifications"), ("device_id", "app_id"))
    return {
        name
        for table, keys in columns.items()
        for key in keys
        if key in tables[table].column_names
        for name in pc.unique(tables[table][key].cast(pa.string())).to_pylist()
        if name
    }


def texts_of(directory):
    """Every text of a bundle: the words of its plain files, and the strings in its tables."""
    found = set()
    for part in directory.iterdir():
        if part.suffix == ".parquet":
            table = pq.read_table(part)
            for column, field in zip(table.columns, table.schema, strict=True):
                if pa.types.is_string(field.type) or pa.types.is_dictionary(field.type):
                    found |= set(column.cast(pa.string()).to_pylist())
        elif part.suffix in (".json", ".txt"):
            found |= set(re.findall(r"[\w.*:-]+", part.read_text()))
    return found


@pytest.mark.slow
def test_two_builds_give_equal_bytes_and_know_nobody(small, tmp_path):
    ids = [bundle.save(made.reference_model(), tmp_path / name) for name in "ab"]
    assert ids[0] == ids[1]
    parts = sorted(part.name for part in (tmp_path / "a").iterdir())
    assert parts == sorted(part.name for part in (SHIPPED / "reference").iterdir())
    for part in parts:
        assert (tmp_path / "a" / part).read_bytes() == (tmp_path / "b" / part).read_bytes(), part
    names = names_of(made.world())
    assert len(names) > 50 and not names & texts_of(tmp_path / "a")


def test_the_world_holds_devices_with_names_and_context_and_without(small):
    tables = made.world()
    flows, devices = (
        tables["flows"],
        {d for t in tables.values() for d in pc.unique(t["device_id"]).to_pylist()},
    )
    assert len(devices) == sum(count for count, *_ in SMALL)
    named = flows.filter(pc.is_valid(flows["app_id"]))
    nameless = devices - set(pc.unique(named["device_id"]).to_pylist())
    assert 0 < len(nameless) < len(devices)
    # Without names there is no context either: a gateway sees neither.
    for name in ("activity", "notifications"):
        assert not nameless & set(pc.unique(tables[name]["device_id"]).to_pylist())
    lost = flows.filter(pc.is_in(flows["device_id"].cast(pa.string()), pa.array(sorted(nameless))))
    assert pc.unique(lost["app_attribution"]).to_pylist() == ["none"]


@pytest.mark.parametrize(("name", "model"), [("reference", reference_model), ("start", starting_model)])
def test_the_shipped_models_are_small_and_hold_nobodys_past(name, model):
    detector, identity = model()
    assert bundle.load(SHIPPED / name)[1] == identity
    assert sum(part.stat().st_size for part in (SHIPPED / name).iterdir()) < MAX_BYTES
    history = detector.history
    assert not len(history.contacts) and not history.vetting
    assert set(detector.baseline.level) == {0, 1}
    assert detector.reference.devices.tolist() == ["reference"]
    assert (detector.weights[:, 1] > 0).all() and set(detector.calibration) == set(STRATA)
    assert all(len(part.units) <= 2000 for part in detector.calibration.values())
    assert not detector.excluded_families and detector.card["reference"] == "none"


@pytest.mark.parametrize("model", ["reference", "start"])
def test_the_shipped_models_name_no_device_app_or_destination_of_the_simulator(model):
    # Apps and hosts are the same for every seed, in greater part; devices are numbered alike.
    names = names_of(simulate(24, 2, made.FLEETS[0][2]).tables)
    texts = texts_of(SHIPPED / model)
    assert "beats_per_hour" in texts and len(names) > 100
    assert not names & texts
    assert not [text for text in texts if text and re.search(r"phone-\d|\.(com|net|example)\b", text)]
