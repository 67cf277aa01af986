"""A small batch output with hostile names."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from appcadence.findings import Finding, arrow
from appcadence.models.scores import SCORES
from appcadence.serving.run import Run
from appcadence.telemetry.schema import ACTIVITY, conform
from appcadence.triage.case_rows import cases_in
from appcadence.triage.case_state import CASES_FILE
from appcadence.triage.output import EVENTS, OWNERS
from appcadence.triage.window_facts import CONTEXT

HOSTILE = "<script>alert(1)</script>\"'\u202e"
DAY = 1_772_409_600_000_000
HOUR = 3_600_000_000
RUN = Run(
    model_version="0123456789abcdef",
    window="24h",
    devices=2,
    device_days=4.0,
    windows=9,
    scored=3,
    excepted=1,
    alerts=2,
    cases={"new": 2},
    alerts_per_device_day=1.0,
    false_discovery_rate=None,
    blind_spots=[
        Finding(
            "threshold_out_of_reach",
            {"threshold": HOSTILE, "behaviour": HOSTILE, "p_value": 0.1, "min_p_value": 0.2},
        )
    ],
    fleet_events=[
        Finding(
            "fleet_event",
            {
                "kind": "app",
                "name": HOSTILE,
                "devices": 4,
                "alerting_devices": 1,
                "first_seen": "2026-03-02T00:00:00+00:00",
            },
        )
    ],
)


SAID = [
    Finding(
        "unusual_feature",
        {"feature": "session_median_interval_seconds", "value": 300.0, "expected": 3600.0},
    ),
    Finding("pushes_unknown"),
]


def times(values):
    return pa.array(values, pa.timestamp("us", tz="UTC"))


def row(rank, device, app, dest, *, alert, status="scored"):
    part = {"feature": "session_mode_share", "value": 0.1, "expected": 0.9, "contribution": 2.5}
    scored = status in ("scored", "excepted")
    behaviour = {"score": 1.0, "p_value": 0.01}
    return {
        "device_id": device,
        "app_id": app,
        "dest": dest,
        "window_start": DAY,
        "window_end": DAY + 24 * HOUR,
        "observed_seconds": 86400.0,
        "n_flows": 288,
        "n_sessions": 288,
        "n_beats": 288,
        "app_attribution": "exact",
        "status": status,
        "score": 3.2 if scored else None,
        "device_shift": -1.5 if device == HOSTILE else 0.0,
        "p_value": 0.004 if scored else None,
        "rank": rank,
        "alert": alert,
        "structured_cadence": behaviour,
        "session_persistence": behaviour,
        "notification_burst": {"score": None, "p_value": None},
        "behaviours": ["structured_cadence"],
        "explained_by": [f"known to {HOSTILE}"],
        "reasons": [finding.text for finding in SAID],
        "findings": arrow(SAID).to_pylist(),
        "contributions": [
            part,
            part | {"feature": HOSTILE, "value": None, "expected": None, "contribution": -0.5},
            {
                "feature": "session_median_interval_seconds",
                "value": 300.0,
                "expected": 3600.0,
                "contribution": 0.25,
            },
        ],
        "exception_id": "mail-poll" if status == "excepted" else None,
        "model_name": "appcadence",
        "model_version": "0123456789ab",
    }


def written(path):
    """An output with two ranked windows of hostile names, one without an app, and one unscored."""
    path.mkdir()
    rows = [
        row(2, "phone-2", None, "203.0.113.9", alert=True),
        row(1, HOSTILE, HOSTILE, HOSTILE, alert=True),
        row(None, "phone-2", "com.quiet", "quiet.example", alert=False, status="insufficient_evidence"),
        row(None, "phone-2", "com.mail", "mail.example", alert=False, status="excepted"),
    ]
    columns = {f.name: [r[f.name] for r in rows] for f in SCORES}
    pq.write_table(
        pa.table({f.name: pa.array(columns[f.name], f.type) for f in SCORES}), path / "scores.parquet"
    )
    pq.write_table(cases_in(path / "scores.parquet", EVENTS.empty_table().to_pandas()), path / CASES_FILE)
    keys = [(HOSTILE, HOSTILE, HOSTILE)] * 288 + [("phone-2", None, "203.0.113.9")]
    starts = [DAY + k * HOUR // 12 for k in range(288)] + [DAY + 3 * HOUR]
    sessions = {
        "device_id": [k[0] for k in keys],
        "app_id": [k[1] for k in keys],
        "dest": [k[2] for k in keys],
        "window_start": times([DAY] * 289),
        "start": times(starts),
        "end": times([s + 2_000_000 for s in starts[:-1]] + [DAY + 30 * HOUR]),
        "bytes_out": pa.array([100] * 288 + [None], pa.int64()),
        "bytes_in": pa.array([200] * 288 + [None], pa.int64()),
    }
    pq.write_table(pa.table(sessions), path / "sessions.parquet")
    activity = {
        "device_id": [HOSTILE] * 4,
        "app_id": [HOSTILE, "com.other", None, None],
        "kind": ["app_foreground", "app_foreground", "device_unlocked", "charging"],
        "start": times([DAY + 8 * HOUR, DAY + 9 * HOUR, DAY + 7 * HOUR, DAY]),
        "end": times([DAY + 9 * HOUR, DAY + 12 * HOUR, None, DAY + HOUR]),
        "source": ["synthetic"] * 4,
        "time_resolution_seconds": [1.0] * 4,
    }
    pq.write_table(conform(ACTIVITY, pa.table(activity)), path / "activity.parquet")
    context = {
        "device_id": [HOSTILE],
        "app_id": [HOSTILE],
        "dest": [HOSTILE],
        "window_start": times([DAY]),
        "app_name": [HOSTILE],
        "managed": [True],
        "approved": [False],
        "declared_purpose": [HOSTILE],
        "background_modes": [[HOSTILE, "voip"]],
        "in_inventory": [True],
        "declared_by": [f"com.{HOSTILE}"],
        "push_resolution_seconds": [1.0],
        # A second before a session each; of the shifts, four are multiples of the sessions' five minutes.
        "pushes": [[DAY + k * HOUR // 12 - 1_000_000 for k in range(12, 48)]],
    }
    pq.write_table(
        pa.table({f.name: pa.array(context[f.name], f.type) for f in CONTEXT}), path / "context.parquet"
    )
    owners = {"id": ["mail-poll"], "owner": [HOSTILE]}
    pq.write_table(pa.table(owners, OWNERS), path / "exceptions.parquet")
    (path / "run.json").write_text(json.dumps(RUN.as_dict()))
    return path
