"""Who made a bundle: signed, unsigned, by another key, altered; and models that would never alert."""

import base64
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from handmade import N, calibration, changed, detector, nothing

from appcadence.errors import BundleError
from appcadence.models import bundle, signature
from appcadence.models.eligibility import STRATA
from appcadence.models.signature import Trust
from appcadence.models.trees import leaf
from appcadence.serving import Scorer

OTHER = "ed25519:" + "A" * 43 + "="


def heard(**parts):
    """A detector that can reach what it was calibrated on."""
    return detector(**{"calibration": dict.fromkeys(STRATA, calibration(40))} | parts)


@pytest.fixture
def signed(tmp_path):
    """A signed bundle, its id and the public key."""
    identity = bundle.save(heard(), tmp_path / "model")
    key = signature.make_key(tmp_path / "key.pem")
    assert bundle.sign(tmp_path / "model", tmp_path / "key.pem") == (identity, key)
    return tmp_path / "model", identity, key


def test_a_signed_bundle_is_loaded_by_who_trusts_its_key_and_no_other(signed):
    path, identity, key = signed
    scorer = Scorer.load(path, model_id=identity, trusted_keys=[OTHER, key])
    assert (scorer.version, scorer.signer) == (identity, key) and Scorer.load(path).signer == key
    with pytest.raises(BundleError, match=r"is signed by ed25519:.*; only models that a trusted key signed"):
        bundle.load(path, Trust(keys=[OTHER]))


def test_an_unsigned_bundle_is_loaded_until_keys_are_trusted(signed):
    path, _, key = signed
    (path / signature.FILE).unlink()
    assert Scorer.load(path).signer is None
    with pytest.raises(BundleError, match="is not signed; only models that a trusted key signed"):
        bundle.load(path, Trust(keys=[key]))


def test_keys_as_one_text_are_refused_not_searched(signed):
    path, _, key = signed
    for text in (key, f"{OTHER},{key}", key.encode(), ""):
        with pytest.raises(BundleError, match=r"trusted_keys is of type (str|bytes); give a list"):
            Scorer.load(path, trusted_keys=text)


def test_a_wrong_signature_never_loads(signed, tmp_path):
    path, _, key = signed
    whole = json.loads((path / signature.FILE).read_text())
    bundle.save(heard(weights=np.tile([1.0, 0.5], (3, 1))), tmp_path / "other")
    shutil.copy(path / signature.FILE, tmp_path / "other")
    with pytest.raises(BundleError, match="the signature is not of this model"):
        bundle.load(tmp_path / "other")
    turned = whole["signature"][:4] + ("A" if whole["signature"][4] != "A" else "B") + whole["signature"][5:]
    for wrong in ({"key": OTHER}, {"signature": turned}, {"signature": whole["signature"][:40]}):
        (path / signature.FILE).write_text(json.dumps(whole | wrong))
        for trust in (signature.ANY, Trust(keys=[key])):
            with pytest.raises(BundleError, match="signature"):
                bundle.load(path, trust)


def test_a_signature_made_for_another_purpose_is_none_of_a_bundle(signed, tmp_path):
    path, _, key = signed
    made = signature.read_key(tmp_path / "key.pem").sign((path / bundle.MANIFEST).read_bytes())
    said = {"key": key, "signature": base64.b64encode(made).decode()}
    (path / signature.FILE).write_text(json.dumps(said))
    with pytest.raises(BundleError, match="the signature is not of this model"):
        bundle.load(path, Trust(keys=[key]))


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "{}", '{"key": 1, "signature": 2}', "[" * 2000, '"key"', "x" * 5000]
)
def test_what_is_no_signature_is_one_sentence(signed, content):
    path = signed[0]
    (path / signature.FILE).write_text(content)
    with pytest.raises(BundleError, match="is no signature"):
        bundle.load(path)


def test_a_signature_that_is_a_pipe_or_a_link_to_nothing_is_refused(signed):
    path = signed[0]
    for make in (os.mkfifo, lambda file: file.symlink_to("nowhere")):
        (path / signature.FILE).unlink()
        make(path / signature.FILE)
        with pytest.raises(BundleError, match="is no signature"):
            bundle.load(path)


