"""X-rays as a task: the same figures, files and refusals through the command line, Python and a batch."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import MedDiffFMLib as mdf
from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError

CAMERA = (0.0, 900.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
HALF_AXES_CM = np.array([11.0, 8.0, 9.0])
SPACING_MM, SHAPE = 3.0, (76, 76, 92)


def water(inside: np.ndarray) -> mdf.Volume:
    """Shares of water (k, j, i) in air, around the origin, axes along LPS."""
    matrix = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(inside.shape[::-1]) - 1) / 2
    return mdf.Volume(np.rint(1000 * inside - 1000).astype(np.int16), matrix)


@pytest.fixture(scope="module")
def ellipsoid() -> mdf.Volume:
    """Half axes of 11, 8 and 9 cm along R, A and S; each voxel holds as much water as 27 parts of it say."""
    parts = 3
    axes = [SPACING_MM / 10 * ((np.arange(n * parts) + 0.5) / parts - n / 2) for n in SHAPE]
    k, j, i = np.meshgrid(*axes, indexing="ij", sparse=True)
    r, a, s = HALF_AXES_CM
    inside = (i / r) ** 2 + (j / a) ** 2 + (k / s) ** 2 < 1
    return water(inside.reshape(SHAPE[0], parts, SHAPE[1], parts, SHAPE[2], parts).mean((1, 3, 5)))


@pytest.fixture(scope="module")
def ellipsoid_file(ellipsoid: mdf.Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("water") / "ellipsoid.nrrd"
    mdf.write_volume(ellipsoid, path)
    return path


def chords_cm(picture: mdf.Volume, source: np.ndarray) -> np.ndarray:
    """Length of each ray (j, i) in the ellipsoid, by the formula."""
    _, rows, columns = picture.voxels.shape
    j, i = np.indices((rows, columns))
    index = np.stack([i, j, np.zeros_like(i), np.ones_like(i)], -1)
    ends = (index @ picture.ijk_to_ras.T)[..., :3]
    along = (ends - source) / np.linalg.norm(ends - source, axis=-1, keepdims=True)
    p, d = source / 10 / HALF_AXES_CM, along / HALF_AXES_CM
    a, b, c = (d * d).sum(-1), (d * p).sum(-1), p @ p - 1
    return 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a


def run(*arguments: str | Path) -> int:
    return main(["radiograph", *map(str, arguments), "--device", "cpu", "--threads", "1"])


@pytest.mark.slow
def test_files_of_an_ellipsoid_hold_its_closed_form(ellipsoid_file: Path, tmp_path: Path) -> None:
    """From the source and the geometry that report and NRRD give, within half a percent; PNG shows the same."""
    views = "ap,lao30-cran20"
    assert run(ellipsoid_file, "-o", tmp_path, "--views", views, "--look", "soft", "--pixels", "96") == 0
    report = json.loads((tmp_path / "ellipsoid_radiograph.json").read_text())
    assert report["facts"]["unit"] == "water and soft tissue, g/cm2" and report["synthetic"]
    for name, stem in (("radiograph", ""), ("radiograph_lao30-cran20", "_lao30-cran20")):
        path = tmp_path / f"ellipsoid_radiograph{stem}.nrrd"
        picture = mdf.read_volume(path, modality="XR")
        truth = chords_cm(picture, np.array(report["facts"]["views"][name]["source_ras_mm"]))
        error = picture.voxels[0] - truth
        thick = truth > 0.5 * truth.max()  # at the edge a voxel is longer than the chord
        assert thick.mean() > 0.2
        assert np.sqrt((error[thick] ** 2).mean()) < 0.005 * truth.max()
        assert abs(error.sum()) < 0.005 * truth.sum()

        low, high = report["facts"]["windows"][name]
        gray = np.asarray(Image.open(path.with_suffix(".png"))) / 65535
        assert np.abs(gray - np.clip((picture.voxels[0] - low) / (high - low), 0, 1)).max() < 1e-4
        corners = np.array(report["facts"]["views"][name]["detector_corners_ras_mm"])
        width = np.linalg.norm(corners[1] - corners[0])
        assert width == pytest.approx(picture.spacing[0] * picture.voxels.shape[2])


def test_a_box_is_as_thick_as_it_is() -> None:
    """120 mm of water from front to back under parallel rays."""
    inside = np.zeros((40, 60, 60))
    inside[4:-4, 10:50, 10:50] = 1
    result = mdf.radiograph(water(inside), look="soft", parallel=True, pixels=64)
    picture = result.volumes["radiograph"].voxels[0]
    rows, columns = picture.shape
    assert picture[rows // 3 : -rows // 3, columns // 3 : -columns // 3] == pytest.approx(12.0, rel=0.005)


@pytest.mark.slow
def test_the_picture_does_not_depend_on_how_voxels_are_stored(small_ct: mdf.Volume) -> None:
    truth = mdf.radiograph(small_ct, views="obl", pixels=48).volumes["radiograph"]
    for number, order in enumerate(permutations(range(3))):
        index = np.eye(4)
        index[:3, :3] = np.eye(3)[:, order]
        voxels = small_ct.voxels.transpose([2 - order[2 - axis] for axis in range(3)])
        if number % 2:
            voxels = voxels[:, :, ::-1]
            index[:3, 3] += index[:3, 0] * (voxels.shape[2] - 1)
            index[:3, 0] *= -1
        stored = mdf.Volume(np.ascontiguousarray(voxels), small_ct.ijk_to_ras @ index)
        found = mdf.radiograph(stored, views="obl", pixels=48).volumes["radiograph"]
        assert found.ijk_to_ras == pytest.approx(truth.ijk_to_ras, abs=1e-6)
        assert found.voxels == pytest.approx(truth.voxels, abs=1e-4), order


def test_python_command_line_and_batch_agree(small_ct_file: Path, tmp_path: Path) -> None:
    """A camera that is given adds a view of its own."""
    options = ["--views", "lat", "--pixels", "32", "--camera", *(f"{number:g}" for number in CAMERA)]
    assert run(small_ct_file, "-o", tmp_path / "one", *options) == 0
    assert run("--batch", small_ct_file.parent, "-o", tmp_path / "many", *options) == 0
    names = {f"chest_radiograph{end}" for end in (".json", ".nrrd", ".png", "_camera.nrrd", "_camera.png")}
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    assert names < {path.name for path in (tmp_path / "many").iterdir()}
    result = mdf.radiograph(small_ct_file, views="lat", pixels=32, camera=CAMERA)
    assert list(result.volumes) == ["radiograph", "radiograph_camera"]
    assert result.facts["views"]["radiograph_camera"]["source_ras_mm"] == list(CAMERA[:3])
    for name, end in (("radiograph", ""), ("radiograph_camera", "_camera")):
        for folder in ("one", "many"):
            written = mdf.read_volume(tmp_path / folder / f"chest_radiograph{end}.nrrd", modality="XR")
            assert np.array_equal(written.voxels, result.volumes[name].voxels)
            assert written.ijk_to_ras == pytest.approx(result.volumes[name].ijk_to_ras, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--pixels", "2"], "pixels is 2"),
        (["--views", "camera"], "needs a camera"),
        (["--views", "front"], "no view 'front'"),
        (["--views", "ap,ap"], "given twice"),
        (["--source-distance", "300", "--gap", "200"], "inside the body"),
    ],
)
def test_what_cannot_be_taken_is_refused_before_anything_is_written(
    options: list[str], cause: str, ellipsoid_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ellipsoid_file, "-o", tmp_path / "out", *options) == 2
    assert cause in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_air_alone_is_refused(small_ct: mdf.Volume) -> None:
    air = np.random.default_rng(0).normal(-990, 8, small_ct.voxels.shape).astype(np.int16)
    with pytest.raises(InputError, match="air alone"):
        mdf.radiograph(small_ct.with_voxels(air))
