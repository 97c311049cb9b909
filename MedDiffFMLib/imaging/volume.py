"""Volume: voxels with geometry, and the checks of every input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.json_files import json_ready
from .axis_order import AxisOrder
from .segments import Segment, labels_in, listed
from .source import Source

Box = tuple[slice, slice, slice]
"""A part of an array by its indices (k, j, i)."""

MIN_SLICES = 4
SPACING_RANGE_MM = (0.05, 20.0)
MAX_EXTENT_MM = 3000.0
THICK_SLICE_MM = 4.0
THINNED_SPACING_MM = 3.0
SAMPLE_VOXELS = 500_000  # enough to judge values by; a panel looks at a volume while the user waits
WINDOW_MM = 96.0  # one 64-voxel window of the model at its finest trained spacing, 1.5 mm
GRID_TOLERANCE = 0.05
"""Voxel edges by which a label map may lie off its image: other programs round geometries, and no edge is sharper."""
_EXACT = 1e-3  # voxel edges that nobody needs to hear of
# Cosine between two voxel axes, 0.06 degrees: the rounding of text headers lies below, gantry tilt far above.
SHEAR_TOLERANCE = 1e-3

_NOT_HOUNSFIELD = (
    "Choose a CT. If this is a CT that was stored with an offset (often 1024) or rescaled for display, "
    "load the original DICOM series or undo that first. A crop of a CT that holds neither air nor fat goes on with "
    "--force."
)


@dataclass(frozen=True)
class Volume:
    """A scalar volume in Slicer's own conventions, so that nothing is permuted twice.

    Attributes:
        voxels: array (k, j, i), Hounsfield units for CT; last axis is the fastest (``slicer.util.arrayFromVolume``).
        ijk_to_ras: 4x4 float64, voxel index (i, j, k, 1) to patient RAS coordinates in mm.
        modality: "CT", "MR", "XR", or "mask" for a label map.
        synthetic: made by a model in whole or in part; written into files, and read back.
        notes: what the reader had to assume, one sentence each; :func:`check_ct` passes them on as warnings.
        whole: a coarse copy of the scan that this is a piece of, None for a whole scan; see ``Task.needed_piece``.
        segments: what a segmentation says about its labels.
        source: the files that the voxels were read from; None where they were made or changed in memory.
        beam_source: RAS mm of the source of an X-ray that stands at its detector; empty for parallel rays, None where
            nothing says it.
    """

    voxels: np.ndarray
    ijk_to_ras: np.ndarray
    modality: str = "CT"
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    whole: Volume | None = None
    segments: tuple[Segment, ...] = ()
    source: Source | None = None
    beam_source: tuple[float, ...] | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths (i, j, k) in mm."""
        si, sj, sk = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(si), float(sj), float(sk)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm3."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3])))

    def with_voxels(self, voxels: np.ndarray) -> Volume:
        """The same geometry with other voxel values of the same shape."""
        if voxels.shape != self.voxels.shape:
            raise ValueError(f"shape {voxels.shape} does not fit geometry of shape {self.voxels.shape}")
        return replace(self, voxels=voxels, segments=(), source=None)

    def same_geometry(self, other: Volume, tolerance: float = GRID_TOLERANCE) -> bool:
        """True when shapes agree and no voxel center is further apart than ``tolerance`` times the smallest spacing."""
        return self.voxels.shape == other.voxels.shape and self.apart(other) <= tolerance * min(self.spacing)

    def lies_at(self, shape: tuple[int, ...], ijk_to_ras: np.ndarray | None) -> bool:
        """Whether an array of this shape with this matrix has the volume's voxels, up to rounding."""
        return (
            ijk_to_ras is not None
            and shape == self.voxels.shape
            and np.allclose(ijk_to_ras, self.ijk_to_ras, rtol=0, atol=1e-9)
        )

    def apart(self, other: Volume) -> float:
        """Largest distance in mm between the corner voxels of two volumes of the same shape."""
        k, j, i = self.voxels.shape
        corners = np.array([[a, b, c, 1.0] for a in (0, i - 1) for b in (0, j - 1) for c in (0, k - 1)]).T
        return float(np.linalg.norm(((self.ijk_to_ras - other.ijk_to_ras) @ corners)[:3], axis=0).max())


