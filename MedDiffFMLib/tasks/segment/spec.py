"""Parameters of segmentation. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..parameters import parameter


@dataclass(frozen=True)
class SegmentParameters:
    """Parameters of ``segment``."""

    head: str | None = parameter(
        None,
        "Name of a segmentation head, or a .safetensors file; your latest one for the model when not given.",
        catalogue="segmentation",
    )
    threshold: float = parameter(
        0.5, "Probability from which a voxel belongs to a structure.", minimum=0.01, maximum=0.99
    )
    minimum_volume: float = parameter(
        0.0, "Smaller separate pieces of a structure are left out.", unit="mm3", minimum=0, maximum=1e7
    )
    samples: int | None = parameter(
        None, "Size of the ensemble of a method that samples; the method's own when not given.",
        minimum=1, maximum=100, advanced=True,
    )  # fmt: skip
