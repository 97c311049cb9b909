"""What counts as a usable CT and mask."""

from __future__ import annotations

import numpy as np
import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.volume import Volume, check_ct, check_mask
from Testing.unit.phantoms import body


def test_plain_ct_passes_without_warnings() -> None:
    assert check_ct(body()) == []


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_any_number_type_passes(dtype: type) -> None:
    volume = body()
    assert check_ct(volume.with_voxels(volume.voxels.astype(dtype))) == []


def test_oblique_left_handed_geometry_passes() -> None:
    volume = body()
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turn = np.array([[cosine, -sine, 0, 5], [sine, cosine, 0, -700], [0, 0, -1, 12], [0, 0, 0, 1]])
    assert check_ct(Volume(volume.voxels, turn @ volume.ijk_to_ras)) == []


def test_crop_inside_the_body_passes_with_a_warning() -> None:
    crop = body((100, 100, 100)).voxels[30:70, 18:58, 30:70]
    assert crop.min() > -300
    warnings = check_ct(Volume(crop, np.diag([3.0, 3.0, 3.0, 1.0])))
    assert warnings == ["The volume holds no air: if it is not a crop inside the body, check that it is in HU."]


def test_lung_crop_passes() -> None:
    lung = np.random.default_rng(0).normal(-850, 60, (40, 40, 40)).astype(np.int16)
    assert check_ct(Volume(lung, np.diag([3.0, 3.0, 3.0, 1.0]))) == []


def test_padding_is_a_warning() -> None:
    volume = body()
    voxels = volume.voxels.copy()
    voxels[:, :2] = -3024
    assert check_ct(volume.with_voxels(voxels)) == [
        "Values go down to -3024 HU (padding outside the scanner's field); they count as air."
    ]


def test_thick_slices_and_reader_notes_are_warnings() -> None:
    volume = body()
    thick = Volume(volume.voxels, np.diag([2.0, 2.0, 5.0, 1.0]), notes=("The file has no origin.",))
    assert check_ct(thick) == [
        "The file has no origin.",
        "Slices are 5 mm thick; findings smaller than that are not reliable.",
    ]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(lambda ct: ct + 1024, id="offset 1024"),
        pytest.param(lambda ct: ct / 1000.0, id="network range"),
        pytest.param(lambda ct: (ct > 0) * 3, id="label map"),
        pytest.param(lambda ct: np.where(ct > -500, (ct + 1000) * 0.4, 5), id="MR-like"),
        pytest.param(lambda ct: np.random.default_rng(0).uniform(-4096, 4096, ct.shape), id="phase image"),
        pytest.param(lambda ct: ct.astype(np.float64) * 1e6, id="huge"),
    ],
)
def test_other_values_than_hounsfield_are_refused(values) -> None:
    volume = body()
    with pytest.raises(InputError, match="do not look like CT in Hounsfield units"):
        check_ct(volume.with_voxels(values(volume.voxels)))


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((4, 4)), np.diag([1.0, 1.0, 0.0, 1.0]), np.diag([1.0, 1.0, np.nan, 1.0]), np.ones((4, 4)), np.eye(3)],
    ids=["zeros", "flat", "nan", "one direction", "3x3"],
)
def test_impossible_geometry_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match="geometry is not valid"):
        check_ct(Volume(body().voxels, matrix))


def test_rounded_directions_of_text_headers_are_not_sheared() -> None:
    cosine, sine = round(np.cos(0.1), 4), round(np.sin(0.1), 4)
    matrix = np.diag([3.0, 3.0, 3.0, 1.0]) @ [[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert check_ct(Volume(body().voxels, matrix)) == []


def test_mask_of_any_number_type_becomes_bool() -> None:
    volume = body()
    for dtype in (bool, np.uint8, np.int16, np.float32):
        mask = volume.with_voxels((volume.voxels > 300).astype(dtype))
        inside = check_mask(mask, volume)
        assert inside.dtype == bool and np.array_equal(inside, volume.voxels > 300)


def test_mask_tolerates_rounded_geometry_only() -> None:
    volume = body()
    labels = (volume.voxels > 300).astype(np.uint8)
    shift = np.eye(4)
    shift[:3, 3] = 1e-4
    assert check_mask(Volume(labels, shift @ volume.ijk_to_ras, "mask"), volume).any()
    shift[:3, 3] = 0.1
    with pytest.raises(InputError, match="lies elsewhere, up to 0.173 mm away"):
        check_mask(Volume(labels, shift @ volume.ijk_to_ras, "mask"), volume)


def test_mask_with_nan_is_refused() -> None:
    volume = body()
    mask = np.full(volume.voxels.shape, np.nan, np.float32)
    with pytest.raises(InputError, match="not numbers"):
        check_mask(volume.with_voxels(mask), volume)


@pytest.mark.parametrize("values", [lambda v: np.clip(v, 0, None) % 300 + 320, lambda v: np.abs(v) % 900 + 300])
def test_a_crop_unlike_ct_goes_on_by_force(values) -> None:
    """A heart full of contrast medium; bone alone."""
    crop = body().with_voxels(values(body().voxels))
    with pytest.raises(InputError, match="goes on with --force"):
        check_ct(crop)
    assert "do not look like CT" in " ".join(check_ct(crop, force=True))
    with pytest.raises(InputError, match="same value"):
        check_ct(crop.with_voxels(np.full_like(crop.voxels, 40)), force=True)
