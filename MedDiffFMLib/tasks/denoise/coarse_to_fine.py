"""Coarse-to-fine denoising.

The noise of a scan is correlated between neighboring pixels, the more the finer they are. On pixels averaged two by two
it is as fine as the noise that the network knows best, so it is removed there first, and what is left on
the scanner's own voxels afterwards.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...core.errors import ModelError
from .estimator import LastPass, sharing_all_but

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter
    from ...inference.engine import Engine

OVERLAP = 8
"""Voxels that windows share. At the noise of scans the network looks no farther: wider overlaps gain nothing."""
SCALES = ((2, 0.6), (1, 1.0))
"""Pixels averaged in-plane, and noise level over that of the scan. Chosen on seven training and validation cases; a
third pass, at half the level, gains 0.05 to 0.1 dB for half as much time again."""


PLANES = 16
"""Planes that are interpolated at a time."""
AIR_BLOCK = 4
AIR_MEAN, AIR_MAXIMUM = -0.95, -0.5
"""Air is where no voxel, and no mean over a block of voxels, is denser than this; network range. Noise hardly moves the
mean over a block, and no noise reaches the other limit."""


def not_air(image: torch.Tensor) -> torch.Tensor:
    """(1, 1, D, H, W) in the network's range -> (D, H, W) bool: what windows must be computed for."""
    import torch.nn.functional as functional

    block = [min(AIR_BLOCK, n) for n in image.shape[2:]]
    dense = functional.avg_pool3d(image, block, ceil_mode=True) > AIR_MEAN
    wide = dense[0, 0]
    for axis, (size, length) in enumerate(zip(block, image.shape[2:], strict=True)):
        wide = wide.repeat_interleave(size, dim=axis).narrow(axis, 0, length)
    return wide.logical_or_(image[0, 0] > AIR_MAXIMUM)


def denoise_coarse_to_fine(
    engine: Engine,
    noisy: torch.Tensor,
    sigma: float,
    condition: Condition,
    meter: ProgressMeter | None = None,
    scales: tuple[tuple[int, float], ...] = SCALES,
    last: nn.Module | None = None,
) -> torch.Tensor:
    """``noisy`` (1, 1, D, H, W) in the network's range with white or correlated noise of level ``sigma`` -> clean.

    Two images and the estimate of the pass are held, however many passes there are.

    Args:
        last: denoiser of the last pass, where it is not the engine's.
    """
    clean = noisy.clone()
    for turn, (factor, share) in enumerate(scales):
        with engine.running(last) if last is not None and turn == len(scales) - 1 else nullcontext():
            _remove_noise(engine, clean, sigma * share, condition, factor, meter, turn)
    return clean


def _remove_noise(
    engine: Engine,
    image: torch.Tensor,
    sigma: float,
    condition: Condition,
    factor: int,
    meter: ProgressMeter | None,
    turn: int,
) -> None:
    """Take from ``image``, in place, the noise that the network sees with ``factor`` by ``factor`` pixels averaged."""
    import torch
    import torch.nn.functional as functional

    from ...inference.sliding_window import SlidingWindowDenoiser

    window = (1, factor, factor)
    coarse = image if factor == 1 else functional.avg_pool3d(image, window, ceil_mode=True)
    k, j, i = coarse.shape[2:]
    denoiser = SlidingWindowDenoiser(
        engine, coarser(condition, factor), (k, j, i), meter, overlap=OVERLAP, turn=turn, wanted=not_air(coarse)
    )
    noise = denoiser(coarse, sigma)
    torch.sub(coarse, noise, out=noise)
    for first in range(0, k, PLANES):
        part = noise[:, :, first : first + PLANES]
        if factor > 1:
            part = functional.interpolate(part, scale_factor=window, mode="trilinear", align_corners=False)
        image[:, :, first : first + PLANES] -= part[..., : image.shape[-2], : image.shape[-1]]


