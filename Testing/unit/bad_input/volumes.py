"""Volumes and masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedDiffFMLib.imaging.volume import Volume, check_ct, check_mask
from Testing.unit.phantoms import body

from .rows import case


@case(
    "NaN",
    "2 voxels are not numbers (NaN or infinite). Replace them, for instance by -1000 HU (air), "
    "and save the volume again.",
)
def _nan(*_: object) -> None:
    voxels = body().voxels.astype(np.float32)
    voxels[0, 0, :2] = np.nan, np.inf
    check_ct(body().with_voxels(voxels))


@case("empty volume", "The volume is empty (60 x 60 x 0 voxels). Choose another volume.")
def _empty(*_: object) -> None:
    check_ct(Volume(np.zeros((0, 60, 60), np.int16), np.eye(4)))


@case("constant volume", "All voxels have the same value (-1000). Choose another volume; this one holds no image.")
def _constant(*_: object) -> None:
    check_ct(body().with_voxels(np.full((40, 60, 60), -1000, np.int16)))


@case(
    "sheared geometry",
    "The voxel axes are not perpendicular (up to 11.3 degrees off), as after a scan with tilted gantry. "
    "Resample the volume first: in Slicer, load the DICOM series with acquisition geometry regularization, "
    "or harden the transform and use Resample Scalar/Vector/DWI Volume.",
)
def _sheared(*_: object) -> None:
    matrix = body().ijk_to_ras.copy()
    matrix[1, 2] = 0.2 * matrix[2, 2]
    check_ct(Volume(body().voxels, matrix))


@case(
    "one slice",
    "The volume has only one slice (60 x 60 x 1 voxels); at least 4 are needed. "
    "Load the whole series, not a single image.",
)
def _one_slice(*_: object) -> None:
    check_ct(Volume(body().voxels[20:21], body().ijk_to_ras))


@case(
    "enormous spacing",
    "A voxel measures 3000 x 3000 x 3000 mm, outside 0.05 to 20 mm. "
    "Check that the header's spacing is in millimeters and correct it.",
)
def _spacing(*_: object) -> None:
    check_ct(body(spacing=3000.0))


@case(
    "MR passed as CT",
    "The values (0 to 1200, median 80) do not look like CT in Hounsfield units, where air is near -1000, fat near "
    "-100 and soft tissue 0 to 100; they fit MR, PET, a label map or normalized data. Choose a CT. If this is a CT "
    "that was stored with an offset (often 1024) or rescaled for display, load the original DICOM series or undo that "
    "first. A crop of a CT that holds neither air nor fat goes on with --force.",
)
def _magnetic(*_: object) -> None:
    tissue = body().voxels
    signal = np.select([tissue > 300, tissue > -60, tissue > -500], [20, 400, 1200], 0) + np.arange(60) // 10 * 20
    check_ct(body().with_voxels(np.clip(signal, 0, 1200).astype(np.int16)))


@case(
    "volume smaller than a window",
    "The volume measures 60 x 60 x 40 mm, less than one window of the model (96 mm); "
    "results near its borders are less reliable.",
    None,
)
def _small(*_: object) -> list[str]:
    return check_ct(body(spacing=1.0))


@case("thick slices", "Slices are 5 mm thick; findings smaller than that are not reliable.", None)
def _thick(*_: object) -> list[str]:
    return check_ct(Volume(body().voxels, np.diag([-2.0, -2.0, 5.0, 1.0])))


@case(
    "mask of other size",
    "The mask has 60 x 60 x 39 voxels, the CT 60 x 60 x 40. Resample it onto the CT: in Slicer, export the "
    "segmentation with the CT as reference volume, or use Resample Scalar/Vector/DWI Volume with nearest-neighbor "
    "interpolation.",
)
def _mask_size(*_: object) -> None:
    check_mask(Volume(np.ones((39, 60, 60), np.uint8), body().ijk_to_ras, "mask"), body())


@case(
    "mask of other geometry",
    "The mask has the CT's shape but lies elsewhere, up to 30 mm away. Resample it onto the CT: in Slicer, export the "
    "segmentation with the CT as reference volume, or use Resample Scalar/Vector/DWI Volume with nearest-neighbor "
    "interpolation.",
)
def _mask_place(*_: object) -> None:
    matrix = body().ijk_to_ras.copy()
    matrix[2, 3] = 30
    check_mask(Volume(np.ones((40, 60, 60), np.uint8), matrix, "mask"), body())


@case("empty mask", "The mask is empty: no voxel is above 0. Paint the region, or choose another mask.")
def _mask_empty(*_: object) -> None:
    check_mask(body().with_voxels(np.zeros((40, 60, 60), np.uint8)), body())


@case(
    "mask covering everything",
    "The mask covers the whole volume, so nothing is left to work from. "
    "Paint only the region; if it looks right, the mask may be inverted.",
)
def _mask_full(*_: object) -> None:
    check_mask(body().with_voxels(np.ones((40, 60, 60), np.uint8)), body())


@case("synthetic CT as input", "This CT is synthetic, in whole or in part: it shows no patient as scanned.", None)
def _synthetic(*_: object) -> list[str]:
    return check_ct(replace(body(), synthetic=True))
