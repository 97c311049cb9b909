"""Deblurring: the data step solves its equation, the blur lies within slices however the scan lies, figures improve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

import MedDiffFMLib as mdf
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.preprocessing.working_image import working_image
from MedDiffFMLib.tasks.deblur.gaussian_blur import FWHM_OVER_SIGMA, BlurredImage
from MedDiffFMLib.tasks.deblur.recipe import widths_on_grid


def blurred(voxels: np.ndarray, widths: tuple[float, float, float]) -> np.ndarray:
    """By SciPy, in space, with mirrored edges."""
    for axis, width in enumerate(widths):
        voxels = gaussian_filter1d(voxels, width, axis, mode="reflect", truncate=8) if width else voxels
    return voxels


def test_the_step_is_where_the_gradient_of_its_objective_vanishes() -> None:
    """H^T (H x - y) + rho (x - x0) = 0 with SciPy's blur, along any two axes."""
    rng = np.random.default_rng(0)
    for widths in ((0.0, 1.7, 1.5), (1.6, 0.0, 1.8)):
        y, x0 = (torch.from_numpy(rng.normal(0, 1, (1, 1, 12, 20, 16)).astype(np.float32)) for _ in range(2))
        x = BlurredImage(y, widths, 0.02, strength=1.5)(x0, 0.05)
        rho = 1.5 * (0.02 / 0.05) ** 2
        residual = blurred(x[0, 0].double().numpy(), widths) - y[0, 0].numpy()
        gradient = blurred(residual, widths) + rho * (x - x0)[0, 0].numpy()
        assert np.abs(gradient).max() < 2e-3


def test_the_blur_follows_the_slices(small_ct: mdf.Volume) -> None:
    """A scan of sagittal slices: the axis without blur is the patient's left-right, the working grid's i."""
    matrix = small_ct.ijk_to_ras[:, [1, 2, 0, 3]] @ np.diag([0.5, 0.5, 1.0, 1.0])
    sagittal = mdf.Volume(np.ascontiguousarray(small_ct.voxels.transpose(2, 0, 1)), matrix)
    k, j, i = widths_on_grid(working_image(sagittal, None), 3.0)
    assert i == 0 and j == pytest.approx(k) == pytest.approx(3.0 / FWHM_OVER_SIGMA / 1.5)


@pytest.mark.slow
def test_a_blurred_chest_comes_nearer_to_what_it_was() -> None:
    """Part of the sample with the shipped weights: four fifths of the error at most, metal keeps its HU."""
    whole = mdf.read_volume(resource_folder() / "SampleData" / "thorax_lidc0001.nrrd")
    sharp = np.ascontiguousarray(whole.voxels[70:100, 120:168, 120:168])
    i, j, _ = whole.spacing
    widths = (0.0, 3.0 / FWHM_OVER_SIGMA / j, 3.0 / FWHM_OVER_SIGMA / i)
    noise = np.random.default_rng(0).normal(0, 10, sharp.shape)
    soft = np.rint(blurred(sharp.astype(float), widths) + noise).astype(np.int16)
    soft[15, 20, 20] = 3000
    volume = replace(whole, voxels=soft)
    result = mdf.deblur(volume, fwhm=3.0, noise=10.0)
    deblurred = result.volumes["deblurred"].voxels
    assert deblurred.dtype == np.int16 and deblurred[15, 20, 20] > 2000
    assert np.abs(deblurred - soft - result.volumes["difference"].voxels).max() <= 0.51
    error = [np.abs(np.clip(one, -1000, 1000) - np.clip(sharp, -1000, 1000)).mean() for one in (soft, deblurred)]
    assert error[1] < 0.8 * error[0], error
