"""Mean neck: the CT of nobody whose anatomy ``synthesize`` bends, from planning CTs of many patients.

    python -m Testing.experiments.mean_neck LIST.json -o mean_neck.nrrd

The list names the CTs, the first of them the reference: bodies below the face down to the lungs. All are laid with
their lungs' tops on one another, brought onto the reference by an affine transform and symmetric demons, and moved back
by the mean of the displacements, so that the shape is everybody's. What comes is the median of their HU, the reference
of the next round. No voxel tells of one patient: at least ``FEWEST`` have a say in each. 42 CTs take 15 minutes of two
cores.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume

EDGE_MM, FINE_MM = 3.0, 2.5
"""Voxels of the registration and of the result."""
HALF_MM, LOW_MM, HIGH_MM = (276.0, 156.0), -100.0, 83.0
"""Half of the box across the body, and its ends along it, around the middle of the body at the lungs' top."""
ROUNDS = 3
LEVELS = ((4, 60, 2.0), (2, 60, 1.7), (1, 40, 1.4))
"""Of the demons: shrinking, iterations, and the deviation in voxels by which displacements are smoothed."""
BEYOND_MM = 40.0
FEWEST = 10
"""Patients whose fields of view hold a voxel; where there are fewer the result has air."""
MISSING = 0.01
APEX_MM2 = 1500.0
"""Air within the body of a slice that is lung, and no airway."""
BODY_HU, LUNG_HU, AIR_HU = -300, -500, -1000
CONTRAST = (AIR_HU, -850, BODY_HU, -110, -50, 40, 100, 250, 700), (0, 0.8, 1.4, 1.8, 2.4, 3, 3.3, 4.2, 5.2)
"""HU and what the registration sees of them: fat, muscle and bone as far apart as lung and air."""


def laid(file: Path) -> sitk.Image:
    """A CT without its table, with the middle of the body at the lungs' top in the origin; axes of LPS."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(file), sitk.sitkFloat32), "LPS")
    hounsfield, spacing = sitk.GetArrayFromImage(image), image.GetSpacing()
    parts, count = ndimage.label(ndimage.binary_opening(hounsfield > BODY_HU))
    body = parts == 1 + int(np.argmax(ndimage.sum_labels(parts > 0, parts, range(1, count + 1))))
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in body])
    lung = (filled & (hounsfield < LUNG_HU)).sum((1, 2)) * spacing[0] * spacing[1]
    top = int(np.flatnonzero(lung > APEX_MM2).max())
    _, middle_j, middle_i = np.argwhere(body[max(top - 2, 0) : top + 3]).mean(0)
    clean = np.where(ndimage.binary_dilation(filled, iterations=1), hounsfield, AIR_HU)
    result = sitk.GetImageFromArray(clean.astype(np.float32))
    result.SetSpacing(spacing)
    result.SetOrigin((-middle_i * spacing[0], -middle_j * spacing[1], -top * spacing[2]))
    return result


_laid = cache(laid)  # in each process of the pool


def continued(image: sitk.Image) -> sitk.Image:
    """The same, longer at both ends by their slices: where a scan ends is no anatomy."""
    beyond = int(BEYOND_MM / image.GetSpacing()[2])
    return sitk.ZeroFluxNeumannPad(image, (0, 0, beyond), (0, 0, beyond))


def box(edge: float) -> sitk.Image:
    """Grid around the lungs' top, cubic voxels."""
    size = [int(2 * half / edge) for half in HALF_MM] + [int((HIGH_MM - LOW_MM) / edge)]
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing([edge] * 3)
    image.SetOrigin((*(edge / 2 - half for half in HALF_MM), LOW_MM))
    return image


def seen(image: sitk.Image) -> sitk.Image:
    """What the registration sees of HU."""
    values = np.interp(sitk.GetArrayFromImage(image), *CONTRAST).astype(np.float32)
    result = sitk.GetImageFromArray(values)
    result.CopyInformation(image)
    return result


def affine(fixed: sitk.Image, moving: sitk.Image) -> sitk.AffineTransform:
    """Transform from the fixed image's points to the moving one's, by mean squares."""
    method, transform = sitk.ImageRegistrationMethod(), sitk.AffineTransform(3)
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, 1)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.01, 150, 0.5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([6, 3])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, True)
    method.Execute(fixed, moving)
    return transform


def demons(fixed: sitk.Image, moving: sitk.Image) -> np.ndarray:
    """Displacements in mm, (k, j, i, 3), from the fixed image's points to the moving one's on the same grid."""
    field = None
    for shrink, iterations, deviation in LEVELS:
        coarse, other = fixed, moving
        if shrink > 1:
            coarse = sitk.Shrink(sitk.SmoothingRecursiveGaussian(fixed, shrink * EDGE_MM / 2), [shrink] * 3)
            other = sitk.SmoothingRecursiveGaussian(moving, shrink * EDGE_MM / 2)
        other = sitk.Resample(other, coarse, sitk.Transform(), sitk.sitkLinear, 0.0)
        method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        method.SetNumberOfIterations(iterations)
        method.SetSmoothDisplacementField(True)
        method.SetStandardDeviations(deviation)
        method.SetMaximumUpdateStepLength(2.0)
        if field is None:
            field = method.Execute(coarse, other)
        else:
            start = sitk.Resample(field, coarse, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat64)
            field = method.Execute(coarse, other, start)
    return sitk.GetArrayFromImage(field)


