"""Declaration of denoising. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.errors import InputError
from ..base import Task
from ..inputs import Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter, spacing_parameter

if TYPE_CHECKING:
    from ...imaging.volume import Volume

TUNING_WORK = 15.0
"""Time that tuning takes, in that of a million voxels."""


@dataclass(frozen=True)
class Denoise(Task):
    """Denoising by the prior, with non-local means and a Wiener filter beside it."""

    name, title, action, icon = "denoise", "Denoise", "Denoise", "denoise.png"
    sentence = "Removes noise and shows what was removed."
    inputs = Inputs()
    outputs = (Output("denoised", OutputKind.CT), Output("noise", OutputKind.DIFFERENCE))
    reference_seconds = 3.5

    noise: float | None = parameter(
        None,
        "Noise level of the input; estimated from soft tissue when not given.",
        unit="HU",
        minimum=0.5,
        maximum=500,
    )
    strength: float = parameter(
        1.0, "Factor on the noise level: above 1 smooths more, below 1 keeps more.", minimum=0.1, maximum=3
    )
    steps: int = parameter(
        0,
        "0: passes from coarse to fine, the least error. More: so many DiffPIR steps, which keep more texture.",
        minimum=0,
        maximum=100,
        advanced=True,
    )
    consistency: float = parameter(
        3.0,
        "With several steps, trust in the prior against the input (DiffPIR's lambda).",
        minimum=0.01,
        maximum=1000,
        advanced=True,
    )
    non_local: float = parameter(
        0.5,
        "Share of non-local means in the result: it errs otherwise than the network, so that the mean errs less; "
        "0 leaves the network alone. Not used with several steps.",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    detail: float = parameter(
        0.5,
        "Share of the result in which a Wiener filter gives back detail that the network took for noise, told apart by "
        "the noise's own spectrum; 0 gives back nothing. Not used with several steps.",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    tune: bool = parameter(
        False,
        "Fit the network's last layer to this scan first, in about a minute; what it had stays where voxels that were "
        "held out do not gain. Not possible with several steps.",
    )
    spacing: float | None = spacing_parameter("the scanner's own voxels when not given")

    def check_together(self) -> None:
        if self.tune and self.steps:
            raise InputError("Tuning is for the passes from coarse to fine, not for steps.", "Leave one of both out.")

    def work(self, volume: Volume | None) -> float:
        """Tuning takes as long for every scan."""
        return super().work(volume) + (TUNING_WORK if self.tune and volume is not None else 0.0)
