"""What is the input, what was kept, what is outdated: never ambiguous."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.harness import scenes
from Testing.slicer.paint import paint_ball


def run(app: Any, widget: Any, task: str, ct: Any) -> Any:
    """Run a task; gives the main node of its result."""
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose(task)
    app.qt.processEvents()
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    assert widget.ui.runStatusLabel.text.startswith("Done"), widget.ui.runStatusLabel.text
    return widget.resultPanel.run.main


def background(app: Any) -> Any:
    identifier = app.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID()
    return app.slicer.mrmlScene.GetNodeByID(identifier)


def results(widget: Any) -> list[str]:
    combo = widget.ui.resultsComboBox
    return [combo.itemText(index) for index in range(1, combo.count)]


@pytest.mark.slow
def test_what_is_kept_becomes_the_input_and_can_only_be_closed(app: Any, widget: Any, ct: Any) -> None:
    made = run(app, widget, "denoise", ct)
    assert results(widget) == ["thorax denoised (undecided)"]
    widget.ui.acceptButton.click()
    assert widget.logic.getParameterNode().inputVolume is made is background(app)
    assert "is the input now" in widget.ui.runStatusLabel.text
    assert results(widget) == ["thorax denoised (kept)"]
    widget.exit()
    widget.enter()
    widget.ui.resultsComboBox.currentIndex = 1
    assert widget.ui.discardButton.text == "Close" and not widget.ui.acceptButton.visible
    assert not widget.ui.removeResultButton.enabled
    widget.ui.discardButton.click()
    assert app.slicer.mrmlScene.IsNodePresent(made) and results(widget) == ["thorax denoised (kept)"]


@pytest.mark.slow
def test_several_results_are_listed_shown_again_and_removed(app: Any, widget: Any, ct: Any, tmp_path: Path) -> None:
    first = run(app, widget, "denoise", ct)
    widget.ui.seedSpinBox.value = 5
    second = run(app, widget, "denoise", ct)
    assert [text.split(" (")[0] for text in results(widget)] == [first.GetName(), second.GetName()]
    widget.ui.resultsComboBox.currentIndex = 1
    assert widget.resultPanel.run.main is first and widget.ui.resultTitleLabel.text == first.GetName()
    assert set(widget.resultPanel.run.volumes) == {"denoised", "noise"}
    widget.ui.removeResultButton.click()
    assert not app.slicer.mrmlScene.IsNodePresent(first) and len(results(widget)) == 1
    scenes.save(tmp_path / "scene.mrb")
    app.slicer.mrmlScene.Clear(0)
    assert not widget.ui.resultsWidget.visible
    scenes.load(tmp_path / "scene.mrb")
    app.wait(lambda: results(widget))
    widget.ui.resultsComboBox.currentIndex = 1
    assert widget.ui.blendWidget.visible


@pytest.mark.slow
def test_a_result_says_when_its_mask_or_its_ct_has_changed(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    paint_ball(app, widget, (10, 12, 14), 4.0)
    run(app, widget, "inpaint", ct)
    assert not widget.ui.outdatedLabel.visible
    widget.maskPanel.editor.undo()
    app.qt.processEvents()
    assert "mask has changed" in widget.ui.outdatedLabel.text and "outdated" in results(widget)[0]
    widget.ui.discardButton.click()
    run(app, widget, "denoise", ct)
    widget.ui.seedSpinBox.value = 3
    assert "not those of this result" in widget.ui.outdatedLabel.text
    widget.ui.seedSpinBox.value = 0
    assert not widget.ui.outdatedLabel.visible
    app.slicer.util.arrayFromVolume(ct)[0] = 7
    app.slicer.util.arrayFromVolumeModified(ct)
    assert "CT has changed" in widget.ui.outdatedLabel.text


@pytest.mark.slow
def test_views_and_results_follow_the_chosen_ct(app: Any, widget: Any, ct: Any) -> None:
    slicer = app.slicer
    other = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(ct).copy(), None, "other")
    made = run(app, widget, "denoise", ct)
    widget.ui.inputVolumeSelector.setCurrentNode(other)
    assert background(app) is other and widget.resultPanel.run is None and slicer.mrmlScene.IsNodePresent(made)
    slicer.util.setSliceViewerLayers(background=ct)
    assert widget.ui.showInputButton.visible and "show other" in widget.ui.showInputButton.text
    widget.ui.showInputButton.click()
    assert background(app) is other and not widget.ui.showInputButton.visible
    widget.ui.resultsComboBox.currentIndex = 1
    assert widget.resultPanel.run.main is made
    slicer.mrmlScene.RemoveNode(ct)
    assert widget.resultPanel.run is None and results(widget) == []
    assert background(app) is not made


@pytest.mark.slow
def test_the_first_volume_that_comes_is_taken(app: Any, widget: Any) -> None:
    app.slicer.mrmlScene.Clear(0)
    assert widget.logic.getParameterNode().inputVolume is None
    node = app.slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16), None, "first")
    app.qt.processEvents()
    assert widget.logic.getParameterNode().inputVolume is node


@pytest.mark.parametrize("moved", [False, True])
def test_any_segment_is_a_mask_and_masks_move_with_their_ct(app: Any, widget: Any, ct: Any, moved: bool) -> None:
    slicer = app.slicer
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "own")
    own.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    lesion = np.zeros(slicer.util.arrayFromVolume(ct).shape, np.uint8)
    lesion[8:12, 9:13, 10:15] = 1
    own.GetSegmentation().AddEmptySegment("lesion", "lesion")
    slicer.util.updateSegmentBinaryLabelmapFromArray(lesion, own, "lesion", ct)
    widget.taskPanel.choose("inpaint")
    mask = widget.logic.getParameterNode().mask
    if moved:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.eye(4) + 60 * np.eye(4, k=3)))
        for node in (ct, own):
            node.SetAndObserveTransformNodeID(transform.GetID())
        assert mask.GetTransformNodeID() == transform.GetID()
    widget.maskPanel._listSegments()
    (action,) = widget.maskPanel._menu.actions()
    assert action.text == "own: lesion"
    action.trigger()
    app.wait(lambda: widget.ui.runButton.enabled)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(mask, "region", ct) > 0, lesion > 0)
    widget.ui.clearMaskButton.click()
    app.qt.processEvents()
    assert not widget.ui.runButton.enabled
    widget.maskPanel.editor.undo()
    app.qt.processEvents()
    assert widget.ui.runButton.enabled


def test_a_shown_result_follows_its_ct_into_a_transform(app: Any, widget: Any, ct: Any) -> None:
    node = run(app, widget, "denoise", ct)
    transform = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    ct.SetAndObserveTransformNodeID(transform.GetID())
    assert node.GetTransformNodeID() == transform.GetID()
    widget.resultPanel.clear()
    ct.SetAndObserveTransformNodeID(None)
    assert node.GetTransformNodeID() == transform.GetID()  # no longer shown, and the user's to move
