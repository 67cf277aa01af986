"""One app for all the ids of its parts, its pushes and its containers.

An app's extensions, widgets, clips and watch apps have ids of their own, which begin with the app's. APNs
topics add an ending or a prefix. A network extension sees ids with a team prefix. `app_of` maps all of them
back to the app. Sources: Apple's documentation of `apns-topic` and of `sourceAppIdentifier` of
NEFilterFlow, and PLPushAgent's `bundleIdFromTopic:`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_SERVERS = (
    *("apsd", "bird", "cloudd", "mDNSResponder", "mediaplaybackd", "mediaserverd", "neagent"),
    *("networkserviceproxy", "nsurlsessiond", "swcd", "trustd"),
)
WORKS_FOR_OTHERS = frozenset(
    {
        *_SERVERS,
        *(f"com.apple.{name}" for name in _SERVERS),
        "com.apple.SafariViewService",
        *(f"com.apple.WebKit.{name}" for name in ("GPU", "Networking", "WebContent")),
        "WebContent",
    }
)
"""System processes whose traffic belongs to the apps they serve, so the process is not the app."""

EXTENSION_MODES = {
    **{
        f"com.apple.networkextension.{kind}": "network-extension"
        for kind in ("packet-tunnel", "app-proxy", "app-push", "dns-proxy", "filter-control", "filter-data")
    },
    "com.apple.fileprovider-nonui": "file-provider",
    "com.apple.widget-extension": "widget",
    "com.apple.widgetkit-extension": "widget",
}
"""Background modes by extension point: iOS runs such an extension without the app, which then needs no
UIBackgroundModes for that."""

_MIN_PARTS = 3
"""Fewest parts left after removing an ending that no list of installed apps explains."""
_TEAM = re.compile(r"\.?(?:[A-Z0-9]{10}\.)?(?:groups?\.(?=[^.]+\.))?")
_CONTAINER = re.compile(r"com\.apple\.icloud-container\.(?:clouddocs\.)?(?:iCloud\.)?")
_TOPIC = re.compile(
    r"\.(?:voip|voip-ptt|complication|location-query|pushkit\.[a-z]+|push-type\.[a-z-]+|activity-push)$"
)
_PART = re.compile(
    r"\.(?:[\w-]*extension|[\w-]*widgets?|[\w-]*notification-?(?:service|content)|watch(?:kit)?app|watch"
    r"|(?:app)?clip|share|today|imessage|stickers?|siri|intents?|intents?ui|intenthandler|keyboard"
    r"|fileprovider|fileproviderui|liveactivity|packettunnel|networkextension)$",
    re.IGNORECASE,
)


def app_of(name: str, installed: Collection[str] = ()) -> str:
    """The bundle id of the app that an id belongs to; the id itself if it is an app's own.

    Args:
        name: a bundle id, the id of a part of an app, an APNs topic, or an id with a team or group prefix.
        installed: bundle ids of known apps. The longest of them that a part's id begins with is its app; if
            there is none, well-known endings are removed as long as three parts are left.

    >>> app_of("ABCDE12345.com.example.chat.NotificationService")
    'com.example.chat'
    >>> app_of("com.apple.icloud-container.clouddocs.com.example.docs")
    'com.example.docs'
    >>> app_of("com.example.chat.Helper", {"com.example.chat"})
    'com.example.chat'
    """
    bare = _CONTAINER.sub("", _TEAM.sub("", name, count=1), count=1)
    bare = _TOPIC.sub("", bare) or name
    if bare in WORKS_FOR_OTHERS:
        return bare
    if holder := _holder(bare, installed):
        return bare if bare in installed and not _PART.search(bare) else holder
    if bare in installed:
        return bare
    while (shorter := _PART.sub("", bare)) != bare and shorter.count(".") + 1 >= _MIN_PARTS:
        bare = shorter
    return bare


def _holder(name: str, installed: Collection[str]) -> str | None:
    """The longest installed id, of at least two parts, that the longer id begins with."""
    parts = name.split(".")
    shorter = (".".join(parts[:count]) for count in range(len(parts) - 1, 1, -1))
    return next((app for app in shorter if app in installed), None)
