"""Declaration of synthesis, by itself or jointly with other modalities. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...imaging.modality import MR, XR
from ...multimodal.names import parse_views
from ...multimodal.routes import parse_make
from ..base import Task
from ..inputs import NONE, OPTIONAL, Inputs, Scan, Text
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

if TYPE_CHECKING:
    from ...imaging.volume import Volume

DEFAULT_SIZE_MM = (300.0, 300.0, 300.0)
DEFAULT_SPACING_MM = 1.5  # the finest cubic voxels that training knows well

ASKED = ("fact", "value", "asked", "measured", "unit", "met", "steered")
STEERED = {
    "region": ("region",), "slice_spacing": ("spacing", "thickness"), "noise": ("noise", "level"),
    "body_width": ("width",), "lungs": ("volume",), "fat": ("share",), "bone": ("share",), "contrast": ("contrast",),
}  # fmt: skip
"""Facts that a prompt can steer, and their slots; others are told and measured only."""
MODALITIES = {"ct": "CT", "mr": "MR", "xray": "X-ray", "text": "sentences"}
"""What can be made, and the panel's words for it."""


@dataclass(frozen=True)
class Synthesize(Task):
    """Whole CT that shows no patient, and what is made of it or given beside it."""

    name, title, action, icon = "synthesize", "Synthesize", "Synthesize a CT", "synthesize.png"
    sentence = "Makes a whole CT that shows no patient."
    caveat = "The body of a published CT, bent; of the neck the mean of 42. A head is not shown."
    inputs = Inputs(
        volume=NONE,
        scans=(
            Scan("ct", "A CT that is given: what else is asked for is made of it.", OPTIONAL, "CT"),
            Scan("mr", "A T1-weighted MR that is given.", OPTIONAL, "MR", modality=MR),
            Scan("xray", "An X-ray that is given, a file of radiograph.", OPTIONAL, "X-ray", modality=XR),
        ),
        texts=(
            Text(
                "prompt",
                "What to make: chest CT with contrast agent, 5 mm slices.",
                OPTIONAL,
                example="chest, with contrast agent, 5 mm slices",
                facts=True,
                steers=tuple(STEERED),
            ),
        ),
    )
    outputs = (
        Output("synthetic", OutputKind.CT),
        Output("mr", OutputKind.MR, "MR"),
        Output("xray", OutputKind.XRAY, "X-ray"),
        Output("text", OutputKind.TEXT, "description"),
        Output("understood", OutputKind.TEXT),
        Output("asked", OutputKind.TABLE, columns=ASKED),
    )
    synthetic = True
    own_axes = True  # what is given comes back as it is stored; each step turns it for itself

    size: tuple[float, float, float] | None = parameter(
        None,
        "Edges right-left, front-back, feet-head: the body's, at most 300 along it, 700 of a whole one; or the "
        "anatomy map's.",
        unit="mm",
        minimum=20,
        maximum=2000,
    )
    spacing: float | None = parameter(
        None, "Edge of the cubic voxels: 1.5, or the voxels of the anatomy map.", unit="mm", minimum=0.5, maximum=20
    )
    make: str = parameter(
        "ct",
        "What to make, separated by commas: ct, mr, xray, text. All of it is made from one CT, and so agrees.",
        words=tuple(MODALITIES),
        labels=MODALITIES,
    )
    views: str = parameter("ap", "Views of an X-ray that is made, as of radiograph.", advanced=True)
    layout: str = parameter(
        "auto",
        "Where the anatomy comes from: template bends the body of a published CT, or the mean neck of many, into "
        "nobody's and lets the prior make the image; network lets the networks invent both; auto takes a template "
        "where one shows the region.",
        choices=("auto", "template", "network"),
        labels={"auto": "automatic"},
        advanced=True,
    )
    texture: float = parameter(
        0.1,
        "Noise level at which the image expected of an anatomy starts, in units of 1000 HU: more changes more of it.",
        minimum=0.02,
        maximum=2,
        advanced=True,
    )
    guidance: float = parameter(
        1.0,
        "Weight of region and anatomy: 0 ignores them; above 1 exaggerates them and takes twice the time.",
        minimum=0,
        maximum=10,
    )
    whole_steps: int = parameter(
        6, "Network evaluations for the coarse image of the whole volume.", minimum=1, maximum=500, advanced=True
    )
    middle_steps: int = parameter(
        6,
        "Network evaluations on each grid between the coarsest and the finest.",
        minimum=1,
        maximum=200,
        advanced=True,
    )
    native_steps: int = parameter(6, "Network evaluations on the finest grid.", minimum=1, maximum=200, advanced=True)
    sigma_max: float = parameter(
        80.0, "Noise level at which the coarse image starts, in units of 1000 HU.", minimum=1, maximum=80, advanced=True
    )
    sigma_min: float = parameter(
        0.02,
        "Noise level below which nothing is invented any more, in units of 1000 HU.",
        minimum=0.002,
        maximum=0.1,
        advanced=True,
    )
    detail: float = parameter(
        2.0,
        "Factor on the noise level at which finer grids start: more invents more detail and keeps less.",
        minimum=0.1,
        maximum=10,
        advanced=True,
    )

    companion: str = parameter(
        "auto",
        "Network for the coarse image: auto takes the model's own companion, none the model itself; or a name "
        "or a file.",
        advanced=True,
    )

    def check_together(self) -> None:
        """Refuse a size of a few voxels only, or of more than fit into memory."""
        from .body_layout import free_grid

        parse_make(self.make)
        parse_views(self.views)
        free_grid(self.size or DEFAULT_SIZE_MM, self.spacing or DEFAULT_SPACING_MM)

    def work(self, volume: Volume | None) -> float:
        """The finest grid decides."""
        passes = self.native_steps * (2 if self.guidance not in (0, 1) else 1)
        return passes * math.prod(self.size or DEFAULT_SIZE_MM) / (self.spacing or DEFAULT_SPACING_MM) ** 3 / 1e6
