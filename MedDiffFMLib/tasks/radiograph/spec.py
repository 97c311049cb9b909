"""Declaration of X-rays. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.errors import InputError
from ...multimodal.names import CAMERA, DIGITAL, LOOKS, MAX_PIXELS, MIN_PIXELS, NAMED, Angles, parse_views
from ..base import Task, View
from ..inputs import NONE, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter


@dataclass(frozen=True)
class Radiograph(Task):
    """X-rays by exact line integrals; the first view is ``radiograph``, each other one ``radiograph_<view>``."""

    name, title, action, icon = "radiograph", "X-ray", "Take X-rays", "radiograph.png"
    sentence = "Computes X-rays of a CT from any side."
    inputs = Inputs(anatomy=NONE)
    outputs = (Output("radiograph", OutputKind.XRAY, "X-ray"),)
    view = View.XRAYS
    synthetic = True
    needs_model = False
    many = True

    views: str = parameter(
        "ap",
        "Views, separated by commas: ap, pa, lat, rlat, obl, angles such as lao30, cran20 or rao30-caud20, camera.",
        words=tuple(NAMED),
        labels={
            "ap": "From the front to a detector at the back",
            "pa": "From the back to a detector in front",
            "lat": "To a detector on the left",
            "rlat": "To a detector on the right",
            "obl": "To a detector in front and to the left, 45 degrees",
        },
        others="angles, such as lao30, rao30-caud20",
    )
    look: str = parameter(
        DIGITAL,
        "digital: attenuation; film: its density on film; bone, soft: grams of either along the rays.",
        choices=LOOKS,
    )
    pixels: int = parameter(
        512, "Pixels along the longer edge of the detector.", minimum=MIN_PIXELS, maximum=MAX_PIXELS
    )
    source_distance: float = parameter(
        1800.0,
        "From the source to the detector; 1000 to 1200 for a C-arm or at the bedside.",
        unit="mm",
        minimum=300,
        maximum=10_000,
    )
    gap: float = parameter(50.0, "From the body to the detector.", unit="mm", minimum=0, maximum=2000, advanced=True)
    field: float | None = parameter(
        None,
        "Edge of a square detector; as large as the body's shadow when not given.",
        unit="mm",
        minimum=20,
        maximum=3000,
        advanced=True,
    )
    parallel: bool = parameter(False, "Parallel rays in place of a source.", advanced=True)
    complete: bool = parameter(
        True,
        "Leave out what lies so close to an end of the scan that rays pass through part of the body only.",
        advanced=True,
    )
    table: bool = parameter(False, "Keep the table and all else beside the body.", advanced=True)
    camera: tuple[float, float, float, float, float, float, float, float, float] | None = parameter(
        None, "A view more, from where a 3-D view is seen: its position, focal point and view up, RAS.",
        unit="mm", camera=True,
    )  # fmt: skip

    def check_together(self) -> None:
        """Refuse views that do not exist, and the one of a camera that is not given."""
        if None in self.angles() and self.camera is None:
            raise InputError(
                f"The view {CAMERA} needs a camera.", "Give its position, focal point and view up: nine numbers."
            )

    def angles(self) -> list[Angles | None]:
        """Directions of the views that are asked for; None for the camera's, which comes last if not named."""
        views = parse_views(self.views)
        return [*views, None] if self.camera is not None and None not in views else views
