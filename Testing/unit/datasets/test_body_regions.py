"""A whole body is cut into regions, and each window is told the region that it was cut from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.conditioning.regions import REGIONS
from MedDiffFMLib.datasets.body_regions import body_parts
from MedDiffFMLib.datasets.prepared_cases import Case, open_cases
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.training.batches import TrainingWindows
from MedDiffFMLib.training.windows import WHOLE_BODY_SHARE, WindowConfig
from Testing.unit.phantoms import WHOLE_BODY_PARTS_MM, body, whole_body

SPACING = np.full(3, 5.0)


def extents(parts: list) -> dict[str, tuple[float, float]]:
    """Lower and upper edge of each part in mm."""
    return {part.region: (5.0 * part.first, 5.0 * (part.last + 1)) for part in parts}


def test_landmarks_are_found_in_the_image() -> None:
    voxels = whole_body().voxels
    found = extents(body_parts(voxels, SPACING, body_mask(voxels)))
    assert list(found) == list(WHOLE_BODY_PARTS_MM), "from top to bottom"
    for region, edges in WHOLE_BODY_PARTS_MM.items():
        np.testing.assert_allclose(found[region], edges, atol=10, err_msg=region)


def test_labels_decide_where_they_are_given() -> None:
    """Lungs and hips where TotalSegmentator saw them, in slices where the image alone would see neither."""
    voxels = whole_body().voxels
    mask = body_mask(voxels)
    labels = np.where(mask, 5, 0).astype(np.uint8)
    labels[130:160][mask[130:160]] = 12
    labels[30:70, 10:14, 10:14], labels[35:80, 10:14, 50:54] = 77, 78
    found = extents(body_parts(voxels, SPACING, mask, labels))
    assert found == {"head-neck": (800, 1050), "chest": (650, 800), "abdomen": (400, 650), "pelvis": (150, 400)}
    # Labels of the body alone show no organs: the image decides.
    assert body_parts(voxels, SPACING, mask, np.where(mask, 118, 0)) == body_parts(voxels, SPACING, mask)


def test_what_is_not_there_is_no_part() -> None:
    voxels = whole_body().voxels
    mask = body_mask(voxels)

    def cut(low: float, high: float) -> dict[str, tuple[float, float]]:
        box = slice(round(low / 5), round(high / 5))
        return extents(body_parts(voxels[box], SPACING, mask[box]))

    assert list(cut(600, 880)) == ["chest"], "40 mm of the neck are too little"
    assert list(cut(430, 1050)) == ["head-neck", "chest", "abdomen"], "ends above the hip bones"
    assert cut(430, 1050)["abdomen"] == pytest.approx((0, 170), abs=10)
    assert cut(0, 600) == {}, "without lungs nothing tells where an abdomen ends"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The body as `prepare` leaves it, with a short one beside it."""
    folder = tmp_path_factory.mktemp("bodies")
    write_volume(whole_body(), folder / "long.nrrd")
    write_volume(body(), folder / "short.nrrd")
    (folder / "datalist.json").write_text(json.dumps({"training": ["long.nrrd", "short.nrrd"]}))
    for _ in range(2):  # the second time as kept
        assert main(["prepare", str(folder / "datalist.json"), "-o", str(folder / "cache"), "--quiet"]) == 0
    long, short = open_cases(folder / "cache", "training")
    assert short.parts == ()
    return long


@pytest.mark.slow
def test_prepare_cuts_a_whole_body(case: Case) -> None:
    assert case.region == "whole-body" and [part.region for part in case.parts] == list(WHOLE_BODY_PARTS_MM)
    for part in case.parts:
        assert part.levels == case.levels, "no voxel is stored twice"
        low, high = part.body_box
        np.testing.assert_allclose((low[0] + 2.5, high[0] + 2.5), WHOLE_BODY_PARTS_MM[part.region], atol=10)
    widths = {part.region: part.body_box[1][2] - part.body_box[0][2] for part in case.parts}
    assert widths["head-neck"] < 0.7 * widths["abdomen"] or widths["head-neck"] == pytest.approx(
        widths["chest"], abs=10
    )


@pytest.mark.slow
def test_each_window_is_told_the_region_it_lies_in(case: Case) -> None:
    """And its position in the box of that region, as in a CT of that region alone; the whole body stays a class."""
    config = WindowConfig(size=8, drop_region=0.0, drop_position=0.0, fill_share=0.0, denoise_share=0.3)
    windows = TrainingWindows([case], config, seed=0, first=0, count=300)
    seen = dict.fromkeys(REGIONS, 0)
    for sample in (windows[n] for n in range(len(windows))):
        region = REGIONS[sample["region"]]
        seen[region] += 1
        low, high = next((part.body_box for part in case.parts if part.region == region), case.body_box)
        middle = low[0] + (sample["coordinates"][0].mean() + 1) / 2 * (high[0] - low[0])
        margin = 0.05 * (high[0] - low[0])  # windows reach a little over the box
        assert low[0] - margin <= middle <= high[0] + margin
        tissue = sample["voxels"]
        if region == "chest" and sample["level"] == "whole":
            assert (tissue < -600).mean() > 0.1, "lungs"
    share = seen.pop("whole-body") / 300
    assert abs(share - WHOLE_BODY_SHARE) < 4 * (WHOLE_BODY_SHARE * (1 - WHOLE_BODY_SHARE) / 300) ** 0.5
    assert min(seen.values()) > 20