def in_patient_axes(volume: Volume) -> Volume:
    """The same voxels in one order, axes to superior, posterior, left, whatever the order in which they are stored.

    Nothing is copied where they are stored so. The coarse copy of a whole scan comes along.
    """
    order = AxisOrder.of(volume.ijk_to_ras)
    whole = None if volume.whole is None else in_patient_axes(volume.whole)
    if order.kept:
        return replace(volume, whole=whole)
    matrix = volume.ijk_to_ras @ order.matrix(volume.voxels.shape)
    return replace(volume, voxels=np.ascontiguousarray(order.turn(volume.voxels)), ijk_to_ras=matrix, whole=whole)


def thinned(volume: Volume, coarse_mm: float = THINNED_SPACING_MM) -> Volume:
    """Every n-th voxel along each axis, half of ``coarse_mm`` to ``coarse_mm`` apart where they lie closer.

    They are counted from the patient's lower, front, right end, so that it does not matter how the scan is stored.
    Thinned again it stays as it is.
    """
    k, j, i = (max(1, int(coarse_mm / s)) for s in reversed(volume.spacing))
    box = AxisOrder.of(volume.ijk_to_ras).every((k, j, i), volume.voxels.shape)
    matrix = volume.ijk_to_ras @ np.diag([i, j, k, 1.0])
    matrix[:3, 3] = (volume.ijk_to_ras @ [*(part.start for part in reversed(box)), 1.0])[:3]
    return Volume(volume.voxels[box], matrix, volume.modality)


def check_ct(volume: Volume, force: bool = False) -> list[str]:
    """Refuse what no task can use, and say what makes results less reliable.

    Args:
        force: values that do not look like Hounsfield units are warned of, not refused.

    Returns:
        Warnings, one sentence each; an empty list for a plain CT.

    Raises:
        InputError: with the cause and the remedy.
    """
    if volume.modality != "CT":
        raise InputError(f"The volume is marked as {volume.modality}, not as CT.", "Choose a CT volume.")
    check_grid(volume)
    bounds = check_values(volume.voxels)
    mark = "This CT is synthetic, in whole or in part: it shows no patient as scanned."
    made = [mark] if volume.synthetic else []
    if volume.whole is not None:  # a piece may lie in bone or lung alone, and is small on purpose
        check_grid(volume.whole)
        bounds = check_values(volume.whole.voxels)
        return [*made, *volume.notes, *_check_hounsfield(volume.whole, *bounds, force)]
    return [*made, *volume.notes, *_geometry_warnings(volume), *_check_hounsfield(volume, *bounds, force)]


def check_grid(volume: Volume, least_slices: int = MIN_SLICES) -> None:
    """Refuse arrays and geometries that no task can work on, whatever the voxels mean.

    Args:
        least_slices: along the first axis; a radiograph is one plane.

    Raises:
        InputError: with the cause and the remedy.
    """
    _check_array(volume.voxels)
    _check_geometry(volume, least_slices)


