"""The feature step against Polars, DuckDB, pandas and tsfresh, on the same simulated flows, in one run.

peers.py [--devices 130] [--days 10] [--channels 300] [--windows 100] [--runs 3] [--telemetry DIR]

Every engine reads the same Parquet file and fills the same 15 features of each channel window (device, app,
destination, UTC day), except that appcadence computes its **whole catalogue**, app windows included: its time
is an upper bound. A second line asks for the 15 features alone, of app windows too. pandas sees a
sample of channels, tsfresh the session gaps of a sample of windows, their preparation not timed. Flows over
midnight, DNS and continuations of cut flows are left out first. Times are the best of `--runs` after a
warm-up, reading included; the sampled engines run once.
    python -m venv peers && peers/bin/pip install -e . polars duckdb tsfresh  # what is missing is left out
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence.features import describe, extract
from appcadence.telemetry.directory import TelemetryDirectory, read_tables, write_directory
from appcadence.telemetry.simulate.fleet import write

DAY_US, HOUR_US = 86_400_000_000, 3_600_000_000
KEYS = ["device_id", "app_id", "dest", "day"]
FEATURES = ["n_flows", "n_sessions", "n_beats", "hours", "session_median_interval_seconds"]
FEATURES += ["session_interval_mad_ratio", "session_ratio_share_1_3", "session_interval_entropy_ratio"]
FEATURES += ["longest_session_seconds", "total_session_seconds", "longest_flow_seconds"]
FEATURES += ["upload_ratio", "failed_ratio", "out_size_median_bytes", "out_size_mad_ratio"]
# Ours by name: three of the keys stand for counts, and shares of the observed time for hours and seconds.
COLUMNS = [name for name in FEATURES if name in set(describe()["feature"])]
COLUMNS += ["hour_coverage_ratio", "connected_ratio"]
Line = tuple[str, float, int, str]
GOALS = {"Polars": 1.3, "DuckDB": 1.8, "pandas groupby-apply": 200, "tsfresh Efficient": 3000}


def prepare(raw: Path, path: Path) -> int:
    """Write the telemetry of `raw` to `path` without flows on which definitions differ; returns the flows."""
    tables = read_tables(TelemetryDirectory(raw), ("flows", "activity", "notifications", "inventory"))
    flows = tables["flows"]
    start = flows["start"].cast(pa.int64()).to_numpy()
    duration = flows["duration_seconds"].to_numpy()
    end = start + np.rint(np.nan_to_num(duration) * 1e6).astype(np.int64)
    names = ["device_id", "app_id", "dest_host", "dest_ip", "dest_port", "outcome", "service"]
    frame = flows.select(names).to_pandas()
    frame["dest_ip"] = frame["dest_ip"].astype(object).where(frame["dest_host"].isna(), "")
    frame["channel"] = frame.groupby(names[:5], observed=True, dropna=False, sort=False).ngroup()
    frame["time"], frame["row"] = start, np.arange(len(frame))
    going = frame[frame["outcome"] != "failed"]
    cut = going.assign(time=end[going["row"]], cut=True)[duration[going["row"]] >= 30.0]
    going, cut = going.sort_values("time"), cut.sort_values("time")[["channel", "time", "cut"]]
    joined = pd.merge_asof(going, cut, on="time", by="channel", tolerance=1_000_001, direction="nearest")
    keep = (start // DAY_US == end // DAY_US) & (frame["service"] != "dns").to_numpy()
    for name in ("duration_seconds", "bytes_out", "bytes_in"):
        keep &= flows[name].is_valid().to_numpy()
    keep[joined.loc[joined["cut"].notna(), "row"]] = False
    # Ours names an address by what other flows call it.
    nameless, address = flows["dest_host"].is_null(), flows["dest_ip"].cast(pa.string())
    named = address.filter(pc.invert(nameless)).unique()
    keep &= ~(nameless.to_numpy() & pc.is_in(address, value_set=named).to_numpy())
    write_directory(path, tables | {"flows": flows.filter(pa.array(keep))})
    return int(keep.sum())


def ours(path: Path) -> pd.DataFrame:
    """Every feature of every window, app windows too."""
    return extract(path, window="24h")


def shared(path: Path) -> pd.DataFrame:
    """The shared features of every window, app windows too."""
    return extract(path, columns=COLUMNS)


def ours_in_common(table: pd.DataFrame) -> pd.DataFrame:
    """The shared columns of our table; shares of the observed time turned back into what they count."""
    table = table[table["dest"] != "*"]
    day = table["window_start"].astype("int64") // DAY_US
    most = (table["observed_seconds"] / 3600.0).clip(lower=1.0)
    found = {"hours": table["hour_coverage_ratio"] * most, "most_hours": most}
    found["total_session_seconds"] = table["connected_ratio"] * table["observed_seconds"]
    return table.assign(day=day, **found)[[*KEYS, *FEATURES, "most_hours"]]


def polars(path: Path) -> Any:
    """Whole columns of flows sorted by window and time; what is used twice is materialised."""
    import polars as pl

    c, n = pl.col, pl.len()

    def seen(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.collect().lazy()

    at = c.start.dt.epoch("us")
    columns = ["device_id", "app_id", "bytes_out", "bytes_in", "duration_seconds"]
    named = {"dest": pl.coalesce("dest_host", "dest_ip"), "failed": c.outcome == "failed"}
    named |= {"day": at // DAY_US, "at": at % DAY_US}
    flows = pl.scan_parquet(path / "flows.parquet").select(columns, **named)
    # One integer sorts three times faster than four columns.
    device, app, dest = (c(k).to_physical().cast(pl.Int64).fill_null(-1) + 1 for k in KEYS[:3])
    key = (device * (app.max() + 1) + app) * (dest.max() + 1) + dest
    key = key * (c.day.max() - c.day.min() + 1) + c.day - c.day.min()
    flows = seen(flows.with_columns(key=key).sort("key", "at"))

    # Ends moved by two days a window: one running maximum over the column never reaches into the next.
    shift = c.window.cast(pl.Int64) * (2 * DAY_US)
    first = c.key.ne_missing(c.key.shift())
    flows = flows.with_columns(first=first, window=first.cum_sum().cast(pl.UInt32), hour=c.at // HOUR_US)
    end = c.at + shift + (c.duration_seconds * 1e6).round().cast(pl.Int64)
    flows = flows.with_columns(reach=end.cum_max())
    opens = c.first | (c.at + shift > c.reach.shift() + 30_000_000)
    flows = seen(flows.with_columns(opens=opens, beat=c.first | (c.at - c.at.shift() >= 2_000_000)))

    sessions = flows.select("window", "at", "opens", before=c.reach.shift(), top=c.reach.max())
    gap = pl.when(c.window == c.window.shift()).then(c.at / 1e6 - c.at.shift() / 1e6)
    length = (c.before.shift(-1).fill_null(c.top) - shift - c.at) / 1e6
    sessions = seen(sessions.filter("opens").select("window", gap=gap, length=length))
    last = c.gap.shift()
    near = pl.max_horizontal("gap", last) / pl.min_horizontal("gap", last) <= 1.3
    near = near & c.gap.is_not_null() & last.is_not_null()
    lengths = {"longest_session_seconds": c.length.max(), "total_session_seconds": c.length.sum()}
    grouped = sessions.with_columns(near=near).group_by("window")
    by_session = seen(grouped.agg(c.near.sum(), n_sessions=n, **lengths))
    many = c.n_sessions >= 6
    gaps = sessions.drop_nulls("gap").join(by_session.filter(many), on="window", how="semi")
    medians = seen(gaps.group_by("window").agg(session_median_interval_seconds=c.gap.median()))
    median = c.session_median_interval_seconds
    place = (((c.gap / median).log(2).clip(-2.999999, 2.999999) + 3.0) / 6.0 * 13).cast(pl.UInt8)
    off = (c.gap - median).abs() / median
    gaps = seen(gaps.join(medians, on="window").select("window", off=off, bin=place))
    entropy = (c.n.sum().log() - (c.n * c.n.log()).sum() / c.n.sum()) / np.log(13)
    entropies = gaps.group_by("window", "bin").agg(n=n).group_by("window")
    new_hour = c.window.ne_missing(c.window.shift()) | c.hour.ne_missing(c.hour.shift())
    hours = flows.filter("beat").select("window", "hour").filter(new_hour).group_by("window")
    upload = c.bytes_out.sum() / (c.bytes_out.sum() + c.bytes_in.sum())
    rest = {"longest_flow_seconds": c.duration_seconds.max(), "upload_ratio": upload}
    size, failed = c.bytes_out.median(), c.failed.mean()
    rest |= {"n_flows": n, "n_beats": c.beat.sum(), "failed_ratio": failed, "size": size}
    by_flow = seen(flows.group_by("window").agg(*(c(k).first() for k in KEYS), **rest))
    enough = c.n_flows >= 4
    sizes = flows.select("window", "bytes_out").join(by_flow.filter(enough), on="window")
    sizes = sizes.select("window", size_off=(c.bytes_out - c.size).abs())
    parts = [by_session, hours.agg(hours=n), medians]
    parts.append(sizes.group_by("window").agg(c.size_off.median()))
    parts.append(gaps.group_by("window").agg(session_interval_mad_ratio=c.off.median()))
    parts.append(entropies.agg(session_interval_entropy_ratio=entropy))
    for part in parts:
        by_flow = by_flow.join(part, on="window", how="left")
    table = by_flow.with_columns(
        session_ratio_share_1_3=pl.when(many).then(c.near / c.n_sessions),
        out_size_median_bytes=pl.when(enough).then("size"),
        out_size_mad_ratio=(c.size_off / c.size.clip(1.0)).clip(upper_bound=10.0),
    )
    return table.select(*KEYS, *FEATURES).collect()


SQL = """
with raw as materialized (
  select device_id, app_id, coalesce(dest_host, dest_ip) as dest, epoch_us("start") // 86400000000 as day,
    epoch_us("start") % 86400000000 as begun, begun + round(duration_seconds * 1e6)::bigint as ended,
    duration_seconds as duration, bytes_out as sent, bytes_in as received, outcome = 'failed' as failed
  from read_parquet('{path}')),
