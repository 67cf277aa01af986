"""What to tell the user after a conversion: about rows that do not count, and what to do if none does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from appcadence.errors import TelemetryError
from appcadence.telemetry.addresses import Network
from appcadence.telemetry.file_report import LEFT_OUT
from appcadence.telemetry.ingest.conversion_report import Tally
from appcadence.telemetry.listing import listed
from appcadence.telemetry.readers import DECLARATIONS, FORMATS, ReadOptions
from appcadence.telemetry.readers._strangers import Strangers

MAX_NETWORKS = 8
_MIN_SHARE = 0.8
"""IPv6 rows of foreign hosts come from anywhere, those of the user's own phones from a few networks."""
_NETWORKS = "give the networks (CIDR) of your devices"
_MENDED_BY = {
    "inbound": (_NETWORKS, "local_nets"),
    "elsewhere": (_NETWORKS, "local_nets"),
    "names": ("give the logs of connections as well", None),
    "answers": ("export both directions", None),
    "packets": (
        "have the exporter make flows and log their ends (for pmacct: timestamp_end in the aggregate of "
        "nfacctd, to which pmacctd's plugin nfprobe sends flows)",
        None,
    ),
}
_MANY_FAULTY = 10
"""If more rows than this, and more than one in this many, are faulty, the commonest reason is reported."""
_OUTGOING = "give the logs of connections that your devices open"


def notes(tallies: Collection[Tally], completed: int, options: ReadOptions) -> Iterator[str]:
    """Sentences about what was read into a directory."""
    added = [tally.report for tally in tallies]
    names = {tally.path: tally.report.name for tally in tallies}
    yield from (f"{names[path]}: {what}." for path, what in options.said if path in names)
    if repeated := sum(file.repeated for file in added):
        yield f"{repeated:,} rows are in several of the logs, or in logs converted before; they count once."
    rejected, faults = (
        sum(file.rejected for file in added),
        sum((tally.faults for tally in tallies), Counter()),
    )
    if faults and rejected > _MANY_FAULTY and _MANY_FAULTY * rejected > sum(file.read for file in added):
        fault, rows = faults.most_common(1)[0]
        yield f"The commonest reason for rejected rows ({rows:,} of {rejected:,}): {fault}."
    if completed:
        yield f"{completed:,} flows of the telemetry are completed by later or longer records."
    if not any(file.read for file in added):
        what = listed(sorted({FORMATS[file.format] for file in added}))
        yield f"The files hold no {what}, the only rows of their format that count."
    yield from _like_phones(options.strangers, bool(options.local_nets))


def nothing_kept(added: Collection[Tally], options: ReadOptions) -> TelemetryError | None:
    """The error if rows were read and none counts: the commonest reason, and what to do."""
    files = [tally.report for tally in added]
    read = sum(file.read for file in files)
    if not read or any(file.rows or file.repeated or "stored" in file.left_out for file in files):
        return None
    if all("leases" in file.left_out for file in files):
        return None
    names = listed([file.name for file in files])
    said = f"none of the {read:,} rows of {names} is telemetry of a monitored device: "
    left_out: Counter[str] = Counter()
    for file in files:
        left_out.update(file.left_out)
    if sum(file.kept for file in files):
        said = f"none of the {read:,} records of {names} is about apps, the screen or pushes"
        faulty = _faulty(added)
        return TelemetryError(f"{said}; {faulty}" if faulty else said)
    rejected = sum(file.rejected for file in files)
    reason, rows = left_out.most_common(1)[0] if left_out else ("", 0)
    # Records of other kinds are no fault of a log; rows that are faulty are what keeps it from counting.
    if rejected > rows or (rejected and reason == "other_kind"):
        return TelemetryError(f"{said}{_faulty(added)}; {_corrected(added)}")
    mended, argument = _MENDED_BY.get(reason, ("give other logs", None))
    if reason == "inbound" and options.local_nets:
        # Other networks would not change their direction.
        mended, argument = _OUTGOING, None
    if reason == "elsewhere" and (networks := options.strangers.rows.most_common(MAX_NETWORKS)):
        mended += f", which may be {listed([str(network) for network, _ in networks])}"
    return TelemetryError(f"{said}{rows:,} {LEFT_OUT[reason]}; {mended}", argument)


def _corrected(added: Collection[Tally]) -> str:
    """What to do about faulty rows: for a time that is missing, what the format's declaration says."""
    fault = sum((tally.faults for tally in added), Counter()).most_common(1)[0][0]
    for declared in (DECLARATIONS.get(tally.report.format) for tally in added):
        if declared and declared.hint and any(name in fault for name in declared.clocks):
            return declared.hint
    return "correct the export"


def _faulty(added: Collection[Tally]) -> str:
    """How many rows are faulty and the commonest reason, in words; empty if none is."""
    faults = sum((tally.faults for tally in added), Counter())
    if not faults:
        return ""
    fault, rows = faults.most_common(1)[0]
    rejected = sum(tally.report.rejected for tally in added)
    return f"{rejected:,} are faulty, most often ({rows:,}) because {fault}"


def _like_phones(strangers: Strangers, nets_given: bool) -> Iterator[str]:
    """Sentences about networks whose rows were left out although they look like those of phones."""
    found = strangers.rows.most_common()
    ipv6 = [(network, rows) for network, rows in found if network.version == 6]
    private = [(network, rows) for network, rows in found if network.version == 4]
    total = sum(rows for _, rows in ipv6) + strangers.other_ipv6
    few = ipv6[:MAX_NETWORKS]
    if few and sum(rows for _, rows in few) >= _MIN_SHARE * total:
        yield _hint(few, "IPv6 addresses, which phones have beside IPv4 addresses,", nets_given)
    if private:
        yield _hint(private[:MAX_NETWORKS], "private addresses", nets_given)


def _hint(networks: Sequence[tuple[Network, int]], what: str, nets_given: bool) -> str:
    rows, names = sum(count for _, count in networks), [str(network) for network, _ in networks]
    options = " ".join(f"--local-net {name}" for name in names)
    more = ", too" if nets_given else " and the networks of their other addresses"
    return (
        f"{rows:,} rows left out were opened by {what} in {listed(names, MAX_NETWORKS)}: if your devices are "
        f"there, convert into a new directory with {options}{more}."
    )
