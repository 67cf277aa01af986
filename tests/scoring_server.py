"""The command `appcadence serve` as a process, and request bodies for it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from datetime import datetime

import httpx
import pyarrow as pa

JSON = {"Content-Type": "application/json"}
STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
TABLES = ("flows", "activity", "notifications", "inventory")


@contextlib.contextmanager
def serving(*options):
    """Yields the address of a server on a free port, and its process, which is ended afterwards."""
    command = [sys.executable, "-m", "appcadence", "serve", "--port", "0", *map(str, options)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = ""
        while not (found := re.search(r"at\s(http://\S+);", said)):
            line = server.stdout.readline()
            assert line, f"the server ended: {said}"
            said += line
        yield found[1], server
    finally:
        server.terminate()
        try:
            server.wait(60)
        finally:
            server.kill()
            server.stdout.close()


def plain(value):
    """As JSON has it: times as text with microseconds."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


def rows_of(table):
    return [{name: plain(value) for name, value in row.items()} for row in table.to_pylist()]


def body_of(tables, **more):
    return json.dumps({name: rows_of(table) for name, table in tables.items()} | more).encode()


def arrow_of(table, make=pa.ipc.new_stream, compression=None):
    sink = pa.BufferOutputStream()
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def post(address, path="/score", **request):
    return httpx.post(f"{address}{path}", timeout=60, **request)


def refusal(answer, status):
    """The one sentence of an answer that is an error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (said,) = answer.json().values()
    assert set(answer.json()) == {"error"} and said and "\n" not in said
    return said
