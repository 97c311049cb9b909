"""DICOM segmentations and RT structure sets as masks on a scan's grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.extras import needed
from ..imaging.formats.common import LPS_TO_RAS, affine, damaged, parsing
from ..imaging.formats.dicom_structures import STRUCTURE_SET
from ..imaging.grid import Grid, to_grid
from ..imaging.source import Reading
from ..imaging.volume import Volume
from .out.contours import filled
from .out.study import decoded
from .series import patient_of, source_files

_NAMED = 12
_OFF_PLANE = 0.25
"""Of the distance of planes: a contour further away was drawn on another series."""
_AREA_KINDS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True)
class Structure:
    """A segment or a region of interest."""

    number: int
    name: str

    def is_called(self, wanted: str) -> bool:
        """Whether a user means it, by number or name."""
        return wanted == str(self.number) or wanted.casefold() == self.name.casefold()


def read_mask(path: Path, wanted: str | None, volume: Volume, scan: Path | None = None) -> Volume:
    """One structure on the grid of a scan.

    Args:
        path: a segmentation or structure set.
        wanted: its number or name; None for the only one.
        volume: the scan.
        scan: where it was read from, to tell whether both are of one patient.

    Returns:
        0 and 1, uint8 (k, j, i), of modality "mask".

    Raises:
        InputError: damaged, several structures and none chosen, of another patient or frame of reference, or drawn on
            other planes than those of the scan.
        DependencyError: highdicom is missing.
    """
    with parsing(lambda error: damaged(path.name, "DICOM", "a value makes no sense")):
        reading = Reading(path)
        with reading.open(path):
            dataset = decoded(path, pixels=True)
        is_set = str(dataset.SOPClassUID) == STRUCTURE_SET
        _check_owner(path, dataset, is_set, scan)
        chosen = _chosen(path.name, _structures(dataset, is_set), wanted)
        inside = _drawn(path.name, dataset, chosen, volume) if is_set else _segment(dataset, chosen, volume)
    if not inside.any():
        raise InputError(
            f"'{path.name}': {chosen.name!r} marks no voxel of the scan.", "Choose another structure, or another scan."
        )
    return Volume(inside.astype(np.uint8), volume.ijk_to_ras, "mask", source=reading.source())


def _structures(dataset: Any, is_set: bool) -> list[Structure]:
    if is_set:
        return [Structure(int(r.ROINumber), str(r.get("ROIName", ""))) for r in dataset.StructureSetROISequence]
    rows = [row for row in dataset.SegmentSequence if int(row.SegmentNumber) > 0]
    return [Structure(int(row.SegmentNumber), str(row.SegmentLabel)) for row in rows]


def _chosen(name: str, found: list[Structure], wanted: str | None) -> Structure:
    fitting = found if wanted is None else [structure for structure in found if structure.is_called(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    names = "; ".join(f"{s.number} {s.name!r}" for s in found[:_NAMED]) + more
    if wanted is not None and not fitting:
        raise InputError(
            f"'{name}' has no structure {wanted!r:.80}; it holds {names or 'none'}.", "Choose one of these."
        )
    if not fitting:
        raise InputError(f"'{name}' holds no structures.", "Choose another file.")
    raise InputError(f"'{name}' holds {len(fitting)} structures: {names}.", "Choose one with --label NUMBER or NAME.")


def _check_owner(path: Path, dataset: Any, is_set: bool, scan: Path | None) -> None:
    """Refuse what is of another patient or lies in another frame of reference than the scan, where both are known."""
    with source_files(scan) as files:
        if not files:
            return
        image = decoded(files[0])
    patients = patient_of(image), patient_of(dataset)
    if all(patients) and patients[0] != patients[1]:
        raise InputError(
            f"'{path.name}' is of patient {patients[1]!r}, the scan of {patients[0]!r}.", "Choose that of the scan."
        )
    rows = dataset.get("ReferencedFrameOfReferenceSequence") if is_set else [dataset]
    frames = {str(row.get("FrameOfReferenceUID", "")) for row in rows or []} - {""}
    frame = str(image.get("FrameOfReferenceUID", ""))
    if frame and frames and frame not in frames:
        raise InputError(
            f"'{path.name}' lies in another frame of reference than the scan.",
            "Choose the structures of this scan, or register them to it first.",
        )


def _segment(dataset: Any, chosen: Structure, volume: Volume) -> np.ndarray:
    """A segment, resampled to the nearest voxel where the grids differ."""
    highdicom = needed("highdicom", "a DICOM segmentation")
    found = highdicom.seg.Segmentation.from_dataset(dataset, copy=False).get_volume(segment_numbers=[chosen.number])
    array = np.asarray(found.array)
    inside = (array.reshape(*array.shape[:3]) >= 0.5).astype(np.uint8)
    matrix = LPS_TO_RAS @ np.asarray(found.affine)[:, [2, 1, 0, 3]]
    step = np.abs(np.linalg.solve(matrix, volume.ijk_to_ras)[:3, :3]).sum(axis=1).max()
    margin = int(np.ceil(step)) + 1  # beyond the border, which to_grid repeats, lies nothing
    shift = affine(np.eye(3), np.full(3, -float(margin)))
    padded = Volume(np.pad(inside, margin), matrix @ shift, "mask")
    return to_grid(padded, Grid(volume.voxels.shape, volume.ijk_to_ras), order=0, fill=0) > 0.5  # type: ignore[arg-type]


def _drawn(name: str, dataset: Any, chosen: Structure, volume: Volume) -> np.ndarray:
    """Contours, filled on the planes that they were drawn on."""
    curves = _curves(dataset, chosen.number)
    to_index = np.linalg.inv(LPS_TO_RAS @ volume.ijk_to_ras)
    indices = [(np.column_stack([points, np.ones(len(points))]) @ to_index.T)[:, :3] for points in curves]
    if not indices:
        return np.zeros(volume.voxels.shape, bool)
    spread = np.max([np.ptp(points, axis=0) for points in indices], axis=0)
    axis = int(np.argmin(spread))  # of (i, j, k): the one that the planes follow
    others = [n for n in range(3) if n != axis]
    planes = [float(points[:, axis].mean()) for points in indices]
    if spread[axis] > _OFF_PLANE or max(abs(plane - round(plane)) for plane in planes) > _OFF_PLANE:
        raise InputError(
            f"'{name}': {chosen.name!r} was drawn on other planes than those of the scan.",
            "Give the series that it was drawn on.",
        )
    inside = np.zeros(volume.voxels.shape, bool)
    view: np.ndarray = np.moveaxis(inside, 2 - axis, 0)  # (planes, rows, columns)
    for plane, points in zip(planes, indices, strict=True):
        if 0 <= round(plane) < len(view):
            view[round(plane)] ^= filled([points[:, others]], (view.shape[1], view.shape[2]))
    return inside


def _curves(dataset: Any, number: int) -> list[np.ndarray]:
    """Points (n, 3) of the closed contours of a region, LPS mm."""
    curves = []
    for drawn in dataset.get("ROIContourSequence") or []:
        if int(drawn.ReferencedROINumber) == number:
            contours = drawn.get("ContourSequence") or []
            closed = [contour for contour in contours if str(contour.ContourGeometricType) in _AREA_KINDS]
            curves += [np.reshape([float(x) for x in contour.ContourData], (-1, 3)) for contour in closed]
    return curves
