"""What the page's script says under every filter and order, in a real browser, against the cases."""

import csv
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from make import DAY0, fleet, flows, together

from appcadence.models.eligibility import BEHAVIOURS
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.training.injection import past_and_future
from appcadence.triage.cases import SEVERITIES, STATUSES
from appcadence.triage.report.page import write_report
from appcadence.triage.report_data import Output

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = """
<script>
const out=[];
for(const [name,value] of ASKED){
  const box=by("by-"+name);box.value=value;box.dispatchEvent(new Event("input"));
  out.push({name,value,said:by("shown").textContent,
    rows:rows.filter(r=>!r.hidden).map(r=>Number(r.dataset.case)),
    cards:[...document.querySelectorAll("article")].filter(c=>!c.hidden).length});
  box.value="";box.dispatchEvent(new Event("input"));
}
const heads=[...list.querySelectorAll("th[data-key] button")],orders={};
for(const button of heads)for(const way of ["up","down"]){
  button.click();
  orders[button.parentNode.dataset.key+way]=[...list.tBodies[0].rows].filter(r=>!r.hidden).map(r=>Number(r.dataset.case));
}
const told=document.createElement("pre");told.id="told";
told.textContent=JSON.stringify({out,orders,local:document.querySelector("time").textContent,zone:by("zone").textContent,csv:csv()});
document.body.append(told);
</script>
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page in"),
]


@pytest.fixture(scope="module")
def out(fleet_model, tmp_path_factory):
    """A day on which several beacons raise cases of all severities."""
    path = tmp_path_factory.mktemp("script")
    tables = fleet(devices=8, days=5, seed=9)
    day = past_and_future(tables, (DAY0 + 4 * 86400) * 1_000_000)[1]["flows"]
    at = 4 * 86400 + np.arange(0, 86400, 300.0)
    beacons = [flows(at + k, f"phone-0{k}", None, f"c{k}.example", 0.5, 310, 180) for k in range(5)]
    score_directory(
        {"flows": together(day, *beacons)},
        Scorer.load(fleet_model),
        path / "out",
        alerts_per_device_day=3.0,
    )
    return path / "out"


def driven(out, top, asked, zone="Asia/Tokyo"):
    """What the page's own script answers to each filter, and in which order the list then is."""
    file = out.parent / f"report-{top}.html"
    write_report(out, file, top=top)
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", file.read_text("utf-8"))
    page = page.replace("</body>", DRIVER.replace("ASKED", json.dumps(asked)) + "</body>")
    file.write_text(page, "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    profile = f"--user-data-dir={out.parent / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *options, profile, file.as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
        env={"TZ": zone, "HOME": str(out.parent), "PATH": "/usr/bin:/bin"},
    )
    (told,) = re.findall(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(told)


@pytest.mark.parametrize("top", [200, 3])
def test_the_status_line_is_true_under_every_filter(out, top):
    cases = Output(out).cases()
    assert len(cases) > 5
    asked = [("device", "phone-03"), ("device", "PHONE"), ("device", "nobody"), ("app", "c2.example")]
    asked += [("behaviour", name) for name in BEHAVIOURS]
    asked += [("severity", name) for name in SEVERITIES] + [("status", name) for name in STATUSES]
    told = driven(out, top, asked)

    def fits(case, name, value):
        names = [case["app_id"] or "(unknown app)", *(part["dest"] for part in case["destinations"])]
        return {
            "device": any(value.lower() in device.lower() for device in case["device_ids"]),
            "app": value in " ".join(names),
            "behaviour": value in (case["behaviours"] or ()),
            "severity": case["severity"] == value,
            "status": case["status"] == value,
        }[name]

    for answer in told["out"]:
        want = [c["case"] for c in cases if fits(c, answer["name"], answer["value"])]
        cards = sum(number <= top for number in want)
        said = f"{len(want)} of {len(cases)} cases match"
        assert answer["said"] == said + (f", {cards} of them with a card" if cards < len(want) else "")
        assert answer["rows"] == want and answer["cards"] == cards
    assert any(answer["rows"] for answer in told["out"])


def test_headers_sort_and_times_are_the_readers_too(out):
    cases = Output(out).cases()
    told = driven(out, 200, [])
    keys = {"first": lambda c: c["first_time"], "last": lambda c: c["last_time"], "case": lambda c: c["case"]}
    keys["device"] = lambda c: " ".join(c["device_ids"]).lower()
    for name, key in keys.items():
        for way, down in (("up", False), ("down", True)):
            values = {case["case"]: key(case) for case in cases}
            order = [values[number] for number in told["orders"][name + way]]
            # A first click on the header by which the list is sorted turns it round.
            turned = down if name != "case" else not down
            assert len(order) == len(cases) and order == sorted(order, reverse=turned), name + way
    assert told["zone"] == ", in brackets Asia/Tokyo"
    saved = list(csv.DictReader(io.StringIO(told["csv"])))
    shown = {c["case"]: str(np.datetime64(c["first_time"], "us"))[:19] for c in cases}
    assert {int(row["Case"]): row["Alerts from"][:19] for row in saved} == shown
    utc, local = re.fullmatch(
        r"\d{4}-(\d\d-\d\d \d\d:\d\d) \((\d\d-\d\d \d\d:\d\d)\)", told["local"]
    ).groups()
    hours = (int(local[6:8]) - int(utc[6:8])) % 24
    assert hours == 9 and utc[9:] == local[9:]
