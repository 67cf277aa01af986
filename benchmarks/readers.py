"""Reading logs on one core, side by side with a parser that does nothing but parse the same file.

readers.py [--megabytes 200] [--runs 3] [--only NAME] [--log CONN.LOG]
readers.py --memory 1,5 [--only NAME]

The logs are made from a real Zeek conn log (TSV, by default of the captures beside the project): its rows
over and over, each time later and with other uids, written in every format. `read` is the reader alone, file
to Arrow tables; `convert` is the command, from the hash of the file to Parquet. The peer of tables is
pyarrow.csv (every column, in its type), that of JSON is orjson (in the `dev` extra; one `loads` a line, or
one for an array), that of words and key=value `split` and one regular expression a line; none keeps anything.
Best of some runs, taken in turn; the process is held to one core.

With --memory, logs of so many GB are converted, each in a process of its own, and the peak
of its resident memory is printed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import log_lines as lines
import orjson
import pyarrow as pa
import pyarrow.csv as pacsv
from log_lines import Row

from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import ReadOptions, reader

LOG = Path(__file__).resolve().parents[2] / "shared/data/labelled/normal_a/conn.log.labeled"
EVERYWHERE = ("0.0.0.0/0", "::/0")
"""So that every row becomes a flow."""
NUMBERS = {"time": float, "interval": float, "double": float, "port": int, "count": int}
LARGE = ("Zeek TSV", "Zeek JSON", "nfdump JSON", "nfdump CSV", "FortiGate", "ECS flows", "AWS VPC")
"""What --memory looks at."""


@dataclass(frozen=True)
class Form:
    """How a format is written and merely parsed."""

    reader: str
    write: Callable[[Row, float], str]
    """A row of Zeek's at some time, as lines of the format."""
    parse: Callable[[Path], None]
    head: str = ""
    tail: str = ""
    mapping: str = ""
    """Of the format `table`, in TOML."""


class Source:
    """The rows of a real conn log, as often as wanted."""

    def __init__(self, log: Path) -> None:
        self.log = log
        text = log.read_text().splitlines()
        header = {line.split("\t")[0]: line.split("\t")[1:] for line in text if line.startswith("#")}
        types = dict(zip(header["#fields"], header["#types"], strict=True))
        # The labels of a labelled log are none of Zeek's.
        self.types = {name: kind for name, kind in types.items() if "label" not in name}
        self.rows = [dict(zip(types, line.split("\t"), strict=True)) for line in text if line[0] != "#"]
        times = [float(row["ts"]) for row in self.rows]
        self.span = max(times) - min(times) + 60

    def repeated(self) -> Iterator[tuple[Row, float]]:
        """Each row with its time, over and over, each time later and with another end of its uid."""
        for again in itertools.count():
            for row in self.rows:
                yield row | {"uid": f"{row['uid'][:-5]}{again:05x}"}, float(row["ts"]) + again * self.span

    def tsv(self, row: Row, at: float) -> str:
        return f"{at:.6f}\t" + "\t".join([row[name] for name in self.types][1:]) + "\n"

    def json(self, row: Row, at: float) -> str:
        known = {
            name: NUMBERS.get(kind, str)(row[name]) for name, kind in self.types.items() if row[name] != "-"
        }
        known |= {
            name: row[name] == "T" for name, kind in self.types.items() if kind == "bool" and name in known
        }
        return json.dumps(known | {"ts": at}) + "\n"

    def forms(self) -> dict[str, Form]:
        head = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
        fields = "#fields\t" + "\t".join(self.types)

        def parse_tsv(path: Path) -> None:
            kinds = {"time": pa.float64(), "interval": pa.float64(), "port": pa.int64(), "count": pa.int64()}
            parse_csv(
                path, "\t", 6, {name: kinds.get(kind, pa.string()) for name, kind in self.types.items()}
            )

        return {
            "Zeek TSV": Form("zeek", self.tsv, parse_tsv, f"{head}{fields}\n"),
            "Zeek JSON": Form("zeek", self.json, parse_lines),
            "Suricata": Form("suricata", lines.suricata, parse_lines),
            "content filter": Form("content_filter", lines.report, parse_lines),
            "nfdump JSON": Form(
                "nfdump",
                lines.nfdump_json,
                parse_array,
                "[\n",
                lines.nfdump_json(self.rows[0], 1e9)[:-2] + "\n]\n",
            ),
            "nfdump CSV": Form("nfdump", lines.nfdump_csv, parse_csv, lines.NFDUMP_HEAD),
            "Argus": Form("argus", lines.argus, parse_csv, lines.ARGUS_HEAD),
            "table": Form("table", lines.table, parse_csv, lines.TABLE_HEAD, mapping=lines.TABLE_MAP),
            "Zscaler": Form("zscaler", lines.zscaler, parse_lines),
            "Jamf": Form("jamf", lines.jamf, parse_lines),
            "GoFlow2": Form("goflow2", lines.goflow2, parse_lines),
            "ECS flows": Form("ecs_flows", lines.ecs, parse_lines),
            "pmacct JSON": Form("pmacct", lines.pmacct, parse_lines),
            "AWS VPC": Form("aws_vpc", lines.aws_vpc, parse_words),
            "Squid": Form("squid", lines.squid, parse_words),
            "FortiGate": Form("fortinet", lines.fortinet, parse_pairs),
            "Palo Alto": Form("paloalto", lines.paloalto, parse_rows),
            "CEF": Form("cef", lines.cef, parse_pairs),
            "LEEF": Form("leef", lines.leef, parse_pairs),
            "Umbrella": Form("umbrella", lines.umbrella, parse_rows),
            "PCAPdroid": Form("pcapdroid", lines.pcapdroid, parse_csv, lines.PCAPDROID_HEAD),
        }


