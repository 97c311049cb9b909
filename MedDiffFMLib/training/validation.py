"""Validation of a prior: errors of the clean image in HU on fixed windows and fixed noise of patients never trained on.

The windows are shared evenly among the cases, so that a large one does not decide alone. Beside the error over the body
there are those of even tissue and of detail, which trade off against each other, and those of windows whose voxels
average several of the scanner's: there the target holds hardly any noise of its own, which is a floor elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from ..core.precision import autocast
from ..datasets.prepared_cases import Case
from .batches import Batch, collate
from .noise import ct_texture
from .windows import WindowConfig, draw_window

if TYPE_CHECKING:
    from .pretrain.config import PretrainConfig

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0)
"""Levels of white noise, network range; holes are judged at the last one."""
SCAN_SIGMAS = (0.02, 0.05)
"""Levels of noise with the texture of reconstructed CT on the scanner's own voxels."""
WINDOWS = 128
EVEN_HU, DETAIL_HU = 30.0, 100.0
"""Local standard deviation of the clean image, 3x3x3, below and above which a voxel is even tissue and detail."""
AVERAGED = 6.0
"""Scanner voxels that a window's voxel averages, from which on its target counts as clean."""
BATCH = 4
SEED = 12345


class Validation:
    """Call with a loss module: figures by name, RMSE in HU inside the body.

    ``rmse_hu_at_20`` ... ``_3000``: white noise of so many HU; ``even_hu_at_*``, ``detail_hu_at_*``: of those voxels
    alone; ``clean_hu_at_*``: of windows of averaged voxels; ``scan_hu_at_*``: noise of the texture of CT, on
    the scanner's voxels; ``rmse_hu_in_hole``: a hole at 3000 HU of noise, its surroundings
    known; ``score``: the geometric mean of the first, the scan and the hole figures, by which averages and recipes are
    chosen.

    Args:
        windows: number of windows of each kind.
        bfloat16: compute in bfloat16 where the device does that fast; else in float32.
    """

    def __init__(
        self, cases: list[Case], config: PretrainConfig, windows: int = WINDOWS, *, bfloat16: bool = True
    ) -> None:
        # Tissue classes are made from the clean image, which at high noise would be judged by its own answer.
        plain = replace(config.windows, fill_share=0.0, denoise_share=0.0, drop_tissue=1.0)
        self.plain = _draw(cases, plain, windows)
        self.scans = _draw(cases, replace(plain, denoise_share=1.0), windows // 2)
        self.holed = _draw(cases, replace(plain, fill_share=1.0), windows)
        self.bfloat16 = bfloat16

    @torch.no_grad()
    def __call__(self, module: nn.Module) -> dict[str, float]:
        denoiser = cast(nn.Module, getattr(module, "denoiser", module))
        sums: dict[str, list[float]] = {}
        for kind, sigma, batch, noise in self._noised():
            error = self._error(denoiser, batch, sigma, noise)
            for name, judged in _judged(kind, sigma, batch).items():
                total = sums.setdefault(name, [0.0, 0.0])
                total[0] += float(error[judged].square().cpu().sum(dtype=torch.float64))
                total[1] += float(judged.sum())
        figures = {n: round(1000 * math.sqrt(total / max(count, 1.0)), 2) for n, (total, count) in sorted(sums.items())}
        chosen = [v for n, v in figures.items() if n.startswith(("rmse_", "scan_"))]
        figures["score"] = round(math.exp(float(np.mean([math.log(max(v, 1e-3)) for v in chosen]))), 3)
        return figures

    def _noised(self) -> Iterator[tuple[str, float, Batch, torch.Tensor]]:
        """Kind, level, batch and unit noise of every network call."""
        for kind, samples, sigmas in (
            ("white", self.plain, SIGMAS),
            ("scan", self.scans, SCAN_SIGMAS),
            ("hole", self.holed, SIGMAS[-1:]),
        ):
            for first in range(0, len(samples), BATCH):
                batch = _batch(samples[first : first + BATCH])
                generator = torch.Generator().manual_seed(SEED + first)
                noise = torch.randn(batch.x0.shape, generator=generator)
                if kind == "scan":
                    noise = torch.stack([ct_texture(n[0], generator)[None] for n in noise])
                for sigma in sigmas:
                    yield kind, sigma, batch, noise

    def _error(self, denoiser: nn.Module, batch: Batch, sigma: float, noise: torch.Tensor) -> torch.Tensor:
        """Estimate minus clean image, (B, 1, D, H, W), network range, on the CPU."""
        device = next(denoiser.parameters()).device
        x = (batch.x0 + sigma * noise).to(device)
        level = torch.full((len(x),), sigma, device=device)
        with autocast(device, "auto" if self.bfloat16 else "float32"):
            return denoiser(x, level, batch.condition.to(device)).float().cpu() - batch.x0  # type: ignore[no-any-return]


def _draw(cases: list[Case], config: WindowConfig, count: int) -> list[dict[str, Any]]:
    """Fixed windows, evenly of all cases."""
    samples = []
    if config.denoise_share > 0:
        cases = [case for case in cases if case.native] or cases
    for n in range(count):
        case = cases[n % len(cases)]
        sample = draw_window(case, config, np.random.default_rng([SEED, n]))
        sample["voxels"] = np.rint(sample["voxels"]).astype(np.int16)  # half the memory until the next validation
        sample["clean"] = bool(np.prod(sample["spacing"] / case.levels[0].spacing) >= AVERAGED)
        samples.append(sample)
    return samples


def _batch(samples: list[dict[str, Any]]) -> Batch:
    whole = [{**s, "voxels": s["voxels"].astype(np.float32)} for s in samples]
    batch = collate(whole)
    return batch._replace(purposes=tuple("clean" if s["clean"] else "" for s in samples))


def _judged(kind: str, sigma: float, batch: Batch) -> dict[str, torch.Tensor]:
    """Voxels that count, (B, 1, D, H, W) bool, by figure."""
    body = batch.x0 > -0.5
    if kind == "hole":
        assert batch.condition.hole is not None
        return {"rmse_hu_in_hole": body & (batch.condition.hole > 0)}
    if kind == "scan":
        return {f"scan_hu_at_{sigma * 1000:g}": body}
    mean = torch.nn.functional.avg_pool3d(batch.x0, 3, 1, 1, count_include_pad=False)
    square = torch.nn.functional.avg_pool3d(batch.x0.square(), 3, 1, 1, count_include_pad=False)
    spread = 1000 * (square - mean.square()).clamp(min=0).sqrt()
    clean = torch.tensor([p == "clean" for p in batch.purposes]).reshape(-1, 1, 1, 1, 1)
    parts = {
        "rmse": body,
        "even": body & (spread < EVEN_HU),
        "detail": body & (spread > DETAIL_HU),
        "clean": body & clean,
    }
    return {f"{name}_hu_at_{sigma * 1000:g}": voxels for name, voxels in parts.items()}
