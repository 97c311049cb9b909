"""Timed cases: a task and a volume, the same for all implementations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...imaging.grid import to_grid, working_grid
from ...imaging.volume import Volume

TASKS = ("network", "denoise", "anomaly", "whole-body", "inpaint", "synthesize", "train")
SUBJECTS = ("engine", "same weights", "stock network")
"""Implementations that are timed beside each other."""
WHOLE_BODY_SHAPE, WHOLE_BODY_SPACING_MM = (400, 512, 512), 1.0
"""Shape and voxel edge of the volume in which "whole-body" looks for anomalies."""
NOISE_HU = 30.0
SYNTHETIC_SPACING_MM = 3.0


@dataclass(frozen=True)
class Case:
    """One row of the benchmark.

    Attributes:
        task: one of TASKS; "network" is one call on a batch of windows, "train" one training step, "whole-body" an
            anomaly map of WHOLE_BODY_SHAPE.
        edge: voxels along each edge of the volume; 0 where there is none.
        lesion_mm: diameter of the sphere that is filled.
        source: CT file that the volumes are cut from.
        seed: of noise and sampling.
    """

    task: str
    edge: int = 0
    lesion_mm: float = 0.0
    source: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        """For tables."""
        parts = [self.task]
        if self.edge:
            parts.append(f"{self.edge}^3")
        if self.lesion_mm:
            parts.append(f"{self.lesion_mm:g} mm")
        return " ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def choose_cases(tasks: list[str], sizes: list[int], lesions_mm: list[float], source: str, seed: int = 0) -> list[Case]:
    """The rows for tasks, edges and lesion diameters.

    Raises:
        InputError: a size that is no volume.
    """
    if min(sizes, default=16) < 16:
        raise InputError(f"A volume of {min(sizes)} voxels along each edge is too small.", "Give at least 16.")
    cases = []
    for task in tasks:
        if task in ("denoise", "anomaly", "synthesize"):
            cases += [Case(task, edge, source=source, seed=seed) for edge in sizes]
        elif task == "inpaint":
            cases += [Case(task, max(sizes), mm, source, seed) for mm in lesions_mm]
        else:
            cases.append(Case(task, source=source, seed=seed))
    return cases


def cut_volume(source: Volume, shape: tuple[int, int, int]) -> Volume:
    """``shape`` (k, j, i) voxels: the middle of a CT, continued by its mirror image where it is smaller."""
    voxels = source.voxels.astype(np.float32)
    for axis, (n, length) in enumerate(zip(voxels.shape, shape, strict=True)):
        if n < length:
            padding = [(0, 0)] * 3
            padding[axis] = ((length - n) // 2, length - n - (length - n) // 2)
            voxels = np.pad(voxels, padding, mode="symmetric")
        else:
            first = (n - length) // 2
            voxels = voxels[(slice(None),) * axis + (slice(first, first + length),)]
    return Volume(np.ascontiguousarray(voxels), source.ijk_to_ras)


def whole_body(source: Volume) -> Volume:
    """A CT of the size of a whole body, in voxels of WHOLE_BODY_SPACING_MM."""
    grid = working_grid(source, WHOLE_BODY_SPACING_MM)
    return cut_volume(Volume(to_grid(source, grid), grid.ijk_to_ras), WHOLE_BODY_SHAPE)


def with_noise(clean: Volume, seed: int) -> Volume:
    """The volume with noise of NOISE_HU, correlated in-plane as that of a scan."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal(clean.voxels.shape, dtype=np.float32)
    noise = gaussian_filter(noise, (0.0, 0.7, 0.7))
    return clean.with_voxels(clean.voxels + NOISE_HU / noise.std() * noise)


def lesion_mask(volume: Volume, diameter_mm: float) -> np.ndarray:
    """A sphere in the middle of the volume."""
    i, j, k = volume.spacing
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(volume.voxels.shape, (k, j, i), strict=True)]
    squares = [axis**2 for axis in axes]
    return squares[0][:, None, None] + squares[1][:, None] + squares[2] <= (diameter_mm / 2) ** 2


def psnr(image: np.ndarray, clean: Volume) -> float:
    """dB in the window [-160, 240] HU, over all that is denser than air."""
    low, high = -160.0, 240.0
    body = clean.voxels > -900
    difference = np.clip(image, low, high)[body] - np.clip(clean.voxels, low, high)[body]
    return float(20 * np.log10((high - low) / np.sqrt(np.mean(np.square(difference, dtype=np.float64)))))
