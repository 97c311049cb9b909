"""Declaration of the anomaly map. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base import Task, View
from ..inputs import OPTIONAL, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

if TYPE_CHECKING:
    from ...imaging.volume import Volume

COLUMNS = ("number", "where", "volume_mm3", "peak_z", "mean_z", "r_mm", "a_mm", "s_mm", "mean_hu", "reason")


@dataclass(frozen=True)
class Anomaly(Task):
    """Anomaly map: how unusual each place is for normal tissue."""

    name, title, action, icon = "anomaly", "Anomaly", "Find anomalies", "anomaly.png"
    sentence = "Marks regions that do not look like normal tissue in their place."
    inputs = Inputs(mask=OPTIONAL)
    outputs = (
        Output("anomaly", OutputKind.Z_SCORE),
        Output("healthy", OutputKind.CT, "normal tissue", invented=True),
        Output("uncertainty", OutputKind.HU_SPREAD),
        Output("findings", OutputKind.POINTS, columns=COLUMNS),
    )
    view = View.FINDINGS
    reference_seconds = 4.0

    threshold: float = parameter(2.0, "Findings are regions with a larger z-score.", minimum=0.5, maximum=50)
    minimum_volume: float = parameter(100.0, "Smaller regions are not listed.", unit="mm3", minimum=0, maximum=1e6)
    at_most: int = parameter(
        5, "Only the most conspicuous findings are listed and filled.", minimum=1, maximum=100, advanced=True
    )
    method: str = parameter(
        "detector", "detector: what each place looks like, judged by a small network; cubes: hidden cubes that the "
        "prior predicts.", choices=("detector", "cubes"), advanced=True,
    )  # fmt: skip

    def work(self, volume: Volume | None) -> float:
        """The working voxels have a fixed size."""
        return 0.0 if volume is None else volume.voxels.size * volume.voxel_volume / 27e6
