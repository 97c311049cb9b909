"""Registration of an earlier CT to a later one of the same patient: rigid, then by B-splines (SimpleITK).

The scans may have frames of reference of their own, so that the search begins from several places. What moved between
the scans by breathing and posture is a smooth field of displacements (Rueckert et al. 1999).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.extras import needed
from ...imaging.grid import Grid, to_grid, working_grid
from ...imaging.resampling import interpolate_by_axes
from ...imaging.volume import Volume
from ...multimodal.rigid_registration import as_sitk

STAGES = ("finding the place", "rigid registration", "registration by B-splines")
RIGID_MM = 5.0
"""Voxels of the images for the rigid registration."""
LEVELS = ((8.0, 64.0, 800.0), (8.0, 40.0, 800.0), (4.0, 28.0, 400.0), (4.0, 20.0, 200.0))
"""Voxels, distance of the spline's knots, mm, and HU of the steps of the deformable registration. Differences of so
many HU and more count less: in the end they are change, not motion."""
ROUNDS, STILL_MM = 12, 0.03
"""Rounds of a step at most; it ends when one moves the body by less on average."""
NEIGHBORS = 0.3
"""Weight of the knots around one, against its own."""
STIFF_HU_MM = 4.0
"""Gradients below do not move anything."""
HU_RANGE = (-1000.0, 400.0)
"""Values beyond, as of metal and of contrast medium, count as these ends."""
BODY_HU = -300
SHARE, SEED = 0.15, 1
"""Part of the voxels that the rigid registration looks at."""
LEAST_OVERLAP, STEP_MM = 0.25, 15.0
"""Part of the shorter scan along the body that the other one has to cover; heights that are tried."""
_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Registration:
    """Where each place of the later scan lies in the earlier one.

    Attributes:
        displacement: (3, k, j, i) float32, earlier less later place, RAS mm, on ``grid``.
        grid: covers the later scan.
        rigid: 4x4, later to earlier RAS point, without the deformation.
        correlation: of the two images where they overlap, before any motion (None without overlap) and at the end.
    """

    displacement: np.ndarray
    grid: Grid
    rigid: np.ndarray
    before: float | None
    correlation: float

    def deformation(self) -> float:
        """Largest displacement besides the rigid motion, but for one place of a hundred; mm."""
        fixed = Volume(np.broadcast_to(np.float32(0), self.grid.shape), self.grid.ijk_to_ras)
        apart = np.linalg.norm(self.displacement - _rigid_field(fixed, self.rigid), axis=0)
        return float(np.percentile(apart, 99))

    def points(self, later: Volume, first: int, last: int) -> np.ndarray:
        """Earlier RAS places (3, k, j, i), float32, of the planes ``first`` to ``last`` - 1 of a volume's first axis.

        Args:
            later: axes parallel to the grid's.
        """
        matrix = np.linalg.inv(self.grid.ijk_to_ras) @ later.ijk_to_ras
        shape, span = later.voxels.shape, (first, last)
        margin = np.full(3, np.inf)
        k, j, i = np.ogrid[first:last, : shape[1], : shape[2]]
        points = np.empty((3, last - first, *shape[1:]), np.float32)
        for axis in range(3):
            own = later.ijk_to_ras[axis]
            moved = interpolate_by_axes(self.displacement[axis], matrix, shape, 0.0, margin, span)
            points[axis] = moved + (own[0] * i + own[1] * j + own[2] * k + own[3])
        return points

    def earlier_point(self, later: np.ndarray) -> np.ndarray:
        """The earlier place (3,) of one in the later scan, RAS mm."""
        from scipy.ndimage import map_coordinates

        i, j, k, _ = np.linalg.inv(self.grid.ijk_to_ras) @ [*later, 1.0]
        at = [[k], [j], [i]]
        return later + [map_coordinates(part, at, order=1, mode="nearest")[0] for part in self.displacement]

    def later_point(self, earlier: np.ndarray) -> np.ndarray:
        """The later place (3,) of one in the earlier scan, RAS mm."""
        later = (np.linalg.inv(self.rigid) @ [*earlier, 1.0])[:3]
        for _ in range(20):  # the field is smooth, so that each step leaves a part of the error
            later = later + earlier - self.earlier_point(later)
        return later


def registering(later: Volume, earlier: Volume) -> Iterator[Registration | None]:
    """Register step by step; the last item is the registration, those before it are None.

    Raises:
        DependencyError: SimpleITK is missing.
        InputError: the scans do not overlap.
    """
    sitk = needed("SimpleITK", "the comparison of two scans")
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the order of sums decides about the last digits
        fixed, moving = (_image(volume, RIGID_MM) for volume in (later, earlier))
        before = _correlation(sitk, sitk.Transform(), fixed, moving)
        start = _start(sitk, fixed, moving)
        yield None
        rigid = _matrix(_rigid(sitk, start, fixed, moving))
    except RuntimeError as error:
        raise InputError(
            "The two scans cannot be brought onto each other.", "Give two CTs of the same part of one patient."
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    yield None
    yield from _deforming(later, earlier, rigid, before)


def _coarse(volume: Volume, spacing: float) -> Volume:
    """A scan with cubic voxels, no finer than asked for, axes to left, posterior, superior."""
    grid = working_grid(volume, max(spacing, min(volume.spacing)))
    return Volume(np.clip(to_grid(volume, grid, fill=HU_RANGE[0]), *HU_RANGE), grid.ijk_to_ras)


def _image(volume: Volume, spacing: float) -> Any:
    """The same as SimpleITK's image."""
    return as_sitk(_coarse(volume, spacing))