def registered(work: tuple[Path, np.ndarray]) -> tuple[Path, np.ndarray]:
    """Displacements in mm, float32 (k, j, i, 3), from the target's points to those of a CT."""
    file, hounsfield = work
    target, image = sitk.GetImageFromArray(hounsfield), _laid(file)
    target.CopyInformation(box(EDGE_MM))
    transform = affine(seen(target), seen(image))
    near = sitk.Resample(continued(image), target, transform, sitk.sitkLinear, AIR_HU)
    place = points(target)
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    moved = (place + demons(seen(target), seen(near))) @ matrix.T + transform.TransformPoint((0.0, 0.0, 0.0))
    return file, (moved - place).astype(np.float32)


def points(grid: sitk.Image) -> np.ndarray:
    """(k, j, i, 3): x, y and z of each voxel in mm."""
    edge, first = grid.GetSpacing()[0], grid.GetOrigin()
    x, y, z = (start + edge * np.arange(n) for start, n in zip(first, grid.GetSize(), strict=True))
    return np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], -1)


def back(mean: np.ndarray) -> np.ndarray:
    """Displacements after which those given, (k, j, i, 3) in mm, are none: their inverse."""
    grid = box(EDGE_MM)
    place = points(grid)
    inverse = place.copy()
    for _ in range(15):
        at = np.moveaxis(((inverse - grid.GetOrigin()) / EDGE_MM)[..., ::-1], -1, 0)
        inverse = place - np.stack(
            [ndimage.map_coordinates(mean[..., n], at, order=1, mode="nearest") for n in range(3)], -1
        )
    return inverse - place


def warped(work: tuple[Path, np.ndarray, np.ndarray, float]) -> np.ndarray:
    """HU of a CT in the mean shape, float32, NaN outside of its field of view."""
    file, moved, centered, edge = work
    image = _laid(file)
    transform = sitk.CompositeTransform([_field(moved), _field(centered)])  # the last is applied first
    known = sitk.Resample(image * 0 + 1, box(edge), transform, sitk.sitkNearestNeighbor, 0.0)
    hounsfield = sitk.Resample(image, box(edge), transform, sitk.sitkLinear, AIR_HU)
    return np.where(sitk.GetArrayFromImage(known) > 0, sitk.GetArrayFromImage(hounsfield), np.float32(np.nan))


def _field(displacements: np.ndarray) -> sitk.DisplacementFieldTransform:
    image = sitk.GetImageFromArray(displacements.astype(np.float64), isVector=True)
    image.CopyInformation(box(EDGE_MM))
    return sitk.DisplacementFieldTransform(image)


def median(images: list[np.ndarray]) -> np.ndarray:
    """Median of what is known, air where too few know it."""
    stack = np.stack(images)
    few = np.isfinite(stack).sum(0) < FEWEST
    stack[:, few] = AIR_HU
    return np.nanmedian(stack, 0).astype(np.float32)


def whole(hounsfield: np.ndarray) -> np.ndarray:
    """Without slices at the ends in which part of the body next to them is beyond most fields of view."""

    def ragged(end: int, beside: int) -> bool:
        body = hounsfield[beside] > BODY_HU
        return bool((hounsfield[end][body] <= AIR_HU).mean() > MISSING)

    low, high = 0, len(hounsfield) - 1
    while not (hounsfield[low + 1] > BODY_HU).any() or ragged(low, low + 1):
        low += 1
    while not (hounsfield[high - 1] > BODY_HU).any() or ragged(high, high - 1):
        high -= 1
    return hounsfield[low : high + 1]


def mean_neck(files: list[Path], pool: Any) -> np.ndarray:
    """Median HU (k, j, i) in the mean shape on the grid of ``box(FINE_MM)``."""
    reference = sitk.Resample(continued(laid(files[0])), box(EDGE_MM), sitk.Transform(), sitk.sitkLinear, AIR_HU)
    target = sitk.GetArrayFromImage(reference)
    for number in range(ROUNDS):
        moved = dict(pool.imap(registered, [(file, target) for file in files]))
        mean = np.mean(list(moved.values()), axis=0)
        centered = back(mean)
        edge = FINE_MM if number == ROUNDS - 1 else EDGE_MM
        target = median(list(pool.imap(warped, [(file, moved[file], centered, edge) for file in files])))
        print(f"round {number + 1}: the shape moved by {np.abs(mean).mean():.1f} mm along each axis", flush=True)
    return whole(target)


def main() -> None:
    """Write the mean CT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    words = parser.parse_args()
    with Pool(words.processes, sitk.ProcessObject.SetGlobalDefaultNumberOfThreads, (1,)) as pool:
        hounsfield = mean_neck([words.list.parent / name for name in json.loads(words.list.read_text())], pool)
    matrix = np.diag([-FINE_MM, -FINE_MM, FINE_MM, 1.0])
    write_volume(Volume(np.rint(hounsfield).astype(np.int16), matrix, "ct"), words.output, overwrite=True)


if __name__ == "__main__":
    main()
