"""Declaration of synthesis. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base import Task
from ..inputs import NONE, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

if TYPE_CHECKING:
    from ...imaging.volume import Volume

DEFAULT_SIZE_MM = (300.0, 300.0, 300.0)
DEFAULT_SPACING_MM = 1.5  # the finest cubic voxels that training knows well


@dataclass(frozen=True)
class Synthesize(Task):
    """Whole CT that shows no patient."""

    name, title, action, icon = "synthesize", "Synthesize", "Synthesize a CT", "synthesize.png"
    sentence = "Makes a whole CT that shows no patient."
    caveat = "Chest, abdomen and pelvis: the body of a published CT, bent. Head and neck: a demonstration."
    inputs = Inputs(volume=NONE)
    outputs = (Output("synthetic", OutputKind.CT),)
    synthetic = True

    size: tuple[float, float, float] | None = parameter(
        None,
        "Edges right-left, front-back, feet-head: the body's, at most 300 along it; or those of the anatomy map.",
        unit="mm",
        minimum=20,
        maximum=2000,
    )
    spacing: float | None = parameter(
        None, "Edge of the cubic voxels: 1.5, or the voxels of the anatomy map.", unit="mm", minimum=0.5, maximum=20
    )
    layout: str = parameter(
        "auto",
        "Where the anatomy comes from: template bends the body of a published CT into nobody's and lets the prior make "
        "the image; network lets the networks invent both; auto takes a template where one shows the region.",
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

        free_grid(self.size or DEFAULT_SIZE_MM, self.spacing or DEFAULT_SPACING_MM)

    def work(self, volume: Volume | None) -> float:
        """The finest grid decides."""
        passes = self.native_steps * (2 if self.guidance not in (0, 1) else 1)
        return passes * math.prod(self.size or DEFAULT_SIZE_MM) / (self.spacing or DEFAULT_SPACING_MM) ** 3 / 1e6