def _middle(image: Any) -> np.ndarray:
    """LPS place of the middle of the body in an image."""
    import SimpleITK as sitk

    k, j, i = (x.mean() for x in np.nonzero(sitk.GetArrayViewFromImage(image) > BODY_HU))
    return np.array(image.TransformContinuousIndexToPhysicalPoint([float(i), float(j), float(k)]))


def _start(sitk: Any, fixed: Any, moving: Any) -> Any:
    """The best of: as the scans lie, and middle on middle at all heights."""
    across = _middle(moving) - _middle(fixed)
    lengths = [image.GetSize()[2] * image.GetSpacing()[2] for image in (fixed, moving)]
    reach = max(sum(lengths) / 2 - LEAST_OVERLAP * min(lengths), 0.0)
    heights = np.arange(-np.floor(reach / STEP_MM), np.floor(reach / STEP_MM) + 1) * STEP_MM
    ends = [
        image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])[2]
        for image in (fixed, moving)
    ]
    shifts = [np.zeros(3), *(np.array([across[0], across[1], ends[1] - ends[0] + height]) for height in heights)]
    scored = []
    for shift in shifts:
        transform = sitk.Euler3DTransform()
        transform.SetCenter(_middle(fixed).tolist())
        transform.SetTranslation(shift.tolist())
        score = _correlation(sitk, transform, fixed, moving)
        if score is not None:
            scored.append((score, transform))
    if not scored:
        raise InputError("The two scans do not overlap.", "Give two CTs of the same part of one patient.")
    return max(scored, key=lambda pair: pair[0])[1]


def _correlation(sitk: Any, transform: Any, fixed: Any, moving: Any) -> float | None:
    """Correlation of the images within the body where both are; None where that is too little."""
    outside = HU_RANGE[0] - 1
    moved = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, outside))
    own = sitk.GetArrayViewFromImage(fixed)
    shared = moved >= HU_RANGE[0]
    planes = shared.any((1, 2)).sum()
    if planes < LEAST_OVERLAP * min(fixed.GetSize()[2], moving.GetSize()[2]):
        return None
    inside = shared & ((own > BODY_HU) | (moved > BODY_HU))
    if inside.sum() < 500:
        return None
    a, b = own[inside], moved[inside]
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else None


