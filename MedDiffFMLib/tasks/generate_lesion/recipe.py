"""Lesion generation in a mask: ControlNet on the mask, RePaint on the rest (arXiv 2410.15432, 1.6 e, f).

Only the neighborhood of the mask is computed. The noise starts from a flat lesion of the chosen density in the smooth
continuation of what lies around it; the mean over the lesion is corrected at every step, so the chosen density is met
however little the ControlNet has learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError, ModelError
from ..base import Case, Run, TaskResult
from .lesion_extent import distance_outside, surroundings, working_spacing
from .spec import KINDS, GenerateLesion

if TYPE_CHECKING:
    import torch

    from ...diffusion.samplers import Denoise
    from ...imaging.volume import Volume
    from ...models.checkpoint import FoundationModel
    from ...models.controlnet_file import Control

ALIKE = 5
"""Training lesions with the most similar surroundings, one of which lends its density."""


def generate_lesion(parameters: GenerateLesion, case: Case, run: Run) -> TaskResult:
    """Put a lesion into a CT.

    Args:
        case: its mask is the lesion, or with a ``diameter`` the room for it. Without mask the room is an organ of its
            anatomy, or the body.
        run: its seed decides place, shape, density where none is given, and texture.

    Returns:
        ``with_lesion`` in the input's number type, bit for bit the input farther than ``rim`` mm from the lesion, and
        ``lesion``, its mask.

    Raises:
        InputError: neither mask nor diameter, contradicting parameters, or no room.
        ModelError: there is no lesion ControlNet for this model.
    """
    from ...imaging.intensity import in_network_range, is_padding
    from ...preprocessing.mask_crop import neighborhood
    from ...preprocessing.working_image import like_input, working_image

    volume, model = case.scan, run.model
    _check_wishes(parameters, case)
    control = _control(model, parameters)
    rng = np.random.default_rng(run.seed)
    lesion = place_lesion(parameters, case, rng)
    distance, near = distance_outside(lesion, volume.spacing, parameters.rim)
    around = surroundings(volume.voxels, lesion, volume.spacing)
    mean = wished_mean(parameters, around, control.settings.get("lesions", []), rng)
    spacing = parameters.spacing or working_spacing(lesion, volume.spacing)
    box = neighborhood(lesion, volume, spacing, model.engine.memory_level.window)
    image = working_image(volume, spacing, region=run.region, anatomy=case.anatomy, around=box)
    meter = run.meter(parameters.steps, "generating")
    generated = image.on_input(_generate(image, lesion, mean, model, control, parameters, run.seed, meter), fill=np.nan)
    share = np.clip(1 - distance / max(parameters.rim, 1e-6), 0, 1)
    before = volume.voxels[near].astype(np.float32)
    result = volume.voxels.copy()
    keep = is_padding(before) | (~in_network_range(before) & ~lesion[near])
    result[near] = np.where(keep, result[near], like_input(before + share * (generated[near] - before), volume))
    facts = {
        "region": image.region,
        "control": control.facts(),
        "kind": parameters.kind,
        "mean_hu_wished": round(mean, 1),
        "mean_hu_before": round(float(volume.voxels[lesion].mean()), 1),
        "mean_hu_after": round(float(result[lesion].mean()), 1),
        "surroundings_hu": round(around, 1),
        "lesion_mm3": round(float(lesion.sum() * volume.voxel_volume), 1),
        "center_ras_mm": [round(float(x), 1) for x in _center(lesion, volume)],
        "network_evaluations": parameters.steps,
        "working_shape": list(image.shape),
    }
    return TaskResult({"with_lesion": result, "lesion": lesion}, facts=facts)


def _check_wishes(parameters: GenerateLesion, case: Case) -> None:
    if parameters.mean is not None and parameters.contrast is not None:
        raise InputError("Both the mean and the contrast of the lesion are given.", "Give one of them.")
    if case.mask is None and parameters.diameter is None:
        raise InputError("There is no mask of the lesion.", "Give one, or a diameter for one to be made.")
    if parameters.organ is not None and (case.mask is not None or parameters.diameter is None):
        raise InputError("An organ is given, but not used.", "Give a diameter, and no mask, or leave out the organ.")
    if parameters.organ is not None and case.anatomy is None:
        raise InputError(
            "An organ is given, but no organ map.", "Give the map, or paint a mask of where the lesion may be."
        )


def _control(model: FoundationModel, parameters: GenerateLesion) -> Control:
    """The lesion ControlNet."""
    from ...models.controlnet_file import find_control, load_control

    name = find_control("lesion", model) if parameters.control == "auto" else parameters.control
    if name is None:
        raise ModelError(
            f"There is no lesion ControlNet for the model {model.name!r}.",
            "Train one with `meddifffm finetune --task lesion`, or choose another model.",
        )
    control = load_control(name, model, "lesion")
    control.denoiser.weight = parameters.control_weight
    return control


def place_lesion(parameters: GenerateLesion, case: Case, rng: np.random.Generator) -> np.ndarray:
    """The lesion's mask: as given, or made inside the mask, an organ or the body; bool (k, j, i)."""
    from .lesion_shape import make_lesion_mask

    if parameters.diameter is None:
        assert case.mask is not None
        return case.mask
    if case.mask is not None:
        room = case.mask
    elif parameters.organ is not None and case.anatomy is not None:
        room = case.anatomy == parameters.organ
    else:
        room = _body(case.scan)
    return make_lesion_mask(room, case.scan.spacing, parameters.diameter, rng)


