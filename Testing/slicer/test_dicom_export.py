"""Export to DICOM from the panel: a folder of objects in the scan's own study, listed in Slicer's database."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest

from MedDiffFMLib.imaging.io import read_volume

pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")


class Database:
    """Slicer's DICOM database, as far as the module asks it."""

    def __init__(self) -> None:
        self.isOpen = True
        self.files: dict[str, str] = {}

    def fileForInstance(self, uid: str) -> str:  # noqa: N802
        return self.files.get(uid, "")

    def importDicom(self, folder: str) -> None:  # noqa: N802
        for file in Path(folder).rglob("*.dcm"):
            self.files[str(pydicom.dcmread(file).SOPInstanceUID)] = str(file)


@pytest.fixture
def database(app: Any, monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database()
    library = ModuleType("DICOMLib")
    library.DICOMUtils = SimpleNamespace(importDicom=made.importDicom)  # type: ignore[attr-defined]
    monkeypatch.setattr(app.slicer, "dicomDatabase", made, raising=False)
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    return made


def denoise(app: Any, widget: Any, ct: Any) -> Any:
    """A run of the fake worker, which halves the voxels."""
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    return app.slicer.util.getNode("thorax denoised")


def export(app: Any, widget: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Press the button; gives what the panel then says."""
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *words: str(folder))
    widget.ui.exportDicomButton.click()
    app.wait(lambda: not widget.dicomExport.busy)
    return widget.ui.exportDicomLabel.text


@pytest.mark.slow
def test_a_result_goes_into_a_folder_and_the_database(
    app: Any, widget: Any, ct: Any, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First from a volume without DICOM; then from what that export gave, so in the same study."""
    assert not widget.ui.exportDicomWidget.visible
    result = denoise(app, widget, ct)
    assert widget.ui.exportDicomWidget.visible
    said = export(app, widget, tmp_path, monkeypatch)
    folder = tmp_path / "thorax_denoise"
    assert str(folder) in said and "DICOM database" in said
    (source,), (made,) = folder.glob("*_source_CT"), folder.glob("*_denoised_CT")
    read = read_volume(made)
    expected = np.round(app.slicer.util.arrayFromVolume(result))
    assert sorted(read.voxels.ravel()) == sorted(expected.ravel()) and len(database.files) >= 40

    images = [pydicom.dcmread(file) for file in sorted(source.iterdir())]
    ct.SetAttribute("DICOM.instanceUIDs", " ".join(str(image.SOPInstanceUID) for image in images))
    other = tmp_path / "again"
    other.mkdir()
    export(app, widget, other, monkeypatch)
    (again,) = other.glob("thorax_denoise/*_denoised_CT")
    assert not list(other.glob("thorax_denoise/*_source_CT"))
    first = pydicom.dcmread(next(again.iterdir()))
    assert (first.StudyInstanceUID, first.FrameOfReferenceUID) == (
        images[0].StudyInstanceUID, images[0].FrameOfReferenceUID,
    )  # fmt: skip
    assert first.SourceImageSequence[0].ReferencedSOPInstanceUID in database.files

    moved = app.slicer.util.vtkMatrixFromArray(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 50)
    ct.ApplyTransformMatrix(moved)
    third = tmp_path / "moved"
    third.mkdir()
    export(app, widget, third, monkeypatch)
    assert list(third.glob("thorax_denoise/*_source_CT")), "a scan that was moved lies in another frame of reference"


@pytest.mark.slow
def test_what_cannot_be_exported_is_said(
    app: Any, widget: Any, ct: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise(app, widget, ct)
    (tmp_path / "thorax_denoise").mkdir()
    assert "exists already" in export(app, widget, tmp_path, monkeypatch)
    assert export(app, widget, "", monkeypatch) == widget.ui.exportDicomLabel.text  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "highdicom", None)
    (tmp_path / "thorax_denoise").rmdir()
    assert "pip_install('-U highdicom')" in export(app, widget, tmp_path, monkeypatch)
    monkeypatch.undo()
    app.slicer.mrmlScene.RemoveNode(ct)
    assert widget.ui.exportDicomWidget.isHidden()  # a result leaves the panel with its scan
    assert not list(tmp_path.glob("thorax_denoise*")) and not list(tmp_path.glob(".by-*"))


@pytest.mark.slow
def test_segments_go_as_they_were_edited(app: Any, module: Any, ct: Any, tmp_path: Path) -> None:
    """Names, colors and codes of the segments; one that the user deleted is not among them."""
    from MedDiffFMGui.nodes.dicomNodes import exportOf
    from MedDiffFMGui.nodes.resultNodes import addResult

    from MedDiffFMLib.dicom.out.export import written
    from MedDiffFMLib.worker.exchange import WorkerResult

    labels = np.zeros((20, 24, 28), np.uint8)
    labels[5:9, 5:9, 5:9], labels[12:15, 12:15, 12:15], labels[17] = 1, 2, 3
    liver = (
        "Segmentation category and type~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"
    )
    rows = [
        {"value": value, "name": name, "color": [9, 99, 199], "terminology": code, "volume_ml": 1.0, "uncertainty": 0.1}
        for value, name, code in ((1, "liver", liver), (2, "tumor", ""), (3, "table", ""))
    ]
    volumes = {"segmentation": labels, "uncertainty": np.zeros(labels.shape, np.float32)}
    result = WorkerResult(volumes, {}, {}, {"labels": rows}, [], {})
    run = addResult("segment", ct, result)
    segmentation = run.volumes["segmentation"].GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetSegmentIdBySegmentName("table"))
    with written(exportOf(run), tmp_path / "out"):
        pass
    (file,) = tmp_path.glob("out/*_SEG/*.dcm")
    made = pydicom.dcmread(file)
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == ["liver", "tumor"]
    assert made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"
    assert len(list(tmp_path.glob("out/*_RTSTRUCT"))) == len(list(tmp_path.glob("out/*_uncertainty_OT"))) == 1
