"""Non-local means beside the network: the two err differently, so their mean errs less than either.

Non-local means (Buades, Coll and Morel 2005) keeps what repeats itself nearby, edges above all; the network knows
tissue. On quarter dose, 30 mm of each of seven training and validation cases, the mean over the cases was 26.6 dB for
non-local means, 26.4 dB for the network and 27.0 dB for their mean; the held-out cases
are in ``docs/results/measurements.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...core.progress import ProgressMeter

PATCH = 5
REACH = 6
"""Patches of 5 x 5 pixels, searched up to 6 pixels away; 4 lost 0.1 dB."""


def non_local_means(
    image: np.ndarray, sigma: float, strength: float = 1.0, meter: ProgressMeter | None = None
) -> np.ndarray:
    """Slice by slice, on as many threads as the network uses.

    Args:
        image: float32 (k, j, i).
        sigma: standard deviation of its noise, in its unit.
        strength: h over ``sigma``; more smooths more.
        meter: advanced by one for the whole image.

    Raises:
        Cancelled: seen between slices.
    """
    smoothed = np.empty_like(image)
    for k, plane in enumerate(non_local_planes(image, sigma, strength, meter)):
        smoothed[k] = plane
    return smoothed


def non_local_planes(
    image: np.ndarray, sigma: float, strength: float = 1.0, meter: ProgressMeter | None = None
) -> Iterator[np.ndarray]:
    """The slices of :func:`non_local_means`, first to last, each as soon as it is there.

    A slice of ``image`` is not looked at any more once its result has come.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch
    from skimage.restoration import denoise_nl_means

    def clean(plane: np.ndarray) -> np.ndarray:
        return denoise_nl_means(
            plane, patch_size=PATCH, patch_distance=REACH, h=strength * sigma, sigma=sigma, fast_mode=True
        )

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        try:
            for plane in threads.map(clean, image):
                yield plane
                if meter is not None:
                    meter.advance(1 / len(image))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
