"""Declaration of segmentation. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import FineTuned, Task, View
from ..inputs import OPTIONAL, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter


@dataclass(frozen=True)
class Segment(Task):
    """Segmentation by a head that a few outlined scans have trained."""

    name, title, action, icon = "segment", "Segment", "Segment", "segment.png"
    sentence = "Outlines what you outlined in a few other scans, and says how sure it is."
    inputs = Inputs(mask=OPTIONAL)
    outputs = (Output("segmentation", OutputKind.LABELS), Output("uncertainty", OutputKind.LABEL_SPREAD))
    view = View.STRUCTURES
    many = True
    needs = FineTuned("head", "segmentation", "segmentation")

    head: str | None = parameter(
        None,
        "Name of a segmentation head, or a .safetensors file; your latest one for the model when not given.",
        catalogue="segmentation",
        title="Trained segmentation",
    )
    threshold: float | None = parameter(
        None,
        "Probability from which a voxel belongs to a structure; of each structure that with the largest expected "
        "overlap (0.1 to 0.5) when not given.",
        minimum=0.01,
        maximum=0.99,
    )
    minimum_volume: float = parameter(
        0.0, "Smaller separate pieces of a structure are left out.", unit="mm3", minimum=0, maximum=1e7
    )
    samples: int | None = parameter(
        None,
        "Size of the ensemble of a method that samples; the method's own when not given.",
        minimum=1,
        maximum=100,
        advanced=True,
    )
