"""PSNR and SSIM as LDCT-benchmark computes them (Eulig et al. 2024, Med Phys 51:8776), read in its published source.

Whole slices in the display window of the body part, mapped to 0 to 1, slice by slice: PSNR with a peak of 1, SSIM with
uniform windows of 7 x 7; means over slices. Air and table count, unlike in :mod:`.metrics`. Its cases are scans of
three body parts with low-dose images from the same projections; the cases here are others, so figures
compare methods here and not with its table.
"""

from __future__ import annotations

import numpy as np

WINDOWS = {"chest": (-600.0, 1500.0), "abdomen": (50.0, 400.0), "neuro": (40.0, 80.0)}
"""Body part -> center and width in HU."""
SSIM_PIXELS = 7


def window_of(region: str | None) -> str:
    """Body part whose window is used: chest for the region chest; abdomen for every other, whose tissue is soft."""
    return "chest" if region == "chest" else "abdomen"


def shown(hounsfield: np.ndarray, part: str) -> np.ndarray:
    """HU in the display window, 0 to 1, float64 (the linear function of DICOM PS3.3 C.11.2.1.2)."""
    center, width = WINDOWS[part]
    return np.clip((np.asarray(hounsfield, dtype=np.float64) - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def ldct_figures(image: np.ndarray, truth: np.ndarray, slices: np.ndarray, part: str) -> dict[str, float]:
    """``LDCT PSNR`` in dB and ``LDCT SSIM``.

    Args:
        image, truth: HU (k, j, i).
        slices: (k,) bool, those that count.
        part: of :data:`WINDOWS`.
    """
    from skimage.metrics import structural_similarity

    ratios, likeness = [], []
    for k in np.flatnonzero(slices):
        first, second = shown(image[k], part), shown(truth[k], part)
        error = float(np.mean((first - second) ** 2))
        ratios.append(-10 * np.log10(error) if error > 0 else np.inf)
        if min(first.shape) >= SSIM_PIXELS:
            likeness.append(structural_similarity(second, first, win_size=SSIM_PIXELS, data_range=1.0))
    mean = {"LDCT PSNR": ratios, "LDCT SSIM": likeness}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in mean.items()}
