"""Declaration of the toy. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from MedDiffFMLib.imaging.modality import MR
from MedDiffFMLib.tasks.base import Task
from MedDiffFMLib.tasks.inputs import OPTIONAL, Inputs, Scan, Text
from MedDiffFMLib.tasks.output_kinds import Output, OutputKind
from MedDiffFMLib.tasks.parameters import parameter


@dataclass(frozen=True)
class Toy(Task):
    """Shadow of a CT, and the place of its brightest MR voxel in words."""

    name, title, action = "toy", "Toy", "Play"
    sentence = "Casts a shadow and says where the MR is brightest."
    inputs = Inputs(
        scans=(
            Scan("mr", "MR of the same patient.", title="MR", modality=MR),
            Scan("old_ct", "An earlier CT.", OPTIONAL, "Earlier CT"),
        ),
        texts=(Text("prompt", "What to call the brightest place."),),
    )
    outputs = (
        Output("shadow", OutputKind.XRAY),
        Output("bright", OutputKind.MR),
        Output("answer", OutputKind.TEXT),
        Output("places", OutputKind.POINTS, columns=("name", "r_mm", "a_mm", "s_mm", "signal")),
    )

    gain: float = parameter(1.0, "Factor on the shadow.", minimum=0, maximum=10)
