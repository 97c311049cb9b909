"""Denoising with the prior, with filters in blocks beside it.

A few network calls from coarse to fine, each the minimum-mean-square-error estimate for its noise level. The mean of
what they give and of thresholded blocks (``blocks``), which err otherwise, tells a Wiener filter tissue and noise, and
it gives back what was taken for noise by mistake (``detail``). Both 0 is the prior alone; ``quick`` is the filters
alone. Non-local means are mixed in by as much as the scan asks for (``mixing``), unless ``blocks`` is 0. With ``steps``
the result is drawn towards one plausible noise-free image with DiffPIR consistency instead (arXiv 2410.15432, 1.6 a),
which keeps more texture. ``tune`` fits the network's last layer to the scan before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ..base import Case, Run, TaskResult
from .spec import Denoise

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter
    from ...inference.engine import Engine
    from ...preprocessing.working_image import WorkingImage
    from .tuning import Tuned

LOUDEST = 1.1
"""Level of the noise in blocks over the estimate, at most: anatomy in blocks of coarse pixels passes for noise."""


def denoise(parameters: Denoise, case: Case, run: Run) -> TaskResult:
    """Remove noise; deterministic, whatever the seed, which only chooses the noise that ``tune`` works with.

    Returns:
        ``denoised`` in the input's number type and ``noise`` (what was removed, HU, float32), on the input's grid.
    """
    from ...preprocessing.noise_estimate import estimate_noise
    from ...preprocessing.working_image import changed, slabs_of, unchanged_out_of_range, working_image
    from .blocks import block_depth
    from .coarse_to_fine import SCALES, denoise_coarse_to_fine
    from .mixing import share_of_means
    from .tuning import TUNING_UNITS, Tuned, tune

    volume, engine = case.scan, run.model.engine
    image = working_image(volume, parameters.spacing, region=run.region, anatomy=case.anatomy)
    noise = parameters.noise
    if noise is None:
        noise = estimate_noise(image.hounsfield, image.spacing_kji[1])
    if noise is None:
        raise InputError(
            "The noise level cannot be estimated: there is too little soft tissue.", "Give it with --noise."
        )
    sigma = max(noise * parameters.strength, 0.5) / 1000
    evaluations = 0 if parameters.quick else parameters.steps or len(SCALES)
    shares = parameters.shares
    mixes = evaluations > 0 and shares[0] > 0
    meter = run.meter(evaluations + (shares[0] > 0) + mixes + (TUNING_UNITS if parameters.tune else 0), "denoising")
    noisy, image = image.network_input(), image.without_voxels()
    tuned = Tuned(None, 0.0)
    if parameters.tune:
        tuned = tune(engine, noisy, sigma, image.condition, shares, run.seed, meter)
    filters = _Filters(parameters, noise / 1000, block_depth(image.spacing_kji), meter)
    if mixes:
        share = share_of_means(
            noisy[0, 0],
            noise / 1000,
            lambda window, box, level: filters.at(level).after_network(
                engine, window, image.condition.window(box), tuned
            ),
            parameters.strength,
            meter,
        )
        filters = replace(filters, means=share)
    if parameters.quick:
        clean = noisy.clone()
    elif parameters.steps == 0:
        clean = denoise_coarse_to_fine(engine, noisy, sigma, image.condition, meter, last=tuned.denoiser)
    else:
        clean = _sample(engine, noisy, sigma, image, parameters, meter)
    # What is removed travels back, not the image: resampling never blurs it and clipped voxels keep their own HU.
    removed = filters.removed(noisy[0, 0], clean[0, 0])
    del noisy, clean
    removed = image.on_input(removed)
    unchanged_out_of_range(removed, volume)
    facts = {
        "noise_hu": round(float(noise), 2),
        "noise_estimated": parameters.noise is None,
        "region": image.region,
        "network_evaluations": evaluations,
        "blocks_share": shares[0],
        "detail_share": shares[1],
        "means_share": round(filters.means, 2),
    }
    denoised = changed(volume, ((planes, -removed[planes]) for planes in slabs_of(volume)))
    if parameters.tune:
        facts |= {"tuned": tuned.denoiser is not None, "tuning_gain_percent": round(tuned.gain, 2)}
    return TaskResult({"denoised": denoised, "noise": removed}, facts=facts)


def _sample(
    engine: Engine,
    noisy: torch.Tensor,
    sigma: float,
    image: WorkingImage,
    parameters: Denoise,
    meter: ProgressMeter,
) -> torch.Tensor:
    """One plausible noise-free image by DiffPIR, (1, 1, D, H, W) in the network's range."""
    from ...diffusion.data_consistency import DiffPIR
    from ...diffusion.samplers import dpm_solver_pp_2m, karras_sigmas
    from ...inference.sliding_window import SlidingWindowDenoiser

    denoiser = SlidingWindowDenoiser(engine, image.condition, image.shape, meter)
    sigmas = karras_sigmas(parameters.steps, sigma, 0.2 * sigma)
    return dpm_solver_pp_2m(denoiser, noisy, sigmas, DiffPIR(noisy, sigma, parameters.consistency))


@dataclass(frozen=True)
class _Filters:
    """What comes after the network.

    Attributes:
        noise: level of the scan's noise, network range.
        depth: slices of a block.
        means: share of non-local means.
    """

    parameters: Denoise
    noise: float
    depth: int
    meter: ProgressMeter | None
    means: float = 0.0

    def at(self, noise: float) -> _Filters:
        """The same, silent, for another level of the noise."""
        return replace(self, noise=noise, meter=None)

    def planes(self, noisy: torch.Tensor, clean: torch.Tensor) -> Iterator[torch.Tensor]:
        """Planes of the result; see :func:`.combination.combined_planes`."""
        from .combination import combined_planes
        from .mixing import mixed_planes

        told, strength = self.parameters.noise is not None, self.parameters.strength
        limits = (self.noise, self.noise) if told else (0.0, LOUDEST * self.noise)
        planes = combined_planes(noisy, clean, self.parameters.shares, strength, limits, self.depth, self.meter)
        if self.means > 0:
            planes = mixed_planes(noisy, planes, self.means, self.noise * strength, self.meter)
        return planes

    def after_network(self, engine: Engine, noisy: torch.Tensor, condition: Condition, tuned: Tuned) -> torch.Tensor:
        """A window (d, h, w) without its noise."""
        import torch

        from .coarse_to_fine import denoise_coarse_to_fine

        sigma = max(self.noise * self.parameters.strength, 0.0005)
        clean = denoise_coarse_to_fine(engine, noisy[None, None], sigma, condition, last=tuned.denoiser)
        return torch.stack(list(self.planes(noisy, clean[0, 0])))

    def removed(self, noisy: torch.Tensor, clean: torch.Tensor) -> np.ndarray:
        """Removed noise, (D, H, W) in HU, in the memory of ``noisy``."""
        if self.meter is not None:
            self.meter.stage = "filtering"
        # A plane changes when it has been taken: nothing looks at it again.
        for before, result in zip(noisy, self.planes(noisy, clean), strict=True):
            before -= result
        return noisy.mul_(1000).numpy()
