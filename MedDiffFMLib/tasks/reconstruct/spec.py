"""Declaration of the reconstruction. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ...imaging.modality import XR
from ...multimodal.names import ATTENUATION, READINGS, parse_views
from ..base import Task
from ..inputs import NONE, OPTIONAL, Inputs, Scan
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

FURTHER = ("second", "third", "fourth")
"""Names of the X-rays after the first."""


@dataclass(frozen=True)
class Reconstruct(Task):
    """CT whose projections are the given X-rays, and how much they leave open."""

    name, title, action, icon = "reconstruct", "CT from X-rays", "Reconstruct a CT", "reconstruct.png"
    sentence = "Makes a CT whose projections are one or more X-rays of a trunk."
    caveat = "Two X-rays leave most of a CT open: what fits them is usual anatomy, not this patient's."
    inputs = Inputs(
        modality=XR,
        anatomy=NONE,
        scans=tuple(
            Scan(name, f"The {name} X-ray of the same patient in the same position.", OPTIONAL, modality=XR)
            for name in FURTHER
        ),
    )
    outputs = (
        Output("ct", OutputKind.CT, "CT from X-rays"),
        Output("uncertainty", OutputKind.HU_SPREAD),
        Output("residual", OutputKind.XRAY),
    )
    synthetic = True
    own_axes = True  # a picture is rows and columns, wherever its detector stands

    views: str = parameter(
        "",
        "Directions of the X-rays in their order, such as ap,lat; left out for files of radiograph, which know them.",
    )
    pixels: str = parameter(
        ATTENUATION,
        "attenuation: -ln(I / I0); film: density on film, as radiograph's; counts: of a detector; picture: gray "
        "values, more attenuation brighter.",
        choices=READINGS,
    )
    pixel: float | None = parameter(
        None,
        "Edge of a pixel at the detector for views that are named; what the file says when not given.",
        unit="mm",
        minimum=0.05,
        maximum=20,
    )
    spacing: float = parameter(4.0, "Edge of the voxels.", unit="mm", minimum=3, maximum=10, advanced=True)
    draws: int = parameter(
        16, "Draws of noise at each level: more is smoother and takes longer.", minimum=2, maximum=64, advanced=True
    )
    detail: bool = parameter(True, "Let the prior better the image on the grid of the result too.", advanced=True)
    source_distance: float = parameter(
        1800.0, "From source to detector for views that are named.", unit="mm", minimum=500, maximum=10_000,
        advanced=True,
    )  # fmt: skip
    gap: float = parameter(
        50.0, "From the body to the detector for views that are named.", unit="mm", minimum=0, maximum=500,
        advanced=True,
    )  # fmt: skip
    sources: tuple[float, ...] | None = parameter(
        None,
        "Where the sources stood, three numbers for each X-ray in RAS, in place of what the files say.",
        unit="mm",
        advanced=True,
    )

    def check_together(self) -> None:
        """Refuse views that do not exist."""
        if self.views:
            parse_views(self.views)
