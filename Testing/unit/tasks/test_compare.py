"""Two time points: known motion is found, noise alone is no change, growth is measured, strangers are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import MedDiffFMLib as mdf
from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import DependencyError, InputError
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.imaging.grid import Grid
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.case import checked_case
from MedDiffFMLib.tasks.compare.change import Noise
from MedDiffFMLib.tasks.compare.lesions import Lesion, Rule, listed, longest_diameter, marked, matched, rows_of
from MedDiffFMLib.tasks.compare.registration import Registration
from MedDiffFMLib.tasks.compare.spec import Compare
from Testing.unit.phantoms import body

pytest.importorskip("SimpleITK")

SHIFT = np.array([9.0, -6.0, 14.0])
NOISE_HU = 25.0
PLACE = (56.0, -86.0, -222.0)
"""RAS of a place in the left lung, without large vessels."""


def ras(volume: Volume) -> np.ndarray:
    """RAS of each voxel, (3, k, j, i)."""
    k, j, i = np.indices(volume.voxels.shape)
    return np.stack([row[0] * i + row[1] * j + row[2] * k + row[3] for row in volume.ijk_to_ras[:3]])


def motion(points: np.ndarray) -> np.ndarray:
    """From an earlier place to the later one: a shift and a smooth deformation of up to 5 mm."""
    r, a, s = points * (2 * np.pi / 180)
    wave = np.stack([2 * np.sin(a), 3 * np.sin(r + 1) * np.sin(s), 5 * np.cos(r) * np.cos(a)])
    return points + SHIFT.reshape(3, *[1] * (points.ndim - 1)) + wave


def moved(later: Volume, seed: int) -> Volume:
    """What an earlier scan would have shown: the later one's anatomy before the motion, with noise of its own."""
    from scipy.ndimage import map_coordinates

    inverse = np.linalg.inv(later.ijk_to_ras)
    at = motion(ras(later))
    index = [np.tensordot(inverse[axis, :3], at, 1) + inverse[axis, 3] for axis in (2, 1, 0)]
    return noisy(
        later.with_voxels(map_coordinates(later.voxels.astype(np.float32), index, order=3, mode="nearest")), seed
    )


def noisy(scan: Volume, seed: int) -> Volume:
    noise = np.random.default_rng(seed).normal(0, NOISE_HU, scan.voxels.shape)
    return scan.with_voxels(np.rint(scan.voxels + noise).astype(np.int16))


def with_ball(scan: Volume, radius: float) -> tuple[Volume, np.ndarray]:
    """A ball of soft tissue at PLACE, and its mask."""
    inside = np.linalg.norm(ras(scan) - np.reshape(PLACE, (3, 1, 1, 1)), axis=0) < radius
    return scan.with_voxels(np.where(inside, 40, scan.voxels)), inside


@pytest.fixture(scope="module")
def chest() -> Volume:
    """The sample CT, every second voxel within slices; 3 x 3 x 2.5 mm."""
    whole = mdf.read_volume(resource_folder() / "SampleData" / "thorax_lidc0001.nrrd")
    return Volume(np.ascontiguousarray(whole.voxels[:, ::2, ::2]), whole.ijk_to_ras @ np.diag([2.0, 2.0, 1.0, 1.0]))


@pytest.fixture(scope="module")
def grown(chest: Volume) -> Any:
    """A lesion whose radius grew from 6 to 10 mm, in a chest that moved."""
    from scipy.ndimage import map_coordinates

    small, before = with_ball(chest, 6.0)
    large, after = with_ball(chest, 10.0)
    earlier = moved(small, 1)
    inverse = np.linalg.inv(chest.ijk_to_ras)
    at = motion(ras(chest))
    index = [np.tensordot(inverse[axis, :3], at, 1) + inverse[axis, 3] for axis in (2, 1, 0)]
    mask = map_coordinates(before.astype(np.float32), index, order=1) > 0.5
    dates = {"earlier_date": "2026-01-10", "later_date": "2026-04-20"}
    result = mdf.compare(earlier, noisy(large, 2), earlier_mask=mask, mask=after, **dates)
    return result, mask.sum() * chest.voxel_volume, after.sum() * chest.voxel_volume, after & ~before


@pytest.mark.slow
def test_a_lesion_that_grew_in_a_body_that_moved(grown: Any) -> None:
    result, before, after, shell = grown
    (row,) = result.tables["lesions"]
    assert row["state"] == "grown" and row["earlier_mm3"] == round(before, 1) and row["later_mm3"] == round(after, 1)
    assert row["doubling_days"] == pytest.approx(100 * math.log(2) / math.log(after / before), abs=1)
    found = np.array([row[name] for name in ("r_mm", "a_mm", "s_mm")])
    assert np.linalg.norm(found - PLACE) < 2
    assert np.median(result.volumes["change"].voxels[shell]) > 2
    assert "is grown" in result.texts["summary"] and "doubling time" in result.texts["summary"]
    assert result.facts["shift_mm"] == pytest.approx(np.linalg.norm(SHIFT), abs=3) and result.facts["correlation"] > 0.9


