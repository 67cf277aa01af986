"""Writes docs/features.md, the page of all features, from the catalogue; `make docs` runs it."""

from __future__ import annotations

from pathlib import Path

from appcadence.features.catalog import FAMILIES, INPUTS_OF, NAMES

HEAD = f"""# Features

Written from the catalogue by `make docs`; `appcadence features --describe` prints the same. {len(NAMES)}
features in {len(FAMILIES)} families, float32, NaN where unknown. *Suspicious*: the direction in which a value
is suspicious by itself; `-` = neither alone. *Needs*: the tables without which a feature is NaN.
"""


def page() -> str:
    parts = [HEAD]
    for family in FAMILIES:
        parts.append(f"\n## {family.name}\n\n| feature | unit | suspicious | needs | meaning |")
        parts.append("|---|---|---|---|---|")
        for feature in family.features:
            side = {1: "high", -1: "low", 0: "-"}[feature.direction]
            source = f" ({feature.source})" if feature.source else ""
            meaning = (feature.meaning + source).replace("|", "\\|")
            needs = ", ".join(INPUTS_OF[feature.name])
            parts.append(f"| `{feature.name}` | {feature.unit} | {side} | {needs} | {meaning} |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
