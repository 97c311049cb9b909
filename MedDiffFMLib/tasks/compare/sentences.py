"""The comparison in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HEADING = "Measured by registration of two CTs; no radiology report."


def summary(
    facts: dict[str, Any], lesions: list[dict[str, Any]], changes: list[dict[str, Any]], threshold: float
) -> str:
    """Sentences, one a line.

    Args:
        facts: of the recipe.
        lesions, changes: rows of the tables.
    """
    return "\n".join([HEADING, "", *_sentences(facts, lesions, changes, threshold), ""])


def _sentences(
    facts: dict[str, Any], lesions: list[dict[str, Any]], changes: list[dict[str, Any]], threshold: float
) -> Iterator[str]:
    days = facts["days_between"]
    if days is not None:
        yield f"The scans are {days} day{'' if days == 1 else 's'} apart."
    yield (
        f"The earlier scan was moved by {facts['shift_mm']:.0f} mm and turned by {facts['angle_degrees']:.1f} degrees, "
        f"then deformed by up to {facts['deformation_mm']:.0f} mm; in the body both correlate by "
        f"{facts['correlation']:.2f}."
    )
    yield f"Their noise is {facts['earlier_noise_hu']:.0f} HU (earlier) and {facts['later_noise_hu']:.0f} HU (later)."
    yield from (_lesion(row) for row in lesions)
    count = len(changes)
    if not count:
        yield f"No region changed by more than {threshold:g} standard deviations of the noise."
        return
    first = changes[0]
    yield (
        f"{count} region{'' if count == 1 else 's'} changed by more than {threshold:g} standard deviations of the "
        f"noise; the strongest is {first['direction']} by {abs(first['mean_hu']):.0f} HU ({first['where']}, "
        f"{first['volume_mm3']:.0f} mm\u00b3)."
    )


def _lesion(row: dict[str, Any]) -> str:
    begin = f"Lesion {row['number']} ({row['where']})"
    if row["state"] in ("new", "gone") or row["state"].startswith("not in"):
        size = row["later_mm3"] if row["state"] != "gone" and row["later_number"] is not None else row["earlier_mm3"]
        return f"{begin} is {row['state']}" + (f", {size:.0f} mm\u00b3." if size is not None else ".")
    parts = [f"{begin} is {row['state']}"]
    if row["earlier_mm3"] is not None and row["later_mm3"] is not None:
        parts.append(f"{row['earlier_mm3']:.0f} to {row['later_mm3']:.0f} mm\u00b3 ({row['growth_percent']:+.0f} %)")
    if row["earlier_diameter_mm"] is not None and row["later_diameter_mm"] is not None:
        parts.append(f"longest diameter {row['earlier_diameter_mm']:.1f} to {row['later_diameter_mm']:.1f} mm")
    if row["doubling_days"] is not None:
        parts.append(f"doubling time {row['doubling_days']:.0f} days")
    return ", ".join(parts).replace(" is in both", " is in both scans") + "."
