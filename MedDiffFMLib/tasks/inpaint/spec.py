"""Parameters of inpainting. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..parameters import parameter


@dataclass(frozen=True)
class InpaintParameters:
    """Parameters of ``inpaint``."""

    steps: int = parameter(
        1, "Network evaluations a sample: 1 gives the expected tissue, more a plausible one with texture.",
        minimum=1, maximum=200,
    )  # fmt: skip
    samples: int = parameter(
        3, "Samples averaged: more come closer to the expected tissue, 1 keeps the most texture.", minimum=1, maximum=64
    )
    feather: float = parameter(
        1.5, "Width inside the mask's rim over which input and filling blend.", unit="mm", minimum=0, maximum=20
    )
    margin: float = parameter(
        3.0, "Ring around the mask that the model may not look at, since a lesion's rim lies there.",
        unit="mm", minimum=0, maximum=30, advanced=True,
    )  # fmt: skip
    spacing: float | None = parameter(
        None,
        "Isotropic working voxel; the scanner's own voxels when not given.",
        unit="mm",
        minimum=0.5,
        maximum=10,
        advanced=True,
    )
    sigma_max: float = parameter(
        10.0,
        "Noise that is put on the first guess, in units of 1000 HU; more leaves more to the model.",
        minimum=0.01,
        maximum=80,
        advanced=True,
    )