def _body(volume: Volume) -> np.ndarray:
    """The body without the air in it, bool (k, j, i)."""
    from ...conditioning.region import body_mask
    from ...imaging.grid import from_grid, to_grid, working_grid

    grid = working_grid(volume, None)
    return from_grid(body_mask(to_grid(volume, grid)), grid, volume) & (volume.voxels > -950)


def wished_mean(parameters: GenerateLesion, around: float, known: list[list[float]], rng: np.random.Generator) -> float:
    """Mean HU that the lesion shall have.

    Args:
        around: median HU of its surroundings.
        known: of each training lesion the surroundings' median and the lesion's mean, HU.
    """
    if parameters.mean is not None:
        return parameters.mean
    if parameters.contrast is not None:
        return around + parameters.contrast
    preset = KINDS[parameters.kind]
    if preset is not None:
        return preset[1] if preset[0] == "mean" else around + preset[1]
    if not known:
        raise ModelError("The ControlNet does not say how dense its training lesions were.", "Give a kind or a mean.")
    alike = sorted(known, key=lambda pair: abs(pair[0] - around))[:ALIKE]
    return float(alike[rng.integers(len(alike))][1])


def _center(lesion: np.ndarray, volume: Volume) -> np.ndarray:
    k, j, i = (axis.mean() for axis in np.nonzero(lesion))
    return (volume.ijk_to_ras @ [i, j, k, 1.0])[:3]


def _generate(
    image: Any,
    lesion: np.ndarray,
    mean: float,
    model: FoundationModel,
    control: Control,
    parameters: GenerateLesion,
    seed: int,
    meter: Any,
) -> np.ndarray:
    """The neighborhood with the lesion in HU on the working grid; the input outside lesion and rim."""
    from dataclasses import replace

    import torch

    from ...conditioning.control_inputs import lesion_control, lesion_guess
    from ...conditioning.known_voxels import biharmonic_init
    from ...inference.sliding_window import SlidingWindowDenoiser
    from ..inpaint.recipe import hole_on_grid

    hole = torch.from_numpy(hole_on_grid(image, lesion, parameters.rim)).float()
    share = torch.from_numpy(image.mask_on_grid(lesion)).float() * hole
    known = image.network_input()
    guess = lesion_guess(biharmonic_init(known[0, 0], hole, image.condition.spacing), share, mean / 1000)
    condition = replace(image.condition, known=guess, hole=hole, control=lesion_control(share, mean / 1000))
    with model.engine.running(control.denoiser):
        denoiser = SlidingWindowDenoiser(model.engine, condition, image.shape, meter)
        generator = torch.Generator().manual_seed(seed)
        generated = sample_lesion(
            denoiser,
            known,
            hole[None, None],
            guess[None, None],
            share[None, None],
            mean / 1000,
            parameters.steps,
            parameters.sigma_max,
            generator,
        )
    return generated[0, 0].numpy() * 1000


def sample_lesion(
    denoise: Denoise,
    known: torch.Tensor,
    hole: torch.Tensor,
    guess: torch.Tensor,
    share: torch.Tensor,
    mean: float,
    steps: int,
    sigma_max: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """One lesion in known surroundings, network range; all images (1, 1, D, H, W).

    Args:
        guess: ``known`` with a flat lesion in its hole.
        share: share of lesion in each voxel; 0 outside the hole.
        mean: of the lesion, weighted by its share.
    """
    from ...diffusion.data_consistency import RePaint, WeightedMean
    from ...diffusion.samplers import dpm_solver_pp_2m, karras_sigmas, noise_like

    keep, dense = RePaint(known, hole), WeightedMean(share, mean)
    sigmas = karras_sigmas(steps, sigma_max, 0.01 * min(sigma_max, 1.0))
    start = guess + sigmas[0] * noise_like(known, generator)
    return dpm_solver_pp_2m(denoise, start, sigmas, lambda x0, sigma: dense(keep(x0, sigma), sigma))
