"""What is fuzzed: each reader, and each other kind of file that comes from outside, with good samples.

The samples are those of the other tests and, where the real captures lie beside the project, small pieces
of them. Databases are kept small with small pages, so that an edit seldom hits empty space.
"""

from __future__ import annotations

import json
import plistlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

import ios_files as ios
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bundles import BINARY, chat_ipa, info, mdm
from declared_samples import SAMPLES as DECLARED
from flow_samples import MAP, SAMPLES, sniffs
from lease_samples import FILES as LEASES

from appcadence.errors import TelemetryError
from appcadence.telemetry import readers
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.identity import Devices
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.inventory.merge import merge
from appcadence.telemetry.inventory.sources import read_app_map, read_source
from appcadence.telemetry.readers import FORMATS, ReadOptions, reader
from appcadence.telemetry.readers._declaration import Declaration
from appcadence.telemetry.schema import DIRECTORY_TABLES, conform
from fuzz.edges import edges
from fuzz.target import Target

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "data"
APP_MAP = b"app_name,app_id\nChat,com.example.chat\nMail,com.example.mail\n"
ROWS = 12
"""Of a real capture."""
_LIMITS = {
    "duration_seconds": (0, 31 * 86_400),
    "dest_port": (0, 65_535),
    "bytes_out": (0, 2**63 - 1),
    "bytes_in": (0, 2**63 - 1),
    "size_bytes": (0, 2**63 - 1),
    "hits": (1, 2**63 - 1),
    "time_resolution_seconds": (0, 2**31),
}


def targets(scratch: Path) -> dict[str, Target]:
    """All targets by name; `scratch` is a directory for their other files."""
    scratch.mkdir(parents=True, exist_ok=True)
    mapping = scratch / "map.toml"
    mapping.write_text(MAP)
    conn = scratch / "conn.log"
    conn.write_bytes(_zeek()[0])
    found = {name: _reader(name, seeds, mapping) for name, seeds in _seeds(scratch).items()}
    found["zeek names"] = _reader("zeek", _zeek_names(), mapping, conn)
    names = scratch / "names.csv"
    names.write_bytes(APP_MAP)
    found |= {f"inventory {name}": _inventory(names, *seeds) for name, seeds in _sources(scratch).items()}
    found["devices"] = Target([b"address,device_id,from,to\n10.0.0.5,d,2024-01-01T00:00:00Z,\n"], _devices)
    found["app map"] = Target([APP_MAP], _app_map)
    declarations = (Path(readers.__file__).parent / "declared").glob("*.toml")
    maps = [MAP.encode(), *(path.read_bytes() for path in sorted(declarations))]
    found["table map"] = Target(maps, _table_map)
    for name, content, _ in DECLARED.values():
        seeds = found.setdefault(name, _reader(name, [], mapping)).seeds
        seeds.append(content)
        layout = reader(name).layout(content)
        if layout.names or layout.starts:  # each line says all
            records = (json.dumps({"a": 1, "message": line}) for line in content.decode().splitlines())
            seeds.append("\n".join(records).encode())
    assert {name for name in FORMATS if name in found} == set(FORMATS)
    return found | edges(scratch / "edges")


def _reader(name: str, seeds: list[bytes], mapping: Path, *others: Path) -> Target:
    named = ("powerlog", "knowledgec", "biome", "unified_log", "app_privacy_report")
    device = "phone" if name in named else None
    options = ReadOptions(device_id=device, mapping=mapping)

    def read(path: Path) -> int:
        sniffed = sniffs(name, path)
        assert sniffed in (True, False)
        rejected = 0
        for table, batch in reader(name).read([path, *others], options):
            check(table, batch)
            rejected += len(batch) if table == "rejected" else 0
        return rejected

    def whole(path: Path, out: Path) -> object:
        report = convert([path, *others], out, format=name, device_id=device, mapping=mapping)
        unusable = [file.unusable for file in report.files if file.unusable]
        if unusable:
            check_directory(out)
            shutil.rmtree(out)
            raise TelemetryError(unusable[0])
        return report

    return Target(seeds, read, whole)