@pytest.mark.slow
def test_noise_alone_is_no_change(chest: Volume) -> None:
    """The same anatomy, with hardly any noise of its own, elsewhere and with other noise: a deviation of one, and no
    region that changed."""
    from scipy.ndimage import gaussian_filter

    smooth = chest.with_voxels(gaussian_filter(chest.voxels.astype(np.float32), 1.0))
    shifted = Volume(smooth.voxels, chest.ijk_to_ras.copy())
    shifted.ijk_to_ras[:3, 3] += (1.3, -0.7, 1.1)
    result = mdf.compare(noisy(shifted, 3), noisy(smooth, 4))
    assert result.tables["changes"] == [] and result.tables["lesions"] == []
    assert 0.65 < result.facts["change_deviation"] < 1.15  # the estimate of the noise is high where anatomy is fine
    assert "No region changed" in result.texts["summary"]


@pytest.mark.slow
def test_known_motion_is_found_where_there_is_structure(chest: Volume) -> None:
    """Less than a voxel of error where the image says in every direction where it is."""
    from scipy.ndimage import gaussian_filter

    from MedDiffFMLib.tasks.compare.registration import registering

    *_, found = registering(chest, moved(chest, 5))
    assert found is not None
    error = np.linalg.norm(motion(found.points(chest, 0, len(chest.voxels)).astype(float)) - ras(chest), axis=0)
    image = gaussian_filter(np.clip(chest.voxels.astype(np.float32), -1000, 400), 1.0)
    lines = np.gradient(image, *reversed(chest.spacing))
    tensor = np.empty((*image.shape, 3, 3), np.float32)
    for a in range(3):
        for b in range(3):
            tensor[..., a, b] = gaussian_filter(lines[a] * lines[b], 2.0)
    corners = np.linalg.eigvalsh(tensor)[..., 0] > 20**2
    corners[[*range(8), *range(-8, 0)]] = False
    assert corners.sum() > 1000
    assert error[corners].mean() < min(chest.spacing), error[corners].mean()


