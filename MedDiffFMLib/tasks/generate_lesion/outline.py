"""Check of a generated lesion: its outline, found anew in the result, against the mask that was asked for.

The outline lies where the density is half-way between that of the lesion's core and that of what lies around, as
lesions are measured in practice (full width at half maximum). It takes no part in generating, and looks only where the
model drew: in the lesion and its rim. Voxels that cannot tell, because what lies beyond the rim there is as dense as
the lesion, or because the patient had such tissue in the rim before, are left out on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .lesion_extent import SHELL_MM, distance_around

SMOOTH_VOXELS = 0.6
"""Deviation of the smoothing before the outline is found."""
BACKGROUND_MM = 1.5
"""The same for what lies around."""
LEAST_VOXELS = 20
"""A smaller lesion has no outline to speak of."""
LEAST_TELLING = 0.5
"""Share of the lesion that must stand out from what lies around it, else there is no outline."""
SIZE_TOLERANCE = 0.15
"""Largest difference of the diameters, as a share."""


@dataclass(frozen=True)
class Verdict:
    """Outcome of the check.

    Attributes:
        good: whether it passed; None where the lesion is too small to be judged.
        dice: of outline and mask, 0 without an outline.
        diameter_mm: of the ball of the outline's volume.
        contrast_hu: of the core over what lies around, median of its voxels.
        noise_hu: of what lies around.
        reason: why it did not pass, or could not be judged; empty where it passed.
    """

    good: bool | None
    dice: float
    diameter_mm: float
    contrast_hu: float
    noise_hu: float
    reason: str = ""

    def facts(self) -> dict[str, Any]:
        """For a report."""
        return {
            "good": self.good,
            "dice": round(self.dice, 3),
            "diameter_mm": round(self.diameter_mm, 1),
            "contrast_hu": round(self.contrast_hu, 1),
            "noise_hu": round(self.noise_hu, 1),
            "reason": self.reason,
        }


def ball_diameter(lesion: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Diameter in mm of the ball of a mask's volume."""
    return float(np.cbrt(6 / np.pi * np.count_nonzero(lesion) * np.prod(spacing)))


def check_outline(
    before: np.ndarray,
    after: np.ndarray,
    lesion: np.ndarray,
    spacing: tuple[float, float, float],
    rim: float,
    least: float,
) -> Verdict:
    """Whether a lesion is where and as large as it was asked for.

    Args:
        before, after: the CT without and with it, HU (k, j, i); ``before`` is looked at in the rim alone.
        lesion: bool (k, j, i), the mask that was asked for.
        spacing: (i, j, k) in mm.
        rim: mm around it in which the model drew.
        least: Dice that passes.
    """
    from scipy.ndimage import gaussian_filter

    distance, box = distance_around(lesion, spacing, max(rim, SHELL_MM[1]))
    inside, edges = lesion[box], np.array(spacing[::-1])
    drawn = inside | (distance <= max(rim, float(edges.min())))
    raw = after[box].astype(np.float32)
    image = gaussian_filter(raw, SMOOTH_VOXELS)
    smooth = gaussian_filter(raw, BACKGROUND_MM / edges)
    around = _beyond(smooth, drawn, edges)
    core = _core(inside, edges)
    density = float(np.median(raw[core]))
    contrast, noise = float(np.median(density - around[core])), _noise(raw - smooth, drawn)
    if np.count_nonzero(inside) < LEAST_VOXELS:
        words = "it has too few voxels to be judged"
        return Verdict(None, 0.0, ball_diameter(inside, spacing), contrast, noise, words)
    telling = drawn & (np.abs(density - around) > max(noise, 1.0))
    old = gaussian_filter(np.where(inside, around, before[box]).astype(np.float32), SMOOTH_VOXELS)
    telling &= inside | (np.abs(old - around) < np.abs(old - density))
    asked = inside & telling
    if asked.sum() < LEAST_TELLING * inside.sum():
        words = f"its contrast of {contrast:.0f} HU does not stand out from a noise of {noise:.0f} HU"
        return Verdict(False, 0.0, 0.0, contrast, noise, words)
    found = _one_piece(telling & (np.abs(image - density) < np.abs(image - around)), core) & telling
    dice = float(2 * (found & asked).sum() / max(found.sum() + asked.sum(), 1))
    ratio = float(np.cbrt(found.sum() / asked.sum()))
    wanted = ball_diameter(inside, spacing)
    reason = ""
    if abs(ratio - 1) > SIZE_TOLERANCE:
        reason = f"it measures {ratio * wanted:.1f} mm instead of {wanted:.1f}"
    elif dice < least:
        reason = f"its outline agrees with the mask by a Dice of {dice:.2f}, less than {least:g}"
    return Verdict(not reason, dice, ratio * wanted, contrast, noise, reason)


def _core(inside: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The inner half of a lesion by depth."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(inside, 1), sampling=edges)[1:-1, 1:-1, 1:-1]
    return depth >= depth.max() / 2


def _beyond(smooth: np.ndarray, drawn: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Of each voxel the density of what lies nearest to it beyond what was drawn."""
    from scipy.ndimage import distance_transform_edt

    if drawn.all():
        return np.full_like(smooth, np.median(smooth))
    nearest = distance_transform_edt(drawn, sampling=edges, return_distances=False, return_indices=True)
    return smooth[tuple(nearest)]


def _noise(residual: np.ndarray, drawn: np.ndarray) -> float:
    """Standard deviation of what smoothing takes away, beyond what was drawn; from the median deviation."""
    deviation = np.abs(residual[~drawn])
    return 1.48 * float(np.median(deviation)) if deviation.size else 0.0


def _one_piece(found: np.ndarray, core: np.ndarray) -> np.ndarray:
    """The connected part that holds most of the core, its holes filled."""
    from scipy.ndimage import binary_fill_holes, label

    pieces, count = label(found)
    if not count:
        return found
    sizes = np.bincount(pieces[core], minlength=count + 1)
    sizes[0] = 0
    return binary_fill_holes(pieces == sizes.argmax()) if sizes.any() else np.zeros_like(found)
