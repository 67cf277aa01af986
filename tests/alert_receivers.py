"""A syslog server and a webhook as processes that die where a test says.

    python alert_receivers.py (syslog | http) PORT FILE [DIE_AT NUMBER]

Every accepted alert becomes a line of FILE, on disk before the response. The process kills itself at its
NUMBERth alert: `accept` before it reads, `part` in the middle of the body, `read` before it records, `record`
before it responds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path


def receiver(kind, port):
    """What sends to one of these."""
    from appcadence.triage.receivers import Syslog, Webhook  # the receivers themselves start without it

    return Syslog("127.0.0.1", port) if kind == "syslog" else Webhook(f"http://127.0.0.1:{port}/in?a=b")


class Fate:
    def __init__(self, point="", number="0"):
        self.point, self.left = point, int(number)

    def reach(self, point):
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def record(file, line):
    with Path(file).open("a") as stream:
        stream.write(line + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def syslog(connection, file, fate):
    fate.reach("accept")
    stream = connection.makefile("rb")
    while count := stream.read(1):
        while count[-1:] != b" ":
            count += stream.read(1)
        length = int(count)
        message = stream.read(length // 2)
        fate.reach("part")
        message += stream.read(length - len(message))
        fate.reach("read")
        if len(message) == length:
            head, _, text = message.decode("ascii").partition("{")
            record(file, json.dumps({"head": head, "document": json.loads("{" + text)}))
            fate.reach("record")


def http(connection, file, fate):
    fate.reach("accept")
    stream = connection.makefile("rb")
    request, headers = stream.readline().decode(), {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    length = int(headers.get("content-length", 0))
    body = stream.read(length // 2)
    fate.reach("part")
    body += stream.read(length - len(body))
    fate.reach("read")
    if not body or len(body) < length:
        return  # the sender died
    status = Path(f"{file}.status").read_text() if Path(f"{file}.status").exists() else "204 No Content"
    if status.startswith("2"):
        facts = {"request": request.strip(), "headers": headers, "document": json.loads(body)}
        record(file, json.dumps(facts))
        fate.reach("record")
    connection.sendall(f"HTTP/1.1 {status}\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".encode())


def main(kind, port, file, *fate):
    with socket.create_server(("127.0.0.1", int(port))) as server:
        print(server.getsockname()[1], flush=True)
        will = Fate(*fate)
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(ConnectionError):
                {"syslog": syslog, "http": http}[kind](connection, file, will)


@contextlib.contextmanager
def receiving(kind, file, *fate, port=0):
    """Yields the port of a receiver; it is killed in the end, if it still lives."""
    command = [sys.executable, __file__, kind, str(port), str(file), *map(str, fate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