def still(volume: Volume, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Registration:
    """A registration that knows of a shift alone, later to earlier."""
    rigid = np.eye(4)
    rigid[:3, 3] = shift
    field = np.broadcast_to(np.reshape(shift, (3, 1, 1, 1)), (3, *volume.voxels.shape)).astype(np.float32)
    return Registration(field, Grid(volume.voxels.shape, volume.ijk_to_ras), rigid, None, 1.0)  # type: ignore[arg-type]


def test_new_gone_stable_and_outside() -> None:
    """The rule, on lesions whose sizes are known; each is one of a pair at most."""
    scan = body()
    registration = still(scan, (5.0, 0.0, 0.0))
    high = (-90.0, -90.0, 60.0)
    earlier = [
        Lesion(1, high, 500.0, None),
        Lesion(2, (-60.0, -60.0, 90.0), 100.0, None),
        Lesion(3, (900.0, 0, 0), None, None),
    ]
    later = [Lesion(1, (-94.0, -91.0, 60.0), 600.0, None), Lesion(2, (-30.0, -120.0, 30.0), 80.0, None)]
    rows = rows_of(matched(earlier, later, registration), registration, (scan, scan), Rule(25.0, 50))
    assert [row["state"] for row in rows] == ["stable", "new", "gone", "not in the later field of view"]
    assert rows[0]["growth_percent"] == 20.0 and rows[0]["doubling_days"] == round(50 * math.log(2) / math.log(1.2))
    assert rows[2]["r_mm"] == pytest.approx(-65.0)
    rule = Rule(25.0, None)
    sizes: Callable[[float, float], str] = lambda a, b: rule.state(Lesion(1, high, a, None), Lesion(1, high, b, None))  # noqa: E731
    assert [sizes(100, 125), sizes(100, 124), sizes(100, 80), sizes(100, 81)] == ["grown", "stable", "shrunk", "stable"]


def test_masks_and_tables_of_findings(tmp_path: Path) -> None:
    scan = body()
    mask = np.zeros(scan.voxels.shape, bool)
    mask[10:12, 20:24, 30:32] = mask[30, 30, 30] = True
    large, small = marked(mask, scan)
    assert (large.voxels, large.volume, small.voxels) == (16, pytest.approx(16 * 27), 1)
    assert large.diameter == pytest.approx(3 * np.hypot(3, 1) + 3) and small.diameter == pytest.approx(3.0)
    disk = (np.hypot(*np.mgrid[-20:21, -20:21]) <= 10.2)[None]
    assert longest_diameter(disk, (0.5, 0.5, 2.0)) == pytest.approx(10.5, abs=0.3)

    table = tmp_path / "findings.csv"
    table.write_text("number,volume_mm3,r_mm,a_mm,s_mm\n4,512,1,2,3\n", encoding="utf-8")
    assert listed(str(table)) == [Lesion(4, (1.0, 2.0, 3.0), 512.0, None)]
    facts = (
        "number,sentence,value,unit,evidence,r_mm,a_mm,s_mm\n1,A,5,HU,axial,0,0,0\n2,B,10,mm,nodule candidate 1,1,2,3\n"
    )
    table.write_text(facts, encoding="utf-8")
    (nodule,) = listed(str(table))
    assert nodule.volume == pytest.approx(math.pi / 6 * 1000)
    table.write_text("number,r_mm,a_mm,s_mm\n1,nan,2,3\n", encoding="utf-8")
    with pytest.raises(InputError, match="no number"):
        listed(str(table))


def test_noise_that_interpolation_leaves() -> None:
    """On the voxels all of it; between them less, and more where neighbors have the same noise."""
    white, smooth = Noise(10.0, (0.0, 0.0, 0.0)).left(0), Noise(10.0, (0.8, 0.8, 0.8)).left(0)
    assert white[0] == pytest.approx(1, abs=1e-6) and white[-1] == pytest.approx(1, abs=1e-6)
    samples = np.random.default_rng(1).normal(0, 1, 200_000)
    from scipy.ndimage import map_coordinates

    half = map_coordinates(samples, [np.arange(100, 199_900) + 0.5], order=3)
    assert white[len(white) // 2] == pytest.approx(half.var(), abs=0.02)
    assert smooth[len(smooth) // 2] > white[len(white) // 2] + 0.1


@pytest.mark.slow
def test_what_cannot_be_compared(chest: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="Exchange the scans"):
        Compare(earlier_date="2026-02-01", later_date="2026-02-01")
    with pytest.raises(InputError, match="YYYY-MM-DD"):
        Compare(earlier_date="1.2.2026")
    mr = Volume(np.abs(body().voxels).astype(np.int16), body().ijk_to_ras)
    with pytest.raises(InputError, match="do not look like CT"):
        checked_case("compare", {"volume": chest, "earlier": mr})
    with pytest.raises(InputError, match="compare needs a CT \\(earlier\\)"):
        checked_case("compare", {"volume": chest})
    mask = Volume(np.ones((3, 3, 3), np.uint8), np.eye(4), "mask")
    with pytest.raises(InputError, match="The mask has 3 x 3 x 3 voxels"):
        checked_case("compare", {"volume": chest, "earlier": chest, "earlier_mask": mask})
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    with pytest.raises(DependencyError, match=r"meddifffm\[compare\]"):
        mdf.compare(body(), body())


@pytest.mark.slow
def test_strangers_are_refused(chest: Volume) -> None:
    with pytest.raises(InputError, match="too unlike"):
        mdf.compare(body((60, 60, 60), 4.0), chest)


@pytest.mark.slow
def test_command_line(chest: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Earlier before later; page, tables and sentences beside the moved scan, on the later one's grid."""
    earlier, later = tmp_path / "earlier.nrrd", tmp_path / "later.nrrd"
    mdf.write_volume(noisy(chest, 6), earlier)
    mdf.write_volume(noisy(chest, 7), later)
    assert main(["compare", str(earlier), "-o", str(tmp_path / "out"), "--quiet"]) == 2
    assert "Nothing to work on" in capsys.readouterr().err
    assert main(["compare", str(earlier), str(later), "-o", str(tmp_path / "out"), "--html", "--quiet"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    parts = ("", "_change", "_lesions", "_changes", "_summary")
    suffixes = (".nrrd", ".nrrd", ".csv", ".csv", ".txt")
    assert names == {
        *(f"later_compare{p}{s}" for p, s in zip(parts, suffixes, strict=True)),
        "later_compare.json",
        "later_compare.html",
    }
    assert mdf.read_volume(tmp_path / "out" / "later_compare.nrrd").same_geometry(chest)


def test_correlation_of_noise_is_that_of_the_noise() -> None:
    """White noise, and noise that a scanner's kernel smoothed, in tissue with a gradient of its own."""
    from scipy.ndimage import gaussian_filter

    from MedDiffFMLib.tasks.compare.change import noise_of

    noise = np.random.default_rng(1).normal(0, 20, (24, 48, 48))
    slope = np.linspace(-30, 30, 48)
    white = Volume(noise + slope, np.diag([-1.0, -1.0, 2.0, 1.0]))
    assert noise_of(white, "earlier").correlation == pytest.approx((0, 0, 0), abs=0.1)
    smooth = gaussian_filter(noise, (0, 0.7, 0.7))
    expected = float(np.corrcoef(smooth[:, :, 1:].ravel(), smooth[:, :, :-1].ravel())[0, 1])
    found = noise_of(Volume(5 * smooth + slope, white.ijk_to_ras), "earlier").correlation
    assert found[0] == pytest.approx(0, abs=0.1) and found[1:] == pytest.approx((expected, expected), abs=0.15)