def parse_csv(
    path: Path, delimiter: str = ",", skip: int = 0, types: dict[str, pa.DataType] | None = None
) -> None:
    pacsv.read_csv(
        path,
        read_options=pacsv.ReadOptions(skip_rows=skip, column_names=types and list(types)),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, quote_char=False if skip else '"'),
        convert_options=pacsv.ConvertOptions(column_types=types, null_values=["-", "(empty)", ""]),
    )


def parse_lines(path: Path) -> None:
    with path.open("rb") as log:
        for line in log:
            orjson.loads(line)


def parse_array(path: Path) -> None:
    orjson.loads(path.read_bytes())


def parse_words(path: Path) -> None:
    with path.open("rb") as log:
        for line in log:
            line.split()


PAIR = re.compile(rb'([\w.-]+)=("[^"]*"|[^\s"]*)')


def parse_pairs(path: Path) -> None:
    with path.open("rb") as log:
        for line in log:
            dict(PAIR.findall(line))


def parse_rows(path: Path) -> None:
    """Rows without a header line."""
    width = len(next(csv.reader([path.open().readline()])))
    parse_csv(path, types=dict.fromkeys(map(str, range(width)), pa.string()))


def make(path: Path, form: Form, source: Source, size: int) -> None:
    """A log of about `size` bytes."""
    with path.open("w") as out:
        out.write(form.head)
        left = size
        for row, at in source.repeated():
            left -= out.write(form.write(row, at))
            if left < 0:
                break
        out.write(form.tail)


def read(name: str, path: Path, mapping: Path) -> int:
    options = ReadOptions(local_nets=tuple(map(ip_network, EVERYWHERE)), mapping=mapping)
    return sum(len(batch) for table, batch in reader(name).read([path], options) if table == "flows")


def whole(name: str, path: Path, out: Path, mapping: Path) -> None:
    report = convert([path], out, format=name, local_nets=EVERYWHERE, mapping=mapping)
    if report.rejected:
        raise SystemExit(f"{name}: {report.rejected} rows of the benchmark's log were rejected")
    shutil.rmtree(out)


def measured(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def compare(source: Source, forms: dict[str, Form], size: int, runs: int, scratch: Path) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    print(f"one core, {size / 1e6:.0f} MB a log, best of {runs}; MB/s; ratio: read against parser")
    print(f"{'':<16}{'M flows':>8}{'read':>8}{'convert':>9}{'parser':>8}{'ratio':>7}")
    path, out, mapping = scratch / "log", scratch / "out", scratch / "map.toml"
    for name, form in forms.items():
        make(path, form, source, size)
        mapping.write_text(form.mapping)
        flows, megabytes = read(form.reader, path, mapping), path.stat().st_size / 1e6
        steps = (
            partial(read, form.reader, path, mapping),
            partial(whole, form.reader, path, out, mapping),
            partial(form.parse, path),
        )
        times = [[measured(step) for step in steps] for _ in range(runs)]
        ours, all_of_it, parser = (min(column) for column in zip(*times, strict=True))
        print(
            f"{name:<16}{flows / 1e6:>8.2f}{megabytes / ours:>8.0f}{megabytes / all_of_it:>9.0f}"
            f"{megabytes / parser:>8.0f}{ours / parser:>7.2f}",
            flush=True,
        )


def memory(source: Source, forms: dict[str, Form], sizes: list[float], scratch: Path) -> None:
    command = [Path(sys.executable).with_name("appcadence"), "convert", "--out", scratch / "out"]
    nets = itertools.chain.from_iterable(("--local-net", net) for net in EVERYWHERE)
    print(f"{'':<12}{'GB':>6}{'seconds':>9}{'MB/s':>7}{'peak MB':>9}")
    for name, size in itertools.product([n for n in LARGE if n in forms], sizes):
        path = scratch / "conn.log"
        make(path, forms[name], source, int(size * 1e9))
        begin = time.perf_counter()
        process = subprocess.Popen([*command, *nets, path], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - begin
        if status:
            raise SystemExit(f"converting {size} GB of {name} failed")
        shutil.rmtree(scratch / "out")
        print(
            f"{name:<12}{size:>6.1f}{took:>9.1f}{1e3 * size / took:>7.0f}{usage.ru_maxrss / 1e3:>9.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", help="one of the formats")
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--memory", help="sizes in GB, such as 1,5")
    options = parser.parse_args()
    if not options.log.exists():
        raise SystemExit(f"{options.log} does not exist; give a Zeek conn log (TSV) with --log")
    source = Source(options.log)
    forms = {n: form for n, form in source.forms().items() if options.only in (None, n)}
    with tempfile.TemporaryDirectory() as scratch:
        if options.memory:
            memory(source, forms, [float(size) for size in options.memory.split(",")], Path(scratch))
        else:
            compare(source, forms, int(options.megabytes * 1e6), options.runs, Path(scratch))


if __name__ == "__main__":
    main()
