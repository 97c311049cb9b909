"""Denoising by a small network that was taught it, or by the prior, with filters in blocks beside it.

An estimator tells the image with the least error (``estimator``): a small network that was trained on pairs
(``supervised``) or, with ``prior``, some passes of the prior from coarse to fine (``coarse_to_fine``). The mean of what
it gives and of thresholded blocks (``blocks``), which err otherwise, tells a Wiener filter tissue and noise, and it
gives back what was taken for noise by mistake (``detail``). Non-local means are mixed into heads by as much as the scan
asks for (``mixing``). ``quick`` is the estimator alone, ``blocks`` 1 the filters alone. With ``steps`` the result is
drawn towards one plausible noise-free image with the prior and DiffPIR consistency instead (arXiv 2410.15432, 1.6 a),
which keeps more texture. ``tune`` fits the estimator's last layer to the scan before.
"""

from __future__ import annotations

from collections import deque
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
    from .estimator import Estimator

LOUDEST = 1.1
"""Level of the noise in blocks over the estimate, at most: anatomy in blocks of coarse pixels passes for noise."""
MIXED_REGIONS = ("head-neck",)
"""Where non-local means are asked for: the networks saw three heads, whose brain is alike over many voxels. In other
regions their share, told by the scan, costs 0.1 dB on validation patients, and half of the time."""


def denoise(parameters: Denoise, case: Case, run: Run) -> TaskResult:
    """Remove noise; deterministic, whatever the seed, which only chooses the noise that ``tune`` works with.

    Returns:
        ``denoised`` in the input's number type and ``noise`` (what was removed, HU, float32), on the input's grid.
    """
    from ...preprocessing.noise_estimate import estimate_noise
    from ...preprocessing.working_image import changed, slabs_of, unchanged_out_of_range, working_image
    from .blocks import block_depth
    from .mixing import share_of_means
    from .tuning import TUNING_UNITS, Tuned, tune

    volume, engine = case.scan, run.model.engine
    image = working_image(volume, parameters.spacing, region=run.region, anatomy=case.anatomy)
    noise = parameters.noise
    if noise is None:
        noise = estimate_noise(image.hounsfield, image.spacing_kji[1], image.spacing_kji[0])
    if noise is None:
        raise InputError(
            "The noise level cannot be estimated: there is too little soft tissue.", "Give it with --noise."
        )
    sigma = max(noise * parameters.strength, 0.5) / 1000
    estimator, shares = _estimator(parameters, engine), parameters.shares
    evaluations = parameters.steps or (estimator.evaluations if estimator else 0)
    mixes = estimator is not None and shares[0] > 0 and image.region in MIXED_REGIONS
    meter = run.meter(evaluations + (shares[0] > 0) + mixes + (TUNING_UNITS if parameters.tune else 0), "denoising")
    noisy, image = image.network_input(), image.without_voxels()
    tuned: Tuned | None = None
    if estimator and parameters.tune:
        tuned = tune(estimator, noisy, sigma, image.condition, shares, run.seed, meter)
        estimator = tuned.estimator
    alone = estimator.alone if estimator else 0.0
    filters = _Filters(parameters, noise / 1000, block_depth(image.spacing_kji), alone, meter)
    if estimator and mixes:
        share = share_of_means(
            noisy[0, 0],
            noise / 1000,
            lambda window, box, level: filters.at(level).after_network(estimator, window, image.condition.window(box)),
            parameters.strength,
            meter,
        )
        filters = replace(filters, means=share)
    if estimator:
        clean = estimator.denoise(noisy, sigma, image.condition, meter)
    elif parameters.steps:
        clean = _sample(engine, noisy, sigma, image, parameters, meter)
    else:
        clean = noisy.clone()
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
    if tuned:
        facts |= {"tuned": tuned.changed, "tuning_gain_percent": round(tuned.gain, 2)}
    return TaskResult({"denoised": denoised, "noise": removed}, facts=facts)


def _estimator(parameters: Denoise, engine: Engine) -> Estimator | None:
    """None where the filters work alone, or a sampler in its place."""
    from .coarse_to_fine import PriorPasses
    from .supervised import Supervised, shipped_denoiser

    if parameters.steps or parameters.shares[0] == 1:
        return None
    return PriorPasses(engine) if parameters.prior else Supervised(engine, shipped_denoiser())


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
        alone: share of the network's result as it is.
        means: share of non-local means.
    """

    parameters: Denoise
    noise: float
    depth: int
    alone: float
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
        shares = self.parameters.shares
        planes = combined_planes(noisy, clean, shares, strength, limits, self.depth, self.meter, self.alone)
        if self.means > 0:
            planes = mixed_planes(noisy, planes, self.means, self.noise * strength, self.meter)
        return planes

    def after_network(self, estimator: Estimator, noisy: torch.Tensor, condition: Condition) -> torch.Tensor:
        """A window (d, h, w) without its noise."""
        import torch

        sigma = max(self.noise * self.parameters.strength, 0.0005)
        clean = estimator.denoise(noisy[None, None], sigma, condition)
        return torch.stack(list(self.planes(noisy, clean[0, 0])))

    def removed(self, noisy: torch.Tensor, clean: torch.Tensor) -> np.ndarray:
        """Removed noise, (D, H, W) in HU, in the memory of ``noisy``."""
        from .blocks import EDGE

        if self.meter is not None:
            self.meter.stage = "filtering"
        # Blocks at the end continue the scan by reflection, so that planes are looked at for as long as a block is.
        waiting: deque[tuple[torch.Tensor, torch.Tensor]] = deque()
        for pair in zip(noisy, self.planes(noisy, clean), strict=True):
            waiting.append(pair)
            if len(waiting) > EDGE:
                _subtract(*waiting.popleft())
        for pair in waiting:
            _subtract(*pair)
        return noisy.mul_(1000).numpy()


def _subtract(plane: torch.Tensor, result: torch.Tensor) -> None:
    plane -= result
