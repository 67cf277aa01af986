"""Names that vanish or change are told from devices that changed what they do."""

import numpy as np
import pandas as pd
import pytest
from make import DAY0, fleet, flows, together
from test_fleet_events import CUT

from appcadence.features.build import build
from appcadence.features.extraction import table_of
from appcadence.features.history import History
from appcadence.models.fleet_events import MIN_CHANNELS, Identity, fleet_events, identity
from appcadence.training.injection import past_and_future

HOSTS = [f"h{k}.example" for k in range(8)]
ADDRESSES = [f"203.0.113.{k}" for k in range(8)]
OTHERS = [f"198.51.100.{k}" for k in range(8)]
DEVICES = [f"phone-{k:02d}" for k in range(10)]
OLD, NEW = DAY0 * 1_000_000 - 1, DAY0 * 1_000_000


def channels(devices, hosts):
    """Every device with every host."""
    rows = [(device, "com.a", host) for device in devices for host in hosts]
    return pd.DataFrame(rows, columns=["device_id", "app_id", "dest"], dtype=object)


def changed(before, now):
    """What changed its name between contacts of the baseline and windows after it."""
    contacts = pd.concat([before.assign(first_seen=OLD), now.assign(first_seen=NEW)])
    return identity(contacts.drop_duplicates(["device_id", "app_id", "dest"]), NEW, now)


def test_nothing_changed_says_nothing():
    assert changed(channels(DEVICES, HOSTS), channels(DEVICES, HOSTS)).finding is None
    # New hosts are no lost names, and addresses that were always bare have lost none.
    assert changed(channels(DEVICES, HOSTS[:4]), channels(DEVICES, HOSTS)).finding is None
    assert changed(channels(DEVICES, ADDRESSES), channels(DEVICES, OTHERS)).finding is None


def test_host_names_that_vanish_are_counted_by_device():
    found = changed(channels(DEVICES, HOSTS), channels(DEVICES[:3], ADDRESSES))
    assert found.nameless == set(DEVICES[:3]) and not found.renamed
    assert found.finding.parameters == {"renamed": 0, "nameless": 3, "of": 3}
    few = channels(DEVICES, HOSTS), channels(DEVICES, ADDRESSES[: MIN_CHANNELS - 1])
    assert changed(*few).finding is None
    local = [f"192.168.1.{k}" for k in range(8)]
    assert changed(channels(DEVICES, HOSTS), channels(DEVICES, [*HOSTS, *local])).finding is None


@pytest.mark.parametrize(("n", "bare", "lost"), [(8, 4, True), (8, 3, False), (5, 5, True), (4, 4, False)])
def test_names_are_lost_from_half_of_five_destinations_on(n, bare, lost):
    now = channels(DEVICES, [*ADDRESSES[:bare], *HOSTS[bare:n]])
    assert changed(channels(DEVICES, HOSTS[:n]), now).nameless == (set(DEVICES) if lost else set())


def test_what_lost_its_name_is_forgotten_and_an_address_of_before_is_not():
    contacts = channels(["a", "b"], [HOSTS[0], ADDRESSES[0]]).assign(first_seen=[NEW, OLD, NEW, NEW])
    contacts = pd.concat([contacts, channels(["a"], [ADDRESSES[1]]).assign(first_seen=NEW)])
    kept = Identity({}, frozenset("a"), 2).applied(contacts, NEW)
    left = [("a", HOSTS[0]), ("a", ADDRESSES[0]), ("b", HOSTS[0]), ("b", ADDRESSES[0])]
    assert list(zip(kept["device_id"], kept["dest"], strict=True)) == left


def test_what_a_renamed_device_met_before_the_moment_is_its_past_and_no_more():
    contacts = channels(["gone"], HOSTS[:2]).assign(first_seen=[OLD, NEW])
    contacts = pd.concat([contacts, channels(["new", "other"], HOSTS[:1]).assign(first_seen=NEW)])
    kept = Identity({"new": "gone"}, frozenset(), 3).applied(contacts, NEW)
    rows = set(kept.itertuples(index=False, name=None))
    assert ("new", "com.a", HOSTS[0], OLD) in rows and ("other", "com.a", HOSTS[0], NEW) in rows
    assert ("new", "com.a", HOSTS[1], NEW) not in rows


