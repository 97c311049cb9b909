"""Inpainting of a mask with healthy tissue: RePaint, computed in the neighborhood of the mask only.

The network gives the expected tissue; what the rim tells and texture come from the same scan (:mod:`.texture`), unless
``texture`` is "none". One filling of a small hole whose rim tells enough does without the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ...preprocessing.mask_crop import around_mask, neighborhood
from ..base import Case, Run, TaskResult
from .spec import Inpaint
from .texture import Filling, filled_from_scan

if TYPE_CHECKING:
    import torch

    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter
    from ...imaging.volume import Volume
    from ...inference.sliding_window import SlidingWindowDenoiser
    from ...models.checkpoint import FoundationModel
    from ...preprocessing.working_image import WorkingImage


def inpaint(parameters: Inpaint, case: Case, run: Run) -> TaskResult:
    """Fill the mask of the case with healthy tissue; the same seed gives the same filling.

    Returns:
        ``inpainted`` in the input's number type. Outside the mask it equals the input bit for bit; inside, over
        ``feather`` mm from the rim, input and filling blend.
    """
    from ...imaging.intensity import is_padding
    from ...preprocessing.working_image import like_input, part_of_image, working_image

    volume, model, mask = case.scan, run.model, case.mask
    if mask is None or not mask.any():
        raise InputError("There is nothing to fill: the mask is missing or empty.", "Paint the region to fill.")
    box = neighborhood(mask, volume, parameters.spacing, model.engine.memory_level.window)
    seen = neighborhood(
        mask, volume, parameters.spacing, model.engine.memory_level.window, parameters.context(volume, mask)
    )
    surroundings = working_image(volume, parameters.spacing, region=run.region, anatomy=case.anatomy, around=seen)
    image, near = part_of_image(surroundings, *box)
    meter = run.meter(parameters.steps * parameters.samples, "filling")
    hole = hole_on_grid(surroundings, mask, parameters.margin)

    def expect() -> np.ndarray:
        filled = surroundings.hounsfield.copy()
        working = fill_hole(image, hole[near], model, parameters, run.seed, meter)
        filled[near] = np.where(hole[near], working, filled[near])
        return filled

    if parameters.texture == "scan":
        scan, spacing = surroundings.hounsfield, surroundings.grid.spacing
        filling = filled_from_scan(scan, hole, expect, spacing, parameters.samples, run.seed, meter)
        if not filling.expected:
            meter.advance(meter.total)
    else:
        filling = Filling(expect(), places=0, expected=True)
    result = volume.voxels.copy()
    place = around_mask(mask)
    inside = mask[place]
    filled = image.on_input(filling.values[near], fill=np.nan, box=place)[inside]
    share = inward_share(inside, volume, parameters.feather)
    before = volume.voxels[place][inside].astype(np.float32)
    after = before + share * (filled - before)
    result[place][inside] = np.where(is_padding(before), result[place][inside], like_input(after, volume))
    facts = {
        "region": image.region,
        "filled_mm3": round(float(mask.sum() * volume.voxel_volume), 1),
        "mean_hu_before": round(float(before.mean()), 1),
        "mean_hu_after": round(float(after.mean()), 1),
        "network_evaluations": parameters.steps * parameters.samples if filling.expected else 0,
        "working_shape": list(image.shape),
        "texture_places": filling.places,
    }
    return TaskResult({"inpainted": result}, facts=facts)


def inward_share(inside: np.ndarray, volume: Volume, feather: float) -> np.ndarray:
    """Share of the filling in each masked voxel, rising from the mask's rim over ``feather`` mm.

    Args:
        inside: the mask in a box with a voxel around it; where the volume ends there is no rim.
    """
    from scipy.ndimage import distance_transform_edt

    if feather == 0:
        return np.ones(np.count_nonzero(inside))
    i, j, k = volume.spacing
    if inside.all():
        return np.ones(inside.size)
    return np.clip(distance_transform_edt(inside, sampling=(k, j, i))[inside] / feather, 0, 1)


def fill_hole(
    image: WorkingImage,
    hole: np.ndarray,
    model: FoundationModel,
    parameters: Inpaint,
    seed: int,
    meter: ProgressMeter | None = None,
) -> np.ndarray:
    """The filled neighborhood in HU on the working grid, mean of the samples; the input outside the hole.

    Without steps the surface of least bending, from which the samples start.

    Args:
        hole: bool (D, H, W), see :func:`hole_on_grid`.
    """
    import torch

    from ...inference.sliding_window import SlidingWindowDenoiser

    unknown = torch.from_numpy(hole)[None, None].float()
    known = image.network_input()
    condition = image.condition.filling(known[0, 0], unknown[0, 0])
    if parameters.steps == 0:
        assert condition.known is not None
        return condition.known.numpy() * 1000
    denoiser = SlidingWindowDenoiser(model.engine, condition, image.shape, meter)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(known)
    for _ in range(parameters.samples):
        total += sample_filling(denoiser, known, unknown, condition, parameters, generator)
    return (total / parameters.samples)[0, 0].numpy() * 1000


def sample_filling(
    denoiser: SlidingWindowDenoiser,
    known: torch.Tensor,
    hole: torch.Tensor,
    condition: Condition,
    parameters: Inpaint,
    generator: torch.Generator,
) -> torch.Tensor:
    """One sample of the hole's content given the known voxels; (1, 1, D, H, W), network range.

    Args:
        condition: with the same hole; its initialization is where the noise starts from.
    """
    from ...diffusion.data_consistency import RePaint
    from ...diffusion.samplers import dpm_solver_pp_2m, karras_sigmas, noise_like

    sigmas = karras_sigmas(parameters.steps, parameters.sigma_max, 0.3 * min(parameters.sigma_max, 0.1))
    assert condition.known is not None
    start = condition.known[None, None] + sigmas[0] * noise_like(known, generator)
    return dpm_solver_pp_2m(denoiser, start, sigmas, RePaint(known, hole))


def hole_on_grid(image: WorkingImage, mask: np.ndarray, margin: float) -> np.ndarray:
    """Working voxels that the model must not look at: those that touch the mask, grown by ``margin`` mm."""
    from scipy.ndimage import distance_transform_edt

    touched = image.mask_on_grid(mask) > 0.01
    if not touched.any():
        # A mask thinner than a working voxel may fall between the grid's points.
        touched = image.mask_on_grid(mask) > 0
    if margin == 0:
        return touched
    return distance_transform_edt(~touched, sampling=image.spacing_kji) <= margin