def check_mask(mask: Volume, volume: Volume) -> np.ndarray:
    """The mask as a bool array (k, j, i): True where it is above 0.5, so label maps and probabilities both work.

    Raises:
        InputError: other geometry than ``volume``, non-finite, empty, or covering everything.
    """
    resample = (
        "Resample it onto the CT: in Slicer, export the segmentation with the CT as reference volume, "
        "or use Resample Scalar/Vector/DWI Volume with nearest-neighbor interpolation."
    )
    if mask.voxels.shape != volume.voxels.shape:
        shapes = f"{_times(mask.voxels.shape[::-1])} voxels, the CT {_times(volume.voxels.shape[::-1])}"
        raise InputError(f"The mask has {shapes}.", resample)
    if not mask.same_geometry(volume):
        raise InputError(
            f"The mask has the CT's shape but lies elsewhere, up to {mask.apart(volume):.3g} mm away.", resample
        )
    if mask.voxels.dtype.kind == "f" and not np.isfinite(mask.voxels).all():
        raise InputError(
            "The mask holds values that are not numbers (NaN or infinite).", "Save it again as a label map."
        )
    inside = mask.voxels > 0.5
    if not inside.any():
        raise InputError("The mask is empty: no voxel is above 0.", "Paint the region, or choose another mask.")
    if inside.all():
        raise InputError(
            "The mask covers the whole volume, so nothing is left to work from.",
            "Paint only the region; if it looks right, the mask may be inverted.",
        )
    return inside


def label_notes(labels: Volume, volume: Volume, what: str) -> list[str]:
    """Notes to the user on a label map that fits a volume: a small distance between their grids."""
    distance = labels.apart(volume)
    if distance <= _EXACT * min(volume.spacing):
        return []
    return [f"The {what} lies up to {distance:.3g} mm off the image's voxels; it is taken to lie on them."]


def several_labels(mask: Volume) -> list[str]:
    """A sentence where a mask of what to work on holds more than one label."""
    found = labels_in(mask.voxels, mask.segments)
    if len(found) < 2:
        return []
    return [f"The mask holds {len(found)} labels, {listed(found)}; all of them are taken. --label chooses one."]


def _check_array(voxels: np.ndarray) -> None:
    """Three axes of real numbers, at least one voxel."""
    if voxels.dtype.kind not in "iuf":
        raise InputError(
            f"The voxels are of type {voxels.dtype}, not one number per voxel.",
            "Use a scalar CT volume; a color or vector image cannot be used.",
        )
    if voxels.ndim != 3:
        raise InputError(
            f"The volume has {voxels.ndim} dimensions ({_times(voxels.shape)}), not 3.",
            "Choose one 3-D volume; take a single time point or channel out of a larger one.",
        )
    if voxels.size == 0:
        raise InputError(f"The volume is empty ({_times(voxels.shape[::-1])} voxels).", "Choose another volume.")


def _check_geometry(volume: Volume, least_slices: int) -> None:
    """Orthogonal axes and sizes that a patient can have."""
    matrix = np.asarray(volume.ijk_to_ras, dtype=float)
    affine = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.allclose(matrix[3], (0, 0, 0, 1))
    if not affine or min(volume.spacing) == 0 or np.linalg.matrix_rank(matrix[:3, :3] / volume.spacing, tol=1e-6) < 3:
        raise InputError(
            "The geometry is not valid: the voxel axes are missing, not finite, or lie in one plane.",
            "Correct the spacing and directions in the file's header, or export the volume again.",
        )
    low, high = SPACING_RANGE_MM
    if min(volume.spacing) < low or max(volume.spacing) > high:
        raise InputError(
            f"A voxel measures {_size(volume.spacing)} mm, outside {low:g} to {high:g} mm.",
            "Check that the header's spacing is in millimeters and correct it.",
        )
    axes = matrix[:3, :3] / volume.spacing
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if cosine > SHEAR_TOLERANCE:
        raise InputError(
            f"The voxel axes are not perpendicular (up to {np.degrees(np.arcsin(min(cosine, 1.0))):.3g} degrees off), "
            "as after a scan with tilted gantry.",
            "Resample the volume first: in Slicer, load the DICOM series with acquisition geometry regularization, "
            "or harden the transform and use Resample Scalar/Vector/DWI Volume.",
        )
    shape = volume.voxels.shape[::-1]
    if min(shape[:2]) < MIN_SLICES or shape[2] < least_slices:
        count = "one slice" if min(shape) == 1 else f"{min(shape)} slices"
        raise InputError(
            f"The volume has only {count} ({_times(shape)} voxels); at least {MIN_SLICES} are needed.",
            "Load the whole series, not a single image.",
        )
    if max(_extent(volume)) > MAX_EXTENT_MM:
        raise InputError(
            f"The volume measures {_size(_extent(volume))} mm, more than any patient.",
            "Check that the header's spacing is in millimeters and correct it.",
        )


