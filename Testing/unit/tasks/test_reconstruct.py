"""CT from X-rays as a task: files of radiograph through the command line, plain pictures, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import MedDiffFMLib as mdf
from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.grid import Grid
from MedDiffFMLib.multimodal.xray_consistency import shadow_of
from MedDiffFMLib.multimodal.xray_pose import beam_of, binned
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.worker.exchange import RunRequest
from MedDiffFMLib.worker.transport import WorkerClient

WIDE, DEEP, HIGH = 150, 100, 130
MM = 5.0


@pytest.fixture(scope="module")
def body() -> mdf.Volume:
    """An elliptic trunk with two lungs and a spine; HU."""
    shape = (2 * HIGH // 5, 2 * DEEP // 5 + 8, 2 * WIDE // 5 + 8)
    k, j, i = (np.indices(shape).T - (np.array(shape) - 1) / 2).T * MM
    voxels = np.full(shape, -1000, np.int16)
    voxels[(i / WIDE) ** 2 + (j / DEEP) ** 2 < 1] = 20
    for side in (-65, 65):
        voxels[((i - side) / 50) ** 2 + ((j + 5) / 65) ** 2 + (k / 110) ** 2 < 1] = -850
    voxels[(i / 20) ** 2 + ((j - 65) / 20) ** 2 < 1] = 300
    matrix = np.diag([-MM, -MM, MM, 1.0])
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return mdf.Volume(voxels, matrix)


@pytest.fixture(scope="module")
def files(body: mdf.Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``trunk_radiograph.nrrd``, ``trunk_radiograph_lat.nrrd`` and their pictures."""
    folder = tmp_path_factory.mktemp("xrays")
    mdf.write_volume(body, folder / "trunk.nrrd")
    given = ["radiograph", str(folder / "trunk.nrrd"), "-o", str(folder), "--views", "ap,lat", "--pixels", "128"]
    assert main([*given, "--device", "cpu"]) == 0
    return folder


def run(folder: Path, *more: str) -> int:
    fast = ["--draws", "2", "--no-detail", "--spacing", "8", "--device", "cpu", "--threads", "1", "--overwrite"]
    return main(["reconstruct", *more, "-o", str(folder), *fast])


@pytest.mark.slow
def test_projections_of_the_ct_are_the_xrays(files: Path, body: mdf.Volume, tmp_path: Path) -> None:
    ap, lat = files / "trunk_radiograph.nrrd", files / "trunk_radiograph_lat.nrrd"
    assert run(tmp_path, str(ap), "--second", str(lat)) == 0
    report = json.loads((tmp_path / "trunk_radiograph_reconstruct.json").read_text())
    views = report["facts"]["views"]
    assert list(views) == ["residual", "residual_second"]
    assert all(view["missed_percent"] < 0.5 for view in views.values())
    found = mdf.read_volume(tmp_path / "trunk_radiograph_reconstruct.nrrd")
    assert found.synthetic
    lacking = mdf.read_volume(tmp_path / "trunk_radiograph_reconstruct_residual_second.nrrd", "XR")
    assert lacking.same_geometry(mdf.read_volume(lat, "XR"))
    # what was written casts the X-ray, too, where its ends do not matter
    picture = mdf.read_volume(lat, "XR")
    beam = beam_of(picture, picture.beam_source)
    written = torch.from_numpy(found.voxels.astype(np.float32) / 1000)
    whole = shadow_of(written, Grid(written.shape, found.ijk_to_ras), beam).numpy()
    cast, measured = (binned(beam, pixels, 8.0)[1] for pixels in (whole, picture.voxels[0]))
    rows = slice(len(cast) // 4, 3 * len(cast) // 4)
    assert np.linalg.norm((cast - measured)[rows]) < 0.02 * np.linalg.norm(measured[rows])
    # lungs lie where they are, on either side of the middle
    i = np.rint(np.linalg.inv(found.ijk_to_ras) @ [65, 5, 0, 1]).astype(int)
    other = np.rint(np.linalg.inv(found.ijk_to_ras) @ [0, 70, 0, 1]).astype(int)
    assert found.voxels[i[2], i[1], i[0]] < found.voxels[other[2], other[1], other[0]] - 300


@pytest.mark.slow
def test_a_plain_picture_is_marked_as_not_validated(files: Path, tmp_path: Path) -> None:
    picture = str(files / "trunk_radiograph.png")
    assert run(tmp_path, picture, "--views", "ap", "--pixels", "picture") == 0
    report = json.loads((tmp_path / "trunk_radiograph_reconstruct.json").read_text())
    assert sum("not validated" in warning for warning in report["warnings"]) == 2
    assert any("depth open" in warning for warning in report["warnings"])


def test_pose_travels_in_the_header(files: Path) -> None:
    read = mdf.read_volume(files / "trunk_radiograph.nrrd", "XR")
    report = json.loads((files / "trunk_radiograph.json").read_text())
    assert read.beam_source == tuple(report["facts"]["views"]["radiograph"]["source_ras_mm"])


def test_an_xray_without_a_pose_is_refused(files: Path) -> None:
    picture = replace(mdf.read_volume(files / "trunk_radiograph.nrrd", "XR"), beam_source=None)
    with pytest.raises(InputError, match="X-ray 1 says nothing about where its source stood"):
        mdf.reconstruct(picture)


def test_a_named_view_is_needed_for_each_xray(files: Path) -> None:
    picture = mdf.read_volume(files / "trunk_radiograph.nrrd", "XR")
    with pytest.raises(InputError, match="2 X-rays are given and 1 views named"):
        mdf.reconstruct(picture, second=picture, views="ap")


@pytest.mark.slow
def test_pose_travels_to_the_worker(files: Path) -> None:
    """Arrays go there without a header; the worker gives the same voxels as a run here."""
    ap = mdf.read_volume(files / "trunk_radiograph.nrrd", "XR")
    lat = mdf.read_volume(files / "trunk_radiograph_lat.nrrd", "XR")
    few = {"draws": 2, "detail": False, "spacing": 10.0}
    here = mdf.reconstruct(ap, second=lat, **few)  # type: ignore[arg-type]
    assert ap.beam_source is not None and lat.beam_source is not None
    request = RunRequest(
        RunSettings("reconstruct", few, device="cpu"),
        ap.voxels,
        ap.ijk_to_ras,
        scans={"second": (lat.voxels, lat.ijk_to_ras)},
        beams={"volume": ap.beam_source, "second": lat.beam_source},
    )
    with WorkerClient() as worker:
        there = worker.run(request)
    assert np.array_equal(there.volumes["ct"], here.volumes["ct"].voxels)
