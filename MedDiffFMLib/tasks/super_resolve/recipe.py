"""Super-resolution: thin slices from thick ones, or halved voxels, with averages equal to the measured voxels.

A smooth curve with the measured averages is the first guess; a ControlNet (arXiv 2410.15432, 1.6 d) or the prior alone
adds detail, and after every step the averages are put right (DiffPIR with the slice profile as operator). One network
evaluation of the ControlNet is a regression with the least error; further ones add texture that is plausible, but not
known. ``tune`` fits a small network to the scan's own slices, whose detail is averaged with that of the ControlNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError
from ..base import Case, Run, TaskResult
from .spec import AXES, LARGEST_FACTOR, SuperResolve

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter
    from ...diffusion.samplers import Correct, Denoise
    from ...imaging.slice_averaging import Factors
    from ...imaging.volume import Box, Volume
    from ...inference.engine import Engine
    from ...models.checkpoint import FoundationModel
    from ...models.controlnet_file import Control
    from ...preprocessing.working_image import WorkingImage

MAX_VOXELS = 1_500_000_000
LOWEST_HU = -1024.0
NOISE_HIDES_ALL = 80.0
SIGMA_MIN = 0.002
TRUST = 0.5
"""The prior alone takes the first guess as an image with this share of its detail as noise. A guess errs about as much
as it has detail, 0.6 to 1.5 times in windows of the training data; with more the prior lost in quiet tissue what it
gained in lungs."""


def super_resolve(parameters: SuperResolve, case: Case, run: Run) -> TaskResult:
    """Raise the resolution; the seed is of no effect for one step.

    Returns:
        ``fine`` in the input's number type, on a grid of its own (``ijk_to_ras``) that covers exactly what the input
        covers. Blocks of its voxels average to the input's voxels, up to rounding and ``noise``.

    Raises:
        InputError: the voxels are nearly cubes already, or the result would be too large.
        ModelError: a ControlNet that is damaged, of another prior or for another task.
    """
    from ...imaging.intensity import is_padding
    from ...imaging.slice_averaging import repeat_blocks
    from ...models.controlnet_file import find_control, load_control
    from ...preprocessing.working_image import like_input, working_image
    from .self_training import TUNING_UNITS

    volume, model = case.scan, run.model
    factors = choose_factors(volume, parameters)
    name = find_control("super-resolution", model) if parameters.control == "auto" else parameters.control
    control = None if name in (None, "none") else load_control(str(name), model, "super-resolution")
    meter = run.meter(parameters.steps + (TUNING_UNITS if parameters.tune else 0), "raising the resolution")
    fine = smooth_volume(volume, factors)
    anatomy = None if case.anatomy is None else repeat_blocks(case.anatomy, factors)
    image = working_image(fine, None, region=run.region, anatomy=anatomy)
    change, tuned = _change(image, factors, model, control, parameters, run.seed, meter)
    voxels = fit_range(fine.voxels + image.on_input(change), factors, LOWEST_HU)
    result = like_input(voxels, volume)
    padding = repeat_blocks(is_padding(volume.voxels), factors)
    np.copyto(result, repeat_blocks(volume.voxels, factors), where=padding)
    facts = {
        "factors_ijk": list(reversed(factors)),
        "spacing_before_mm": [round(s, 4) for s in volume.spacing],
        "spacing_after_mm": [round(s, 4) for s in fine.spacing],
        "region": image.region,
        "control": None if control is None else control.facts(),
        "network_evaluations": parameters.steps,
        "measured_slice_error_hu": round(measured_error(result, volume, factors), 3),
    }
    facts |= tuned
    warnings = _warnings(control, parameters, factors)
    return TaskResult({"fine": result}, facts=facts, warnings=warnings, ijk_to_ras={"fine": fine.ijk_to_ras})


def choose_factors(volume: Volume, parameters: SuperResolve) -> Factors:
    """Numbers of voxels along (k, j, i) that each voxel becomes.

    Raises:
        InputError: nothing to gain, or too large a result.
    """
    spacing = volume.spacing[::-1]
    if parameters.mode == "isotropic":
        if parameters.factor not in (None, 2) or parameters.axis != "auto":
            raise InputError("The isotropic mode halves all voxel edges.", "Leave out factor and axis.")
        factors = (2, 2, 2)
    else:
        axis = _coarsest(volume) if parameters.axis == "auto" else AXES.index(parameters.axis)
        ratio = spacing[axis] / min(spacing)
        if parameters.factor is None and ratio < 1.5:
            raise InputError(
                f"The voxels measure {' x '.join(f'{s:.3g}' for s in volume.spacing)} mm: along {AXES[axis]} they are "
                f"hardly longer than elsewhere.",
                "Give a factor, or use the isotropic mode.",
            )
        factor = parameters.factor or min(max(round(ratio), 2), LARGEST_FACTOR)
        factors = tuple(factor if n == axis else 1 for n in range(3))  # type: ignore[assignment]
    count = volume.voxels.size * int(np.prod(factors))
    if count > MAX_VOXELS:
        raise InputError(f"The result would have {count:.2g} voxels.", "Crop the volume, or choose a smaller factor.")
    return factors


def _coarsest(volume: Volume) -> int:
    """Array axis (k, j, i) with the longest voxels; of equals, however stored, the one along the body."""
    from ...imaging.axis_order import AxisOrder

    spacing = volume.spacing[::-1]
    return max(AxisOrder.of(volume.ijk_to_ras).axes, key=lambda axis: round(spacing[axis], 6))


def smooth_volume(volume: Volume, factors: Factors) -> Volume:
    """The first guess: smooth, float32, with the measured averages, on the fine grid; padding is taken for air.

    A voxel of the input and the block that it becomes cover the same space, so the first fine voxel's center lies
    towards the input's edge.
    """
    from ...imaging.intensity import is_padding
    from ...imaging.slice_averaging import smooth_blocks
    from ...imaging.volume import Volume

    to_input = np.eye(4)
    for axis, factor in enumerate(reversed(factors)):
        to_input[axis, axis], to_input[axis, 3] = 1 / factor, 0.5 / factor - 0.5
    measured = volume.voxels.astype(np.float32)
    measured[is_padding(measured)] = LOWEST_HU
    smooth = fit_range(smooth_blocks(measured, factors), factors, LOWEST_HU)
    return Volume(smooth, volume.ijk_to_ras @ to_input, volume.modality)


def fit_range(fine: np.ndarray, factors: Factors, lowest: float) -> np.ndarray:
    """Less detail in the blocks that would fall below ``lowest``, as much less as is needed; averages are kept.

    Smooth curves swing below air beside the skin. Blocks whose average is below ``lowest`` themselves become flat.
    """
    from ...imaging.slice_averaging import average_blocks, repeat_blocks

    average = average_blocks(fine, factors)
    k, j, i = average.shape
    deepest = fine.reshape(k, factors[0], j, factors[1], i, factors[2]).min(axis=(1, 3, 5))
    low = deepest < lowest
    if not low.any():
        return fine
    share = np.ones_like(average)
    share[low] = np.clip((average[low] - lowest) / (average[low] - deepest[low]), 0, 1)
    middle = repeat_blocks(average, factors)
    return middle + repeat_blocks(share, factors) * (fine - middle)


def measured_error(fine: np.ndarray, volume: Volume, factors: Factors) -> float:
    """Root mean square difference in HU between averages of the result and the input."""
    from ...imaging.slice_averaging import average_blocks

    difference = average_blocks(fine, factors) - volume.voxels
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def _change(
    image: WorkingImage,
    factors: Factors,
    model: FoundationModel,
    control: Control | None,
    parameters: SuperResolve,
    seed: int,
    meter: ProgressMeter,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Detail that is added to the first guess, HU on the working grid, its averages over blocks 0; facts of tuning."""
    on_grid = factors_on_grid(image, factors)
    guess = image.network_input()

    def prior_detail(
        smooth: torch.Tensor, averaged: Factors, condition: Condition, counted: ProgressMeter | None
    ) -> torch.Tensor:
        return _prior_detail(smooth, averaged, condition, model, control, parameters, seed, counted)

    change = prior_detail(guess, on_grid, image.condition, meter)[0, 0]
    facts: dict[str, Any] = {}
    if parameters.tune:
        meter.stage = "tuning to the scan"
        weight, gain = _tune(image, guess[0, 0], on_grid, change, prior_detail, model.engine, seed, meter)
        facts = {"tuned": weight > 0, "tuning_weight": round(weight, 2), "tuning_gain_percent": round(gain, 2)}
    return change.numpy() * 1000, facts


