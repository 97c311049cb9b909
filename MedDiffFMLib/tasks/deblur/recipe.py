"""Deblurring: the prior cleans, the blur's own inverse sharpens, in turn.

Half-quadratic splitting with a denoiser (arXiv 2008.13751), DiffPIR without the noise that it puts back: each network
evaluation takes the image so far as noisy, and between two of them a proximal step draws what the first gave to the
measurement through the blur. Without new noise the result is the expected image, not a plausible one, in few steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ..base import Case, Run, TaskResult
from .spec import Deblur

if TYPE_CHECKING:
    from ...preprocessing.working_image import WorkingImage

FIRST, LAST = 1.5, 1.0
"""Noise level of the first and the last step, in units of the input's. With more, and with the
measurement last, a chest gained another dB and a smooth pelvis lost three."""
LONGER = 1.25
"""Times as long as along the body a voxel must be along another axis for its slices to lie across that one."""


def deblur(parameters: Deblur, case: Case, run: Run) -> TaskResult:
    """Sharpen what the reconstruction kernel blurred; deterministic, whatever the seed.

    Returns:
        ``deblurred`` in the input's number type and ``difference`` (deblurred less input, HU, float32), on the input's
        grid.

    Raises:
        InputError: the noise level is not given and cannot be estimated.
    """
    from ...inference.sliding_window import SlidingWindowDenoiser
    from ...preprocessing.noise_estimate import estimate_noise
    from ...preprocessing.working_image import changed, slabs_of, unchanged_out_of_range, working_image
    from .gaussian_blur import FWHM_OVER_SIGMA, BlurredImage

    volume = case.scan
    image = working_image(volume, None, region=run.region, anatomy=case.anatomy)
    noise = parameters.noise
    if noise is None:
        noise = estimate_noise(image.hounsfield, image.spacing_kji[1], image.spacing_kji[0])
    if noise is None:
        raise InputError(
            "The noise level cannot be estimated: there is too little soft tissue.", "Give it with --noise."
        )
    sigma = max(noise, 0.5) / 1000
    measured = image.network_input()
    meter = run.meter(parameters.steps, "deblurring")
    denoise = SlidingWindowDenoiser(run.model.engine, image.condition, image.shape, meter)
    consistent = BlurredImage(measured, widths_on_grid(image, parameters.fwhm), sigma)
    first, *levels = np.geomspace(FIRST * sigma, LAST * sigma, parameters.steps).tolist()
    sharp, before = denoise(measured, first), first
    for level in levels:
        sharp, before = denoise(consistent(sharp, before), level), level
    # The change travels back, not the image: clipped voxels keep their own HU.
    difference = image.on_input((sharp - measured)[0, 0].numpy() * 1000)
    unchanged_out_of_range(difference, volume)
    facts = {
        "noise_hu": round(float(noise), 2),
        "noise_estimated": parameters.noise is None,
        "region": image.region,
        "network_evaluations": parameters.steps,
    }
    deblurred = changed(volume, ((planes, difference[planes]) for planes in slabs_of(volume)))
    narrow = ["The blur is narrower than the voxels, so there is little to sharpen: denoising may serve better."]
    warnings = narrow if max(consistent.widths) < 1 / FWHM_OVER_SIGMA else []
    return TaskResult({"deblurred": deblurred, "difference": difference}, facts=facts, warnings=warnings)


def widths_on_grid(image: WorkingImage, fwhm: float) -> tuple[float, float, float]:
    """Standard deviations of the blur along the working grid's (k, j, i), in voxels; 0 across the slices.

    CTs are scanned in axial slices. Where voxels are longest along another axis the slices lie across that one.
    """
    from .gaussian_blur import FWHM_OVER_SIGMA

    longest = int(np.argmax(image.spacing_kji))
    across = longest if image.spacing_kji[longest] > LONGER * image.spacing_kji[0] else 0
    k, j, i = (0.0 if axis == across else fwhm / FWHM_OVER_SIGMA / edge for axis, edge in enumerate(image.spacing_kji))
    return k, j, i
