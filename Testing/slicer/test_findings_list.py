"""The list of findings as a radiologist uses it: few, placed in words, decided about, and led on to the next step."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.tasks.anomaly.findings import list_findings

PEAKS = 14
SHAPE = (40, 60, 60)


@pytest.fixture
def case(app: Any, module: Any) -> SimpleNamespace:
    """A CT and a map of it with 14 cubes of falling peak; the highest lies on the first slice."""
    from MedDiffFMGui.nodes.finishedRun import FinishedRun
    from MedDiffFMGui.nodes.volumeNodes import addResultNode, volumeFromNode

    score = np.zeros(SHAPE, np.float32)
    places = [(8 + 20 * (n // 7), 10 + 14 * (n % 7 // 2), 12 + 25 * (n % 2)) for n in range(PEAKS)]
    places[0] = (0, 30, 50)
    for n, (k, j, i) in enumerate(places):
        score[k : k + 3, j : j + 4, i : i + 8] = 20 - n
    toRAS = np.diag([-1.0, -1.0, 2.0, 1.0])
    toRAS[:3, 3] = 30, 30, -100
    ct = app.slicer.util.addVolumeFromArray(np.where(score > 0, 40, -900).astype(np.int16), toRAS, "thorax")
    report = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "report")
    settings = {"settings": {"parameters": {"threshold": 3.0, "minimum_volume": 0.0, "at_most": 10}}}
    volumes = {"anomaly": addResultNode(score, ct, "thorax anomaly", False)}
    rows = list_findings(score, volumeFromNode(ct), 3.0, 0.0, at_most=10)
    tables = {"findings": [row | {"reason": f"reason {row['number']}"} for row in rows]}
    return SimpleNamespace(ct=ct, score=score, run=FinishedRun("anomaly", ct, volumes, settings, report, tables))


@pytest.fixture
def opened(app: Any, widget: Any, case: SimpleNamespace) -> Iterator[Any]:
    widget.ui.inputVolumeSelector.setCurrentNode(case.ct)
    app.slicer.util.setSliceViewerLayers(background=case.ct, fit=True)
    widget.resultPanel.show(case.run)
    app.wait(lambda: "above" in widget.anomalyView.ui.findingsLabel.text)
    yield widget.anomalyView
    widget.resultPanel.clear()


def hidden(view: Any) -> list[int]:
    table = view.ui.findingsTableView._target
    return [row for row in range(table.model().rowCount()) if table.isRowHidden(row)]


def drawn(app: Any, view: Any) -> tuple[set[str], set[str]]:
    """Segments and numbers that are in the views."""
    display = view.nodes.node("regions").GetDisplayNode()
    segments = view.nodes.node("regions").GetSegmentation().GetSegmentIDs()
    numbers = view.nodes.node("numbers")
    labels = {numbers.GetNthControlPointLabel(n) for n in range(numbers.GetNumberOfControlPoints())}
    return {name for name in segments if display.GetSegmentVisibility(name)}, labels


@pytest.mark.slow
def test_another_threshold_draws_the_3d_view_once(app: Any, opened: Any) -> None:
    view = app.slicer.app.layoutManager().threeDWidget(0).threeDView()._target
    app.wait(lambda: view.render_pauses == 0 and opened._body.shown)
    before = view.draws_after_pauses
    opened.ui.anomalyThresholdSlider.value = 4.0
    app.wait(lambda: "z 4.0" in opened.ui.findingsLabel.text and view.render_pauses == 0)
    assert view.draws_after_pauses == before + 1


@pytest.mark.slow
def test_slices_show_a_finding_before_the_3d_view_is_drawn(app: Any, opened: Any) -> None:
    view = app.slicer.app.layoutManager().threeDWidget(0).threeDView()._target
    app.wait(lambda: view.render_pauses == 0)
    for row in (3, 4):
        opened.ui.findingsTableView.selectRow(row)
        assert view.render_pauses == 1  # one draw for both
    red = app.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    assert red.GetSliceOffset() == pytest.approx(opened.nodes.location(4)[2], abs=1.0)
    app.wait(lambda: view.render_pauses == 0)


@pytest.mark.slow
def test_sides_are_those_of_the_body(app: Any, module: Any) -> None:
    from MedDiffFMGui.nodes.findingList import SlicePlace

    body = np.full((4, 100, 100), -1000, np.int16)
    body[:, 20:80, 40:100] = 40  # (k, j, i), 10 mm voxels, off the middle of the scan
    ct = app.slicer.util.addVolumeFromArray(body, np.diag([-10.0, -10.0, 10.0, 1.0]), "off the middle")
    place = SlicePlace(ct)

    def words(i: int, j: int) -> str:
        return place.words({"where": "", "r_mm": -10.0 * i, "a_mm": -10.0 * j})

    assert [words(i, 50) for i in (55, 69, 80)] == ["right central", "middle central", "left central"]
    assert [words(80, j) for j in (25, 75)] == ["left anterior", "left posterior"]


@pytest.mark.slow
def test_few_are_seen_border_artifacts_are_last_and_places_are_words(app: Any, opened: Any) -> None:
    findings = opened.nodes.findings()
    assert [finding["peak_z"] for finding in findings] == [*(20.0 - n for n in range(1, PEAKS)), 20.0]
    assert [finding["state"] for finding in findings] == [""] * 13 + ["border"]
    assert hidden(opened) == list(range(10, PEAKS))
    few = {str(number) for number in range(1, 11)}
    assert drawn(app, opened) == (few, few)
    table = opened.ui.findingsTableView
    assert sum(table.columnWidth(column) for column in range(6)) == table.viewport().width, "no room is left white"
    table.selectRow(0)
    text = opened.ui.findingLabel.text
    assert text == "Slice 10 of 40, left anterior. 0.19 ml, peak z 19.0, mean 40 HU. Reason: reason 2."
    opened.ui.allFindingsCheckBox.click()
    assert hidden(opened) == [] and len(drawn(app, opened)[0]) == PEAKS
    opened.ui.findingsTableView.selectRow(PEAKS - 1)
    assert "border" in opened.ui.findingLabel.text


@pytest.mark.slow
def test_decisions_hide_come_back_outlive_the_threshold_and_are_in_the_file(
    app: Any, opened: Any, tmp_path: Path
) -> None:
    opened.ui.findingsTableView.selectRow(1)
    opened.ui.dismissFindingButton.click()
    assert hidden(opened) == [1, 11, 12, 13] and "2" not in drawn(app, opened)[0]
    opened.ui.undoDecisionButton.click()
    assert hidden(opened) == [10, 11, 12, 13] and not opened.ui.undoDecisionButton.enabled
    opened.ui.findingsTableView.selectRow(2)
    opened.ui.keepFindingButton.click()
    opened.ui.commentLineEdit.text = "nodule, new"
    opened.ui.commentLineEdit._target.editingFinished.emit()
    opened.ui.anomalyThresholdSlider.value = 12.0
    app.wait(lambda: "z 12.0" in opened.ui.findingsLabel.text)
    opened.findings.export(str(tmp_path / "findings.csv"))
    with open(tmp_path / "findings.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["state"], row["comment"]) for row in rows if row["state"] == "kept"] == [("kept", "nodule, new")]
    assert rows[2]["state"] == "kept" and rows[2]["slice"] == "10"
    assert [row["reason"] for row in rows[:3]] == ["reason 2", "reason 3", "reason 4"]


@pytest.mark.slow
def test_a_hundred_is_said_to_be_the_end_of_the_list(app: Any, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedDiffFMLib.tasks.anomaly import findings

    monkeypatch.setattr(findings, "MAXIMUM_ROWS", PEAKS)
    opened.findAgain()
    app.wait(lambda: "or more" in opened.ui.findingsLabel.text)


@pytest.mark.slow
def test_from_a_finding_to_filling_segment_and_length(
    app: Any, widget: Any, opened: Any, case: SimpleNamespace
) -> None:
    slicer = app.slicer
    opened.ui.findingsTableView.selectRow(0)
    cube = case.score == 19
    opened.ui.measureFindingButton.click()
    (line,) = slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")
    assert line.GetLineLengthWorld() == pytest.approx(np.hypot(7, 3), abs=0.1)  # between voxel centers
    opened.ui.segmentFindingButton.click()
    own = slicer.util.getNode("thorax segmented findings")
    (segment,) = own.GetSegmentation().GetSegmentIDs()
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(own, segment, case.ct) > 0, cube)
    opened.ui.fillFindingButton.click()
    app.wait(lambda: widget.ui.runButton.enabled)
    mask = widget.logic.getParameterNode().mask
    assert widget.taskPanel.task == "inpaint"
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(mask, "region", case.ct) > 0, cube)


@pytest.mark.slow
def test_one_view_has_the_legend_and_windows_are_a_click(
    app: Any, widget: Any, opened: Any, case: SimpleNamespace
) -> None:
    legend = app.slicer.modules.colors.logic().GetColorLegendDisplayNode(case.run.volumes["anomaly"])
    assert legend.IsDisplayableInView("vtkMRMLSliceNodeRed") and not legend.IsDisplayableInView("vtkMRMLSliceNodeGreen")
    widget.ui.lungWindowButton.click()
    assert (case.ct.GetDisplayNode().GetWindow(), case.ct.GetDisplayNode().GetLevel()) == (1400, -500)
    assert case.run.volumes["anomaly"].GetDisplayNode().GetWindow() == 10