def _prior_detail(
    guess: torch.Tensor,
    factors: Factors,
    condition: Condition,
    model: FoundationModel,
    control: Control | None,
    parameters: SuperResolve,
    seed: int,
    meter: ProgressMeter | None,
) -> torch.Tensor:
    """Detail (1, 1, D, H, W) that prior or ControlNet add to a guess of which ``factors`` voxels were averaged."""
    from dataclasses import replace

    import torch
    import torch.nn.functional as functional

    from ...conditioning.control_inputs import interpolated_control
    from ...diffusion.data_consistency import BlockAverages
    from ...inference.sliding_window import SlidingWindowDenoiser

    k, j, i = guess.shape[2:]
    # Averages of the clipped guess, not of the clipped slices: so the change averages to 0 in clipped voxels too.
    consistent = BlockAverages(functional.avg_pool3d(guess, factors), factors, parameters.noise / 1000)
    sigma = TRUST * _detail(guess, consistent.repeated())
    generator = torch.Generator().manual_seed(seed)
    if control is None:
        denoiser = SlidingWindowDenoiser(model.engine, condition, (k, j, i), meter)
        return _refine(denoiser, guess, sigma, sigma, parameters.steps, consistent, generator) - guess
    condition = replace(condition, control=interpolated_control(guess[0, 0], factors))
    control.denoiser.weight = parameters.control_weight
    error = control.denoiser.control.config.guess or sigma
    with model.engine.running(control.denoiser):
        denoiser = SlidingWindowDenoiser(model.engine, condition, (k, j, i), meter)
        return _refine(denoiser, guess, NOISE_HIDES_ALL, error, parameters.steps, consistent, generator) - guess


