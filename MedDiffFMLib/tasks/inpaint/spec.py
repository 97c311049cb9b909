"""Declaration of inpainting. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..base import Task
from ..inputs import REQUIRED, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter, spacing_parameter

if TYPE_CHECKING:
    import numpy as np

    from ...imaging.volume import Box, Volume

CONTEXT = 16
"""Voxels around the mask on each side that the model is shown."""
ROOM, MOST_CONTEXT = 14, 80
"""Voxels around the mask from which texture is taken: once more its size and so many, and not more altogether."""


@dataclass(frozen=True)
class Inpaint(Task):
    """Filling of a mask with healthy tissue."""

    name, title, action, icon = "inpaint", "Fill", "Fill with healthy tissue", "fill.png"
    sentence = "Fills a mask with healthy tissue."
    inputs = Inputs(mask=REQUIRED, paints=True)
    outputs = (Output("inpainted", OutputKind.CT, "filled", invented=True),)
    draft: ClassVar[dict[str, Any]] = {"steps": 0, "samples": 1, "texture": "none"}
    reference_seconds = 0.17

    steps: int = parameter(
        1,
        "Network evaluations a sample; with the shipped prior more than 1 add noise rather than tissue. 0: the surface "
        "of least bending in place of what the prior expects.",
        minimum=0,
        maximum=200,
        advanced=True,
    )
    samples: int = parameter(
        1,
        "Samples averaged: 1 is one plausible filling with texture, more come closer to the expected tissue.",
        minimum=1,
        maximum=64,
        advanced=True,
    )
    feather: float = parameter(
        1.5, "Width inside the mask's rim over which input and filling blend.", unit="mm", minimum=0, maximum=20
    )
    margin: float = parameter(
        3.0,
        "Ring around the mask that the model may not look at, since a lesion's rim lies there.",
        unit="mm",
        minimum=0,
        maximum=30,
        advanced=True,
    )
    spacing: float | None = spacing_parameter("the scanner's own voxels when not given")
    sigma_max: float = parameter(
        10.0,
        "Noise that is put on the biharmonic initialization, in units of 1000 HU; more leaves more to the model.",
        minimum=0.01,
        maximum=80,
        advanced=True,
    )
    texture: str = parameter(
        "scan",
        "scan: what the rim tells, with texture from one of the most similar places nearby in the same scan; "
        "none: the smooth tissue that the prior expects.",
        choices=("scan", "none"),
    )

    def needed_piece(self, volume: Volume, mask: np.ndarray) -> Box | None:
        from ...preprocessing.mask_crop import piece_around

        # With isotropic voxels the working grid of a piece would begin elsewhere.
        return piece_around(mask, volume, self.context(volume, mask)) if self.spacing is None else None

    def context(self, volume: Volume, mask: np.ndarray) -> int | np.ndarray:
        """Voxels (i, j, k) around the mask on each side that are looked at."""
        import numpy as np

        from ...preprocessing.mask_crop import room_beside

        if self.texture == "none":
            return CONTEXT
        return np.maximum(room_beside(mask, volume, self.spacing, ROOM, MOST_CONTEXT), CONTEXT)

    def work(self, volume: Volume | None) -> float:
        """The neighborhood of the mask alone; finding texture takes about as long as the network."""
        return 0.0 if volume is None else self.steps * self.samples + (self.texture == "scan")
