"""The triage page's tools: filtering, sorting, and copying an exception entry or a verdict command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from appcadence.models.eligibility import BEHAVIOURS
from appcadence.triage.report.data import Row
from appcadence.triage.report.drawing import moment, text

_TERM = timedelta(days=90)

SCRIPT = """
"use strict";
const by=id=>document.getElementById(id);
const rows=[...document.querySelectorAll("tr[data-rank]")];
const number=(r,k)=>r.dataset[k]===""?Infinity:Number(r.dataset[k]);
const orders={rank:(a,b)=>number(a,"rank")-number(b,"rank"),score:(a,b)=>number(a,"score")-number(b,"score")};
function show(){
const device=by("by-device").value.toLowerCase(),app=by("by-app").value.toLowerCase();
const behaviour=by("by-behaviour").value;let shown=0;
rows.sort(orders[by("sort").value]||orders.rank);
for(const row of rows){
const card=by("w"+row.dataset.rank);
const keep=row.dataset.device.toLowerCase().includes(device)&&row.dataset.app.toLowerCase().includes(app)
&&(!behaviour||row.dataset.behaviours.split(" ").includes(behaviour));
row.hidden=card.hidden=!keep;shown+=keep;
row.parentNode.append(row);card.parentNode.append(card);
}
by("shown").textContent=shown+" of "+rows.length+" windows";
}
async function copy(button){
const source=by(button.dataset.copy);let word="Copied";
try{await navigator.clipboard.writeText(source.textContent)}
catch{getSelection().selectAllChildren(source);word="Selected; copy it with the keyboard"}
button.nextElementSibling.textContent=word;
}
if(rows.length){by("tools").hidden=false;
for(const id of ["by-device","by-app","by-behaviour","sort"])by(id).addEventListener("input",show);show()}
for(const button of document.querySelectorAll("button[data-copy]")){
button.hidden=false;button.addEventListener("click",()=>copy(button))}
"""
"""The page's only script; it reads the page and writes text alone, and no name enters it."""


def controls() -> str:
    """Filter and order of the ranked windows; hidden until the script runs."""
    names = "".join(f'<option value="{b}">{b.replace("_", " ")}</option>' for b in BEHAVIOURS)
    return (
        '<div class="tools" id="tools" role="search" aria-label="Ranked windows" hidden>'
        '<label>Device <input id="by-device" type="search"></label>'
        '<label>App or destination <input id="by-app" type="search"></label>'
        f'<label>Behaviour <select id="by-behaviour"><option value="">any</option>{names}</select></label>'
        '<label>Order <select id="sort"><option value="rank">rank</option>'
        '<option value="score">lowest score first</option></select></label>'
        '<span id="shown" role="status"></span></div>'
    )


def attributes(row: Row) -> str:
    """What the script filters and orders a row of the table by."""
    data = {
        "rank": row["rank"],
        "score": "" if row["score"] is None else row["score"],
        "device": row["device_id"],
        "app": f"{row['app_id'] or '(unknown app)'} {row['dest']}",
        "behaviours": " ".join(row["behaviours"] or ()),
    }
    return "".join(f' data-{name}="{text(value)}"' for name, value in data.items())


def decide(row: Row, out: Path) -> str:
    """What to copy once a window is understood; to be read and selected without the script, too."""
    rank = row["rank"]
    parts = (
        ("x", "exception entry", exception_entry(row).split("\n")),
        ("v", "verdict command", [verdict_command(out, rank)]),
    )
    body = "".join(
        f'<pre id="{key}{rank}" tabindex="0" aria-label="{name}">{_lines(lines)}</pre>'
        f'<p><button type="button" data-copy="{key}{rank}" hidden>Copy {name}</button> '
        '<span role="status"></span></p>'
        for key, name, lines in parts
    )
    return f"<details><summary>Exception entry and verdict command</summary>{body}</details>"


def exception_entry(row: Row) -> str:
    """An entry of `exceptions.toml` for a window, with the texts an owner must write.

    It holds from the window's day on for 90 days. What the entry would be refused for, such as a name that
    is no host, is refused where the file is read.
    """
    day = row["window_start"]
    fields = [
        ("id", _quoted(f"window-{moment(day, '%Y-%m-%d')}-{row['rank']}")),
        ("owner", _quoted("WHO ANSWERS FOR IT")),
        ("reason", _quoted("WHY THE APP DOES THIS")),
        ("business_justification", _quoted("WHY IT IS WANTED")),
        ("created", moment(day, "%Y-%m-%d")),
        ("expires", moment(day + _TERM // timedelta(microseconds=1), "%Y-%m-%d")),
        ("device_id", _quoted(row["device_id"])),
    ]
    if row["app_id"] is not None:
        fields.append(("app_id", _quoted(row["app_id"])))
    if row["dest"] != "*":
        fields.append(("destination", _quoted(row["dest"])))
    if row["behaviours"]:
        fields.append(("behaviours", f"[{', '.join(map(_quoted, row['behaviours']))}]"))
    return "\n".join(["[[exception]]", *(f"{name} = {value}" for name, value in fields)])


def verdict_command(out: Path, rank: int) -> str:
    """The command that records a decision on the window of a rank."""
    return (
        f"appcadence verdict add {shlex.quote(str(out))} --rank {rank} "
        '--verdict VERDICT --analyst NAME --justification "WHY"'
    )


def _quoted(value: str) -> str:
    """A TOML basic string; what does not print is spelled out."""
    spelled = "".join(f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in value)
    return f'"{spelled}"'


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(map(text, lines))
