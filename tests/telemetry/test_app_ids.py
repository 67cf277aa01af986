import pytest
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.app_ids import WORKS_FOR_OTHERS, app_of

CHAT = "com.example.chat"


@pytest.mark.parametrize(
    "name",
    [
        CHAT,
        *(f"{CHAT}.{end}" for end in ("voip", "voip-ptt", "complication", "location-query")),
        *(
            f"{CHAT}.{end}"
            for end in ("pushkit.fileprovider", "push-type.liveactivity", "push-type.push-to-talk")
        ),
        *(f"com.apple.icloud-container.{more}{CHAT}" for more in ("", "clouddocs.", "iCloud.")),
        *(
            f"{CHAT}.{part}"
            for part in ("NotificationService", "ShareExtension", "widget", "Clip", "watchkitapp")
        ),
        f"{CHAT}.watchkitapp.watchkitextension",
        f"{CHAT}.watchkitapp.complication",
        f"ABCDE12345.{CHAT}.ChatWidgetExtension",
        f".{CHAT}",
        f"ABCDE12345.group.{CHAT}",
    ],
)
def test_parts_and_topics_without_any_inventory(name):
    assert app_of(name) == CHAT


@pytest.mark.parametrize(
    "name",
    [
        "com.example.widget",
        "com.viber.share",
        "com.example.chat.beta",
        "com.apple.datausage.dns.multicast",
        "com.apple.mobilesafari",
        "a1b2c3d4e5.com.example",
        "A1B2C3D4E5",
        "nsurlsessiond",
        "apsd",
        "x",
        ".",
    ],
)
def test_ids_that_stay_what_they_are(name):
    assert app_of(name) == name


def test_installed_apps_decide():
    installed = {CHAT, f"{CHAT}.business", "com.example.widget", "com.viber", f"{CHAT}.Clip"}
    assert app_of(f"{CHAT}.beta.Something", installed) == CHAT
    assert app_of(f"{CHAT}.business.NotificationService", installed) == f"{CHAT}.business"
    assert app_of(f"{CHAT}.business", installed) == f"{CHAT}.business"
    assert app_of(f"{CHAT}.Clip", installed) == CHAT  # listed by the device, and yet a part of the app
    assert app_of("com.example.widget", installed) == "com.example.widget"
    assert app_of("com.viber.share", installed) == "com.viber"
    assert app_of("com.example.chatter", installed) == "com.example.chatter"
    assert app_of("com.example.other", {"com", "com.example.other.part"}) == "com.example.other"


def test_processes_that_work_for_others_are_no_part_of_an_app():
    installed = {"com.apple.WebKit", "com.apple"}
    assert all(app_of(name, installed) == name for name in WORKS_FOR_OTHERS)
    players, web = {"mediaserverd", "mediaplaybackd"}, {"WebContent", "com.apple.WebKit.GPU"}
    assert players | web | {"trustd", "swcd", "neagent", "com.apple.swcd"} <= WORKS_FOR_OTHERS
    assert app_of(".com.apple.WebKit.Networking") == "com.apple.WebKit.Networking"


PARTS = st.sampled_from(
    ["com", "example", "chat", "Clip", "widget", "voip", "group", "ABCDE12345", "iCloud", "x"]
)
NAMES = st.lists(PARTS, min_size=1, max_size=7).map(".".join)


@given(NAMES, st.frozensets(NAMES, max_size=4))
def test_folding_gives_a_piece_of_the_id_and_is_done_once(name, installed):
    app = app_of(name, installed)
    assert app and app in name
    if not installed:
        assert app_of(app) == app or app_of(app).count(".") < app.count(".")
