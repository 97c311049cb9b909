"""Memorization: how like is a synthetic window to the nearest window of reference volumes, the training data?

The measure is the highest correlation of a window of 96 mm, at voxels of 6 mm, with any place in any reference volume,
not turned or scaled. Both are limited to soft tissue and freed of what is larger than some 12 mm: chest walls and
lungs alone make any two chests alike. The figure means nothing without its neighbors: windows of real patients that
are not among the references (what no copy looks like), and windows of the references themselves half a voxel off and
under noise (what a copy looks like at worst).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...core.atomic_files import atomic_path
from ...imaging.volume import Volume
from .cases import Case

SPACING = 6.0
SOFT_HU = (-200.0, 300.0)
DETAIL_MM = 12.0
MOST_WINDOWS = 6
"""Windows of one body that are looked up."""
LEAST_DEVIATION_HU = 2.5
"""A place that is flatter than this resembles nothing."""
CONTROLS = 6
"""Reference volumes of which windows are looked up as copies."""
CONTROL_NOISE_HU = 20.0


class References:
    """Volumes that synthetic ones must not repeat.

    Args:
        volumes: float32 HU (k, j, i) at :data:`SPACING`.
    """

    def __init__(self, volumes: Sequence[np.ndarray]) -> None:
        self.volumes = volumes
        self._details = [detail(volume[None])[0] for volume in volumes]

    def nearest(self, windows: np.ndarray) -> np.ndarray:
        """Highest correlation of each window with any place of any reference, (B,).

        Args:
            windows: HU (B, D, H, W) at :data:`SPACING`; a reference that is smaller than a window is left out.
        """
        correlations, fine = np.full(len(windows), -1.0), detail(windows)
        for volume in self._details:
            if all(n >= m for n, m in zip(volume.shape, windows.shape[1:], strict=True)):
                correlations = np.maximum(correlations, _best_correlations(fine, volume))
        return correlations

    def controls(self, size: int) -> np.ndarray:
        """Windows from the middle of references, half a voxel off their grid, with noise: (B, size, size, size) HU."""
        cubes, rng = [], np.random.default_rng(0)
        wide = [volume for volume in self.volumes if min(volume.shape) > size]
        for volume in wide[:: max(1, len(wide) // CONTROLS)][:CONTROLS]:
            part = volume[tuple(slice((n - size) // 2, (n - size) // 2 + size + 1) for n in volume.shape)]
            part = part.astype(np.float32)
            for axis in range(3):
                part = (part.take(range(size), axis) + part.take(range(1, size + 1), axis)) / 2
            cubes.append(part + rng.normal(0, CONTROL_NOISE_HU, part.shape))
        return np.array(cubes).reshape(-1, size, size, size)


def detail(windows: np.ndarray) -> np.ndarray:
    """(B, D, H, W) HU -> what is small in soft tissue, in HU, float32."""
    from scipy.ndimage import gaussian_filter

    soft = np.clip(np.asarray(windows, dtype=np.float32), *SOFT_HU)
    width = DETAIL_MM / SPACING
    return soft - gaussian_filter(soft, (0, width, width, width))


def coarse(windows: np.ndarray, spacing: float) -> np.ndarray:
    """(B, D, H, W) at ``spacing`` mm, a divisor of 6 mm -> at 6 mm by averaging cubes of voxels."""
    factor = round(SPACING / spacing)
    count, edge = len(windows), windows.shape[1] // factor
    cut = windows[:, : edge * factor, : edge * factor, : edge * factor]
    return cut.reshape(count, edge, factor, edge, factor, edge, factor).mean(axis=(2, 4, 6), dtype=np.float32)


def read_references(cases: Sequence[Case], cache: Path, tell: Callable[[str], None] = lambda line: None) -> References:
    """Reference volumes from files, resampled once and kept in ``cache``."""
    volumes = []
    for number, case in enumerate(cases, start=1):
        stat = case.image.stat()
        key = hashlib.sha256(f"{case.image.name} {stat.st_size} {stat.st_mtime_ns} {SPACING}".encode()).hexdigest()
        file = cache / f"reference-{case.name}-{key[:12]}.npy"
        if not file.is_file():
            tell(f"reference {number} of {len(cases)}: {case.name}")
            _keep(file, _resampled(case))
        volumes.append(np.load(file))
    return References(volumes)


def _keep(file: Path, volume: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file, overwrite=True) as temporary, open(temporary, "wb") as stream:
        np.save(stream, volume, allow_pickle=False)


def _resampled(case: Case) -> np.ndarray:
    """int16 HU at :data:`SPACING`."""
    from ...imaging.grid import to_grid, working_grid
    from ...imaging.io import read_volume

    volume: Volume = read_volume(case.image)
    return np.rint(np.clip(to_grid(volume, working_grid(volume, SPACING)), -1024, 3071)).astype(np.int16)


def _best_correlations(windows: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """(B,): highest correlation of each window with the places where it lies inside ``volume`` whole."""
    from scipy.fft import irfftn, next_fast_len, rfftn

    size = windows.shape[1:]
    shape = [next_fast_len(n, real=True) for n in volume.shape]
    valid = tuple(slice(0, n - m + 1) for n, m in zip(volume.shape, size, strict=True))
    spectrum = rfftn(volume, shape)
    norms = _norms(volume, size)
    best = []
    for window in windows:
        flat = window - window.mean()
        length = float(np.linalg.norm(flat))
        if length < LEAST_DEVIATION_HU * np.sqrt(flat.size):
            best.append(-1.0)
            continue
        products = irfftn(spectrum * rfftn(flat, shape).conj(), shape)[valid]
        best.append(float((products / norms).max()) / length)
    return np.array(best)


def _norms(volume: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Norm, without its mean, of each block of ``size``; infinite for a flat one."""
    exact = volume.astype(np.float64)
    count = float(np.prod(size))
    mean, square = _sums(exact, size) / count, _sums(exact**2, size) / count
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return np.where(deviation < LEAST_DEVIATION_HU, np.inf, deviation * np.sqrt(count))


def _sums(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Sum of each block of ``size``, by running sums along each axis."""
    for axis, width in enumerate(size):
        running = np.concatenate([np.zeros_like(array.take([0], axis)), np.cumsum(array, axis=axis)], axis=axis)
        length = running.shape[axis] - width
        array = running.take(range(width, width + length), axis) - running.take(range(length), axis)
    return array
