"""The segmentation methods by name. Imports no torch; a row names the module that does the work."""

from __future__ import annotations

from dataclasses import dataclass

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class MethodRow:
    """One method.

    Attributes:
        sentence: one sentence for the user.
        module, options: module and name of its options, a frozen dataclass as :class:`.method.Method` describes.
    """

    sentence: str
    module: str
    options: str


METHODS = {
    "features": MethodRow(
        "A small head on the activations of the frozen prior: minutes, one to five scans.",
        f"{_PACKAGE}.features", "FeatureMethod",
    ),
    "unet": MethodRow(
        "The prior's own U-Net, head first and then all of it, or the same body from random weights.",
        f"{_PACKAGE}.unet", "UNetMethod",
    ),
    "dynunet": MethodRow("MONAI's DynUNet from scratch, for comparison.", f"{_PACKAGE}.dynunet", "DynUNetMethod"),
    "medsegdiff": MethodRow(
        "Mask diffusion with an ensemble of samples (MedSegDiff in 3-D windows).",
        f"{_PACKAGE}.medsegdiff", "MedSegDiffMethod",
    ),
}  # fmt: skip