def check(table: str, batch: pa.Table) -> None:
    """That a batch is what its table is declared to be, and holds no impossible number."""
    fitted = conform(DIRECTORY_TABLES[table], batch)
    fitted.validate(full=True)
    for name, (low, high) in _LIMITS.items():
        if name in fitted.column_names:
            inside = pc.and_(pc.greater_equal(fitted[name], low), pc.less_equal(fitted[name], high))
            assert pc.all(inside).as_py() in (True, None), f"{name} is out of range"
    if table == "flows" and len(fitted):
        assert (pc.max(pc.utf8_length(fitted["dest_host"].cast(pa.string()))).as_py() or 0) <= 253
        seconds = pc.divide(fitted["start"].cast(pa.int64()).cast(pa.float64()), 1e6)
        assert pc.max(pc.add(seconds, pc.fill_null(fitted["duration_seconds"], 0))).as_py() < 4_102_444_800
    for column in DIRECTORY_TABLES[table].columns:
        if pa.types.is_timestamp(column.type):
            span = pc.min_max(fitted[column.name].cast(pa.int64()))
            low, high = span["min"].as_py(), span["max"].as_py()
            assert low is None or 0 <= low <= high < 4_102_444_800_000_000, f"{column.name} is out of range"


def check_directory(out: Path) -> None:
    """That a telemetry directory can be read as a whole."""
    directory = TelemetryDirectory(out)
    for name in directory.tables():
        if name != "inventory":
            check(name, directory.read(name))


def _inventory(names: Path, seeds: list[bytes], suffix: str = "") -> Target:
    app_map = read_app_map(names)

    def read(path: Path) -> int:
        source = read_source(path, "phone", app_map)
        assert all(isinstance(reason, str) for _, reason in source.bad)
        return len(source.bad)

    def whole(path: Path, out: Path) -> object:
        return merge([path], out, device_id="phone", app_map=names)

    return Target(seeds, read, whole, suffix)


def _devices(path: Path) -> int:
    Devices.read(path)
    return 0


def _app_map(path: Path) -> int:
    read_app_map(path)
    return 0


def _table_map(path: Path) -> int:
    Declaration.read(path)
    return 0


def _seeds(scratch: Path) -> dict[str, list[bytes]]:
    found = {name: [content] for name, content in SAMPLES.items()}
    found["zeek"] = _zeek()
    found["leases"] = [text.encode() for text in LEASES.values()]
    found["argus"] += _real("mobile/android_24h.binetflow", "labelled/empire/flows.argus.csv")
    found["nfdump"].append(
        b"ts,te,td,sa,da,sp,dp,pr,flg,ibyt,obyt\n"
        b"2023-11-14 22:13:20,2023-11-14 22:13:21,1.000,10.0.0.5,192.0.2.1,50000,443,TCP,...AP.SF,260,0\n"
        b"2023-11-14 22:13:20,2023-11-14 22:13:21,1.000,192.0.2.1,10.0.0.5,443,50000,TCP,...AP.SF,620,0\n"
        b"Summary\nflows,bytes\n"
    )
    found["nfdump"].append(
        b'{"type":"FLOW","sampled":0,"first":"2023-11-14T22:13:20.250","last":"2023-11-14T22:13:21.000",'
        b'"proto":6,"tcp_flags":"...AP.SF","src_port":50000,"dst_port":443,"in_bytes":260,'
        b'"src4_addr":"10.0.0.5","dst4_addr":"192.0.2.1"}\n'
    )
    found["table"].append(_parquet(scratch))
    found["powerlog"] = [_powerlog(scratch)]
    real = CAPTURES / "ios" / "powerlog_2021-12-16_05-54_84E2141B.PLSQL"
    if real.exists():
        used = [ios.OFFSETS, ios.PUSHES, ios.TRANSFERS, ios.SCREEN, ios.LOCK, ios.BRIGHTNESS, ios.APPS]
        found["powerlog"].append(_small(_copied(real, scratch), used))
    usage = [
        ("/app/usage", 7e8, 7e8 + 60, "com.example.a", None),
        ("/device/isLocked", 7e8, 7e8 + 9, None, 0),
    ]
    found["knowledgec"] = [_small(ios.knowledge(scratch / "x.db", usage * 5), ["ZOBJECT"])]
    real = CAPTURES / "ios" / "knowledgec-10.14.db"
    if real.exists():
        found["knowledgec"].append(_small(_copied(real, scratch), ["ZOBJECT"]))
    screen = [ios.record("Screen did unlock (Was locked for 3 seconds)", 1), ios.record("Screen did lock", 9)]
    log = [*screen, ios.record(ios.push("com.example.a", '{ aps = { "content-available" = 1; }; }'), 3)]
    found["unified_log"] = [
        ios.lines(scratch / "l", log).read_bytes(),
        json.dumps(log, indent=1).encode(),
        b"2025-10-09 09:00:00.000000+0000  localhost SpringBoard[58]: Screen did unlock\nand more\n"
        b"2025-10-09 09:01:00.000000+0000  localhost SpringBoard[58]: Screen did lock\n",
        b'Timestamp,Process,Message\n2025-10-09T09:00:00.000Z,apsd,"Screen did\n lock"\n',
    ]
    front = [ios.in_focus(7e8 + k, "com.example.a", 1 - k % 2) for k in range(6)]
    found["biome"] = [ios.segb(scratch / f"s{v}", front, v).read_bytes() for v in (1, 2)]
    found["app_privacy_report"] = [
        ios.lines(scratch / "r", [ios.contact(), ios.contact(domain="192.0.2.1")]).read_bytes(),
        *_real("ios/ios_app_privacy_report.ndjson"),
    ]
    return found


