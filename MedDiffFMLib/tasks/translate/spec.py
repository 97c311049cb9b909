"""Declaration of translation. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...imaging.modality import CT as CT_SCAN
from ...imaging.modality import CT_OR_MR
from ...imaging.modality import MR as MR_SCAN
from ...multimodal.names import CT, MR_T1, TARGETS
from ..base import Task
from ..inputs import NONE, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter


@dataclass(frozen=True)
class Translate(Task):
    """A first guess by local features that a small flow may correct, with its likely error."""

    name, title, action, icon = "translate", "Translate", "Translate", "translate.png"
    sentence = (
        "Makes a CT from a T1-weighted MR of trunk or limb, or an MR-like image from a CT, with its likely error."
    )
    caveat = "Trained on 22 pairs; no basis for a treatment plan."
    inputs = Inputs(modality=CT_OR_MR, anatomy=NONE)
    outputs = (
        Output("ct", OutputKind.CT, "CT", invented=True),
        Output("mr", OutputKind.MR, "MR, T1-like", invented=True),
        Output("uncertainty", OutputKind.HU_SPREAD),
        Output("mr_uncertainty", OutputKind.VALUES, "MR uncertainty"),
        Output("outside", OutputKind.MASK, "outside what it was trained on"),
    )
    synthetic = True
    needs_model = False

    to: str = parameter(
        CT,
        "What is made: ct from an MR, or mr-t1 from a CT.",
        choices=TARGETS,
        labels={CT: "CT, from an MR", MR_T1: "T1-weighted MR, from a CT"},
    )
    fade: bool = parameter(
        True, "Fall back to the guess by intensities where the MR looks unlike those in training.", advanced=True
    )

    @property
    def takes(self) -> Inputs:
        """The scan is of the modality that is not made."""
        return replace(self.inputs, modality=MR_SCAN if self.to == CT else CT_SCAN)
