"""The exceptions file: what it says, and the one sentence about what is wrong with it."""

import datetime
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from appcadence.errors import AppcadenceError
from appcadence.triage.exceptions import read

HEAD = """
[[exception]]
id = "mail-poll"
owner = "Mail team"
reason = "Polls its own server"
business_justification = "Staff mail"
created = 2026-03-01
expires = 2026-06-30
"""
SUFFIXES = PublicSuffixList()
EVIL = "\\u001b]0;own\\u0007\\u202e"


def of(tmp_path, text):
    file = tmp_path / "exceptions.toml"
    file.write_text(text, encoding="utf-8")
    return read(file)


def wrong(tmp_path, text):
    with pytest.raises(AppcadenceError) as raised:
        of(tmp_path, text)
    said = str(raised.value)
    assert len(said.splitlines()) == 1 and not any(ord(c) < 32 or ord(c) == 127 for c in said)
    return said


def test_an_exception_is_read_whole(tmp_path):
    (one, two) = of(
        tmp_path,
        HEAD
        + 'app_id = "com.example.*"\ndevice_group = "kiosks"\ndestination = "*.Example.com."\n'
        + 'behaviours = ["structured_cadence"]\nmin_period_seconds = 900\nmax_bytes_per_day = 5e6\n'
        + 'hours = "22:00-24:00"\n'
        + HEAD.replace("mail-poll", "other")
        + 'destination = "203.0.113.9"\ndevice_id = "d1"\n[groups]\nkiosks = ["d1", "d2"]\n',
    )
    assert (
        one.app_id == "com.example.*" and one.devices == {"d1", "d2"} and one.destination == "*.example.com"
    )
    assert one.behaviours == {"structured_cadence"} and one.min_period_seconds == 900.0
    assert one.max_bytes_per_day == 5e6 and one.hours == (22, 0)
    assert (one.created, one.expires) == (datetime.date(2026, 3, 1), datetime.date(2026, 6, 30))
    assert two.app_id is None and two.devices == {"d1"} and len(two.behaviours) == 3
    assert two.destination == ipaddress.ip_network("203.0.113.9/32") and two.hours is None


