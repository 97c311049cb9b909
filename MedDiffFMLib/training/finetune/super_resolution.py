"""Super-resolution task of fine-tuning: averaged slices are mapped back to thin ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch.utils.data import Dataset

from ...conditioning.condition import Condition, stack
from ...conditioning.control_inputs import IMAGES, interpolated_control
from ...conditioning.regions import NULL_REGION
from ...core.errors import InputError
from ...core.precision import autocast
from ...datasets.prepared_cases import Case
from ...diffusion.data_consistency import BlockAverages
from ...imaging.intensity import to_network
from ...imaging.slice_averaging import Factors, average_blocks, interpolate_blocks, smooth_blocks
from ...inference.window_plan import reflected_range
from ...tasks.super_resolve.recipe import LOWEST_HU, NOISE_HIDES_ALL, fit_range
from .interface import VALIDATION_SEED, ControlCase, NoisyWindows
from .preview import Preview, Slice

if TYPE_CHECKING:
    from ...diffusion.controlled_denoiser import ControlledDenoiser
    from ...networks.controlnet import ControlConfig

FINE_MM = 3.0
CUBE_RATIO = 2.6
"""Cases are used whose finest voxel edge is at most FINE_MM and whose longest at most this many times as long."""
MARGIN = 3
"""Thick voxels beyond the window, so that the smooth curve ends as far away as in a whole volume."""
TYPICAL_ERROR = 0.05
"""Error of the interpolated image, in units of 1000 HU; 16 to 84 HU were seen in a chest for factors 2 to 5."""
VALIDATION_WINDOWS = 6


@dataclass(frozen=True)
class SuperResolutionTask(NoisyWindows):
    """See :class:`.interface.ControlTask`.

    Attributes:
        factors: smallest and largest number of thin slices in a thick one.
        across_share: share of windows whose slices lie across another axis than the patient's, for other scans are
            cut that way too and a volume holds more different windows so.
        isotropic_share: share of windows whose resolution is doubled along all axes.
        regression_share: share of samples at a noise that hides the image, where the network learns the step that
            every result begins with; the others have the noise of the steps after it.
        drop_region, drop_position: probability of hiding that condition.
        validation_factor: slices in a thick one in the validation windows.
    """

    window: int = 64
    factors: tuple[int, int] = (2, 6)
    across_share: float = 0.3
    isotropic_share: float = 0.15
    regression_share: float = 0.75
    drop_region: float = 0.15
    drop_position: float = 0.15
    validation_factor: int = 5

    name = "super-resolution"
    needs_mask = False
    metric = "gain_over_cubic_db"
    higher_is_better = True

    def network(self) -> ControlConfig:
        from ...networks.controlnet import ControlConfig

        return ControlConfig(images=IMAGES, squash=TYPICAL_ERROR, guess=TYPICAL_ERROR, blocks=1)

    def check(self, cases: Sequence[ControlCase]) -> list[str]:
        useless = [case.case.name for case in cases if not is_fine(case.case)]
        if len(useless) == len(cases):
            raise InputError(
                "No case has slices thin enough to learn from.",
                f"Give scans with voxels up to {FINE_MM:g} mm, no edge over {CUBE_RATIO} times the shortest.",
            )
        return [f"{name} is left out: its slices are too thick to learn from." for name in useless]

    def samples(self, cases: Sequence[ControlCase], seed: int, first: int, count: int) -> Dataset:
        return _Windows([case.case for case in cases if is_fine(case.case)], self, seed, first, count)

    def settings(self, cases: Sequence[ControlCase]) -> dict[str, Any]:
        return {"factors": list(self.factors)}

    @torch.no_grad()
    def validate(
        self,
        denoiser: ControlledDenoiser,
        cases: Sequence[ControlCase],
        preview: Preview | None = None,
        precision: str = "auto",
    ) -> dict[str, float]:
        """Peak signal-to-noise ratio over a range of 2000 HU of one network evaluation and of interpolation, in dB."""
        device = next(denoiser.parameters()).device
        usable = [case.case for case in cases if is_fine(case.case)]
        squared = {"psnr_db": 0.0, "smooth_psnr_db": 0.0, "cubic_psnr_db": 0.0, "linear_psnr_db": 0.0}
        count = 0
        factors = (self.validation_factor, 1, 1)
        for number in range(VALIDATION_WINDOWS if usable else 0):
            rng = np.random.default_rng([VALIDATION_SEED, number])
            drawn = draw_pair(usable[number % len(usable)], self.window, factors, rng)
            condition = drawn.condition(0.0, 0.0, rng).encode(drawn.fine.shape).to(device)
            batch = stack([condition])
            guess = torch.from_numpy(to_network(drawn.guess))[None, None].to(device)
            with autocast(device, precision):
                estimate = denoiser(guess, torch.full((1,), NOISE_HIDES_ALL, device=device), batch).float()
            truth = to_network(drawn.fine)
            whole, inner = drawn.whole_blocks()
            consistent = BlockAverages(functional.avg_pool3d(guess[inner], factors), factors)
            predicted = consistent(estimate[inner], NOISE_HIDES_ALL)[0, 0].cpu().numpy()
            images = {"psnr_db": predicted, "smooth_psnr_db": to_network(drawn.guess)[whole]}
            for name, order in (("cubic_psnr_db", 3), ("linear_psnr_db", 1)):
                images[name] = to_network(drawn.interpolated(order))[whole]
            for name, image in images.items():
                squared[name] += float(np.square(np.clip(image, -1, 1) - truth[whole], dtype=np.float64).sum())
            count += truth[whole].size
            if preview is not None:
                preview.add(
                    *_coronal({"cubic": images["cubic_psnr_db"], "now": predicted, "thin slices": truth[whole]})
                )
        figures = {name: round(_decibel(value / max(count, 1)), 3) for name, value in squared.items()}
        figures["gain_over_cubic_db"] = round(figures["psnr_db"] - figures["cubic_psnr_db"], 3)
        return figures


def _coronal(images: dict[str, np.ndarray]) -> list[Slice]:
    """Middle slices across the thick ones, head up, of windows in the network's range."""
    return [Slice(name, 1000 * image[::-1, image.shape[1] // 2]) for name, image in images.items()]


def is_fine(case: Case) -> bool:
    """Whether thick slices can be simulated from a case."""
    spacing = case.levels[0].spacing
    return bool(spacing.min() <= FINE_MM and spacing.max() <= CUBE_RATIO * spacing.min())


@dataclass(frozen=True)
class Pair:
    """A window of thin slices and what is left of it in thick ones; arrays (k, j, i), HU.

    Attributes:
        fine: (S, S, S) the truth.
        guess: (S, S, S) smooth slices with the thick slices' averages.
        thick: measured voxels, of the window and a margin around it.
        factors: thin voxels in a thick one.
        margin: thin voxels from the first one of ``thick`` to the window's first, per axis.
        coordinates: (3, S) in the body box.
        spacing: mm of the thin voxels.
        region: class index.
    """

    fine: np.ndarray
    guess: np.ndarray
    thick: np.ndarray
    factors: Factors
    margin: tuple[int, int, int]
    coordinates: np.ndarray
    spacing: tuple[float, float, float]
    region: int

    def condition(self, drop_region: float, drop_position: float, rng: np.random.Generator) -> Condition:
        """Condition of the network, parts of it dropped at random."""
        position = tuple(torch.from_numpy(line.astype(np.float32)) for line in self.coordinates)
        keep_region, keep_position = rng.random() >= drop_region, rng.random() >= drop_position
        first = tuple(m % f for m, f in zip(self.margin, self.factors, strict=True))
        guess = torch.from_numpy(to_network(self.guess))
        return Condition(
            spacing=self.spacing,
            coordinates=position if keep_position else None,  # type: ignore[arg-type]
            region=self.region if keep_region else NULL_REGION,
            control=interpolated_control(guess, self.factors, first),  # type: ignore[arg-type]
        )

    def interpolated(self, order: int) -> np.ndarray:
        """The window by a spline through the centers of the thick voxels."""
        return interpolate_blocks(self.thick, self.factors, order)[self._window()]

    def _window(self) -> tuple[slice, ...]:
        return tuple(slice(m, m + n) for m, n in zip(self.margin, self.fine.shape, strict=True))

    def whole_blocks(self) -> tuple[tuple[slice, ...], tuple[slice | int, ...]]:
        """The part of the window made of whole thick voxels: slices of (k, j, i), and of (batch, channel, k, j, i)."""
        part = []
        for margin, size, factor in zip(self.margin, self.fine.shape, self.factors, strict=True):
            start = -margin % factor
            part.append(slice(start, start + (size - start) // factor * factor))
        return tuple(part), (slice(None), slice(None), *part)


def draw_pair(case: Case, size: int, factors: Factors, rng: np.random.Generator) -> Pair:
    """A random window of the scanner's own voxels, continued by reflection where the scan ends."""
    source = case.levels[0]
    for _ in range(20):
        index, margin = [], []
        for axis, factor in enumerate(factors):
            low, high = ((edge[axis] - source.origin[axis]) / source.spacing[axis] for edge in case.body_box)
            start = round(low + (high - low - size) * rng.uniform(0, 1)) if high - low > size else round(low)
            start = min(max(start, 0), max(source.voxels.shape[axis] - size, 0))
            before = 0 if factor == 1 else MARGIN * factor + int(rng.integers(factor))
            count = size if factor == 1 else -(-(before + size + MARGIN * factor) // factor) * factor
            index.append(reflected_range(start - before, count, source.voxels.shape[axis]))
            margin.append(before)
        inner = tuple(slice(m, m + size) for m in margin)
        wide = np.asarray(source.voxels[np.ix_(*index)], dtype=np.float32)
        # Windows of pure air or table teach nothing; one in twenty draws may still be poor.
        if (wide[inner] > -500).mean() > 0.1:
            break
    thick = average_blocks(wide, factors)
    smooth = fit_range(smooth_blocks(thick, factors), factors, LOWEST_HU)
    lines = [
        case.normalized(source.origin[a] + line[part] * source.spacing[a], a)
        for a, (line, part) in enumerate(zip(index, inner, strict=True))
    ]
    k, j, i = (float(s) for s in source.spacing)
    region = case.region_of(np.stack(lines))
    return Pair(
        wide[inner],
        smooth[inner],
        thick,
        factors,
        (margin[0], margin[1], margin[2]),
        np.stack(lines),
        (k, j, i),
        region,
    )


class _Windows(Dataset):
    """Sample n of a run, see :meth:`SuperResolutionTask.samples`."""

    def __init__(self, cases: list[Case], task: SuperResolutionTask, seed: int, first: int, count: int) -> None:
        self.cases, self.task, self.seed, self.first, self.count = cases, task, seed, first, count
        # Large volumes hold more distinct windows, thin slices more of the detail that is to be learned.
        weights = np.array([case.levels[0].voxels.size ** 0.5 / case.levels[0].spacing.max() for case in cases])
        self.weights = weights / weights.sum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        task, rng = self.task, np.random.default_rng([self.seed, self.first + index])
        case = self.cases[rng.choice(len(self.cases), p=self.weights)]
        pair = draw_pair(case, task.window, self._factors(rng), rng)
        low, high = 0.2 * TYPICAL_ERROR, 4 * TYPICAL_ERROR
        regression = rng.random() < task.regression_share
        sigma = NOISE_HIDES_ALL if regression else float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return {
            "case": case.name,
            "x0": torch.from_numpy(to_network(pair.fine))[None, None],
            "sigma": sigma,
            "noise": torch.from_numpy(rng.standard_normal((1, 1, *pair.fine.shape), dtype=np.float32)),
            "condition": pair.condition(task.drop_region, task.drop_position, rng),
        }

    def _factors(self, rng: np.random.Generator) -> Factors:
        if rng.random() < self.task.isotropic_share:
            return (2, 2, 2)
        low, high = self.task.factors
        factor = int(rng.integers(low, high + 1))
        axis = int(rng.integers(1, 3)) if rng.random() < self.task.across_share else 0
        k, j, i = (factor if n == axis else 1 for n in range(3))
        return k, j, i


def _decibel(mean_square: float) -> float:
    """Peak signal-to-noise ratio for a range of 2 (2000 HU)."""
    return float(10 * np.log10(4 / max(mean_square, 1e-12)))
