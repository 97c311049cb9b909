"""Declaration of super-resolution. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.errors import InputError
from ..base import Task
from ..inputs import Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

AXES = ("k", "j", "i")
LARGEST_FACTOR = 6


@dataclass(frozen=True)
class SuperResolve(Task):
    """Thin slices from thick ones, or halved voxels."""

    name, title, action, icon = "super_resolve", "Sharpen", "Sharpen", "sharpen.png"
    sentence = "Makes thin slices out of thick ones, or halves every voxel."
    inputs = Inputs()
    outputs = (Output("fine", OutputKind.CT, "sharpened"),)
    own_axes = True  # ``axis`` names one of the input's, and the result is as finely stored as the input is coarsely

    mode: str = parameter(
        "slices",
        "slices: thin slices out of thick ones; isotropic: every voxel halved along all axes.",
        choices=("slices", "isotropic"),
    )
    factor: int | None = parameter(
        None,
        "Thin slices out of each thick one; when not given, as many as come closest to cubes.",
        minimum=2,
        maximum=LARGEST_FACTOR,
    )
    axis: str = parameter(
        "auto",
        "Voxel axis across the slices; auto takes the coarsest.",
        choices=("auto", *reversed(AXES)),
        advanced=True,
    )
    steps: int = parameter(
        1, "Network evaluations. 1 has the least error; more add plausible texture.", minimum=1, maximum=200
    )
    tune: bool = parameter(
        False,
        "Learn from the scan's own slices first, in half a minute or so, how thin slices look; used if it errs less in "
        "slices that were held out. Only for slices, with voxels within them about as fine as the thin ones.",
    )
    noise: float = parameter(
        0.0,
        "Noise of the measured slices: averages of the result may differ by that; 0 keeps them.",
        unit="HU",
        minimum=0,
        maximum=200,
        advanced=True,
    )
    control: str = parameter(
        "auto",
        "ControlNet: auto takes the model's own, none works with the prior alone; or a name or a file.",
        advanced=True,
    )
    control_weight: float = parameter(
        1.0, "Weight of the ControlNet; 0 leaves the prior alone.", minimum=0, maximum=2, advanced=True
    )

    def check_together(self) -> None:
        if self.tune and self.mode != "slices":
            raise InputError("Tuning is for slices, not for halved voxels.", "Leave one of both out.")
        if self.tune and self.steps > 1:
            raise InputError("A tuned network takes one step.", "Leave one of both out.")