def test_an_empty_file_holds_no_exceptions(tmp_path):
    assert of(tmp_path, "") == ()


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("", "neither app_id nor destination"),
        ('app = "com.a"', "unknown key 'app'; known are id, owner"),
        ('device_id = "d1"', "neither app_id nor destination"),
        ('app_id = ""', "app_id is ''"),
        ("app_id = 3", "app_id is 3"),
        ('app_id = "*"', "only stand at the end"),
        ('app_id = "com.*.mail"', "only stand at the end"),
        ('app_id = "com.*"', "many vendors"),
        ('app_id = "uk.co.*"', "many vendors"),
        ('app_id = "io.github.*"', "many vendors"),
        ('destination = "*"', "no host"),
        ('destination = "a.*.example.com"', "no host"),
        ('destination = "*.com"', "public suffix"),
        ('destination = "*.co.uk"', "public suffix"),
        ('destination = "*.GitHub.io"', "public suffix"),
        ('destination = "*.amazonaws.com"', "public suffix"),
        ('destination = "*.kawasaki.jp"', "public suffix"),
        ('destination = "*.xn--p1ai"', "public suffix"),
        ('destination = "*.203.0.113.9"', "no host"),
        ('destination = "https://a.example/"', "no range"),
        (f'destination = "{EVIL}"', "no host"),
        ('destination = "10.0.0.1/8"', "host bits"),
        ('destination = "0.0.0.0/0"', "too wide"),
        ('destination = "::/0"', "too wide"),
        ('destination = "::/8"', "/104 or longer"),
        ('destination = "::ffff:0:0/96"', "/104 or longer"),
        ('app_id = "com.a"\ndevice_group = "x"', "'x' is not in [groups]"),
        ('app_id = "com.a"\ndevice_group = "x"\ndevice_id = "d"', "give one of them"),
        ('app_id = "com.a"\nbehaviours = "beacon"', "structured_cadence, session_persistence"),
        ('app_id = "com.a"\nbehaviours = ["beacon"]', "'beacon'"),
        ('app_id = "com.a"\nbehaviours = [["beacon"]]', "beacon"),
        ('app_id = "com.a"\nmin_period_seconds = 0', "number above 0"),
        ('app_id = "com.a"\nmin_period_seconds = true', "number above 0"),
        ('app_id = "com.a"\nmax_bytes_per_day = inf', "number above 0"),
        ('app_id = "com.a"\nmax_bytes_per_day = nan', "number above 0"),
        ('app_id = "com.a"\nhours = "22:30-06:00"', "whole hours"),
        ('app_id = "com.a"\nhours = "06:00-06:00"', "whole hours"),
        ('app_id = "com.a"\nhours = 22:00:00', "whole hours"),
    ],
)
def test_what_is_wrong_is_said_with_the_id(tmp_path, line, part):
    said = wrong(tmp_path, HEAD + line + "\n")
    assert "exception mail-poll: " in said and part in said


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('owner = "Mail team"', "", "mail-poll: owner is missing"),
        ('owner = "Mail team"', 'owner = " "', "mail-poll: owner is ' '"),
        ("expires = 2026-06-30", "", "mail-poll: expires is missing"),
        ("created = 2026-03-01", "", "mail-poll: created is missing"),
        ("expires = 2026-06-30", "expires = 2026-02-28", "2026-02-28 lies before created 2026-03-01"),
        ("expires = 2026-06-30", 'expires = "2026-06-30"', "a date without quotes"),
        ("expires = 2026-06-30", "expires = 2026-06-30T12:00:00Z", "a date without quotes"),
        ("expires = 2026-06-30", "expires = 2026-06-31", "not readable TOML"),
        ('id = "mail-poll"', "", "number 1: id is None"),
        ('id = "mail-poll"', f'id = "{EVIL}"', "number 1: id is "),
        ("[[exception]]", "[exception]", "not an array of tables"),
        ("[[exception]]", "[[exceptions]]", "unknown 'exceptions'"),
        ("[[exception]]", "groups = 3\n[[exception]]", "groups is not a table"),
        ("[[exception]]", "groups.a = [3]\n[[exception]]", "group 'a'"),
        ("[[exception]]", "groups.a = []\n[[exception]]", "group 'a'"),
    ],
)
def test_what_is_wrong_with_the_rest_is_said(tmp_path, old, new, part):
    assert part in wrong(tmp_path, HEAD.replace(old, new) + 'app_id = "com.a"\n')


def test_ids_are_unique(tmp_path):
    one = HEAD + 'app_id = "com.a"\n'
    assert "two exceptions have the id mail-poll" in wrong(tmp_path, one + one)


def test_unreadable_files_are_named(tmp_path):
    for file in (tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(AppcadenceError, match="cannot be read"):
            read(file)
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AppcadenceError, match="not readable TOML"):
        read(tmp_path / "bad.toml")


KEYS = st.sampled_from(
    [
        "id",
        "owner",
        "reason",
        "business_justification",
        "created",
        "expires",
        "app_id",
        "device_id",
        "device_group",
        "destination",
        "behaviours",
        "min_period_seconds",
        "max_bytes_per_day",
        "hours",
        "other",
    ]
)
TEXTS = st.one_of(
    st.text(), st.from_regex(r"(\*\.)?([a-z*-]{1,3}\.){0,4}[a-z0-9*]{1,4}(/\d+)?", fullmatch=True)
)
VALUES = st.one_of(
    TEXTS.map(lambda t: '"' + "".join(f"\\U{ord(c):08x}" for c in t) + '"'),
    st.sampled_from(["1", "-1", "1e400", "nan", "[]", "{}", "true", "2026-01-01", "9999-12-31", "[[['x']]]"]),
)