windows as materialized (
  select row_number() over () as win, * from (select distinct device_id, app_id, dest, day from raw)),
flows as (select win, begun, ended, duration, sent, received, failed from raw join windows
  on raw.device_id = windows.device_id and raw.app_id is not distinct from windows.app_id
    and raw.dest = windows.dest and raw.day = windows.day),
marked as materialized (select *, coalesce(begun - lag(begun) over w >= 2000000, true) as beat,
    max(ended) over (partition by win) as top,
    max(ended) over (w rows between unbounded preceding and 1 preceding) as reach
  from flows window w as (partition by win order by begun)),
sessions as materialized (select win, (coalesce(lead(reach) over w, top) - begun) / 1e6 as length,
    begun / 1e6 - lag(begun / 1e6) over w as gap,
    lag(begun / 1e6) over w - lag(begun / 1e6, 2) over w as before
  from marked where reach is null or begun > reach + 30000000 window w as (partition by win order by begun)),
by_session as materialized (
  select win, count(*) as n_sessions, max(length) as longest, sum(length) as total, median(gap) as median_gap,
    count(*) filter (before is not null and greatest(gap, before) / least(gap, before) <= 1.3) as near
  from sessions group by win),
gaps as materialized (
  select win, abs(gap - median_gap) as deviation,
    floor((greatest(least(log2(gap / median_gap), 2.999999), -2.999999) + 3) / 6 * 13)::int as bin
  from sessions join (from by_session where n_sessions >= 6) using (win) where gap is not null),
