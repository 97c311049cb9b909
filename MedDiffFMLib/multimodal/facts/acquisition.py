"""Facts of how a CT was scanned: slices, pixels, tilt, padding, noise."""

from __future__ import annotations

import numpy as np

from ...imaging.grid import working_grid
from ...preprocessing.noise_estimate import estimate_noise
from .assess import known, unknown
from .fact import AXIAL, CORONAL, SAGITTAL, Evidence, Fact
from .kinds import COARSE, MEDIUM, THICK, THIN, TOO_LITTLE
from .scan import Scan

THIN_MM, MEDIUM_MM = 1.5, 3.0
"""Largest spacing of thin slices and of those of medium thickness, as files round it."""
ROUNDING_MM = 0.01
LOW_HU, MODERATE_HU = 12.0, 25.0
LONGER = 1.05
COARSE_MM = 2.2
NOISE_SLICES = 48
"""So many slices tell the noise of all."""
TILT_DEGREES = 0.5
PADDING_SHARE, METAL_HU, METAL_ML = 0.005, 2800, 0.3
_PLANES = (AXIAL, CORONAL, SAGITTAL)
_SHAPE_ORDER = ((0, 2, 1), (1, 2, 0), (2, 1, 0))
"""Array axes (k, j, i) of slices, columns and rows of axial, coronal and sagittal slices."""


def acquisition(scan: Scan) -> list[Fact]:
    """Facts that a ruler and the header tell, and the noise."""
    return [*_grid(scan), *_tilt(scan), _noise(scan), *_padding(scan), *_metal(scan)]


def slice_axis(spacing_kji: tuple[float, float, float]) -> int:
    """The axis along which voxels are longest, which slices are stacked along; along the body where none is."""
    longest = int(np.argmax(spacing_kji))
    return longest if spacing_kji[longest] > LONGER * sorted(spacing_kji)[1] else 0


def thickness(spacing: float) -> str:
    """Class of a slice spacing in mm."""
    return THIN if spacing <= THIN_MM + ROUNDING_MM else MEDIUM if spacing <= MEDIUM_MM + ROUNDING_MM else THICK


def _grid(scan: Scan) -> list[Fact]:
    full = working_grid(scan.volume, None)
    spacing = full.spacing[::-1]
    slices, columns, rows = _SHAPE_ORDER[slice_axis(spacing)]
    apart = spacing[slices]
    here = Evidence(scan.center, plane=_PLANES[slices])
    shape = full.shape
    return [
        known("slices", here, slices=shape[slices], columns=shape[columns], rows=shape[rows]),
        known("slice_spacing", here, spacing=apart, thickness=thickness(apart)),
        known("pixel_size", here, edge=spacing[columns]),
        known("field_of_view", scan.whole(), width=shape[2] * spacing[2], depth=shape[1] * spacing[1]),
    ]


def _tilt(scan: Scan) -> list[Fact]:
    """By how much the slices are turned out of the patient's axes; nothing where they are not."""
    directions = scan.grid.ijk_to_ras[:3, :3] / np.array(scan.grid.spacing)
    degrees = float(np.degrees(np.arccos(np.clip(np.abs(np.diag(directions)).min(), 0, 1))))
    return [known("tilt", scan.whole(), degrees=degrees)] if degrees > TILT_DEGREES else []


def _noise(scan: Scan) -> Fact:
    """Nothing is said of coarse pixels: hardly a window of them holds no edge."""
    if sorted(scan.volume.spacing)[1] > COARSE_MM:
        return unknown("noise", COARSE)
    axis = 2 - int(np.argmax(np.abs(np.linalg.inv(scan.grid.ijk_to_ras[:3, :3]) @ scan.volume.ijk_to_ras[:3, :3])[2]))
    slices = np.moveaxis(scan.volume.voxels, axis, 0)
    every = max(1, len(slices) // NOISE_SLICES)
    noise = estimate_noise(slices[::every], slice_mm=scan.volume.spacing[2 - axis] if every == 1 else None)
    if noise is None:
        return unknown("noise", TOO_LITTLE)
    level = "low" if noise < LOW_HU else "moderate" if noise < MODERATE_HU else "high"
    return known("noise", scan.whole(), noise=noise, level=level)


def _padding(scan: Scan) -> list[Fact]:
    share = float(scan.padding.mean())
    if share < PADDING_SHARE:
        return []
    return [known("padding", Evidence(scan.middle(scan.padding)), share=100 * share)]


def _metal(scan: Scan) -> list[Fact]:
    """Nothing is said of scans without."""
    metal = scan.body & (scan.hounsfield >= METAL_HU)
    volume = float(metal.sum()) * scan.voxel_ml
    return [known("metal", Evidence(scan.middle(metal)), volume=volume)] if volume >= METAL_ML else []