@given(st.dictionaries(KEYS, VALUES), st.booleans())
def test_hostile_entries_are_read_or_refused_in_one_line(tmp_path_factory, values, complete):
    usual = dict(line.split(" = ", 1) for line in HEAD.strip().splitlines()[1:]) if complete else {}
    rows = usual | values
    text = "[[exception]]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items())
    _read_or_refuse(tmp_path_factory, text.encode("utf-8", "surrogatepass"))


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode("utf-8", "ignore"))))
def test_hostile_files_are_read_or_refused_in_one_line(tmp_path_factory, content):
    _read_or_refuse(tmp_path_factory, content)


def _read_or_refuse(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "hostile.toml"
    file.write_bytes(content)
    try:
        entries = read(file)
    except AppcadenceError as error:
        assert len(str(error).splitlines()) == 1
        return
    for entry in entries:
        assert entry.app_id or entry.destination
        assert not isinstance(entry.destination, str) or "*" not in entry.destination[1:]


@given(st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){0,3}", fullmatch=True))
def test_a_wildcard_never_covers_a_public_suffix(tmp_path_factory, domain):
    file = tmp_path_factory.getbasetemp() / "wildcard.toml"
    file.write_text(HEAD + f'destination = "*.{domain}"\n')
    try:
        read(file)
        accepted = True
    except AppcadenceError as error:
        accepted = "public suffix" not in str(error)
        assert not accepted
    if SUFFIXES.is_public(domain) or SUFFIXES.is_public(f"x.{domain}"):
        assert not accepted


@pytest.mark.parametrize(
    ("line", "read_as"),
    [
        ('destination = "10.0.0.0/8"', "10.0.0.0/8"),
        ('destination = "fd00::/8"', "fd00::/8"),
        ('destination = "::ffff:10.0.0.0/104"', "::ffff:a00:0/104"),
        ('destination = "8.0.0.0/7"', None),
        ('destination = "fc00::/7"', None),
        ('destination = "::ffff:10.0.0.0/103"', None),
        ('destination = "::/80"', None),
        ("min_period_seconds = 5e-324", 5e-324),
        ("max_bytes_per_day = 1.7976931348623157e308", 1.7976931348623157e308),
        ("max_bytes_per_day = 1", 1.0),
        ('hours = "00:00-01:00"', (0, 1)),
        ('hours = "23:00-24:00"', (23, 0)),
        ('hours = "01:00-00:00"', (1, 0)),
        ('hours = "23:00-22:00"', (23, 22)),
        ('hours = "00:00-24:00"', None),
        ('hours = "24:00-06:00"', None),
        ('hours = "22:00-25:00"', None),
    ],
)
def test_bounds_may_be_as_wide_as_that_and_no_wider(tmp_path, line, read_as):
    text = HEAD + f'app_id = "com.a"\n{line}\n'
    if read_as is None:
        wrong(tmp_path, text)
        return
    (entry,) = of(tmp_path, text)
    name = line.split(" = ")[0]
    found = getattr(entry, name)
    assert (str(found) if name == "destination" else found) == read_as


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"id": "x" * 64}, True),
        ({"id": "x" * 65}, False),
        ({"expires": "2026-03-01"}, True),  # for a day
        ({"expires": "2026-02-28"}, False),
        ({"destination": f'"{"x" * 63}.example.com"'}, True),
        ({"destination": f'"{"x" * 64}.example.com"'}, False),
        ({"destination": f'"{("x" * 49 + ".") * 5}abc"'}, True),  # 253 characters
        ({"destination": f'"{("x" * 49 + ".") * 5}abcd"'}, False),
    ],
)
def test_names_and_dates_may_be_as_long_as_that_and_no_longer(tmp_path, fields, fits):
    text = (
        HEAD
        + 'app_id = "com.a"\n'
        + f"destination = {fields.get('destination', 1)}\n" * ("destination" in fields)
    )
    text = text.replace("mail-poll", fields.get("id", "mail-poll"))
    text = text.replace("2026-06-30", fields.get("expires", "2026-06-30"))
    if fits:
        assert len(of(tmp_path, text)) == 1
    else:
        wrong(tmp_path, text)
