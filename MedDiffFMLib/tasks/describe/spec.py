"""Declaration of the description. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...imaging.modality import CT as CT_SCAN
from ...imaging.modality import MR as MR_SCAN
from ...imaging.modality import XR
from ..base import Task, View
from ..inputs import OPTIONAL, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

CT, MR, XRAY = "ct", "mr", "xray"
SCANS = {CT: CT_SCAN, MR: MR_SCAN, XRAY: XR}
COLUMNS = ("number", "sentence", "fact", "value", "unit", "certainty", "evidence", "r_mm", "a_mm", "s_mm")


@dataclass(frozen=True)
class Describe(Task):
    """Measured facts as sentences; none without a place where it can be checked."""

    name, title, action, icon = "describe", "Describe", "Describe", "describe.png"
    sentence = "Says in sentences what can be measured in a CT, each with the place to check it."
    inputs = Inputs(mask=OPTIONAL)
    outputs = (
        Output("description", OutputKind.TEXT),
        Output("facts", OutputKind.TABLE, columns=COLUMNS),
        Output("evidence", OutputKind.LABELS),
    )
    view = View.SENTENCES
    needs_model = False
    many = True

    modality: str = parameter(
        CT,
        "What the scan is: a CT is measured; of an MR or an X-ray a network estimates very little, not validated.",
        choices=tuple(SCANS),
        labels={CT: "CT, measured", MR: "MR, T1-weighted: estimated", XRAY: "X-ray: estimated"},
        advanced=True,
    )
    certainty: float = parameter(
        0.7, "Sentences that are less certain are left out and listed as not assessed.", minimum=0.7, maximum=1
    )
    reader: str | None = parameter(
        None,
        "What reads facts in MRs and X-rays: the .safetensors file of a training, or its name in the catalogue; the "
        "reader that ships where nothing is given.",
        advanced=True,
    )

    @property
    def takes(self) -> Inputs:
        """The scan is of the modality that is said."""
        return replace(self.inputs, modality=SCANS[self.modality])

    @property
    def keeps_axes(self) -> bool:
        """A picture is rows and columns, wherever its detector stands."""
        return self.modality == XRAY