def check_values(voxels: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest value.

    Raises:
        InputError: not all finite, or all the same.
    """
    low, high = voxels.min(), voxels.max()  # both propagate NaN, so no mask of the whole volume is needed
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int(np.count_nonzero(~np.isfinite(voxels)))
        raise InputError(
            f"{count} voxels are not numbers (NaN or infinite).",
            "Replace them, for instance by -1000 HU (air), and save the volume again.",
        )
    if low == high:
        raise InputError(
            f"All voxels have the same value ({low:g}).", "Choose another volume; this one holds no image."
        )
    return float(low), float(high)


def _check_hounsfield(volume: Volume, low: float, high: float, force: bool) -> list[str]:
    """Refuse values that cannot be Hounsfield units, or warn of them where it is forced; return warnings.

    A CT holds air near -1000, or, cropped inside the body, at least fat below -30 around a median near soft tissue.
    MR, PET, label maps and unsigned CT are non-negative but for a little noise; phase images lack the gap between
    lung and fat.
    """
    step = max(1, round((volume.voxels.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = volume.voxels[AxisOrder.of(volume.ijk_to_ras).every((step, step, step), volume.voxels.shape)]
    typical = float(np.mean((sample <= -600) | ((sample >= -200) & (sample <= 400))))
    air = float(np.mean(sample <= -600))
    fat = float(np.mean(sample < -30))
    median = float(np.median(sample))
    in_body = fat >= 0.005 and -150 <= median <= 300
    warnings = []
    if high > 100_000 or typical < 0.6 or not (air >= 0.001 or in_body):
        cause = (
            f"The values ({low:.4g} to {high:.4g}, median {median:.4g}) do not look like CT in Hounsfield units, "
            "where air is near -1000, fat near -100 and soft tissue 0 to 100; they fit MR, PET, a label map or "
            "normalized data."
        )
        if not force:
            raise InputError(cause, _NOT_HOUNSFIELD)
        warnings.append(cause)
    elif air < 0.001:
        warnings.append("The volume holds no air: if it is not a crop inside the body, check that it is in HU.")
    if low < -1500:
        warnings.append(f"Values go down to {low:.4g} HU (padding outside the scanner's field); they count as air.")
    return warnings


def _geometry_warnings(volume: Volume) -> list[str]:
    """Sentences about thick slices and small volumes."""
    warnings = []
    thick = max(volume.spacing)
    if thick >= THICK_SLICE_MM:
        subject = "Slices are" if thick > 1.5 * min(volume.spacing) else "Voxels are"
        warnings.append(f"{subject} {thick:.3g} mm thick; findings smaller than that are not reliable.")
    if min(_extent(volume)) < WINDOW_MM:
        warnings.append(
            f"The volume measures {_size(_extent(volume))} mm, less than one window of the model ({WINDOW_MM:g} mm); "
            "results near its borders are less reliable."
        )
    return warnings


def _extent(volume: Volume) -> tuple[float, ...]:
    """Edge lengths (i, j, k) of the whole volume in mm."""
    return tuple(s * n for s, n in zip(volume.spacing, volume.voxels.shape[::-1], strict=True))


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _size(lengths: tuple[float, ...]) -> str:
    return " x ".join(f"{x:.4g}" for x in lengths)


def geometry(volume: Volume) -> dict[str, Any]:
    """Shape (i, j, k), spacing in mm and matrix of a volume, JSON-ready."""
    return {
        "shape_ijk": list(volume.voxels.shape[::-1]),
        "spacing_mm": [round(s, 6) for s in volume.spacing],
        "ijk_to_ras": json_ready(volume.ijk_to_ras),
    }
