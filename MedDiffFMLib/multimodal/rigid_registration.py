"""Rigid alignment of two images of one patient by mutual information (SimpleITK, Mattes et al. 2003).

Images of one session, in one frame of reference, may still be some millimeters apart, for the patient moved. Pairs for
training are refined once, when they are prepared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import InputError

if TYPE_CHECKING:
    from ..imaging.volume import Volume

BINS = 50
SAMPLES = 40_000
"""Voxels that a step looks at."""
MOST_MM, MOST_DEGREES = 40.0, 12.0
"""Larger motions are no patient's between two images of one session."""
LEAST_GAIN = 0.005
"""Mutual information in nats that a rotation must add."""

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Alignment:
    """Rigid motion between two images.

    Attributes:
        fixed_to_moving: 4x4, RAS point in mm of the fixed image to the same anatomy's point in the moving one.
        shift_mm: how far the fixed image's center moves.
        angle_degrees: rotation.
        before, after: mutual information in nats, at the given and at the found place.
    """

    fixed_to_moving: np.ndarray
    shift_mm: float
    angle_degrees: float
    before: float
    after: float

    def moved(self, moving: Volume) -> Volume:
        """The moving image where it lies on the fixed one: same voxels, another ``ijk_to_ras``."""
        from dataclasses import replace

        return replace(moving, ijk_to_ras=np.linalg.inv(self.fixed_to_moving) @ moving.ijk_to_ras)


def align(
    fixed: Volume,
    moving: Volume,
    fixed_mask: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    seed: int = 1,
) -> Alignment:
    """Rotation and shift that make the mutual information of two images largest, near where they are.

    A shift is found first. The rotation stays where it adds mutual information and is one that a patient makes: in a
    piece of a limb, which is nearly a cylinder, a rotation about its axis is hardly determined.

    Args:
        fixed, moving: any modalities.
        fixed_mask, moving_mask: bool (k, j, i), where the images mean something.

    Raises:
        InputError: they do not overlap, or no motion of a sensible size makes them alike.
    """
    import SimpleITK as sitk

    _refuse_apart(fixed, moving)
    center = fixed.ijk_to_ras @ [*((n - 1) / 2 for n in fixed.voxels.shape[::-1]), 1.0]
    search = _Search(fixed, moving, fixed_mask, moving_mask, seed)
    shift, turn = sitk.TranslationTransform(3), sitk.Euler3DTransform()
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the order of sums decides about the last digits
    try:
        before, shifted = search.run(shift)
        turn.SetCenter((_LPS @ center)[:3].tolist())
        turn.SetTranslation(shift.GetOffset())
        _, turned = search.run(turn)
    except RuntimeError as error:
        raise InputError(
            f"The two images cannot be aligned ({_reason(error)}).", "Give two images of the same part of one patient."
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    rigid = _motion(_matrix(turn), center[:3], before, turned)
    if rigid.angle_degrees <= MOST_DEGREES and turned >= shifted + LEAST_GAIN:
        return _checked(rigid)
    only_shift = np.eye(4)
    only_shift[:3, 3] = shift.GetOffset()
    return _checked(_motion(only_shift, center[:3], before, shifted))


def _refuse_apart(fixed: Volume, moving: Volume) -> None:
    """Refuse images whose boxes along the patient's axes have nothing in common."""
    boxes = []
    for volume in (fixed, moving):
        k, j, i = (n - 1 for n in volume.voxels.shape)
        corners = np.array([[a, b, c, 1.0] for a in (0, i) for b in (0, j) for c in (0, k)]).T
        points = (volume.ijk_to_ras @ corners)[:3]
        boxes.append((points.min(1), points.max(1)))
    (low, high), (other_low, other_high) = boxes
    if (np.minimum(high, other_high) <= np.maximum(low, other_low)).any():
        raise InputError(
            "The two images cannot be aligned: they do not overlap.", "Give two images of the same part of one patient."
        )


class _Search:
    """Registration of two images from coarse to fine."""

    def __init__(
        self, fixed: Volume, moving: Volume, fixed_mask: np.ndarray | None, moving_mask: np.ndarray | None, seed: int
    ) -> None:
        self.images = as_sitk(fixed), as_sitk(moving)
        masks = ((fixed, fixed_mask), (moving, moving_mask))
        self.masks = [None if mask is None else as_sitk(image, mask.astype(np.uint8)) for image, mask in masks]
        self.share, self.seed = min(1.0, 8 * SAMPLES / fixed.voxels.size), seed

    def run(self, transform: Any) -> tuple[float, float]:
        """Mutual information before and after; ``transform`` becomes the best one."""
        import SimpleITK as sitk

        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(self.share, self.seed)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 150, 0.6, 1e-6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([4, 2])
        method.SetSmoothingSigmasPerLevel([3.0, 1.0])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        for mask, put in zip(self.masks, (method.SetMetricFixedMask, method.SetMetricMovingMask), strict=True):
            if mask is not None:
                put(mask)
        method.SetInitialTransform(transform, inPlace=True)
        before = -method.MetricEvaluate(*self.images)
        method.Execute(*self.images)
        return before, -method.MetricEvaluate(*self.images)


def as_sitk(volume: Volume, voxels: np.ndarray | None = None) -> Any:
    """SimpleITK image of a volume, in ITK's LPS."""
    import SimpleITK as sitk

    array = volume.voxels.astype(np.float32) if voxels is None else voxels
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    lps = _LPS @ volume.ijk_to_ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def _matrix(transform: Any) -> np.ndarray:
    """4x4 of an Euler transform, LPS."""
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    center, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, center + shift - rotation @ center
    return matrix


def _motion(lps: np.ndarray, center: np.ndarray, before: float, after: float) -> Alignment:
    """The motion in RAS."""
    ras = _LPS @ lps @ _LPS
    shift = float(np.linalg.norm(ras[:3, :3] @ center + ras[:3, 3] - center))
    angle = float(np.degrees(np.arccos(np.clip((np.trace(ras[:3, :3]) - 1) / 2, -1, 1))))
    return Alignment(ras, shift, angle, before, after)


def _checked(motion: Alignment) -> Alignment:
    """The motion, if it is one that a patient makes."""
    if motion.shift_mm > MOST_MM:
        raise InputError(
            f"The two images do not seem to show the same anatomy (best match {motion.shift_mm:.0f} mm away).",
            "Give two images of the same part of one patient, aligned to within some centimeters.",
        )
    return motion


def _reason(error: RuntimeError) -> str:
    """Last line of an ITK message without its file names."""
    last = str(error).strip().splitlines()[-1]
    return last.rpartition("): ")[2].rstrip(".") or "no overlap"
