"""Pictures hang as radiologists expect, detectors stand where views say, bodies are told from tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.framing import frame_body
from MedDiffFMLib.multimodal.names import BONE, DIGITAL, FILM, SOFT, parse_views
from MedDiffFMLib.multimodal.radiograph import Patient
from MedDiffFMLib.multimodal.views import Setup, View, aim, from_angles, from_camera

SAMPLE = Path(__file__).parents[3] / "Resources" / "SampleData" / "thorax_lidc0001.nrrd"
ALL_VIEWS = "pa,ap,lat,rlat,obl,lao30,rao30,cran20,caud20,lao30-cran20,rao45-caud15"
LEFT, ANTERIOR, HEAD = np.array([-1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])


def phantom(tilt: float = 0.0) -> Volume:
    """Upright body of 200 x 120 x 180 mm with a table behind it, cut off at both ends, 4 mm voxels (LPS axes)."""
    shape = (45, 60, 70)
    k, j, i = np.indices(shape)
    hounsfield = np.full(shape, -1000.0)
    hounsfield[((i - 34.5) / 25) ** 2 + ((j - 25) / 15) ** 2 < 1] = 40
    hounsfield[:, 46:48, 5:65] = 100
    matrix = np.diag([-4.0, -4.0, 4.0, 1.0])
    matrix[:3, 3] = [138, 100, -88]
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    return Volume(hounsfield.astype(np.int16), turn @ matrix)


def view(word: str) -> View:
    angles = parse_views(word)[0]
    assert angles is not None
    return from_angles(angles)


def moves(word: str, direction: np.ndarray) -> np.ndarray:
    """How many pixels (right, down) the shadow moves where a point moves by 10 mm."""
    beam, _ = aim(view(word), frame_body(phantom()), Setup(pixels=256))
    first, second = beam.shadows(np.array([[0.0, 0, 0], 10 * direction]))
    return second - first


@pytest.mark.parametrize("word", ["ap", "pa", "lao30", "rao30", "cran20", "rao45-caud15"])
def test_the_patients_left_is_on_the_pictures_right_and_the_head_is_up(word: str) -> None:
    assert moves(word, LEFT)[0] > 5
    assert moves(word, HEAD)[1] < -5


def test_lateral_views_hang_as_seen_from_the_detector() -> None:
    assert moves("lat", ANTERIOR)[0] < -5
    assert moves("rlat", ANTERIOR)[0] > 5
    assert moves("lat", HEAD)[1] < -5


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("pa", ANTERIOR),
        ("ap", -ANTERIOR),
        ("lat", LEFT),
        ("rlat", -LEFT),
        ("lao45", ANTERIOR + LEFT),
        ("rao45", ANTERIOR - LEFT),
        ("cran45", ANTERIOR + HEAD),
        ("caud45", ANTERIOR - HEAD),
    ],
)
def test_the_detector_stands_on_the_side_that_the_view_names(word: str, place: np.ndarray) -> None:
    frame = frame_body(phantom())
    beam, _ = aim(view(word), frame, Setup(source_distance=1200, gap=80))
    assert beam.normal == pytest.approx(place / np.linalg.norm(place), abs=1e-9)
    assert beam.depths(frame.outline).min() == pytest.approx(80)
    assert beam.source_depth == pytest.approx(1200)


def test_the_closer_to_the_detector_the_smaller_the_shadow() -> None:
    frame = frame_body(phantom())
    points = np.array([[0.0, 40, 0], [0.0, 40, 10.0]])  # close to the breast bone
    size = {}
    for word in ("ap", "pa"):
        beam, _ = aim(view(word), frame, Setup(source_distance=700, field=400))
        size[word] = np.linalg.norm(np.diff(beam.shadows(points), axis=0))
    assert size["ap"] > 1.1 * size["pa"]


def test_every_view_covers_the_body_and_leaves_out_cut_rays() -> None:
    frame = frame_body(phantom())
    assert [len(end) > 0 for end in frame.ends] == [True, True]
    for word in ALL_VIEWS.split(","):
        beam, complete = aim(view(word), frame, Setup(pixels=128))
        shadows = beam.shadows(frame.outline)
        _, rows, columns = beam.detector.shape
        assert max(rows, columns) == 128
        assert shadows[:, 0].min() > 0 and shadows[:, 0].max() < columns - 1
        corners = beam.frustum() - beam.source
        assert complete == (abs(beam.normal[2]) < 0.2)
        if complete:  # at the body's depth no ray leaves through an end
            for depth in (
                (beam.source_depth - beam.depths(frame.outline)).min(),
                (beam.source_depth - beam.depths(frame.outline)).max(),
            ):
                heights = (beam.source + corners * depth / beam.source_depth)[:, 2]
                assert heights.min() > -92 and heights.max() < 92


def test_a_camera_and_its_x_ray_see_the_same() -> None:
    eye, focus, up = (300.0, 700.0, 250.0), (5.0, -3.0, 8.0), (0.1, 0.0, 1.0)
    beam, _ = aim(from_camera(eye, focus, up), frame_body(phantom()), Setup(pixels=400))
    ahead = np.subtract(focus, eye) / np.linalg.norm(np.subtract(focus, eye))
    right = np.cross(ahead, up) / np.linalg.norm(np.cross(ahead, up))
    points = np.array([focus, (40.0, 20, 60), (-70.0, -30, -50)])
    sides = points - eye
    tangents = np.c_[sides @ right, -sides @ np.cross(right, ahead)] / (sides @ ahead)[:, None]
    pixel = np.linalg.norm(beam.detector.ijk_to_ras[:3, 0])
    shadows = beam.shadows(points) * pixel / beam.source_depth
    assert shadows - shadows[0] == pytest.approx(tangents - tangents[0], abs=1e-9)


@pytest.mark.parametrize(
    ("words", "setup", "cause"),
    [
        ("ap,front", {}, "no view 'front'"),
        ("", {}, "no view"),
        ("lat,lat", {}, "given twice"),
        ("cran85", {}, "too far"),
        ("ap", {"pixels": 2}, "2 pixels"),
        ("ap", {"source_distance": 150}, "inside the body"),
    ],
)
def test_what_no_x_ray_can_be_taken_with(words: str, setup: dict, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        parse_views(words)
        aim(view(words), frame_body(phantom()), Setup(**setup))


def test_a_camera_in_the_body_and_one_that_looks_nowhere() -> None:
    with pytest.raises(InputError, match="inside the body"):
        aim(from_camera((0, 10, 0), (0, 0, 0), (0, 0, 1)), frame_body(phantom()), Setup())
    with pytest.raises(InputError, match="no direction"):
        from_camera((0, 0, 500), (0, 0, 0), (0, 0, 1))


def test_the_table_is_left_out_and_two_legs_stay() -> None:
    volume = phantom()
    frame = frame_body(volume)
    assert not frame.body[:, 46:48].any()
    assert frame.body[volume.voxels == 40].all()
    assert frame_body(volume, keep_table=True).body.all()
    legs = phantom()
    legs.voxels[:, :, 30:40] = -1000
    assert frame_body(legs).body[legs.voxels == 40].all()


def test_air_alone_holds_no_body() -> None:
    volume = phantom()
    with pytest.raises(InputError, match="air alone"):
        frame_body(volume.with_voxels(np.full_like(volume.voxels, -1000)))


def test_an_oblique_scan_gives_the_same_picture() -> None:
    from scipy.ndimage import affine_transform

    straight = phantom()
    smooth = straight.with_voxels(straight.voxels.astype(np.float32))
    turned = phantom(tilt=0.3).ijk_to_ras
    there = (np.linalg.inv(smooth.ijk_to_ras) @ turned)[::-1][1:, :3][:, ::-1]
    shift = (np.linalg.inv(smooth.ijk_to_ras) @ turned)[2::-1, 3]
    oblique = Volume(affine_transform(smooth.voxels, there, shift, order=1, cval=-1000), turned)
    beam, _ = aim(view("obl"), frame_body(straight), Setup(pixels=96))
    first, second = (Patient(scan).areal_densities(beam)[0].numpy() for scan in (straight, oblique))
    middle = (slice(30, -30), slice(None))  # the turned scan has other ends
    assert np.corrcoef(first[middle].ravel(), second[middle].ravel())[0, 1] > 0.999


@pytest.mark.slow
def test_the_sample_chest_looks_like_a_chest() -> None:
    patient = Patient(read_volume(SAMPLE))
    ap = patient.radiograph(view("ap"), Setup(pixels=192), DIGITAL)
    rows, columns = ap.picture.pixels.shape
    heart = ap.picture.pixels[rows * 46 // 100 : rows * 58 // 100]
    spine = int(heart.mean(0).argmax())
    assert abs(spine - columns // 2) < 15
    assert heart[:, spine + 14 : spine + 44].mean() > 1.3 * heart[:, spine - 44 : spine - 14].mean()  # on the left
    assert ap.complete
    for look in (FILM, BONE, SOFT):
        picture = patient.radiograph(view("lat"), Setup(pixels=96), look).picture
        low, high = picture.window
        assert picture.pixels.dtype == np.float32 and np.isfinite(picture.pixels).all() and low < high
        assert ((picture.pixels > low) & (picture.pixels < high)).mean() > 0.02


def test_a_device_may_be_named() -> None:
    assert Patient(phantom(), device=torch.device("cpu")).materials.device.type == "cpu"
