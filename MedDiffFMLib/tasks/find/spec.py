"""Declaration of the search by words. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base import FineTuned, Task
from ..inputs import NONE, Inputs, Text
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

if TYPE_CHECKING:
    from ...imaging.volume import Volume

COLUMNS = ("number", "likeness", "z", "r_mm", "a_mm", "s_mm")


@dataclass(frozen=True)
class Find(Task):
    """Search: how much each place of a CT looks like what a text says."""

    name, title, action, icon = "find", "Find", "Find", "find.png"
    sentence = "Shows where in a CT what you write is most likely to be found."
    caveat = "Trained on few patients: it points to places worth a look, and finds no disease."
    inputs = Inputs(anatomy=NONE, texts=(Text("prompt", "What to look for: nodule in the right upper lobe."),))
    outputs = (
        Output("likeness", OutputKind.VALUES),
        Output("places", OutputKind.POINTS, columns=COLUMNS),
        Output("understood", OutputKind.TEXT),
    )
    needs_model = False
    many = True
    ranked_by = "score"
    needs = FineTuned("encoders", "encoders", "align")

    places: int = parameter(5, "Places that are listed, at least 40 mm apart.", minimum=1, maximum=50)
    encoders: str | None = parameter(
        None, "Name of encoders, or a .safetensors file; those of the catalogue when not given.",
        catalogue="encoders", advanced=True,
    )  # fmt: skip

    def work(self, volume: Volume | None) -> float:
        """The scan is looked at on voxels of 4 mm, whatever its own."""
        return 0.0 if volume is None else volume.voxels.size * volume.voxel_volume / 64e6
