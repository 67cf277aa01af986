"""One real day in ten and more formats, each through the commands, against a count that shares no code.

formats.py [--only NAME]

The conn log of one PC on one day, a C2 on it (the in-situ captures beside the project), is written in each
declared format. `appcadence convert` and `score` with the reference model run as a user runs them. Beside
them the written file is counted with the standard library alone: which destinations the device has, how many
connections (lines; of records of one direction, those of the device) and how many bytes out. The last column
is the place of the C2 among the destinations that were ranked, of how many; Zeek's own log stands first.
Formats without durations, ports or failures say less, and may rank it lower.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from captures import DATA, IN_SITU, PC
from readers import Form, Source

Seen = tuple[str, str, int]
"""Device, destination, bytes out of a connection."""
NEW = [
    "Zscaler", "Jamf", "GoFlow2", "ECS flows", "pmacct JSON", "AWS VPC", "Squid",
    "FortiGate", "Palo Alto", "CEF", "LEEF", "Umbrella", "PCAPdroid",
]  # fmt: skip
PAIR = re.compile(r'(\w+)=("[^"]*"|\S*)')


def objects(lines: list[str], take: Callable[[dict], Seen]) -> Iterator[Seen]:
    for line in lines:
        yield take(json.loads(line))


def one_way(source: str, dest: str, size: int) -> Seen:
    """A record of one direction: what a device gets back is no traffic of its own."""
    return (source, dest, size) if source == PC else ("", "", 0)


def count(name: str, lines: list[str]) -> Iterator[Seen]:
    """What the lines of a format say, by the standard library."""
    match name:
        case "Zscaler":
            for line in lines:
                event = json.loads(line)["event"]
                yield event["external_devid"], event["eurl"].split("/")[0], int(event["reqsize"])
        case "Jamf":
            for line in lines:
                event = json.loads(line)["event"]
                yield event["device"]["deviceId"], event["hostName"], 0
        case "GoFlow2":
            yield from objects(
                lines,
                lambda r: one_way(r["src_addr"], r["dst_addr"], r["bytes"]),
            )
        case "ECS flows":
            yield from objects(
                lines,
                lambda r: one_way(
                    r["source"]["ip"],
                    r["destination"]["ip"],
                    r["source"]["bytes"],
                ),
            )
        case "pmacct JSON":
            yield from objects(
                lines,
                lambda r: one_way(r["ip_src"], r["ip_dst"], r["bytes"]),
            )
        case "AWS VPC":
            for words in map(str.split, lines):
                yield one_way(words[3], words[4], int(words[9]))
        case "Squid":
            for line in lines:
                words = line.split()
                yield words[2], words[6].rpartition(":")[0], 0
        case "FortiGate":
            for line in lines:
                said = dict(PAIR.findall(line))
                yield said["srcip"], said["dstip"], int(said["sentbyte"])
        case "Palo Alto":
            for row in csv.reader(lines):
                yield row[7], row[8], int(row[32])
        case "CEF":
            for line in lines:
                said = dict(PAIR.findall(line))
                yield said["src"], said["dhost"], int(said["out"])
        case "LEEF":
            for line in lines:
                said = dict(part.split("=", 1) for part in line.split("|", 5)[5].strip().split("\t"))
                yield said["src"], said["hostname"], int(said["srcBytes"])
        case "Umbrella":
            for row in csv.reader(lines):
                yield row[1], row[8].rstrip("."), 0
        case "PCAPdroid":
            for row in csv.DictReader(lines):
                yield row["SrcIP"], row["Info"], int(row["BytesSent"])


def counted(name: str, text: str) -> dict[str, tuple[int, int]]:
    """Connections and bytes out of each destination."""
    found: dict[str, tuple[int, int]] = {}
    for device, dest, size in count(name, text.splitlines()):
        if device:
            n, out = found.get(dest, (0, 0))
            found[dest] = (n + 1, out + size)
    return found


BY_ID = ("Umbrella", "Jamf", "Zscaler", "PCAPdroid")
"""Whose devices have ids, or are the monitored ones."""


def run(*words: str | Path) -> str:
    """The command; its output, or the end of this program with it."""
    command = [sys.executable, "-m", "appcadence", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def converted(folder: Path, log: Path, *options: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The flows and the best score of each destination."""
    run("convert", log, "--out", folder / "telemetry", *options)
    run("score", folder / "telemetry", "--out", folder / "scored", "--evidence", folder / "evidence.jsonl")
    flows = pd.concat(map(pd.read_parquet, sorted((folder / "telemetry").glob("flows*/**/*.parquet"))))
    scores = pd.read_parquet(folder / "scored/scores.parquet")
    best = scores.dropna(subset="score").groupby("dest")["score"].max().sort_values(ascending=False)
    return flows, best


def place(best: pd.Series, names: set[str]) -> str:
    order = [name in names or name.rsplit(":")[0] in names for name in best.index]
    return f"{order.index(True) + 1} of {len(order)}" if any(order) else f"none of {len(order)}"


def compared(name: str, form: Form, source: Source, c2: str) -> None:
    rows = [(row, float(row["ts"])) for row in source.rows if row["proto"] in ("tcp", "udp")]
    text = form.head + "".join(form.write(row, at) for row, at in rows) + form.tail
    truth = counted(name, text)
    hosts = {
        dest
        for row, at in rows
        if row["id.resp_h"] == c2
        for dest in counted(name, form.head + form.write(row, at))
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        log.write_text(text)
        named = () if name in BY_ID else ("--local-net", f"{PC}/32")
        flows, best = converted(Path(folder), log, "--format", form.reader, *named)
    names = [flows[name].astype(object) for name in ("dest_host", "dest_ip") if name in flows]
    dest = names[0].fillna(names[-1])
    ours = flows.assign(dest=dest).groupby("dest").agg(n=("start", "size"), out=("bytes_out", "sum"))
    found = {str(dest): (int(row.n), int(row.out)) for dest, row in ours.iterrows()}
    differ = {dest for dest in truth | found.keys() if truth.get(dest) != found.get(dest)}
    total = sum(n for n, _ in truth.values())
    print(
        f"{name:12} {len(text.splitlines()):7,} {total:7,} {len(flows):7,} {len(truth):6} {len(differ):7}   "
        f"{place(best, hosts)}",
        flush=True,
    )
    for dest in sorted(differ)[:3]:
        print(f"    {dest}: counted {truth.get(dest)}, converted {found.get(dest)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only")
    chosen = parser.parse_args().only
    print("format         lines  counted  flows  dests  differ   place of the C2")
    for capture, c2 in IN_SITU.items():
        source = Source(DATA / "insitu" / capture / "conn.log")
        print(capture)
        with tempfile.TemporaryDirectory() as folder:
            _, best = converted(
                Path(folder), DATA / "insitu" / capture / "conn.log", "--local-net", f"{PC}/32"
            )
        print(f"{'Zeek':51} {place(best, {c2})}")
        forms = source.forms()
        for name in [chosen] if chosen else NEW:
            compared(name, forms[name], source, c2)


if __name__ == "__main__":
    main()
