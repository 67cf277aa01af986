"""The evidence file: whatever is changed in it is found, and no writer, crash or full disk spoils it."""

import hashlib
import io
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from peak import KILOBYTES

from appcadence.errors import EvidenceError
from appcadence.triage.audit_log import EMPTY, _next, anchor, append, extend, lines, verify

AT = datetime(2026, 3, 2, 1, tzinfo=UTC)
N = 1000


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """(path, raw lines, states before each line and after the last)."""
    path = tmp_path_factory.mktemp("chain") / "evidence.jsonl"
    facts = [
        {"verdict": "benign", "analyst": f"ana-{k % 7}", "why": 'se\u00e4n "\\ hash', "k": k}
        for k in range(N)
    ]
    for k in range(0, N, 250):
        extend(path, "decision", facts[k : k + 250], AT + timedelta(days=k))
    raw = path.read_bytes().splitlines(keepends=True)
    return path, raw, [EMPTY, *(state for state, _ in lines(path))]


def write(tmp_path, raw):
    path = tmp_path / "evidence.jsonl"
    path.write_bytes(b"".join(raw))
    return path


def test_a_line_can_be_checked_by_hand(chain):
    """The hash as the documentation defines it, from nothing but the standard library."""
    _, raw, _ = chain
    before = "0" * 64
    for number, text in enumerate(raw, 1):
        fields = json.loads(text)
        own = fields.pop("hash")
        body = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        assert own == hashlib.sha256(body.encode()).hexdigest()
        assert (fields["seq"], fields["prev"]) == (number, before)
        assert text.isascii() and set(fields) == {"at", "facts", "kind", "prev", "seq"}
        before = own
    assert verify(chain[0]) == (N, before, None)


def found(state, text, after):
    """Whether reading `text` from `state` on breaks, and does not arrive at `after` unnoticed."""
    try:
        for raw in io.BytesIO(text):
            state = _next(state, raw)
    except EvidenceError:
        return True
    return state != after


def test_every_change_of_one_byte_is_found(chain):
    """Each byte of 1,000 lines is changed in four ways: a bit, a line end, a digit, and any other value.

    `verify` folds `_next` over the lines, so up to the changed line its state is the one it had before; only
    that line and the next one are read again here, by `_next` too. The test below compares a sample with the
    answer on the whole file.
    """
    _, raw, states = chain
    rng = np.random.default_rng(1)
    tried = 0
    for k, line in enumerate(raw):
        after = states[min(k + 2, N)]
        follower = raw[k + 1] if k + 1 < N else b""
        bits, values = 1 << rng.integers(0, 8, len(line)), rng.integers(1, 256, len(line))
        for i, byte in enumerate(line):
            digit = b"0123456789abcdef"[(i + k) % 16]
            for new in {byte ^ int(bits[i]), 0x0A, digit, (byte + int(values[i])) % 256} - {byte}:
                tried += 1
                changed = line[:i] + bytes([new]) + line[i + 1 :] + follower
                if not found(states[k], changed, after):
                    pytest.fail(f"line {k + 1}, byte {i}: {byte} -> {new}")
    assert tried > 3 * sum(map(len, raw)) > 3 * 250_000


def test_the_whole_file_gives_the_same_answer(chain, tmp_path):
    _, raw, _ = chain
    whole = b"".join(raw)
    rng = np.random.default_rng(2)
    for at in [0, len(whole) - 1, len(whole) - 2, *rng.integers(0, len(whole), 60)]:
        new = bytes([(whole[at] + int(rng.integers(1, 256))) % 256])
        number = whole[:at].count(b"\n") + 1
        path = write(tmp_path, [whole[:at], new, whole[at + 1 :]])
        with pytest.raises(EvidenceError, match=rf"line {number}\b"):
            verify(path)
        for bad in (whole[:at] + whole[at + 1 :], whole[:at] + new + whole[at:]):
            with pytest.raises(EvidenceError, match="line"):
                verify(write(tmp_path, [bad]))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda r: r[:499] + r[500:], "line 500 says that it is line 501"),
        (lambda r: r[1:], "line 1 says that it is line 2"),
        (lambda r: r[:10] + [r[11], r[10]] + r[12:], "line 11 says that it is line 12"),
        (lambda r: r[:10] + [r[9]] + r[10:], "line 11 says that it is line 10"),
        (lambda r: r + [r[-1]], "line 1001 says that it is line 1000"),
        (lambda r: r[:5] + [b"\n"] + r[5:], "line 6 was edited"),
        (lambda r: [b"\xef\xbb\xbf", *r], "line 1 was edited"),
        (lambda r: [line.replace(b"\n", b"\r\n") for line in r], "line 1 was edited"),
        (lambda r: [r[0].replace(b",", b", ", 1), *r[1:]], "line 1 was edited"),
    ],
)
def test_cut_moved_and_repeated_lines_are_found_and_named(chain, tmp_path, change, where):
    with pytest.raises(EvidenceError, match=where):
        verify(write(tmp_path, change(chain[1])))


