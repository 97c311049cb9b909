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


def finished(app: Any, task: str, node: Any, parameters: dict[str, Any]) -> Any:
    """A result of a task, as it comes back from the worker, with a report of these parameters."""
    from MedDiffFMGui.nodes.resultNodes import addResult

    from MedDiffFMLib.tasks.output_kinds import OutputKind
    from MedDiffFMLib.tasks.registry import TASKS
    from MedDiffFMLib.worker.exchange import WorkerResult

    shape = app.slicer.util.arrayFromVolume(node).shape
    image, marks = np.full(shape, 40, np.int16), np.zeros(shape, np.uint8)
    marks[shape[0] // 3 :, 4:18, 4:18] = 1
    kinds = {output.name: output.kind for output in TASKS[task].outputs}
    made = {OutputKind.CT: image, OutputKind.LABELS: marks}
    name, kind = next((name, kind) for name, kind in kinds.items() if kind in made)
    labels = [
        {"value": 1, "name": "body", "color": [9, 99, 199], "terminology": "", "volume_ml": 1.0, "uncertainty": None}
    ]
    row = dict.fromkeys(("number", "sentence", "fact", "value", "unit", "certainty", "evidence"), 1)
    tables = {"facts": [{**row, "r_mm": 0.0, "a_mm": 0.0, "s_mm": 0.0}]} if task == "describe" else {}
    texts = {"description": "Estimated: it weighs 1 kg."} if task == "describe" else {}
    report = {"settings": {"task": task, "parameters": parameters}}
    return addResult(task, node, WorkerResult({name: made[kind]}, tables, texts, {"labels": labels}, [], report))


@pytest.mark.parametrize(
    "task, parameters, expected",
    [
        ("describe", {"modality": "mr"}, {"MR", "SEG", "RTSTRUCT", "SR"}),
        ("describe", {"modality": "ct"}, {"CT", "SEG", "RTSTRUCT", "SR"}),
        ("translate", {"to": "ct"}, {"MR", "CT"}),
        ("denoise", {"a parameter of another version": 1}, {"CT"}),
    ],
)
def test_a_scan_is_exported_as_what_it_is(
    app: Any, module: Any, ct: Any, tmp_path: Path, task: str, parameters: dict[str, Any], expected: set[str]
) -> None:
    """An MR as MR images, whose signal a reader gets back; what is made of it as what that is."""
    from MedDiffFMGui.nodes.dicomNodes import exportOf

    from MedDiffFMLib.dicom.out.export import written

    signal = app.slicer.util.arrayFromVolume(ct)
    signal += 1024  # an MR's is not negative
    with written(exportOf(finished(app, task, ct, parameters)), tmp_path / "out"):
        pass
    files = [pydicom.dcmread(file) for file in tmp_path.glob("out/*/*.dcm")]
    assert {file.Modality for file in files} == expected
    sources = [pydicom.dcmread(file) for file in tmp_path.glob("out/*_source_*/*.dcm")]
    modality = "MR" if "MR" in expected else "CT"
    classes = {"MR": "1.2.840.10008.5.1.4.1.1.4", "CT": "1.2.840.10008.5.1.4.1.1.2"}
    assert len(sources) == 20 and {file.Modality for file in sources} == {modality}
    assert {str(file.SOPClassUID) for file in sources} == {classes[modality]}
    assert {file.RescaleType for file in sources} == {"US" if modality == "MR" else "HU"}
    (folder,) = tmp_path.glob("out/*_source_*")
    read = read_volume(folder, modality=modality)
    assert read.modality == modality and sorted(read.voxels.ravel()) == sorted(signal.ravel())
    procedure = {"MR": "Magnetic resonance imaging", "CT": "Computed tomography"}
    tables = [str(file) for file in files if file.Modality == "SR" and "Procedure reported" in str(file)]
    assert len(tables) == (task == "describe") and all(procedure[modality] in table for table in tables)
    assert all(file.FrameOfReferenceUID == sources[0].FrameOfReferenceUID for file in files if "PixelData" in file)


def test_an_xray_that_was_described_is_exported_as_no_ct(app: Any, module: Any, tmp_path: Path) -> None:
    from MedDiffFMGui.nodes.dicomNodes import exportOf

    from MedDiffFMLib.dicom.out.export import written

    node = app.slicer.util.addVolumeFromArray(np.ones((1, 24, 28), np.float32), np.diag([-2.0, -2, 1, 1]), "ap")
    with written(exportOf(finished(app, "describe", node, {"modality": "xray"})), tmp_path / "out"):
        pass
    files = [pydicom.dcmread(file) for file in tmp_path.glob("out/*/*.dcm")]
    assert {file.Modality for file in files} == {"OT", "SR"}
    picture = next(file for file in files if file.Modality == "OT")
    assert (picture.Rows, picture.Columns) == (24, 28) and "DerivationCodeSequence" not in picture
    reports = [file for file in files if file.Modality == "SR"]
    cited = reports[0].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert cited.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == picture.SOPInstanceUID
    assert "Plain radiography" in str(reports)
