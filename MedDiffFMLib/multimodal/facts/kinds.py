"""Kinds of facts: their slots, the sentences that say them, and why one may not be assessed.

The first sentence of a kind is the one that is written; all of them are understood, and may be asked for as variants.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...conditioning.totalsegmentator_labels import ORGANS, organ_words
from .slots import Number, Slot, Words

REGION_WORDS = {
    "head-neck": "head and neck", "chest": "chest", "abdomen": "abdomen", "pelvis": "pelvis",
    "whole-body": "whole body",
}  # fmt: skip
LEVELS = ("legs", "pelvis", "abdomen", "chest", "neck", "head")
THIN, MEDIUM, THICK = "thin", "of medium thickness", "thick"
WITH, WITHOUT = "with", "without"
RIGHT, LEFT, MIDDLE = "right", "left", "middle"
FRONT, BACK = "front", "back"
THIRDS = ("upper third", "middle third", "lower third", "shown part")
WHOLE, CUT = "wholly in the scan", "cut off by the end of the scan"
ENDS = ("the lower end", "the upper end", "both ends")
CUTS, HOLDS = "cuts the sides", "holds the whole width"

NO_LUNG = "no lung is shown"
CUT_LUNG = "the lungs are cut off"
TOO_LITTLE = "too little of the body is shown"
UNSURE = "the signs contradict each other"
COARSE = "the voxels are too coarse"
CROPPED = "the field of view cuts the body"
VAGUE = "the estimate is too uncertain"
STRANGE = "the image is unlike those in training"
EXPOSURE = "its pixels are no attenuation"
LARGE = "it shows more than a piece of 128 mm in air"
REASONS = (NO_LUNG, CUT_LUNG, TOO_LITTLE, UNSURE, COARSE, CROPPED, VAGUE, STRANGE, EXPOSURE, LARGE)


@dataclass(frozen=True)
class Kind:
    """One kind of fact.

    Attributes:
        title: what it is about, for tables and for what was not assessed; unique.
        slots: by name, in the order of a table.
        sentences: with each slot in braces.
    """

    title: str
    slots: dict[str, Slot]
    sentences: tuple[str, ...]

    @property
    def main(self) -> str:
        """Name of the slot whose value stands in the table."""
        return next(iter(self.slots))


_MM, _MM1, _ML, _HU, _PERCENT, _COUNT = Number("mm"), Number("mm", 1), Number("ml"), Number("HU"), Number("%"), Number()
_PERCENT1, _ML1, _LITERS = Number("%", 1), Number("ml", 1), Number("l", 1)
_LUNG_SIDE, _BODY_SIDE = Words((RIGHT, LEFT)), Words((RIGHT, LEFT, MIDDLE))

KINDS: dict[str, Kind] = {
    # How it was scanned
    "slices": Kind(
        "number of slices", {"slices": _COUNT, "columns": _COUNT, "rows": _COUNT},
        ("The scan has {slices} slices of {columns} x {rows} pixels.",),
    ),
    "slice_spacing": Kind(
        "slice spacing", {"spacing": Number("mm", 2), "thickness": Words((THIN, MEDIUM, THICK))},
        ("The slices are {thickness}, {spacing} mm apart.", "Slices are {thickness} and {spacing} mm apart."),
    ),
    "pixel_size": Kind("pixel size", {"edge": Number("mm", 2)}, ("Pixels measure {edge} mm.",)),
    "field_of_view": Kind(
        "field of view", {"width": _MM, "depth": _MM}, ("The field of view is {width} mm wide and {depth} mm deep.",)
    ),
    "tilt": Kind("tilt", {"degrees": _COUNT}, ("The slices are tilted by {degrees} degrees.",)),
    "noise": Kind(
        "noise", {"noise": _HU, "level": Words(("low", "moderate", "high"))},
        ("Noise is {level}, {noise} HU.", "The scan has {level} noise of {noise} HU."),
    ),
    "padding": Kind(
        "padding", {"share": _PERCENT}, ("Padding outside of what was scanned takes {share} % of the voxels.",)
    ),
    "metal": Kind("metal", {"volume": _ML1}, ("{volume} ml are metal or undiluted contrast agent, above 2800 HU.",)),
    # What is shown
    "region": Kind(
        "region", {"region": Words(tuple(REGION_WORDS.values()))},
        ("The scan shows the {region}.", "This is a CT of the {region}.", "The region is the {region}."),
    ),
    "reach": Kind(
        "reach along the body", {"from": Words(LEVELS), "to": Words(LEVELS)},
        ("It reaches from the {from} up to the {to}.",),
    ),
    "height": Kind("height", {"height": _MM}, ("It covers {height} mm along the body.",)),
    "ends": Kind("ends", {"ends": Words(ENDS)}, ("The body goes on beyond {ends} of the scan.",)),
    "cropped": Kind(
        "sides", {"sides": Words((CUTS, HOLDS))},
        ("The field of view {sides} of the body.",),
    ),
    "place": Kind(
        "place in the body", {"side": _BODY_SIDE, "depth": Words((FRONT, MIDDLE, BACK))},
        ("It lies in the {side} and the {depth} of the body.",),
    ),
    "level": Kind("level", {"level": Number("cm")}, ("Its middle lies {level} cm above the pelvic floor.",)),
    "turned": Kind("orientation", {"axis": Words(("head-feet", "front-back"))}, ("It seems turned around ({axis}).",)),
    # Contrast agent
    "contrast": Kind(
        "contrast agent", {"contrast": Words((WITH, WITHOUT))},
        ("The scan was taken {contrast} intravenous contrast agent.", "It is a CT {contrast} contrast agent."),
    ),
    "bright_tissue": Kind(
        "contrast-filled tissue", {"volume": _ML, "hu": _HU},
        ("Vessels and organs that contrast agent fills take {volume} ml, {hu} HU on average.",),
    ),
    # Body
    "body_volume": Kind("body volume", {"volume": _LITERS}, ("The shown body has {volume} l.",)),
    "body_mass": Kind("body mass", {"mass": Number("kg", 2)}, ("The shown body has {mass} kg, by its densities.",)),
    "body_width": Kind(
        "body width", {"width": _MM}, ("The body is {width} mm wide at its widest.", "Its width is {width} mm.")
    ),
    "body_depth": Kind("body depth", {"depth": _MM}, ("The body is {depth} mm deep at its deepest.",)),
    "body_area": Kind("cross-section", {"area": Number("cm2")}, ("Its largest cross-section has {area} cm2.",)),
    "symmetry": Kind(
        "symmetry", {"share": _PERCENT}, ("Right and left half of the outline agree by {share} %.",)
    ),
    "fat": Kind(
        "fat", {"share": _PERCENT, "volume": _LITERS},
        ("Fat makes {share} % of the shown body, {volume} l.",),
    ),
    "muscle": Kind(
        "soft tissue", {"share": _PERCENT, "volume": _LITERS},
        ("Muscle and other soft tissue make {share} % of the shown body, {volume} l.",),
    ),
    "bone": Kind(
        "bone", {"share": _PERCENT1, "volume": _ML}, ("Bone makes {share} % of the shown body, {volume} ml.",)
    ),
    "bone_density": Kind("bone density", {"hu": _HU}, ("Bone has {hu} HU on average.",)),
    "soft_density": Kind("soft tissue density", {"hu": _HU}, ("The median of soft tissue is {hu} HU.",)),
    "fat_density": Kind("fat density", {"hu": _HU}, ("The median of fat is {hu} HU.",)),
    "gas": Kind("gas", {"volume": _ML}, ("Airways, bowel gas and other gas outside of the lungs take {volume} ml.",)),
    # Lungs
    "lungs": Kind(
        "lung volume", {"volume": _ML, "whole": Words((WHOLE, CUT))},
        ("The lungs have {volume} ml and are {whole}.", "Lung volume is {volume} ml, the lungs are {whole}."),
    ),
    "lung_right": Kind("right lung volume", {"volume": _ML}, ("The right lung has {volume} ml.",)),
    "lung_left": Kind("left lung volume", {"volume": _ML}, ("The left lung has {volume} ml.",)),
    "lung_balance": Kind(
        "share of the right lung", {"share": _PERCENT}, ("{share} % of the lung volume lie on the right.",)
    ),
    "low_attenuation": Kind(
        "low-attenuation share", {"share": _PERCENT1}, ("{share} % of the lungs lie below -950 HU.",)
    ),
    "dense_lung": Kind(
        "dense share of the lungs", {"share": _PERCENT1}, ("{share} % of the lungs lie above -700 HU.",)
    ),
    "lung_density": Kind("lung density", {"hu": _HU}, ("The lungs have {hu} HU on average.",)),
    "lung_percentile": Kind("15th percentile of the lungs", {"hu": _HU}, ("15 % of the lungs lie below {hu} HU.",)),
    "lung_height": Kind("lung height", {"height": _MM}, ("The lungs are {height} mm high.",)),
    # Findings
    "nodule": Kind(
        "nodule candidate", {"size": _MM, "side": _LUNG_SIDE, "third": Words(THIRDS), "hu": _HU},
        (
            "A nodule candidate of {size} mm and {hu} HU lies in the {third} of the {side} lung.",
            "There is a nodule of {size} mm and {hu} HU in the {third} of the {side} lung.",
        ),
    ),
    "lung_finding": Kind(
        "marked place in a lung",
        {"number": _COUNT, "size": _MM1, "volume": _ML1, "hu": _HU, "side": _LUNG_SIDE, "third": Words(THIRDS)},
        ("Marked place {number}: {size} mm, {volume} ml, {hu} HU, in the {third} of the {side} lung.",),
    ),
    "finding": Kind(
        "marked place",
        {"number": _COUNT, "size": _MM1, "volume": _ML1, "hu": _HU, "side": _BODY_SIDE,
         "depth": Words((FRONT, MIDDLE, BACK))},
        ("Marked place {number}: {size} mm, {volume} ml, {hu} HU, {side} of the body, toward its {depth}.",),
    ),
    "organ": Kind(
        "organ",
        {"organ": Words(tuple(organ_words(name) for name in ORGANS)), "volume": _ML1, "hu": _HU,
         "whole": Words((WHOLE, CUT))},
        ("Of the {organ} {volume} ml are shown, {hu} HU on average; it is {whole}.",),
    ),
}  # fmt: skip