def test_a_line_written_anew_with_a_right_hash_is_found(chain, tmp_path):
    _, raw, _ = chain
    fields = json.loads(raw[6]) | {"facts": {"verdict": "malicious"}}
    fields.pop("hash")
    fields["hash"] = hashlib.sha256(
        json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    forged = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    with pytest.raises(EvidenceError, match="line 8 was not written after the line before it"):
        verify(write(tmp_path, raw[:6] + [forged] + raw[7:]))


def test_only_a_head_shows_a_cut_tail_or_a_rewrite(chain, tmp_path):
    path, raw, states = chain
    assert verify(path, states[N].head).anchored == N
    assert verify(path, states[990].head.upper()).anchored == 990
    short = write(tmp_path, raw[:990])
    assert verify(short) == (990, states[990].head, None)
    assert verify(short, states[990].head).anchored == 990
    with pytest.raises(EvidenceError, match=r"none of its 990 lines .* cut off its end"):
        verify(short, states[N].head)
    again = tmp_path / "again.jsonl"
    extend(again, "decision", [json.loads(line)["facts"] for line in raw], AT)
    assert verify(again).lines == N
    with pytest.raises(EvidenceError, match="written anew"):
        verify(again, states[N].head)
    with pytest.raises(EvidenceError, match="64 hexadecimal"):
        verify(path, "abc")


def test_every_torn_tail_is_reported_and_never_repaired(chain, tmp_path):
    _, raw, _ = chain
    start = sum(map(len, raw[:2]))
    for kept in range(1, len(raw[2])):
        path = write(tmp_path, [*raw[:2], raw[2][:kept]])
        before = path.read_bytes()
        for act in (lambda p: append(p, "run", {}, AT), verify):
            with pytest.raises(EvidenceError, match=rf"torn \({kept} byte.* truncate -s {start} "):
                act(path)
        assert path.read_bytes() == before
    os.truncate(path, start)
    append(path, "run", {}, AT)
    assert verify(path).lines == 3


def test_nothing_is_added_after_an_edited_last_line(chain, tmp_path):
    _, raw, _ = chain
    path = write(tmp_path, [raw[0], raw[1].replace(b"benign", b"malign")])
    with pytest.raises(EvidenceError, match="the last line was edited"):
        append(path, "run", {}, AT)


def test_what_is_no_evidence_is_refused(tmp_path):
    path = tmp_path / "e.jsonl"
    with pytest.raises(ValueError, match="run, decision"):
        append(path, "note", {}, AT)
    with pytest.raises(ValueError, match="time zone"):
        append(path, "run", {}, AT.replace(tzinfo=None))
    for facts, error in (({"x": float("nan")}, ValueError), ({"x": np.int64(1)}, TypeError)):
        append(path, "run", {}, AT)
        size = path.stat().st_size
        with pytest.raises(error):
            extend(path, "run", [{}, facts], AT)
        assert path.stat().st_size == size
    with pytest.raises(EvidenceError, match="cannot be read"):
        verify(tmp_path / "nowhere")
    with pytest.raises(EvidenceError, match="is a directory; name a regular file"):
        append(tmp_path, "run", {}, AT)
    empty = write(tmp_path, [])
    assert verify(empty) == EMPTY


def test_long_lines_are_found_again(tmp_path):
    path = tmp_path / "e.jsonl"
    for size in (10, 70_000, 600_000, 5_000_000, 3):
        append(path, "run", {"x": "y" * size}, AT)
    assert verify(path).lines == 5


def _append_many(path, name):
    for k in range(150):
        append(path, "decision", {"by": name, "k": k, "pad": "x" * (k * 40)}, AT)


def test_two_processes_append_at_once(tmp_path):
    path = tmp_path / "e.jsonl"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_append_many, args=(path, name)) for name in "ab"]
    for process in both:
        process.start()
    while any(process.is_alive() for process in both):
        if path.exists():
            verify(path)
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert verify(path).lines == 300
    order = [json.loads(raw)["facts"]["by"] for _, raw in lines(path)]
    assert order.count("a") == order.count("b") == 150


_WRITER = """
import sys
from datetime import UTC, datetime
from appcadence.triage.audit_log import append
print("ready", flush=True)
while True:
    append(sys.argv[1], "run", {"x": "y" * int(sys.argv[2])}, datetime.now(UTC))
"""


