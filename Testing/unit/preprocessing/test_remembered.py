"""What is known of a scan is not found out again, and never taken for another scan's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.preprocessing.body_coordinates import turned_around
from MedDiffFMLib.preprocessing.body_localization import localize_body
from MedDiffFMLib.preprocessing.remembered import KEPT, remembering


def test_a_scan_is_looked_at_once_and_any_other_again() -> None:
    looked: list[Volume] = []

    @remembering
    def look(volume: Volume) -> int:
        looked.append(volume)
        return len(looked)

    scan = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([-1.0, -1.0, 2.0, 1.0]))
    again = scan.with_voxels(np.asfortranarray(scan.voxels.copy()))
    assert look(scan) == look(again) == 1  # the same numbers, however they are stored
    edited = scan.voxels.copy()
    edited[1, 2, 3] += 1
    moved = scan.ijk_to_ras.copy()
    moved[2, 3] = 0.5
    others = [
        scan.with_voxels(edited),
        replace(scan, ijk_to_ras=moved),
        scan.with_voxels(scan.voxels.astype(np.int32)),
        replace(scan, modality="MR"),
    ]
    assert [look(other) for other in others] == [2, 3, 4, 5]
    assert len(others) >= KEPT and look(scan) == 6, "scans of before are kept for ever"


def test_an_edited_scan_is_judged_anew() -> None:
    """A scan that is turned in place, as its user mends it, is warned of no more; its body box follows."""
    scan = read_volume(Path(__file__).parents[3] / "Resources" / "SampleData" / "thorax_lidc0001.nrrd")
    upside_down = scan.with_voxels(np.ascontiguousarray(scan.voxels[::-1]))
    assert turned_around(scan) == [] and turned_around(upside_down) != []
    voxels = upside_down.voxels
    before = localize_body(upside_down)
    voxels[:] = voxels[::-1].copy()
    assert turned_around(upside_down) == []
    voxels[: len(voxels) // 2] = -1024
    assert localize_body(upside_down).low[0] > before.low[0] + 20