def _rigid(sitk: Any, start: Any, fixed: Any, moving: Any) -> Any:
    """Rotation and shift."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SHARE, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetOptimizerAsRegularStepGradientDescent(4.0, 1e-3, 100, 0.6, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([6.0, 0.0])
    transform = sitk.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform


def _matrix(transform: Any) -> np.ndarray:
    """4x4 of an Euler transform in RAS."""
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    center, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, center + shift - rotation @ center
    flip = np.diag([*_LPS, 1.0])
    return flip @ matrix @ flip


# Deformation


def _deforming(
    later: Volume, earlier: Volume, rigid: np.ndarray, before: float | None
) -> Iterator[Registration | None]:
    """The registration, from wide knots to narrow ones."""
    displacement, grid = np.zeros((3, 1, 1, 1), np.float32), None
    for spacing, knots, trust in LEVELS:
        fixed, moving = _coarse(later, spacing), _coarse(earlier, spacing)
        displacement = _rigid_field(fixed, rigid) if grid is None else _on_grid(displacement, grid, fixed)
        grid = Grid(fixed.voxels.shape, fixed.ijk_to_ras)  # type: ignore[arg-type]
        basis = [_basis(n, edge, knots) for n, edge in zip(fixed.voxels.shape, reversed(fixed.spacing), strict=True)]
        for _ in range(ROUNDS):
            step, correlation = _step(fixed, moving, displacement, rigid, basis, trust)
            displacement += step
            if float(np.abs(step).mean()) < STILL_MM:
                break
        yield None
    assert grid is not None
    yield Registration(displacement, grid, rigid, before, correlation)


def _rigid_field(fixed: Volume, rigid: np.ndarray) -> np.ndarray:
    """Displacements (3, k, j, i) of a rigid motion, RAS mm."""
    k, j, i = np.ogrid[tuple(slice(n) for n in fixed.voxels.shape)]
    matrix = (rigid - np.eye(4)) @ fixed.ijk_to_ras
    return np.stack([(row[0] * i + row[1] * j + row[2] * k + row[3]) for row in matrix[:3]]).astype(np.float32)


def _on_grid(displacement: np.ndarray, grid: Grid, fixed: Volume) -> np.ndarray:
    matrix = np.linalg.inv(grid.ijk_to_ras) @ fixed.ijk_to_ras
    margin = np.full(3, np.inf)
    return np.stack([interpolate_by_axes(part, matrix, fixed.voxels.shape, 0.0, margin) for part in displacement])


def _step(
    fixed: Volume, moving: Volume, displacement: np.ndarray, rigid: np.ndarray, basis: list[np.ndarray], trust: float
) -> tuple[np.ndarray, float]:
    """One step of Gauss-Newton for the coefficients of a cubic B-spline, each knot by itself (Lucas and Kanade 1981).

    Args:
        basis: for each axis (k, j, i) the weights (voxels, knots).
        trust: HU from which a difference counts half and less.

    Returns:
        Displacement to add, (3, k, j, i); the correlation of the images before it, in the body.
    """
    moved, shared = _moved(fixed, moving, displacement)
    residual = np.where(shared, fixed.voxels - moved, 0)
    gradient = np.stack(np.gradient((fixed.voxels + moved) / 2, *reversed(fixed.spacing)))[::-1]  # along i, j, k
    weight = shared / (1 + (residual / trust) ** 2)
    axes = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    products = [_shared(_at_knots(weight * gradient[a] * gradient[b], basis)) for a, b in axes]
    right = np.stack([_shared(_at_knots(weight * gradient[a] * residual, basis)) for a in range(3)], axis=-1)
    left = np.empty((*products[0].shape, 3, 3))
    for (a, b), values in zip(axes, products, strict=True):
        left[..., a, b] = left[..., b, a] = values
    left += (STIFF_HU_MM**2 * (_at_knots(shared, basis) + 1))[..., None, None] * np.eye(3)
    along = np.linalg.solve(left, right[..., None])[..., 0]  # mm along the fixed image's axes
    directions = rigid[:3, :3] @ (fixed.ijk_to_ras[:3, :3] / fixed.spacing)
    knots = along @ directions.T
    step = np.stack([_from_knots(knots[..., axis], basis) for axis in range(3)])
    inside = shared & ((fixed.voxels > BODY_HU) | (moved > BODY_HU))
    pair = fixed.voxels[inside], moved[inside]
    alike = float(np.corrcoef(*pair)[0, 1]) if inside.any() and min(p.std() for p in pair) > 0 else 0.0
    return step, alike


def _shared(sums: np.ndarray) -> np.ndarray:
    """Sums at knots, with a share of their neighbors': where nothing is to be seen, tissue moves as that around it."""
    from scipy.ndimage import gaussian_filter

    return sums + NEIGHBORS * gaussian_filter(sums, 1.0, mode="nearest")


def _moved(fixed: Volume, moving: Volume, displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The moving image on the fixed one's grid, and where it reaches."""
    from scipy.ndimage import map_coordinates

    k, j, i = np.ogrid[tuple(slice(n) for n in fixed.voxels.shape)]
    inverse = np.linalg.inv(moving.ijk_to_ras)
    own = inverse @ fixed.ijk_to_ras
    index = [
        sum(inverse[axis, n] * displacement[n] for n in range(3))
        + (own[axis, 0] * i + own[axis, 1] * j + own[axis, 2] * k + own[axis, 3])
        for axis in (2, 1, 0)
    ]
    shared = np.ones(fixed.voxels.shape, bool)
    for line, count in zip(index, moving.voxels.shape, strict=True):
        shared &= (line >= 0) & (line <= count - 1)
    return map_coordinates(moving.voxels, index, order=1, mode="nearest"), shared


def _basis(count: int, edge: float, knots: float) -> np.ndarray:
    """Weights (voxels, knots) of cubic B-splines along a line; each row sums to one."""
    at = np.arange(count) * edge / knots
    numbers = np.arange(-1, int(np.ceil(at[-1])) + 2)
    distance = np.abs(at[:, None] - numbers)
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.clip(2 - distance, 0, None) ** 3 / 6).astype(np.float32)


def _at_knots(values: np.ndarray, basis: list[np.ndarray]) -> np.ndarray:
    """Sums of values (k, j, i) around each knot."""
    k, j, i = basis
    along_i = values.astype(np.float32) @ i
    along_j = np.matmul(j.T, along_i)
    return np.tensordot(k.T, along_j, axes=1)


def _from_knots(values: np.ndarray, basis: list[np.ndarray]) -> np.ndarray:
    """Values (k, j, i) of a spline with these coefficients."""
    k, j, i = basis
    along_i = values.astype(np.float32) @ i.T
    along_j = np.matmul(j, along_i)
    return np.tensordot(k, along_j, axes=1)