def _zeek() -> list[bytes]:
    real = ("zeek/conn.tsv.head40.log", "zeek/conn.json.head40.log", "labelled/normal_a/conn.log.labeled")
    return _real(*real) + [
        b"#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
        b"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes"
        b"\tresp_bytes\tconn_state\tlocal_orig\n"
        b"1700000000.000001\tC1\t10.0.0.5\t5000\t192.0.2.1\t443\ttcp\tssl\t1.5\t10\t20\tSF\tT\n"
        b"1700000009.5\tC2\t10.0.0.5\t5001\t192.0.2.2\t53\tudp\tdns\t-\t-\t-\tS0\t-\n"
    ]  # fmt: skip


def _zeek_names() -> list[bytes]:
    ids = {
        "uid": "C1",
        "id.orig_h": "10.0.0.5",
        "id.orig_p": 5000,
        "id.resp_h": "192.0.2.1",
        "id.resp_p": 443,
    }
    rows = [
        {"ts": 1.5, "version": "TLSv12", "server_name": "a.example", "established": True},
        {"ts": 1.5, "server_name": "q.example", "client_scid": "x"},
        {"ts": 1.5, "trans_depth": 1, "host": "h.example:80", "status_code": 200},
        {
            "ts": 1.5,
            "trans_id": 7,
            "query": "d.example",
            "answers": ["c.example", "192.0.2.1"],
            "TTLs": [9, 9.5],
        },
    ]
    dns = (
        b"#separator \\x09\n#set_separator\t,\n#unset_field\t-\n#path\tdns\n"
        b"#fields\tts\tuid\tid.orig_h\ttrans_id\tquery\tanswers\tTTLs\n"
        b"1700000000.5\tC7\t10.0.0.5\t7\td.example\tc.example,192.0.2.1\t9.000000,9.5\n"
    )
    found = [_json_lines(ids | row) for row in rows] + [dns]
    return found + _real(
        "zeek/ssl.tsv.head40.log", "zeek/ssl.json.head40.log", "labelled/androidtester/dns.log"
    )


