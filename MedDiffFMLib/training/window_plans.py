"""Random draws for training windows, without the windows: a few kilobytes each, of which a device makes the rest.

Plan n of a run comes from the same random numbers as window n that the CPU draws, so it shows the same box of the same
case. One thing differs: whether a box holds enough of the body is judged by a coarse map instead of its own voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ..conditioning.regions import NULL_REGION
from ..datasets.prepared_cases import Case
from .batches import CaseChoice
from .device_holes import pack_holes
from .noise import NoiseConfig, Texture, draw_level, draw_texture
from .windows import BODY_HU, BODY_SHARE, View, WindowConfig, WindowPlan, plan_window

MAP_MM = 6.0
"""Edge of the blocks in which the share of the body is known."""


class PlanBatch(NamedTuple):
    """The plans of n windows of edge S.

    Attributes:
        level: (n,) number of the level that each looks at, as :class:`.device_cache.DeviceCache` counts them.
        crop, reach: see :class:`.device_cache.Places`.
        purposes: what each sample is for.
        seeds: of each window's white noise.
        arrays: the numbers for the device, by name.
    """

    level: np.ndarray
    crop: np.ndarray
    reach: np.ndarray
    purposes: tuple[str, ...]
    seeds: tuple[int, ...]
    arrays: dict[str, np.ndarray]


class Sample(NamedTuple):
    """One plan with its noise: level number, level's shape, plan, seed of the white noise, noise level, texture."""

    level: int
    shape: tuple[int, ...]
    plan: WindowPlan
    seed: int
    sigma: float
    texture: Texture | None


class PlannedWindows(Dataset):
    """Plan n: see :class:`.batches.TrainingWindows`, whose numbers these are.

    Args:
        noise_seed: the noise of window n depends on this + n.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        config: WindowConfig,
        noise: NoiseConfig,
        seed: int,
        noise_seed: int,
        first: int,
        count: int,
    ) -> None:
        self.cases, self.config, self.noise = cases, config, noise
        self.seed, self.noise_seed, self.first, self.count = seed, noise_seed, first, count
        self.choice = CaseChoice(cases)
        self.bodies = [BodyMap(case) for case in cases]
        self.numbers = np.cumsum([0, *(len(case.levels) for case in cases)])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        number = self.first + index
        rng = np.random.default_rng([self.seed, number])
        purpose, chosen = self.choice.draw(self.config, rng)
        case, body = self.cases[chosen], self.bodies[chosen]
        plan = plan_window(case, self.config, rng, body.shows_enough, purpose)
        generator = torch.Generator().manual_seed(self.noise_seed + number)
        sigma = draw_level(plan.purpose, self.noise, generator).item()
        texture = draw_texture(plan.purpose, self.noise, generator)
        level = plan.view.level
        shape, seed = case.levels[level].shape, self.noise_seed + number
        return Sample(int(self.numbers[chosen]) + level, shape, plan, seed, sigma, texture)


class BodyMap:
    """Share of voxels denser than air in blocks of a case, for a quick look at what a window would show."""

    def __init__(self, case: Case) -> None:
        level = case.levels[-1]
        block = np.maximum(np.rint(MAP_MM / level.spacing).astype(int), 1)
        share: np.ndarray = (np.asarray(level.voxels) > BODY_HU).astype(np.float32)
        for axis, edge in enumerate(block):
            starts = np.arange(0, share.shape[axis], edge)
            count = np.diff([*starts, share.shape[axis]])
            shape = [-1 if n == axis else 1 for n in range(3)]
            share = np.add.reduceat(share, starts, axis) / count.reshape(shape).astype(np.float32)
        self.share = share
        self.spacing = level.spacing * block
        self.origin = level.origin + (self.spacing - level.spacing) / 2

    def shows_enough(self, case: Case, view: View) -> bool:
        """Whether enough of a view lies in the body, seen at every fourth of its voxels along each axis."""
        level = case.levels[view.level]
        lines = []
        for axis, line in enumerate(view.positions()[:, 1::4]):
            place = (level.origin[axis] + line * level.spacing[axis] - self.origin[axis]) / self.spacing[axis]
            lines.append(np.clip(np.rint(place).astype(int), 0, self.share.shape[axis] - 1))
        return bool(self.share[np.ix_(*lines)].mean() > BODY_SHARE)


def collate_plans(samples: list[Sample]) -> PlanBatch:
    """Samples -> a batch."""
    plans = [sample.plan for sample in samples]
    views = [plan.view for plan in plans]
    last = np.array([sample.shape for sample in samples])[:, :, None] - 1
    positions = np.stack([view.positions() for view in views])
    step = np.stack([view.step for view in views])
    shown = [(plan, plan.case.levels[plan.view.level]) for plan in plans]
    regions = [NULL_REGION if plan.region is None else plan.region for plan in plans]
    arrays: dict[str, Any] = {
        "positions": np.clip(positions, 0, last),
        "step": step,
        "nearest": np.stack([np.stack(view.nearest) for view in views]).astype(np.int64),
        "spacing": np.stack([view.spacing for view in views]).astype(np.float32),
        "coordinates": np.stack([view.coordinates for view in views]).astype(np.float32),
        "position_known": np.array([plan.position for plan in plans]),
        "anatomy_known": np.array([plan.anatomy and "anatomy" in level.maps for plan, level in shown]),
        "tissue_known": np.array([plan.tissue and "tissue" in level.maps for plan, level in shown]),
        "region": np.array(regions, dtype=np.int64),
        "holed": np.flatnonzero([plan.hole is not None for plan in plans]),
        "sigma": np.array([sample.sigma for sample in samples], dtype=np.float32),
        "textured": np.flatnonzero([sample.texture is not None for sample in samples]),
        **pack_holes([plan.hole for plan in plans if plan.hole is not None]),
        **_textures([sample.texture for sample in samples if sample.texture is not None]),
    }
    return PlanBatch(
        np.array([sample.level for sample in samples]),
        np.array([view.is_crop for view in views]),
        _reach(positions, step, last + 1),
        tuple(plan.purpose for plan in plans),
        tuple(s.seed for s in samples),
        arrays,
    )


def _reach(positions: np.ndarray, step: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(n, 3, 2) voxels of the level that antialiased interpolation at (n, 3, S) looks at, as windows.resample_box."""
    margin = np.maximum(step, 1) + 1
    low = np.clip(np.floor(positions.min(2) - margin), 0, shape[:, :, 0] - 1)
    high = np.clip(np.ceil(positions.max(2) + margin) + 1, low + 1, shape[:, :, 0])
    return np.stack([low, high], axis=2).astype(np.int64)


def _textures(textures: list[Texture]) -> dict[str, np.ndarray]:
    """The fields of textures as arrays; see :func:`texture_of`."""
    if not textures:
        return {"texture": np.zeros((0, 4 + 27), dtype=np.float32)}
    rows = [torch.cat([t.cutoff, t.axial, t.angle, t.stretch, t.strength.flatten()]).numpy() for t in textures]
    return {"texture": np.stack(rows)}


def texture_of(rows: torch.Tensor) -> Texture:
    """Rows of a plan, on any device -> textures."""
    return Texture(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], rows[:, 4:].reshape(-1, 1, 3, 3, 3))
