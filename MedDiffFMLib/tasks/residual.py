"""The model's own residual: what it would have expected where it no longer sees the detail.

A volume is noised to a level sigma and reconstructed; structure that the prior knows comes back, the rest does not.
Low levels judge subtle contrast, high levels large objects. What remains on normal tissue is not zero: edges and
vessels are hard to guess. So residuals are divided by what the same model leaves on normal tissue of the same kind
and at the same level, which makes levels and tissues comparable: a z-score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError

if TYPE_CHECKING:
    from ..inference.control import ProgressMeter
    from ..inference.engine import Engine
    from .working import WorkingImage

TISSUE_EDGES_HU = (-850.0, -600.0, -200.0, -20.0, 120.0, 300.0)
"""Limits between air, lung, partial volume, fat, soft tissue, contrast or soft bone, bone; of the reconstruction."""
EDGE_LIMITS_HU_PER_MM = (8.0, 25.0)
"""Limits between flat, sloping and steep places of the reconstruction: an edge is hard to guess to the millimetre."""
EDGE_WIDTH_MM = 3.0
CLASSES = (len(TISSUE_EDGES_HU) + 1) * (len(EDGE_LIMITS_HU_PER_MM) + 1)


@dataclass(frozen=True)
class Reconstruction:
    """Pseudo-healthy image at one noise level.

    Attributes:
        sigma: noise level in units of 1000 HU.
        healthy: (D, H, W) HU, mean over the seeds.
        spread: (D, H, W) HU, standard deviation over the seeds; zeros for one seed.
        residual: (D, H, W) HU, smoothed input minus smoothed reconstruction.
    """

    sigma: float
    healthy: np.ndarray
    spread: np.ndarray
    residual: np.ndarray


def reconstruct(
    image: WorkingImage,
    engine: Engine,
    sigma: float,
    *,
    seeds: int,
    steps: int,
    smoothing: float,
    seed: int = 0,
    meter: ProgressMeter | None = None,
) -> Reconstruction:
    """Noise to ``sigma`` and bring back in ``steps`` network evaluations, ``seeds`` times.

    Args:
        smoothing: standard deviation in mm of the Gaussian that both images get before they are compared.
    """
    import torch
    from scipy.ndimage import gaussian_filter

    from ..diffusion.sampler import dpm_solver_pp_2m, karras_sigmas, noise_like
    from ..inference.blended import BlendedDenoiser

    denoiser = BlendedDenoiser(engine, image.condition, image.shape, meter)
    generator = torch.Generator().manual_seed(seed)
    clean = image.network_input()
    mean, square = torch.zeros_like(clean), torch.zeros_like(clean)
    sigmas = karras_sigmas(steps, sigma, 0.3 * sigma)
    for _ in range(seeds):
        x = dpm_solver_pp_2m(denoiser, clean + sigma * noise_like(clean, generator), sigmas)
        mean += x / seeds
        square += x**2 / seeds
    spread = (square - mean**2).clamp(min=0).sqrt() * (seeds / max(seeds - 1, 1)) ** 0.5
    width = [smoothing / s for s in image.spacing_kji]
    residual = gaussian_filter((clean - mean)[0, 0].numpy() * 1000, width)
    return Reconstruction(sigma, mean[0, 0].numpy() * 1000, spread[0, 0].numpy() * 1000, residual)


def tissue_of(healthy: np.ndarray, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """Kind of tissue of each voxel of a reconstruction in HU: its HU class and its steepness, 0 to CLASSES - 1."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(healthy, [EDGE_WIDTH_MM / s for s in spacing_kji])
    slopes = np.gradient(smooth, *spacing_kji)
    steepness = np.sqrt(sum(slope**2 for slope in slopes))
    flat, steep = np.digitize(healthy, TISSUE_EDGES_HU), np.digitize(steepness, EDGE_LIMITS_HU_PER_MM)
    return flat * (len(EDGE_LIMITS_HU_PER_MM) + 1) + steep


def z_score(found: Reconstruction, calibration: dict[str, Any], spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """Residual over the residual's spread on normal tissue of the same kind, (D, H, W), signed.

    Raises:
        ModelError: the model was not calibrated at this noise level.
    """
    key = f"{found.sigma:g}"
    try:
        level = calibration["levels"][key]
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"The model is not calibrated for anomaly maps at noise level {key}.",
            f"Use the levels {', '.join(calibration.get('levels', {})) or 'of a calibrated model'}.",
        ) from error
    tissue = tissue_of(found.healthy, spacing_kji)
    centre, spread = np.array(level["centre"]), np.array(level["spread"])
    if centre.shape != (CLASSES,) or spread.shape != (CLASSES,):
        raise ModelError("The model's calibration was made by another version.", "Run `meddifffm calibrate` on it.")
    return ((found.residual - centre[tissue]) / spread[tissue]).astype(np.float32)
