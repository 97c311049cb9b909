"""STAPLE (Warfield et al. 2004): one segmentation from several, weighted by their estimated reliability.

MedSegDiff's paper fuses its samples so; its released code takes the square of their mean instead. The algorithm is
SimpleITK's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.errors import DependencyError

ITERATIONS = 100


class Fusion(NamedTuple):
    """Result of STAPLE.

    Attributes:
        probability: (D, H, W) float32, posterior of the structure.
        sensitivity, specificity: (n,) of each rater; NaN where there was nothing to judge by.
    """

    probability: np.ndarray
    sensitivity: np.ndarray
    specificity: np.ndarray


def staple(raters: np.ndarray) -> Fusion:
    """Fuse binary masks of one structure.

    Args:
        raters: (n, D, H, W) bool.

    Raises:
        DependencyError: SimpleITK is not installed.
    """
    raters = np.asarray(raters, bool)
    probability = np.asarray(raters.all(axis=0), np.float32)
    if (raters == raters[0]).all():  # STAPLE divides by the size of structure and background
        nothing = np.full(len(raters), np.nan)
        agreed = np.ones(len(raters)) if raters.any() and not raters.all() else nothing
        return Fusion(probability, agreed, agreed)
    # All agree on what lies far from the structure; counted, it would make every rater's specificity 1, and whoever
    # marks most would be believed.
    box = _around(np.asarray(raters.any(axis=0)))
    itk = simple_itk()
    fuse = itk.STAPLEImageFilter()
    fuse.SetForegroundValue(1.0)
    fuse.SetMaximumIterations(ITERATIONS)
    fused = fuse.Execute([itk.GetImageFromArray(rater[box].astype(np.uint8)) for rater in raters])
    probability[box] = np.nan_to_num(itk.GetArrayFromImage(fused))
    return Fusion(probability, np.array(fuse.GetSensitivity()), np.array(fuse.GetSpecificity()))


def simple_itk() -> Any:
    """The package SimpleITK.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise DependencyError(
            "Fusing an ensemble by STAPLE needs the Python package 'SimpleITK', which is missing.",
            "Install it (pip install SimpleITK), or draw no more than two (--samples 2), of which the mean is taken.",
        ) from error
    return SimpleITK


def _around(marked: np.ndarray) -> tuple[slice, ...]:
    """The box of what is marked."""
    return tuple(slice(int(line.min()), int(line.max()) + 1) for line in np.nonzero(marked))
