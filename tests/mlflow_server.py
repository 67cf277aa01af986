"""A real MLflow server for tests, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request


@contextlib.contextmanager
def mlflow_server(path):
    """Yields the address of an MLflow server that keeps everything in the directory `path`."""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", address.rpartition(":")[2], "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{path}/mlflow.db"]
    command += ["--serve-artifacts", "--artifacts-destination", str(path / "artifacts")]
    with (path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=path, stdout=log, stderr=log, start_new_session=True)
    try:
        await_answer(f"{address}/health", process, path / "server.log")
        yield address
    finally:
        stop(process)


def stop(process):
    """End a server that nobody needs any more, and all that it started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def await_answer(address, process, log):
    """Wait until a server that was just started answers."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"no answer from {address}: {log.read_text()[-2000:]}")
