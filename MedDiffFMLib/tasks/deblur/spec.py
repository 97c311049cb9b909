"""Declaration of deblurring. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import Task
from ..inputs import Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter


@dataclass(frozen=True)
class Deblur(Task):
    """Deblurring by the prior, held to the scan by the kernel's own blur."""

    name, title, action, icon = "deblur", "Deblur", "Deblur", "deblur.png"
    sentence = "Sharpens what a smooth reconstruction kernel blurred, and shows what that changed."
    inputs = Inputs()
    outputs = (Output("deblurred", OutputKind.CT), Output("difference", OutputKind.DIFFERENCE))

    fwhm: float = parameter(
        1.2, "Width at half maximum of the blur within slices, as of the kernel.", unit="mm", minimum=0.1, maximum=5
    )
    noise: float | None = parameter(
        None,
        "Noise level of the input; estimated from soft tissue when not given.",
        unit="HU",
        minimum=0.5,
        maximum=200,
    )
    steps: int = parameter(
        2, "Network evaluations; the blur is undone between them.", minimum=2, maximum=20, advanced=True
    )
