"""Lesion generation in a mask: ControlNet on the mask, RePaint on the rest (arXiv 2410.15432, 1.6 e, f).

Only the neighborhood of the mask is computed. The noise starts from a flat lesion of the chosen density in the smooth
continuation of what lies around it; the mean over the lesion is corrected at every step, and mean and spread once more
on the scan's voxels, so the chosen density is met however little the ControlNet has learned. A lesion whose outline
does not agree with the mask is thrown away and another one drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError, ModelError
from ..base import Case, Run, TaskResult
from .density import Density, asked_density, density_facts, density_warnings, hold
from .lesion_extent import core_inside, distance_outside, surroundings, working_spacing
from .outline import Verdict, ball_diameter, check_outline
from .spec import GenerateLesion

if TYPE_CHECKING:
    import torch

    from ...diffusion.samplers import Denoise
    from ...imaging.volume import Volume
    from ...models.checkpoint import FoundationModel
    from ...models.controlnet_file import Control
    from ...preprocessing.working_image import WorkingImage

SEED_STEP = 1_000_003
"""Between the seeds of lesions that are drawn one after the other."""


@dataclass(frozen=True)
class _Place:
    """Where a lesion is put, and how dense it shall be.

    Attributes:
        lesion, near: bool (k, j, i), its mask and with the rim.
        distance: (n,) of the voxels of ``near``, mm outside of the lesion.
        core: (n,) bool, which of them are in its core.
        around: median HU of its surroundings.
    """

    volume: Volume
    lesion: np.ndarray
    near: np.ndarray
    distance: np.ndarray
    core: np.ndarray
    around: float
    asked: Density


@dataclass(frozen=True)
class _Drawn:
    """One lesion, put into the CT: its voxels in the place's ``near``, and what the check says of it."""

    number: int
    values: np.ndarray
    verdict: Verdict


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
    from ...preprocessing.mask_crop import neighborhood
    from ...preprocessing.working_image import working_image

    volume, model = case.scan, run.model
    _check_wishes(parameters, case)
    control = _control(model, parameters)
    rng = np.random.default_rng(run.seed)
    place = _place(parameters, case, control, rng)
    spacing = parameters.spacing or working_spacing(place.lesion, volume.spacing)
    box = neighborhood(place.lesion, volume, spacing, model.engine.memory_level.window)
    image = working_image(volume, spacing, region=run.region, anatomy=case.anatomy, around=box)
    result = volume.voxels.copy()
    drawn = _draw(parameters, place, image, model, control, run, result)
    best = max(drawn, key=lambda one: (one.verdict.good is not False, one.verdict.dice))
    result[place.near] = best.values
    diameter = round(ball_diameter(place.lesion, volume.spacing), 1)
    density = density_facts(best.values, place.lesion[place.near], place.core, place.asked)
    facts = {
        "region": image.region,
        "control": control.facts(),
        "kind": parameters.kind,
        "mean_hu_before": round(float(volume.voxels[place.lesion].mean()), 1),
        **density,
        "surroundings_hu": round(place.around, 1),
        "lesion_mm3": round(float(place.lesion.sum() * volume.voxel_volume), 1),
        "diameter_mm": diameter,
        "center_ras_mm": [round(float(x), 1) for x in _center(place.lesion, volume)],
        "check": {**best.verdict.facts(), "drawn": len(drawn), "kept": best.number + 1},
        "network_evaluations": parameters.steps * len(drawn),
        "working_shape": list(image.shape),
    }
    warnings = [*density_warnings(density), *_warnings(parameters, diameter, best, len(drawn))]
    return TaskResult({"with_lesion": result, "lesion": place.lesion}, facts=facts, warnings=warnings)


def _place(parameters: GenerateLesion, case: Case, control: Control, rng: np.random.Generator) -> _Place:
    volume = case.scan
    lesion = place_lesion(parameters, case, rng)
    distance, near = distance_outside(lesion, volume.spacing, parameters.rim)
    around = surroundings(volume.voxels, lesion, volume.spacing)
    asked = asked_density(parameters, around, control.settings.get("lesions", []), rng)
    return _Place(volume, lesion, near, distance, core_inside(lesion, near), around, asked)


def _draw(
    parameters: GenerateLesion,
    place: _Place,
    image: WorkingImage,
    model: FoundationModel,
    control: Control,
    run: Run,
    result: np.ndarray,
) -> list[_Drawn]:
    """Lesions in the same mask, one after the other, until one is good or the tries are used up.

    Args:
        result: a copy of the CT, which each of them is put into in turn.
    """
    from scipy.ndimage import find_objects

    volume, rim = place.volume, parameters.rim
    meter = run.meter(parameters.steps, "generating")
    box = find_objects(place.near.view(np.uint8))[0]
    drawn: list[_Drawn] = []
    for number in range(parameters.tries):
        seed = run.seed + SEED_STEP * number
        if number:
            meter.done, meter.stage = 0.0, f"generating, {number + 1} of at most {parameters.tries}"
        made = _generate(image, place.lesion, place.asked.mean, model, control, parameters, seed, meter)
        values = _inserted(image.on_input(made, fill=np.nan, box=box)[place.near[box]], place, rim)
        result[place.near] = values
        verdict = check_outline(volume.voxels, result, place.lesion, volume.spacing, rim, parameters.agreement)
        drawn.append(_Drawn(number, values, verdict))
        if verdict.good is not False:
            break
    return drawn


def _inserted(generated: np.ndarray, place: _Place, rim: float) -> np.ndarray:
    """The voxels of ``near``, in the input's number type, with a generated lesion that has the density asked for.

    Args:
        generated: (n,) HU, NaN where the working grid does not reach.
    """
    from ...imaging.intensity import in_network_range, is_padding
    from ...preprocessing.working_image import like_input

    before, lesion = place.volume.voxels[place.near].astype(np.float32), place.lesion[place.near]
    share = np.clip(1 - place.distance / max(rim, 1e-6), 0, 1)
    keep = is_padding(before) | (~in_network_range(before) & ~lesion) | np.isnan(generated)
    made = np.where(keep, before, before + share * (generated - before))
    changed = lesion & ~keep
    if changed.any():
        made = np.where(keep, made, hold(made, changed, place.core & changed, place.asked))
    return np.where(keep, place.volume.voxels[place.near], like_input(made, place.volume))


def _warnings(parameters: GenerateLesion, diameter: float, best: _Drawn, drawn: int) -> list[str]:
    """What the result lacks of the size and the place that were asked for."""
    warnings = []
    if parameters.diameter is not None and abs(diameter - parameters.diameter) > 0.1 * parameters.diameter:
        warnings.append(
            f"The lesion measures {diameter:g} mm instead of {parameters.diameter:g}: its room cuts it off."
        )
    if best.verdict.good is None:
        warnings.append(f"The lesion was not checked: {best.verdict.reason}.")
    elif not best.verdict.good:
        words = "The lesion that was drawn" if drawn == 1 else f"None of {drawn} lesions that were drawn"
        warnings.append(
            f"{words} {'did not pass' if drawn == 1 else 'passed'} the check, and the best is shown: "
            f"{best.verdict.reason}. Another density, another place or more tries may help."
        )
    return warnings


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