def _json_lines(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _real(*names: str) -> list[bytes]:
    """The first lines of real captures, as far as these are at hand."""
    present = [CAPTURES / name for name in names if (CAPTURES / name).exists()]
    return [b"".join(path.read_bytes().splitlines(keepends=True)[: 8 + ROWS]) for path in present]


def _copied(path: Path, scratch: Path) -> Path:
    return Path(shutil.copy(path, scratch / "copy"))


def _small(path: Path, tables: list[str]) -> bytes:
    """A database with the first rows of some of its tables and nothing else."""
    connection = sqlite3.connect(path, isolation_level=None)
    query = "SELECT name FROM sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite_%'"
    for kind in ("trigger", "view", "table"):
        for (name,) in connection.execute(query, (kind,)).fetchall():
            if name not in tables:
                connection.execute(f'DROP {kind} IF EXISTS "{name}"')
    for name in tables:
        connection.execute(
            f'DELETE FROM "{name}" WHERE rowid NOT IN (SELECT rowid FROM "{name}" LIMIT {ROWS})'
        )
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA page_size = 512")
    connection.execute("VACUUM")
    connection.close()
    return path.read_bytes()


def _powerlog(scratch: Path) -> bytes:
    tables = {
        ios.PUSHES: (
            "timestamp, BundleID, Topic, Priority, Size",
            [(ios.START + 60 * i, "com.example.a", None, 10, 5) for i in range(5)],
        ),
        ios.LOCK: ("timestamp, Locked", [(ios.START, 0), (ios.START + 50, 1)]),
        ios.SCREEN: (
            "timestamp, bundleID, Display, Level",
            [(ios.START + 1, "com.example.a", 0, 1), (ios.START + 9, "com.example.b", 0, 1)],
        ),
        ios.TRANSFERS: (
            "timestamp, bundleID, state, bytesSent, bytesReceived, taskUUID",
            [(ios.START, "nsurlsessiond:[com.example.a:(null)]", 1, 10, 20, "T")],
        ),
        ios.BACKLIGHT: ("timestamp, Block, Active", [(ios.START, "Backlight", 1)]),
        ios.APPS: (
            "timestamp, AppBundleId, AppName, AppBundleVersion",
            [(ios.START, "com.example.a", "A", "1.0")],
        ),
    }
    return _small(ios.powerlog(scratch / "x.PLSQL", tables), [ios.OFFSETS, *tables])


def _parquet(scratch: Path) -> bytes:
    columns = {
        "begin": pa.array([1_700_000_000_000_000, 1_700_000_060_000_000], pa.timestamp("us", tz="UTC")),
        "finish": pa.array(["2023-11-15 00:13:22", None]),
        "client": ["d1", "d1"],
        "url": ["https://a.example/x", "b.example:8443"],
        "sent": [1.5, None],
        "action": ["Allow", "deny"],
        "port": pa.array([443, 8443], pa.int32()),
    }
    pq.write_table(pa.table(columns), scratch / "t.parquet", compression="zstd")
    return (scratch / "t.parquet").read_bytes()


def _sources(scratch: Path) -> dict[str, tuple[list[bytes], str]]:
    managed = {"UDID": "D1", "ManagedApplicationList": {"com.example.chat": {"Status": "Managed"}}}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "x"
        lists = [mdm(path).read_bytes(), mdm(path, fmt=BINARY).read_bytes(), plistlib.dumps(managed)]
        archive = chat_ipa(path).read_bytes()
    chat = {"id": "1", "displayName": "Chat", "version": "1.0", "platform": "ios"}
    return {
        "mdm": (lists, ""),
        "lists": (
            [
                json.dumps({"udid": "D1", "applications": [{"identifier": "com.a", "name": "A"}]}).encode(),
                json.dumps(
                    {"StatusItems": {"app": {"managed": {"list": [{"identifier": "com.a"}]}}}}
                ).encode(),
                b"name,bundle_identifier,source\nA,com.a,ios_apps\n",
            ],
            "",
        ),
        "info": (
            [plistlib.dumps(info(modes=["fetch"])), plistlib.dumps(info(modes=["fetch"]), fmt=BINARY)],
            "",
        ),
        "ipa": ([archive], ""),
        "intune": (
            [
                json.dumps({"value": [chat, chat | {"version": "2.0"}]}).encode(),
                b"displayName,version,platform\nChat,1.0,ios\nOther,2,iOS\n",
            ],
            "",
        ),
        "hand": (
            [
                b'[apps."com.example.chat"]\nname = "Chat"\napproved = true\npush_entitled = false\n'
                b'expected_hosts = ["chat.example"]\nbackground_modes = ["fetch"]\n'
            ],
            ".toml",
        ),
    }