@pytest.mark.parametrize(("same", "renamed"), [(4, {"new": "gone"}), (3, {})])
def test_a_new_device_is_a_vanished_one_that_had_half_of_its_channels(same, renamed):
    now = channels(["new"], [*HOSTS[:same], *OTHERS[same:]])
    assert changed(channels(["gone"], HOSTS), now).renamed == renamed


@pytest.mark.parametrize("share", [2, 5, 10])
def test_new_ids_of_vanished_devices_are_told(share):
    ids = [f"new-{k}" for k in range(share)]
    found = changed(channels(DEVICES, HOSTS), channels([*ids, *DEVICES[share:]], HOSTS[:6]))
    assert set(found.renamed) == set(ids) and set(found.renamed.values()) <= set(DEVICES[:share])
    assert found.finding.parameters == {"renamed": share, "nameless": 0, "of": 10}


def test_new_devices_that_do_something_else_or_replace_nobody_are_new():
    ids = [f"new-{k}" for k in range(5)]
    assert changed(channels(DEVICES, HOSTS), channels(ids, OTHERS)).finding is None
    assert changed(channels(DEVICES, HOSTS), channels([*DEVICES, *ids], HOSTS)).finding is None
    # One person with another phone, among ten.
    assert changed(channels(DEVICES, HOSTS), channels([*DEVICES[1:], "new"], HOSTS)).finding is None


def events_after(change):
    """The fleet events of two days whose flows were changed."""
    tables = fleet(devices=10, days=4)
    more = [flows(60.0 * k + 10, d, "com.more", h) for d in DEVICES for k, h in enumerate(HOSTS)]
    later = [flows(2 * 86400 + 60.0 * k + 10, d, "com.more", h) for d in DEVICES for k, h in enumerate(HOSTS)]
    tables = {"flows": together(tables["flows"], *more, *later)}
    before, after = past_and_future(tables, CUT)
    past = build(before, 86400, History.empty()).history
    frame = after["flows"].to_pandas()
    windows = build({"flows": together(after["flows"].slice(0, 0), change(frame))}, 86400, past)
    return fleet_events(windows.history, CUT, table_of(windows))


def conformed(frame):
    usual = {"start": (frame["start"] - pd.Timestamp(DAY0, unit="s", tz="UTC")).dt.total_seconds()}
    names = {"device_id": "device", "app_id": "app", "dest_host": "host", "duration_seconds": "duration"}
    sizes = {"bytes_out": "out", "bytes_in": "inn", "outcome": "outcome", "dest_ip": "dest_ip"}
    columns = {to: frame[name].to_numpy(object) for name, to in (names | sizes).items() if name in frame}
    return flows(usual["start"], **columns)


def test_lost_names_make_one_finding_and_no_fleet_events():
    def nameless(frame):
        hosts = sorted(frame["dest_host"].astype(str).unique())
        address = {host: f"203.0.113.{k}" for k, host in enumerate(hosts)}
        where = frame["dest_host"].astype(str).map(address)
        return conformed(frame.assign(dest_ip=where, dest_host=None))

    found = events_after(nameless)
    assert found.identity.parameters == {"renamed": 0, "nameless": 10, "of": 10}
    assert not len(found.events) and not found.windows.any()


def test_new_ids_make_one_finding_and_only_what_is_new_besides_is_an_event():
    def renamed(frame):
        ids = "id-" + frame["device_id"].astype(str)
        at = 2 * 86400 + 3600 * np.arange(8.0)
        c2 = [flows(at, f"id-{d}", "com.chat", "new.example", 0.5, 300, 200) for d in DEVICES[:5]]
        return together(conformed(frame.assign(device_id=ids)), *c2)

    found = events_after(renamed)
    assert found.identity.parameters == {"renamed": 10, "nameless": 0, "of": 10}
    (event,) = found.events.itertuples()
    assert event.name == "new.example" and event.device_ids == [f"id-{d}" for d in DEVICES[:5]]