by_gap as (select win, median(deviation) as mad_gap from gaps group by win),
entropies as (select win, (ln(sum(n)) - sum(n * ln(n)) / sum(n)) / ln(13) as entropy
  from (select win, bin, count(*) as n from gaps group by win, bin) group by win),
by_flow as materialized (select win, count(*) as n_flows, count(*) filter (beat) as n_beats,
    max(duration) as longest_flow_seconds,
    bit_count(bit_or(1 << (begun // 3600000000)::int) filter (beat)) as hours,
    sum(sent) as sent, sum(received) as received, avg(failed::int) as failed_ratio, median(sent) as size
  from marked group by win),
sizes as (select win, median(abs(marked.sent - size)) as mad_size
  from marked join (from by_flow where n_flows >= 4) as f using (win) group by win)
select device_id, app_id, dest, day, n_flows, n_sessions, n_beats, hours, longest_flow_seconds, failed_ratio,
  case when n_sessions >= 6 then median_gap end as session_median_interval_seconds,
  mad_gap / median_gap as session_interval_mad_ratio, entropy as session_interval_entropy_ratio,
  case when n_sessions >= 6 then near / n_sessions end as session_ratio_share_1_3,
  longest as longest_session_seconds, total as total_session_seconds,
  case when sent + received > 0 then sent / (sent + received) end as upload_ratio,
  case when n_flows >= 4 then size end as out_size_median_bytes,
  case when n_flows >= 4 then least(mad_size / greatest(size, 1), 10) end as out_size_mad_ratio
from windows join by_flow using (win) join by_session using (win)
  left join by_gap using (win) left join entropies using (win) left join sizes using (win)
"""


def duckdb(path: Path) -> Any:
    """One statement: window functions over a dense window number, then aggregates."""
    import duckdb as db

    with db.connect() as connection:
        return connection.sql(SQL.format(path=path / "flows.parquet")).to_arrow_table()


def pandas_sample(path: Path, channels: int) -> pd.DataFrame:
    """The flows of some channels, chosen evenly over all, as pandas would hold them."""
    names = ["device_id", "app_id", "dest_host", "dest_ip"]
    values = ["start", "duration_seconds", "bytes_out", "bytes_in", "outcome"]
    flows = pq.read_table(path / "flows.parquet", columns=names + values).to_pandas()
    flows[names] = flows[names].astype(object)
    flows["dest"] = flows["dest_host"].fillna(flows["dest_ip"])
    flows["day"] = flows["start"].astype("int64") // DAY_US
    channel = flows.groupby(KEYS[:3], dropna=False).ngroup().to_numpy()
    step = max(1, (int(channel.max()) + 1) // channels)
    sample: pd.DataFrame = flows[(channel % step == 0) & (channel // step < channels)]
    return sample.sort_values("start", kind="stable")


def session_starts(begun: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Which flows open a session, by the order of time and the latest end so far."""
    return np.concatenate([[True], begun[1:] > reach[:-1] + 30.0])


def pandas_window(flows: pd.DataFrame) -> pd.Series[float]:
    """The features of one window, with NumPy on its columns."""
    begun = (flows["start"].astype("int64").to_numpy() % DAY_US) / 1e6
    duration = flows["duration_seconds"].to_numpy()
    reach = np.maximum.accumulate(begun + duration)
    opens = session_starts(begun, reach)
    starts = begun[opens]
    lengths = np.append(reach[:-1][opens[1:]], reach[-1]) - starts
    beats = begun[np.concatenate([[True], np.diff(begun) >= 2.0])]
    sent, received = flows["bytes_out"].to_numpy(), flows["bytes_in"].to_numpy()
    median = spread = near = entropy = size = size_spread = np.nan
    if len(starts) >= 6:
        gaps = np.diff(starts)
        median = np.median(gaps)
        spread = np.median(np.abs(gaps - median)) / median
        ratio = np.maximum(gaps[1:], gaps[:-1]) / np.minimum(gaps[1:], gaps[:-1])
        near = np.sum(ratio <= 1.3) / len(starts)
        place = np.clip(np.log2(gaps / median), -2.999999, 2.999999)
        share = np.bincount(((place + 3.0) / 6.0 * 13).astype(int)) / len(gaps)
        share = share[share > 0]
        entropy = -np.sum(share * np.log(share)) / np.log(13)
    if len(sent) >= 4:
        size = np.median(sent)
        size_spread = min(np.median(np.abs(sent - size)) / max(size, 1.0), 10.0)
    total = sent.sum() + received.sum()
    values = [len(flows), len(starts), len(beats), len(np.unique(beats // 3600.0)), median, spread, near]
    values += [entropy, lengths.max(), lengths.sum(), duration.max(), sent.sum() / total if total else np.nan]
    values += [(flows["outcome"] == "failed").mean(), size, size_spread]
    return pd.Series(values, FEATURES)


def tsfresh(sample: pd.DataFrame, windows: int) -> tuple[float, int, int]:
    """Seconds, windows and features of tsfresh on the session gaps of windows with six sessions or more."""
    import tsfresh
    from tsfresh.feature_extraction import EfficientFCParameters

    series = []
    for _, flows in sample.groupby(KEYS, dropna=False, sort=False):
        begun = flows["start"].astype("int64").to_numpy() / 1e6
        reach = np.maximum.accumulate(begun + flows["duration_seconds"].to_numpy())
        starts = begun[session_starts(begun, reach)]
        if len(starts) >= 6:
            series.append(np.diff(starts))
    series = [series[i] for i in range(0, len(series), max(1, len(series) // windows))][:windows]
    order = np.concatenate([np.arange(len(gaps)) for gaps in series])
    window = np.repeat(np.arange(len(series)), [len(gaps) for gaps in series])
    frame = pd.DataFrame({"window": window, "order": order, "gap": np.concatenate(series)})

    def run(part: pd.DataFrame) -> pd.DataFrame:
        return tsfresh.extract_features(
            part,
            column_id="window",
            column_sort="order",
            column_value="gap",
            default_fc_parameters=EfficientFCParameters(),
            n_jobs=os.cpu_count(),
            disable_progressbar=True,
        )

    run(frame[frame["window"] < 4])
    begin = time.perf_counter()
    made = run(frame)
    return time.perf_counter() - begin, len(made), made.shape[1]


def agreement(theirs: pd.DataFrame, common: pd.DataFrame, whole: bool) -> str:
    """Share of the cells within 1e-6, relative to the larger of value and 1, and the largest difference."""

    def keyed(table: pd.DataFrame) -> pd.DataFrame:
        text = {k: table[k].astype(object).where(table[k].notna(), "").astype(str) for k in KEYS[:3]}
        return table.assign(**text).set_index(KEYS).astype(float)

    a, b = keyed(theirs), keyed(common)
    if not a.index.isin(b.index).all() or (whole and len(a) != len(b)):
        return f"{len(a)} windows, not {len(b)}"
    b = b.loc[a.index]
    a["hours"] = a["hours"].clip(upper=b["most_hours"])  # ours is a share of the observed hours
    left, right = a[FEATURES].to_numpy(), b[FEATURES].to_numpy()
    apart = np.abs(left - right) / np.fmax(np.abs(right), 1.0)
    apart = np.where(np.isnan(left) & np.isnan(right), 0.0, np.where(np.isnan(apart), np.inf, apart))
    for name, column in zip(FEATURES, apart.T, strict=True):
        if (column > 1e-6).any():
            print(f"  {name}: {np.sum(column > 1e-6)} windows differ, by up to {column.max():.2g}")
    return f"{100 * np.mean(apart <= 1e-6):.4f}%, {apart.max():.0e}"


def best(step: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Seconds of the best run after a warm-up, and the last result."""
    step()
    fastest = np.inf
    for _ in range(runs):
        begin = time.perf_counter()
        result = step()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest, result


def measure(path: Path, options: argparse.Namespace) -> list[Line]:
    """One line an engine: name, seconds, windows, agreement."""
    seconds, table = best(lambda: ours(path), options.runs)
    n = len(common := ours_in_common(table))
    print(f"{n} channel windows, 15 features; ours: {len(table)} windows, {len(describe())} features")
    lines = [("appcadence, whole catalogue", seconds, n, "-")]
    seconds, few = best(lambda: shared(path), options.runs)
    lines.append(("appcadence, columns=", seconds, n, agreement(ours_in_common(few), common, True)))
    for name, step in (("Polars", polars), ("DuckDB", duckdb)):
        if importlib.util.find_spec(name.lower()):
            seconds, result = best(partial(step, path), options.runs)
            lines.append((name, seconds, n, agreement(result.to_pandas(), common, True)))
        else:
            print(f"{name} is not installed: left out")
    sample = pandas_sample(path, options.channels)
    begin = time.perf_counter()
    result = sample.groupby(KEYS, dropna=False, sort=False).apply(pandas_window).reset_index()
    seconds = time.perf_counter() - begin
    lines.append(("pandas groupby-apply", seconds, len(result), agreement(result, common, False)))
    if importlib.util.find_spec("tsfresh"):
        seconds, count, made = tsfresh(sample, options.windows)
        lines.append(("tsfresh Efficient", seconds, count, f"{made} others"))
    else:
        print("tsfresh is not installed: left out")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"devices": 130, "days": 10, "seed": 0, "channels": 300, "windows": 100, "runs": 3}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--telemetry", type=Path, help="a telemetry directory instead of a simulated one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        raw, path = options.telemetry or scratch / "raw", scratch / "telemetry"
        if options.telemetry is None:
            write(raw, options.devices, options.days, options.seed)
        rows = prepare(raw, path)
        print(f"{rows / 1e6:.2f} M flows on {os.cpu_count()} cores")
        lines = measure(path, options)
    print(f"\n{'engine':28}{'seconds':>9}{'us/window':>11}{'ratio':>10}  agreement with ours")
    our_micros = lines[0][1] / lines[0][2] * 1e6
    for engine, seconds, windows, agrees in lines:
        micros = seconds / windows * 1e6
        print(f"{engine:28}{seconds:9.2f}{micros:11.2f}{micros / our_micros:9.2f}x  {agrees}")
    print("Goals, against our 15 features:")
    our_micros = lines[1][1] / lines[1][2] * 1e6
    for engine, seconds, windows, _ in lines[2:]:
        ratio, goal = seconds / windows * 1e6 / our_micros, GOALS[engine]
        print(f"  {engine:21}{goal:>5}x  {'met' if ratio >= goal else 'not met'} ({ratio:.2f}x)")


if __name__ == "__main__":
    main()
