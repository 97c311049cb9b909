"""Words for the views and looks of an X-ray, its detector's size, and what translation makes.

Imports the standard library only.

A direction is given as for a C-arm, by the side of the patient on which the detector stands: LAO 30 has it 30 degrees
to the left of anterior, CRAN 20 twenty degrees toward the head. A chest in LAO position is the same thing. PA is
0 degrees, LAT (left lateral) LAO 90.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.errors import InputError

DIGITAL, FILM, BONE, SOFT = "digital", "film", "bone", "soft"
LOOKS = (DIGITAL, FILM, BONE, SOFT)
UNITS = {
    DIGITAL: "attenuation, -ln(I / I0)",
    FILM: "optical density below the blackest film",
    BONE: "cortical bone, g/cm2",
    SOFT: "water and soft tissue, g/cm2",
}
"""Look -> what its pixels are; in all of them more is brighter."""

MIN_PIXELS, MAX_PIXELS = 16, 4096
"""Along the longer edge of a detector."""


@dataclass(frozen=True)
class Angles:
    """Direction in which the detector stands.

    Attributes:
        name: for files and titles.
        left: degrees to the patient's left of anterior.
        up: degrees toward the head.
        from_source: hang the picture as seen from the source, not from the detector.
    """

    name: str
    left: float
    up: float = 0.0
    from_source: bool = False


CAMERA = "camera"
NAMED = {
    row.name: row
    for row in (
        Angles("ap", 180, from_source=True),
        Angles("pa", 0),
        Angles("lat", 90),
        Angles("rlat", -90),
        Angles("obl", 45),
    )
}
_ANGLES = re.compile(r"(?:(lao|rao)(\d+(?:\.\d+)?))?[-_/+ ]?(?:(cran|caud)(\d+(?:\.\d+)?))?")


def parse_views(text: str) -> list[Angles | None]:
    """Views from words such as ``ap,lat,lao30-cran20``; None for the one of a camera, which no word describes.

    Raises:
        InputError: a word is no view, or comes twice.
    """
    views = [_parse(word.strip().lower()) for word in text.split(",")]
    names = [CAMERA if view is None else view.name for view in views]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"The view {name} is given twice.", "Name each view once.")
    return views


def _parse(word: str) -> Angles | None:
    if word == CAMERA:
        return None
    if word in NAMED:
        return NAMED[word]
    match = _ANGLES.fullmatch(word)
    if match is None or not match[0]:
        known = ", ".join(NAMED)
        raise InputError(
            f"There is no view {word!r:.40}.", f"Use {known}, {CAMERA}, or angles such as lao30, cran20, rao30-caud20."
        )
    side, turn, pole, tilt = match.groups()
    left, up = float(turn or 0), float(tilt or 0)
    if left > 180 or up > 80:
        raise InputError(f"The view {word} turns too far.", "Turn by at most 180 degrees and tilt by at most 80.")
    name = "-".join(f"{which}{float(angle):g}" for which, angle in ((side, turn), (pole, tilt)) if which)
    return Angles(name, -left if side == "rao" else left, -up if pole == "caud" else up)


CT, MR_T1 = "ct", "mr-t1"
TARGETS = (CT, MR_T1)
"""What translation makes."""

ATTENUATION, COUNTS, PICTURE = "attenuation", "counts", "picture"
READINGS = (ATTENUATION, FILM, COUNTS, PICTURE)
"""What the pixels of an X-ray that is given are; ``FILM`` is the look."""