def _tune(
    image: WorkingImage,
    guess: torch.Tensor,
    factors: Factors,
    change: torch.Tensor,
    prior_detail: Callable[[torch.Tensor, Factors, Condition, ProgressMeter | None], torch.Tensor],
    engine: Engine,
    seed: int,
    meter: ProgressMeter,
) -> tuple[float, float]:
    """Mix into ``change``, (D, H, W) as the guess, the detail that was learned from the scan's own slices.

    Returns:
        Its weight, and by how much, percent, the squared error on held-out slices fell.
    """
    import torch.nn.functional as functional

    from .self_training import across_slices, self_train

    def untuned(smooth: torch.Tensor, pool: Factors, averaged: Factors, box: Box) -> torch.Tensor:
        condition = _averaged_condition(image.condition, pool).window(box)
        return prior_detail(smooth[None, None], averaged, condition, None)[0, 0]

    factor = max(factors)
    axis = factors.index(factor)
    thick = functional.avg_pool3d(guess[None, None], factors)[0, 0]
    place = (engine.device, engine.dtype)
    trained = self_train(thick, axis, factor, image.spacing_kji, untuned, seed, meter, *place)
    if trained.weight > 0:
        change.lerp_(across_slices(trained.network, guess, axis, factor, *place), trained.weight)
    return trained.weight, trained.gain


def _averaged_condition(condition: Condition, pool: Factors) -> Condition:
    """The condition of the same box with ``pool`` voxels in one."""
    from dataclasses import replace

    import torch.nn.functional as functional

    k, j, i = pool
    lines = condition.coordinates
    if lines is not None:
        lines = tuple(  # type: ignore[assignment]
            functional.avg_pool1d(line[None, None], n)[0, 0] for line, n in zip(lines, pool, strict=True)
        )
    spacing_k, spacing_j, spacing_i = (edge * n for edge, n in zip(condition.spacing, pool, strict=True))
    thinned = condition.with_images(lambda part: part[..., ::k, ::j, ::i])
    return replace(thinned, spacing=(spacing_k, spacing_j, spacing_i), coordinates=lines)


def _detail(guess: torch.Tensor, repeated: torch.Tensor) -> float:
    """Standard deviation of the first guess within the measured voxels of the body, network range."""
    body = guess > -0.5
    detail = (guess - repeated)[body if body.any() else ...].square().mean().sqrt()
    return min(max(float(detail), SIGMA_MIN), 0.2)


def _refine(
    denoise: Denoise,
    guess: torch.Tensor,
    first: float,
    sigma: float,
    steps: int,
    consistent: Correct,
    generator: torch.Generator,
) -> torch.Tensor:
    """One evaluation at noise level ``first`` of the guess as it is, then ``steps`` - 1 of a sampler from ``sigma``."""
    from ...diffusion.samplers import dpm_solver_pp_2m, karras_sigmas, noise_like

    fine = consistent(denoise(guess, first), first)
    if steps == 1:
        return fine
    sigmas = karras_sigmas(steps - 1, sigma, 0.2 * sigma)
    return dpm_solver_pp_2m(denoise, fine + sigma * noise_like(fine, generator), sigmas, consistent)


def factors_on_grid(image: WorkingImage, factors: Factors) -> Factors:
    """Factors along the working grid's axes (k, j, i), which are the input's, permuted and flipped."""
    to_input = np.linalg.inv(image.volume.ijk_to_ras) @ image.grid.ijk_to_ras
    permutation = np.rint(np.abs(to_input[:3, :3])).astype(int)
    i, j, k = (int(n) for n in np.array(factors[::-1]) @ permutation)
    return k, j, i


def _warnings(control: Control | None, parameters: SuperResolve, factors: Factors) -> list[str]:
    if control is None:
        prior_alone = parameters.control == "none"
        return (
            [] if prior_alone else ["There is no super-resolution ControlNet for this model; the prior worked alone."]
        )
    low, high = control.settings.get("factors", (2, LARGEST_FACTOR))
    if not low <= max(factors) <= high:
        return [f"The ControlNet was trained for factors {low} to {high}, not for {max(factors)}."]
    return []
