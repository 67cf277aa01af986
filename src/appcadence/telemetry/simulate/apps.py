"""Archetypes of apps and system daemons: what each declares, and how it uses the network.

Vendors and hosts are invented (`.example` is reserved); bundle ids and hosts of daemons are Apple's. Limits
on background work follow Apple's documentation: the system schedules a refresh at irregular times, at most
about every fifteen minutes; there are two or three silent pushes an hour; only modes such as audio, location
or voip let an app keep running.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIN_REFRESH_SECONDS = 900.0
"""The shortest gap between two background refreshes of an app (Apple's scheduler)."""
MAX_SILENT_PUSHES_PER_HOUR = 3
"""Apple: "don't try to send more than two or three per hour"."""


@dataclass(frozen=True)
class Use:
    """What happens while the app is in the foreground."""

    per_day: float
    """Foreground sessions a day of a typical owner."""
    open_flows: float = 3.0
    """Mean number of simultaneous flows when it opens."""
    flows_per_minute: float = 1.5
    sdk_share: float = 0.0
    """Share of these flows that go to the SDK hosts that many apps share."""


@dataclass(frozen=True)
class Push:
    """What arrives over APNs, and what the app does with it."""

    alerts_per_day: float = 0.0
    silent_per_day: float = 0.0
    fetch_share: float = 0.5
    """Share of the pushes that the app answers with flows of its own."""
    opened_share: float = 0.2
    """Share of the app's foreground sessions that begin with a tap on a notification."""


@dataclass(frozen=True)
class Stream:
    """A run of flows that begins with a foreground session and outlives it."""

    share: float
    """Share of foreground sessions that start one."""
    seconds: float
    """Median length."""
    every_seconds: float
    """Typical gap between its flows."""
    spread: float = 0.2
    """Standard deviation of the logarithm of the gap."""


@dataclass(frozen=True)
class Rhythm:
    """A service with a rhythm of its own, day and night unless `hours` says otherwise."""

    every_seconds: float
    spread: float
    """Standard deviation of the logarithm of the gap: 0.02 is clockwork, 0.8 is no rhythm."""
    filled: float = 0.0
    """Share of the gap for which the flow stays open; 0 = a short exchange."""
    hours: tuple[float, float] | None = None
    """Local hours between which it runs, on working days."""
    keepalive_bytes_per_hour: float = 0.0
    """Bytes each way per hour that the flow stays open."""


@dataclass(frozen=True)
class Sizes:
    """Medians of the lognormal sizes (bytes) and durations (seconds) of single flows."""

    out: float = 1_400.0
    into: float = 9_000.0
    spread: float = 0.9
    seconds: float = 1.2


@dataclass(frozen=True)
class App:
    """One archetype."""

    app_id: str
    name: str
    category: str
    hosts: tuple[str, ...]
    """Its own hosts, the most contacted first."""
    purpose: str = ""
    modes: tuple[str, ...] | None = ()
    """UIBackgroundModes; None = not known, as for daemons."""
    push: Push | None = None
    use: Use | None = None
    refresh_seconds: float | None = None
    """Typical gap between background refreshes; None = the app requests none."""
    stream: Stream | None = None
    rhythms: tuple[Rhythm, ...] = ()
    sizes: Sizes = field(default_factory=Sizes)
    port: int = 443
    service: str = "tls"
    transport: str = "tcp"
    quic_share: float = 0.0
    installed_share: float = 1.0
    """Share of the devices that have it."""
    managed: bool = False
    approved: bool = True
    approved_period_seconds: float | None = None
    """The shortest period that its owner has approved for it to talk by itself; None = not stated."""
    sites: bool = False
    """Its users also reach any of the shared web sites."""
    moved_to: str | None = None
    """Host that replaces the first one, on the whole fleet, late in the span."""

    @property
    def daemon(self) -> bool:
        """Part of iOS."""
        return self.app_id.startswith("com.apple.")


SDK_HOSTS = (
    "events.appmetrica-one.example",
    "crash.stacklight.example",
    "ads.bidwell.example",
    "config.flagpost.example",
    "fonts.cdn-wide.example",
)
"""Telemetry, crash and advertising hosts that many apps share."""

SITES = tuple(f"www.site{i:03d}.example" for i in range(240)) + tuple(
    f"img{i:02d}.cdn-wide.example" for i in range(20)
)
"""Web sites, the most visited first within each owner's own order."""

# fmt: off
_WORK = (
    App(
        "com.northmail.work", "Northmail", "Business", ("imap.northmail.example", "api.northmail.example"),
        "company mail", ("fetch", "remote-notification"), Push(28, 6, 0.85, 0.5), Use(12, 3, 1.5), 1800.0,
        managed=True,
    ),
    App(
        "com.fetchpost.mail", "Fetchpost", "Productivity", ("mail.fetchpost.example",),
        "mail without push", ("fetch",), None, Use(4, 2, 1.0), 1000.0, installed_share=0.35,
    ),
    App(
        "com.teamhall.chat", "Teamhall", "Business",
        ("edge.teamhall.example", "files.teamhall.example", "media.cdn-wide.example"),
        "team chat and calls", ("audio", "voip", "fetch", "remote-notification"), Push(45, 0, 0.7, 0.45),
        Use(14, 3, 2.0, 0.05), 3600.0, Stream(0.04, 1500, 45.0, 0.1), quic_share=0.2, managed=True,
    ),
    App(
        "com.guardpost.mdm", "Guardpost Agent", "Utilities",
        ("checkin.guardpost.example", "cdn.guardpost.example"),
        "device management", ("fetch", "remote-notification"), Push(0, 5, 0.95, 0.0), Use(0.1, 2, 1.0),
        4 * 3600.0, sizes=Sizes(2_600, 3_500, 0.3, 0.8), managed=True, approved_period_seconds=3600.0,
    ),
    App(
        "com.fieldwise.tracker", "Fieldwise", "Business",
        ("track.fieldwise.example", "api.fieldwise.example"),
        "vehicle and job tracking", ("location", "fetch"), Push(3, 0), Use(3, 3, 1.0), 3600.0,
        rhythms=(Rhythm(300.0, 0.03, hours=(7.5, 17.5)),), sizes=Sizes(900, 350, 0.15, 0.5),
        installed_share=0.2, managed=True, approved_period_seconds=300.0,
    ),
    App(
        "com.linedesk.voip", "Linedesk", "Business", ("sip.linedesk.example", "api.linedesk.example"),
        "telephony", ("voip", "audio", "remote-notification"), Push(5, 0, 0.9, 0.5), Use(2, 2, 1.0), None,
        Stream(0.3, 300, 30.0, 0.1), (Rhythm(590.0, 0.02),), Sizes(760, 520, 0.1, 0.3), 5061,
        installed_share=0.3, managed=True, approved_period_seconds=600.0,
    ),
    App(
        "com.tilework.crm", "Tilework CRM", "Business", ("api.tilework.example", "assets.cdn-wide.example"),
        "customer records", ("fetch",), Push(4, 0), Use(5, 5, 2.5, 0.1), 7200.0, managed=True,
        moved_to="api-eu.tilework.example",
    ),
)

_MEDIA = (
    App(
        "com.skylark.weather", "Skylark Weather", "Weather",
        ("api.skylark.example", "tiles.cdn-wide.example"),
        "weather and its widget", ("fetch",), Push(1, 0), Use(3, 3, 1.0, 0.3), 1800.0,
        sizes=Sizes(700, 14_000, 0.3), installed_share=0.8,
    ),
    App(
        "com.parley.messenger", "Parley", "Social Networking",
        ("chat.parley.example", "media.parley.example", "media.cdn-wide.example"),
        "messages", ("remote-notification", "voip", "audio"), Push(55, 0, 0.8, 0.55), Use(16, 2, 1.2), None,
        sizes=Sizes(1_100, 2_500, 1.1, 8.0), installed_share=0.9,
    ),
    App(
        "com.tonewell.music", "Tonewell", "Music", ("audio.tonewell.example", "api.tonewell.example"),
        "music streaming", ("audio", "fetch"), Push(1, 0), Use(4, 4, 1.5, 0.15), 6 * 3600.0,
        Stream(0.35, 1600, 20.0, 0.15), sizes=Sizes(900, 480_000, 0.4, 3.0), quic_share=0.3,
        installed_share=0.6,
    ),
    App(
        "com.castaway.podcasts", "Castaway", "Entertainment",
        ("feeds.castaway.example", "episodes.cdn-wide.example"),
        "podcasts", ("audio", "fetch", "remote-notification"), Push(1, 3, 0.8), Use(2, 4, 1.0, 0.15), 3600.0,
        Stream(0.4, 2400, 60.0, 0.4), sizes=Sizes(800, 900_000, 1.0, 6.0), installed_share=0.35,
    ),
    App(
        "com.wayfare.maps", "Wayfare", "Navigation", ("tiles.wayfare.example", "traffic.wayfare.example"),
        "navigation", ("location", "audio"), Push(1, 0), Use(2.5, 5, 3.0, 0.1), None,
        Stream(0.45, 1300, 60.0, 0.05), sizes=Sizes(1_200, 26_000, 0.6), quic_share=0.2, installed_share=0.75,
    ),
    App(
        "com.daybreak.news", "Daybreak News", "News",
        ("api.daybreak.example", "live.daybreak.example", "images.cdn-wide.example"),
        "news", ("fetch", "remote-notification"), Push(9, 18, 0.7, 0.25), Use(5, 6, 4.0, 0.4), 2400.0,
        installed_share=0.6,
    ),
    App(
        "com.vistaloop.video", "Vistaloop", "Photo & Video", ("v.vistaloop.example", "api.vistaloop.example"),
        "short videos", ("fetch", "audio", "remote-notification"), Push(8, 2, 0.4, 0.2),
        Use(9, 6, 6.0, 0.2), 5400.0,
        sizes=Sizes(1_500, 700_000, 1.0, 5.0), quic_share=0.6, installed_share=0.55, approved=False,
    ),
    App(
        "com.circlet.social", "Circlet", "Social Networking",
        ("graph.circlet.example", "photos.cdn-wide.example"),
        "social network", ("fetch", "remote-notification"), Push(14, 4, 0.6, 0.3), Use(10, 6, 5.0, 0.15),
        2700.0,
        quic_share=0.5, installed_share=0.7,
    ),
)

_PRIVATE = (
    App(
        "com.gemfall.puzzle", "Gemfall", "Games", ("play.gemfall.example",),
        "a game", (), Push(4, 0, 0.1, 0.1), Use(3, 6, 4.0, 0.75), None, installed_share=0.4, approved=False,
    ),
    App(
        "com.ironkeep.game", "Ironkeep", "Games", ("lobby.ironkeep.example", "cdn.ironkeep.example"),
        "a game with live matches", (), Push(6, 0, 0.1, 0.2), Use(2, 8, 6.0, 0.5),
        installed_share=0.2, approved=False,
    ),
    App(
        "com.lanternsoft.browser", "Lantern", "Utilities", ("sync.lantern.example", "safe.lantern.example"),
        "web browser", ("fetch",), Push(1, 0), Use(11, 8, 7.0, 0.15), 3 * 3600.0, quic_share=0.35, sites=True,
    ),
    App(
        "com.stonebank.mobile", "Stonebank", "Finance",
        ("mobile.stonebank.example", "login.stonebank.example"),
        "banking", ("remote-notification",), Push(2, 0, 0.5, 0.4), Use(2, 5, 1.5, 0.05), None,
        installed_share=0.7,
    ),
    App(
        "com.marketlane.shop", "Marketlane", "Shopping", ("api.marketlane.example", "img.cdn-wide.example"),
        "shopping", ("fetch", "remote-notification"), Push(5, 1, 0.4, 0.2), Use(3, 7, 5.0, 0.35), 4 * 3600.0,
        installed_share=0.6,
    ),
    App(
        "com.pulseband.health", "Pulseband", "Health & Fitness", ("sync.pulseband.example",),
        "wearable", ("bluetooth-central", "fetch"), Push(3, 0), Use(3, 3, 1.0, 0.2), None, None,
        (Rhythm(900.0, 0.25),), Sizes(3_500, 600, 0.5, 0.9), installed_share=0.3,
    ),
    App(
        "com.homeglow.lights", "Homeglow", "Lifestyle", ("hub.homeglow.example",),
        "smart home", ("fetch", "remote-notification"), Push(4, 4, 0.9, 0.2), Use(3, 2, 2.0, 0.1), 3600.0,
        sizes=Sizes(500, 700, 0.2, 4.0), installed_share=0.25,
    ),
    App(
        "com.cloudbox.files", "Cloudbox", "Productivity", ("sync.cloudbox.example", "up.cloudbox.example"),
        "file storage", ("fetch", "remote-notification"), Push(2, 16, 0.9, 0.2), Use(3, 4, 2.0), 5400.0,
        sizes=Sizes(9_000, 4_000, 1.6, 3.0), installed_share=0.5,
    ),
)

_SYSTEM = (
    App(
        "com.apple.apsd", "Push courier", "System",
        tuple(f"{i}-courier.push.apple.com" for i in (7, 12, 23, 31, 44)), "push connection", None,
        rhythms=(Rhythm(5 * 3600.0, 0.9, 0.999, keepalive_bytes_per_hour=420.0),),
        sizes=Sizes(2_300, 4_100, 0.2, 60.0), port=5223, service="apns",
    ),
    App(
        "com.apple.timed", "Clock", "System", ("time.apple.com", "time-ios.apple.com"), "time", None,
        rhythms=(Rhythm(3 * 3600.0, 0.25),), sizes=Sizes(48, 48, 0.0, 0.03), port=123, service="ntp",
        transport="udp",
    ),
    App(
        "com.apple.cloudd", "iCloud", "System",
        ("gateway.icloud.com", "p42-ckdatabase.icloud.com", "p42-content.icloud.com"), "iCloud", None,
        Push(0, 24, 0.9, 0.0), refresh_seconds=2400.0, sizes=Sizes(4_000, 5_000, 1.3, 2.0), quic_share=0.3,
    ),
    App(
        "com.apple.nsurlsessiond", "Background transfers", "System",
        ("mesu.apple.com", "xp.apple.com", "updates.cdn-apple.com"), "updates", None,
        rhythms=(Rhythm(2 * 3600.0, 0.8),), sizes=Sizes(1_500, 40_000, 1.5, 3.0),
    ),
    App(
        "com.apple.geod", "Places", "System", ("gs-loc.apple.com", "gspe35-ssl.ls.apple.com"), "location",
        None,
        rhythms=(Rhythm(1500.0, 0.9),), sizes=Sizes(900, 2_400, 0.5, 0.6),
    ),
)

# fmt: on

APPS: tuple[App, ...] = _WORK + _MEDIA + _PRIVATE + _SYSTEM
"""All archetypes."""