def test_another_id_than_expected_is_refused_with_both(signed):
    path, identity, _ = signed
    with pytest.raises(BundleError, match=f"has the id {identity}, not {'0' * 64} as expected"):
        bundle.load(path, Trust("0" * 64))
    with pytest.raises(BundleError, match="64 hexadecimal digits"):
        bundle.load(path, Trust(identity[:12]))


def test_a_bundle_that_is_saved_again_is_unsigned(signed):
    path, identity, _ = signed
    assert bundle.save(heard(), path) == identity
    assert bundle.load_signed(path)[2] is None


def test_keys_are_private_and_never_replaced(signed, tmp_path):
    file = tmp_path / "key.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    with pytest.raises(BundleError, match="is there already"):
        signature.make_key(file)
    assert file.read_bytes() == before
    file.chmod(0o640)
    with pytest.raises(BundleError, match=r"accessible to others \(mode 640\)"):
        bundle.sign(signed[0], file)
    file.chmod(0o600)
    file.write_text("no key")
    with pytest.raises(BundleError, match="holds no Ed25519 key"):
        bundle.sign(signed[0], file)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
def test_every_array_that_holds_no_number_is_refused(tmp_path, wrong):
    bundle.save(heard(), tmp_path / "model")
    with np.load(tmp_path / "model/arrays.npz") as archive:
        whole = dict(archive)
    mayhold = {"classifier.threshold", "forest.threshold", "reference.deciles", "experts.thresholds"}
    for name, values in whole.items():
        if values.dtype != np.float64 or name in mayhold:
            continue
        broken = values.copy()
        broken.flat[0] = wrong
        with pytest.raises(BundleError, match="model"):
            bundle.load(changed(tmp_path / "model", tmp_path / name, **{name: broken}))
    for name, value in (("experts.thresholds", np.nan), ("experts.thresholds", -np.inf)):
        broken = whole[name].copy()
        broken.flat[0] = value
        with pytest.raises(BundleError, match="rising thresholds"):
            bundle.load(changed(tmp_path / "model", tmp_path / f"{name}{value}", **{name: broken}))
    mixed = whole["reference.deciles"].copy()
    mixed[0, 0], mixed[0, 1:] = np.nan, 1.0
    with pytest.raises(BundleError, match="deciles"):
        bundle.load(changed(tmp_path / "model", tmp_path / "mixed", **{"reference.deciles": mixed}))


MUTED = {
    "weights": {"weights": np.zeros((3, 2))},
    "classifier": {"classifier": nothing(2 * N)},
    "low leaf": {"classifier": leaf(-1e5, 2 * N)},
    "origin": {"calibration": dict.fromkeys(STRATA, calibration(40, origin=1e5))},
    "units": {"calibration": dict.fromkeys(STRATA, replace(calibration(40), units=np.arange(40.0) + 1e5))},
    "one stratum": {
        "calibration": dict.fromkeys(STRATA, calibration(40))
        | {STRATA[1]: calibration(40, origin=1e5, days=1.0)}
    },
    "two units": {"calibration": dict.fromkeys(STRATA, calibration(2, origin=1e5, days=1.0))},
}


@pytest.mark.parametrize("how", MUTED)
def test_a_model_that_alerts_on_nothing_of_its_own_sample_is_refused(tmp_path, how):
    bundle.save(heard(**MUTED[how]), tmp_path / "model")
    with pytest.raises(BundleError, match="would alert on nothing of its own calibration sample"):
        bundle.load(tmp_path / "model")


def test_a_single_unit_says_nothing_of_what_a_model_may_score(tmp_path):
    bundle.save(heard(calibration=dict.fromkeys(STRATA, calibration(1, origin=1e5))), tmp_path / "model")
    assert len(bundle.load(tmp_path / "model")[0].calibration[STRATA[0]].units) == 1


def test_weights_that_turn_the_score_round_are_refused(tmp_path):
    bundle.save(heard(weights=np.tile([-1.0, 1.0], (3, 1))), tmp_path / "model")
    with pytest.raises(BundleError, match="weights are negative"):
        bundle.load(tmp_path / "model")
