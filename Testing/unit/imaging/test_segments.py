"""Masks with several labels, Slicer's segmentations among them; masks that lie off by rounding."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.datasets.dataset_folder import check_label_map
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.segments import chosen
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.case import CaseFiles, LoadedCase, load_case
from MedDiffFMLib.runner.case_search import find_cases

NAMES = ("nodule", "lung", "Lung vessels")


def _boxes(shape: tuple[int, int, int]) -> list[np.ndarray]:
    """Three structures: the first lies within the second, the third apart."""
    boxes = [np.zeros(shape, bool) for _ in NAMES]
    boxes[0][12:14, 20:24, 12:16] = boxes[1][10:20, 15:30, 8:20] = boxes[2][22:26, 20:24, 26:30] = True
    return boxes


def _segmentation(path: Path, ct: Volume, layers: list[np.ndarray], rows: list[tuple[int, int] | None]) -> Path:
    """As 3D Slicer writes it: value and layer of each segment; none as it did before 4.11."""
    stored = np.stack(layers, axis=-1)
    axes = (np.diag([-1.0, -1.0, 1.0]) @ ct.ijk_to_ras[:3, :3]).T
    header = {
        "space": "left-posterior-superior", "space origin": np.diag([-1.0, -1.0, 1.0]) @ ct.ijk_to_ras[:3, 3],
        "kinds": ["list", "domain", "domain", "domain"], "encoding": "gzip",
        "space directions": np.vstack([np.full(3, np.nan), axes]),
    }  # fmt: skip
    if stored.shape[-1] == 1:
        stored, header["kinds"], header["space directions"] = stored[..., 0], ["domain"] * 3, axes
    for place, (name, row) in enumerate(zip(NAMES, rows, strict=True)):
        header[f"Segment{place}_ID"], header[f"Segment{place}_Name"] = f"Segment_{place}", name
        if row is not None:
            header[f"Segment{place}_LabelValue"], header[f"Segment{place}_Layer"] = map(str, row)
    nrrd.write(str(path), stored.astype(np.uint8), header, index_order="C")
    return path


def _one_layer(path: Path, ct: Volume) -> Path:
    nodule, lung, vessels = _boxes(ct.voxels.shape)
    return _segmentation(path, ct, [nodule * 1 + (lung & ~nodule) * 2 + vessels * 5], [(1, 0), (2, 0), (5, 0)])


def _two_layers(path: Path, ct: Volume) -> Path:
    nodule, lung, vessels = _boxes(ct.voxels.shape)
    return _segmentation(path, ct, [nodule * 1 + vessels * 2, lung * 1], [(1, 0), (1, 1), (2, 0)])


def _old_layers(path: Path, ct: Volume) -> Path:
    return _segmentation(path, ct, [box * 1 for box in _boxes(ct.voxels.shape)], [None] * 3)


KINDS = {"one layer": _one_layer, "two layers": _two_layers, "one layer each": _old_layers}


def _loaded(ct_file: Path, mask: Path, label: str | None = None) -> LoadedCase:
    return load_case(CaseFiles(ct_file, mask, label=label), "inpaint")


@pytest.mark.parametrize("write", KINDS.values(), ids=KINDS)
def test_each_segment_can_be_chosen_by_its_name(write, small_ct: Volume, small_ct_file: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.seg.nrrd", small_ct)
    nodule, lung, vessels = _boxes(small_ct.voxels.shape)
    if write is _one_layer:
        lung = lung & ~nodule
    for name, box in zip(("NODULE", "lung", "Lung vessels"), (nodule, lung, vessels), strict=True):
        case = _loaded(small_ct_file, path, name)
        assert np.array_equal(case.mask, box) and "labels" not in " ".join(case.warnings), name
        assert case.records["mask"]["label"] == name
    whole = _loaded(small_ct_file, path)
    assert np.array_equal(whole.mask, nodule | lung | vessels)
    told = next(sentence for sentence in whole.warnings if "holds 3 labels" in sentence)
    assert all(name in told for name in NAMES) and "--label" in told


def test_numbers_choose_where_they_are_clear(small_ct: Volume, small_ct_file: Path, tmp_path: Path) -> None:
    path = _two_layers(tmp_path / "a.seg.nrrd", small_ct)
    assert np.array_equal(_loaded(small_ct_file, path, "2").mask, _boxes(small_ct.voxels.shape)[2])
    with pytest.raises(InputError, match=r"2 labels '1'. It holds 1 \(nodule\), 1 \(lung\), 2 \(Lung vessels\)"):
        _loaded(small_ct_file, path, "1")
    with pytest.raises(InputError, match="no label 'liver'"):
        _loaded(small_ct_file, path, "liver")
    plain = np.zeros((2, 2, 2), np.int16)
    plain[0, 0] = 7, 300
    assert chosen(plain, (), "300").sum() == 1
    with pytest.raises(InputError, match="It holds 7, 300"):
        chosen(plain, (), "8")


def test_overlapping_segments_are_no_label_map_to_learn_from(small_ct: Volume, tmp_path: Path) -> None:
    overlapping = read_volume(_two_layers(tmp_path / "a.seg.nrrd", small_ct), "mask")
    with pytest.raises(InputError, match="overlap"):
        check_label_map(overlapping, small_ct)
    apart = read_volume(_one_layer(tmp_path / "b.seg.nrrd", small_ct), "mask")
    assert set(np.unique(check_label_map(apart, small_ct).voxels)) == {0, 1, 2, 5}
    with pytest.raises(InputError, match="several channels"):
        read_volume(tmp_path / "a.seg.nrrd")  # as a CT


def test_list_names_the_label_of_each_case(small_ct: Volume, small_ct_file: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        f"input,mask,label\n{small_ct_file},m.nrrd,nodule\n{small_ct_file.parent},m.nrrd,\n"
    )
    assert [case.label for case in find_cases([tmp_path / "list.csv"], "inpaint", label="2")] == ["nodule", "2"]


def test_mask_may_lie_off_by_a_twentieth_of_a_voxel(
    small_ct: Volume, small_ct_file: Path, small_mask: Volume, tmp_path: Path
) -> None:
    for distance, words in ((0.0005, None), (0.1, "up to 0.1 mm off"), (0.2, None)):
        matrix = small_mask.ijk_to_ras.copy()
        matrix[1, 3] += distance
        path = tmp_path / f"{distance}.nrrd"
        write_volume(Volume(small_mask.voxels, matrix, "mask"), path)
        if distance > 0.05 * 3:
            with pytest.raises(InputError, match=r"lies elsewhere, up to 0.2 mm away"):
                _loaded(small_ct_file, path)
        else:
            case = _loaded(small_ct_file, path)
            assert np.array_equal(case.mask, small_mask.voxels > 0)
            assert [w for w in case.warnings if "off the image" in w] == ([] if words is None else [
                f"The mask lies {words} the image's voxels; it is taken to lie on them."
            ])  # fmt: skip
