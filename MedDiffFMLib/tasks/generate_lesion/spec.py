"""Declaration of lesion generation. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base import FineTuned, Task
from ..inputs import OPTIONAL, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter, spacing_parameter

if TYPE_CHECKING:
    import numpy as np

    from ...imaging.volume import Box, Volume

KINDS: dict[str, tuple[str, float] | None] = {
    "like-training": None,
    "solid": ("mean", 30.0),
    "part-solid": ("mean", -250.0),
    "ground-glass": ("mean", -600.0),
    "calcified": ("mean", 350.0),
    "fluid": ("mean", 5.0),
    "hypodense": ("contrast", -40.0),
    "hyperdense": ("contrast", 50.0),
}
"""Kind -> mean HU, or HU over the surroundings; None: as lesions with such surroundings were in training."""


def _label(name: str) -> str:
    """The kind with its density, for who chooses it."""
    words, preset = name.replace("-", " "), KINDS[name]
    if preset is None:
        return words
    return f"{words}, {preset[1]:.0f} HU" if preset[0] == "mean" else f"{words}, {preset[1]:+.0f} HU"


@dataclass(frozen=True)
class GenerateLesion(Task):
    """Lesion that the patient does not have."""

    name, title, action, icon = "generate_lesion", "Insert", "Insert lesion", "insert.png"
    sentence = "Puts a lesion that the patient does not have into a CT."
    inputs = Inputs(mask=OPTIONAL, paints=True)
    outputs = (Output("with_lesion", OutputKind.CT), Output("lesion", OutputKind.MASK))
    synthetic = True
    needs = FineTuned("control", "control", "lesion")
    reference_seconds = 0.9

    kind: str = parameter(
        "like-training",
        "Density of the lesion; the default is taken from training lesions in such surroundings.",
        choices=tuple(KINDS),
        labels={name: _label(name) for name in KINDS},
        panel="solid",
    )
    mean: float | None = parameter(
        None, "Mean of the lesion, in place of the kind's.", unit="HU", minimum=-1000, maximum=1000, advanced=True
    )
    contrast: float | None = parameter(
        None,
        "Mean of the lesion over that of its surroundings, in place of the kind's.",
        unit="HU",
        minimum=-1500,
        maximum=1500,
        advanced=True,
    )
    spread: float | None = parameter(
        None,
        "Standard deviation of HU in the lesion's core; when not given, what the model makes.",
        unit="HU",
        minimum=1,
        maximum=500,
        advanced=True,
    )
    diameter: float | None = parameter(
        None,
        "Make a lumpy ellipsoid of this size at a random place inside the mask; not given, the mask is the lesion.",
        unit="mm",
        minimum=2,
        maximum=150,
    )
    organ: int | None = parameter(
        None,
        "With a diameter and without a mask: number of the organ in the organ map where the lesion is to be.",
        minimum=1,
        maximum=118,
        advanced=True,
    )
    tries: int = parameter(
        4,
        "Lesions drawn at most until the outline of one agrees with the mask; the best is kept.",
        minimum=1,
        maximum=50,
        advanced=True,
    )
    agreement: float = parameter(
        0.8, "Dice of outline and mask from which a lesion is good.", minimum=0, maximum=0.99, advanced=True
    )
    steps: int = parameter(12, "Network evaluations of each.", minimum=1, maximum=200, advanced=True)
    rim: float = parameter(
        3.0,
        "Width outside the lesion over which the model's image blends into the input.",
        unit="mm",
        minimum=0,
        maximum=20,
        advanced=True,
    )
    sigma_max: float = parameter(
        1.0,
        "Noise at the start, in units of 1000 HU; more leaves more to the model.",
        minimum=0.05,
        maximum=80,
        advanced=True,
    )
    spacing: float | None = spacing_parameter("when not given, the scanner's own unless the lesion is large")
    control: str = parameter("auto", "ControlNet: auto takes the model's own; or a name or a file.", advanced=True)
    control_weight: float = parameter(1.0, "Weight of the ControlNet.", minimum=0, maximum=2, advanced=True)

    def needed_piece(self, volume: Volume, mask: np.ndarray) -> Box | None:
        from ...preprocessing.mask_crop import WINDOW, piece_around
        from .lesion_extent import SHELL_MM, working_spacing

        # Isotropic working voxels, also those for a large lesion, would begin elsewhere on a piece.
        if self.spacing is not None or working_spacing(mask, volume.spacing) is not None:
            return None
        reach = max(self.rim, SHELL_MM[1])
        return piece_around(mask, volume, max(WINDOW // 2, math.ceil(reach / min(volume.spacing)) + 1))

    def work(self, volume: Volume | None) -> float:
        """The neighborhood of the mask alone."""
        return 0.0 if volume is None else self.steps
