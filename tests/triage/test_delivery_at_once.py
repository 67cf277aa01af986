"""Two deliveries over one spool at once, in processes of their own, to a real receiver."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from alert_receivers import receiver, receiving

from appcadence.triage.delivery import deliver

HERE = Path(__file__).parents[1]
TIMES = 20
SENDER = """
import json, sys
from pathlib import Path
from appcadence.triage.delivery import deliver
from alert_receivers import receiver
kind, spool, (port, first, last) = sys.argv[1], Path(sys.argv[2]), map(int, sys.argv[3:])
documents = [{"event": {"id": f"case-{n}"}, "appcadence": {"status": "new"}} for n in range(first, last)]
print("ready", flush=True)
sys.stdin.readline()
done = deliver(documents, [receiver(kind, port)], spool)
print(json.dumps([done.sent, done.waiting, done.unsure, done.problems]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["syslog", "http"])
def test_two_at_once_send_each_alert_once(kind, tmp_path):
    for turn in range(TIMES):
        file, spool = tmp_path / f"{kind}-{turn}", tmp_path / f"spool-{turn}"
        with receiving(kind, file) as port:
            senders = [
                subprocess.Popen(
                    [sys.executable, "-c", SENDER, kind, spool, str(port), *spans],
                    cwd=HERE,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for spans in (("0", "6"), ("3", "9"))
            ]
            for sender in senders:
                assert sender.stdout.readline() == "ready\n"
            for sender in senders:
                sender.stdin.write("\n")
                sender.stdin.flush()
            for sender in senders:
                *_, problems = json.loads(sender.communicate()[0])
                # Of a spool one sends at a time; what the other has waits there.
                assert not problems or problems == [f"another run is sending from {spool}"]
            last = deliver([], [receiver(kind, port)], spool)
            assert (last.waiting, last.unsure, last.problems) == (0, 0, [])
        taken = [json.loads(line)["document"]["event"]["id"] for line in file.read_text().splitlines()]
        assert sorted(taken) == [f"case-{n}" for n in range(9)]