def test_whole_lines_survive_kill_9(tmp_path):
    """Killed between short lines and in the middle of long ones: whole lines verify, a torn one is named."""
    path = tmp_path / "e.jsonl"
    append(path, "run", {}, AT)
    torn = 0
    for size in (300, 300, *[60_000_000] * 20):
        if torn:
            break
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, path, str(size)], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        before = path.stat().st_size
        while path.stat().st_size == before and writer.poll() is None:
            pass
        time.sleep(0.2 if size == 300 else 0.0)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        content = path.read_bytes()
        whole = content.count(b"\n")
        if not content.endswith(b"\n"):
            torn += 1
            with pytest.raises(EvidenceError, match=rf"line {whole + 1} is torn"):
                verify(path)
            os.truncate(path, content.rfind(b"\n") + 1)
        assert verify(path).lines == whole > 1
    assert torn, "no write was cut off; the test did not test what it should"


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "e.jsonl"
    append(path, "run", {}, AT)
    before = path.read_bytes()
    code = (
        "import sys; from datetime import UTC, datetime; from appcadence.triage.audit_log import append\n"
        "try: append(sys.argv[1], 'run', {'x': 'y' * 100_000}, datetime.now(UTC))\n"
        "except ValueError as error: print(error)"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    done = subprocess.run(
        [sys.executable, "-B", "-c", code, path], preexec_fn=limit, capture_output=True, text=True
    )
    assert done.stdout == f"{path} cannot be added to (File too large)\n" and not done.stderr
    assert path.read_bytes() == before


def test_a_long_file_is_verified_in_little_memory(tmp_path):
    path = tmp_path / "e.jsonl"
    extend(path, "decision", ({"k": k, "pad": "x" * 200} for k in range(60_000)), AT)
    code = (
        f"{KILOBYTES}\nimport sys; from appcadence.triage.audit_log import verify\n"
        "before = peak(); print(verify(sys.argv[1]).lines, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    verified, grown = map(int, done.stdout.split())
    assert verified == 60_000 and grown < 2_000, f"{grown} kB for {path.stat().st_size:,} bytes"


def test_anchors_are_added_whole_and_bring_a_rewritten_file_to_light(tmp_path):
    file, kept = tmp_path / "evidence.jsonl", tmp_path / "elsewhere"
    heads = []
    for number in range(3):
        heads.append(append(file, "run", {"number": number}, AT))
        anchor(kept, file, heads[-1], AT)
    rows = [line.split(" ") for line in kept.read_text().splitlines()]
    assert [row[1:] for row in rows] == [[head, '"evidence.jsonl"'] for head in heads]
    file.unlink()
    for number in range(3):
        append(file, "run", {"number": -number - 1}, AT)
    # The chain of the rewritten file is whole: without a head it says nothing against that.
    assert verify(file).lines == 3
    with pytest.raises(EvidenceError, match="written anew"):
        verify(file, rows[1][1])
    kept.write_bytes(kept.read_bytes()[:-1])
    before = kept.read_bytes()
    with pytest.raises(EvidenceError, match="does not end with a line end"):
        anchor(kept, file, heads[-1], AT)
    assert kept.read_bytes() == before


@pytest.fixture
def noted(tmp_path):
    """(evidence, anchors): four lines, each head noted, among those of another file."""
    file, kept = tmp_path / "evidence.jsonl", tmp_path / "elsewhere"
    for number in range(4):
        anchor(kept, "other.jsonl", f"{number}" * 64, AT)
        anchor(kept, file, append(file, "run", {"number": number}, AT), AT)
    return file, kept


def test_every_anchor_of_a_file_is_looked_for_and_none_is_written(noted):
    file, kept = noted
    before = kept.read_bytes()
    append(file, "run", {"number": 4}, AT)
    assert verify(file, anchors=kept)[::2] == (5, 4)
    assert verify(file, verify(file).head, anchors=kept).anchored == 5
    assert kept.read_bytes() == before
    raw = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(raw[:3]))
    with pytest.raises(EvidenceError, match=r"head on line 8 of .*elsewhere is that of none of its 3 lines"):
        verify(file, anchors=kept)
    file.write_bytes(raw[0])
    for number in range(5):
        append(file, "run", {"number": -number}, AT)
    with pytest.raises(EvidenceError, match=r"head on line 4 of .*: lines were cut off its end, or .* anew"):
        verify(file, anchors=kept)


def test_anchors_stand_in_the_order_of_their_lines(noted):
    file, kept = noted
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join([*lines[:3], lines[7], lines[5]]))
    with pytest.raises(EvidenceError, match=r"line 5 .* is that of line 3: comes before the head noted"):
        verify(file, anchors=kept)
    kept.write_bytes(lines[1] * 2)  # the same one twice is no disorder
    assert verify(file, anchors=kept).anchored == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[:-1], "line 8 is no anchor"),
        (lambda raw: raw.replace(b"\n", b"\r\n"), "line 1 is no anchor"),
        (lambda raw: raw + b"\xff\n", "line 9 is no anchor"),
        (lambda raw: raw + b"\n", "line 9 is no anchor"),
        (
            lambda raw: raw.replace(b"evidence", b"evidenze"),
            "no head of .* called evidence.jsonl",
        ),
        (lambda raw: b"", "no head of an evidence file"),
    ],
)
def test_a_file_that_holds_no_anchors_is_one_sentence(noted, change, said):
    file, kept = noted
    kept.write_bytes(change(kept.read_bytes()))
    with pytest.raises(EvidenceError, match=said):
        verify(file, anchors=kept)
    kept.unlink()
    with pytest.raises(EvidenceError, match="cannot be read"):
        verify(file, anchors=kept)


def test_a_file_of_any_name_is_found_among_its_anchors(tmp_path):
    file, kept = tmp_path / 'e "\n\x7f\u202e.jsonl', tmp_path / "elsewhere"
    anchor(kept, file, append(file, "run", {}, AT), AT)
    assert verify(file, anchors=kept).anchored == 1
