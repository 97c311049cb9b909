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

TUNING_WORK = 18.0
"""Time that tuning takes, in that of a million voxels."""
QUICK_WORK, PRIOR_WORK, STEP_WORK = 0.6, 6.0, 5.5
"""Time of the network alone, by the prior's passes, and of one step, over that of the default."""


@dataclass(frozen=True)
class Denoise(Task):
    """Denoising by a small network or by the prior, with filters in blocks beside it."""

    name, title, action, icon = "denoise", "Denoise", "Denoise", "denoise.png"
    sentence = "Removes noise and shows what was removed."
    inputs = Inputs()
    outputs = (Output("denoised", OutputKind.CT), Output("noise", OutputKind.DIFFERENCE))
    reference_seconds = 0.7

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
    quick: bool = parameter(
        False,
        "The network alone, without the filters beside it: half to two thirds of the time, and more error left.",
    )
    prior: bool = parameter(
        False,
        "The prior's passes in the small network's place, in several times its time: for a prior that was trained on "
        "scans unlike those of the small network, which knows noise of 6 to 90 HU in diagnostic CTs.",
        title="By the prior",
        advanced=True,
    )
    blocks: float = parameter(
        0.5,
        "Share of thresholded blocks beside the network: they err otherwise, so that the mean errs less; 0 leaves the "
        "network alone, without the part of non-local means that a head asks for; 1 is the filters alone. Not used "
        "with several steps, nor when quick.",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    detail: float = parameter(
        1.0,
        "Share of the detail that comes back: a Wiener filter finds what was taken for noise by mistake, by the "
        "noise's own spectrum; 0 gives back nothing. Not used with several steps.",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    tune: bool = parameter(
        False,
        "Fit the network's last layer to this scan first, in half a minute; what it had stays where voxels that were "
        "held out do not gain. Not possible with several steps.",
        advanced=True,
    )
    spacing: float | None = spacing_parameter("the scanner's own voxels when not given")

    def check_together(self) -> None:
        if self.tune and self.steps:
            raise InputError("Tuning is for a network that estimates, not for steps.", "Leave one of both out.")
        if self.quick and self.steps:
            raise InputError("With steps there are no filters to leave out.", "Leave --quick or --steps out.")
        if self.tune and self.shares[0] == 1:
            raise InputError("With the filters alone there is no network to tune.", "Give --blocks less than 1.")

    @property
    def shares(self) -> tuple[float, float]:
        """Of thresholded blocks beside the network, and of the detail that comes back."""
        return (0.0, 0.0) if self.steps or self.quick else (self.blocks, self.detail)

    def work(self, volume: Volume | None) -> float:
        """In the default's time for a million voxels; tuning takes as long for every scan."""
        estimate = (PRIOR_WORK if self.prior else 1.0) * (QUICK_WORK if self.quick else 1.0)
        share = STEP_WORK if self.steps else estimate
        return share * super().work(volume) + (TUNING_WORK if self.tune and volume is not None else 0.0)