def coarser(condition: Condition, factor: int) -> Condition:
    """The condition of the same box with ``factor`` by ``factor`` pixels in one."""
    import torch.nn.functional as functional

    def averaged(line: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool1d(line[None, None], factor, ceil_mode=True)[0, 0]

    if factor == 1:
        return condition
    k, j, i = condition.spacing
    lines = condition.coordinates
    thinned = condition.with_images(lambda image: image[:, ::factor, ::factor])
    return replace(
        thinned,
        spacing=(k, j * factor, i * factor),
        coordinates=None if lines is None else (lines[0], averaged(lines[1]), averaged(lines[2])),
    )


@dataclass(frozen=True)
class PriorPasses:
    """The prior as the estimator of a denoising run; see :class:`.estimator.Estimator`.

    Attributes:
        engine: with the prior.
        last: denoiser of the last pass, where it is not the engine's.
    """

    engine: Engine
    last: nn.Module | None = None

    @property
    def evaluations(self) -> int:
        return len(SCALES)

    @property
    def alone(self) -> float:
        return 0.0

    @property
    def denoiser(self) -> nn.Module:
        """Of the last pass."""
        return self.engine.denoiser if self.last is None else self.last

    def denoise(
        self, noisy: torch.Tensor, sigma: float, condition: Condition, meter: ProgressMeter | None = None
    ) -> torch.Tensor:
        return denoise_coarse_to_fine(self.engine, noisy, sigma, condition, meter, last=self.last)

    def last_pass(self, noisy: torch.Tensor, target: torch.Tensor, sigma: float, condition: Condition) -> LastPass:
        """Outputs are those of the Haar transform, at half resolution.

        Raises:
            ModelError: the prior is none of EDM's, whose output is not linear in the last layer in this way.
        """
        from ...diffusion.denoiser import EDMDenoiser
        from ...imaging.haar import haar_forward
        from ...inference.window_plan import extend

        if not isinstance(self.denoiser, EDMDenoiser):
            raise ModelError(
                "This model cannot be tuned to a scan.", "Run without tuning, or choose a prior in EDM's form."
            )
        before = denoise_coarse_to_fine(self.engine, noisy, sigma, condition, scales=SCALES[:-1])
        k, j, i = (-(-n // self.engine.divisor) * self.engine.divisor for n in before.shape[2:])
        shape, level = (k, j, i), sigma * SCALES[-1][1]
        encoded = _extended(condition, shape).encode(shape, self.engine.device)
        kept: list[torch.Tensor] = []
        hook = self.last_layer.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach().float().cpu()))
        try:
            clean = self.engine.denoise(extend(before, shape).to(self.engine.device), level, encoded).cpu()
        finally:
            hook.remove()
        deviation = float(self.denoiser.sigma_data)
        scale = level * deviation / (level**2 + deviation**2) ** 0.5
        return LastPass(kept[0][0], haar_forward((extend(target, shape) - clean) / scale)[0], (2, 2, 2))

    @property
    def last_layer(self) -> nn.Conv3d:
        from torch import nn

        return [module for module in self.denoiser.network.unet.out.modules() if isinstance(module, nn.Conv3d)][-1]  # type: ignore[union-attr]

    def with_last_layer(self, layer: nn.Conv3d) -> PriorPasses:
        return replace(self, last=sharing_all_but(self.denoiser, self.last_layer, layer))


def _extended(condition: Condition, shape: tuple[int, int, int]) -> Condition:
    """Coordinates and maps continued by reflection, as the image is."""
    import torch

    from ...inference.window_plan import extend, reflected_range

    lines = condition.coordinates
    if lines is not None:
        lines = tuple(  # type: ignore[assignment]
            line[torch.from_numpy(reflected_range(0, n, len(line)))] for line, n in zip(lines, shape, strict=True)
        )
    return replace(condition, coordinates=lines).with_images(lambda image: extend(image, shape))
