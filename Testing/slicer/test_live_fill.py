"""Filling while painting: each stroke is filled, and undo takes stroke and filling back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from Testing.slicer.paint import paint_ball


def filled(app: Any) -> list[Any]:
    nodes = app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in nodes if "filled" in node.GetName()]


def reports(app: Any) -> list[Any]:
    nodes = app.slicer.util.getNodesByClass("vtkMRMLTextNode")
    return [node for node in nodes if node.GetName().endswith("report")]


def recorded(widget: Any) -> list[str]:
    """Texture of each run that is started from now on; a draft has none."""
    starts: list[str] = []
    begin = widget.logic.start

    def start(choices: Any, *node: Any) -> None:
        starts.append(choices.settings.checked().parameters.texture)
        begin(choices, *node)

    widget.logic.start = start
    return starts


@pytest.mark.slow
def test_strokes_are_filled_by_themselves_and_undone_together(app: Any, widget: Any, ct: Any) -> None:
    starts = recorded(widget)
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    assert not widget.ui.liveCheckBox.isHidden()
    widget.ui.liveCheckBox.checked = True
    paint_ball(app, widget, (10, 12, 14), 4.0)
    app.wait(lambda: starts == ["none", "scan"] and not widget.logic.running)  # the whole run replaces the draft
    (first,) = filled(app)
    image = first.GetImageData()
    paint_ball(app, widget, (10, 10, 10), 4.0)
    app.wait(lambda: starts == 2 * ["none", "scan"] and not widget.logic.running)
    assert filled(app) == [first] and first.GetName() == "thorax filled", "windows and places in the views are lost"
    run = widget.resultPanel.run
    assert run.main is first and first.GetImageData() is not image and not widget.ui.outdatedLabel.visible
    assert json.loads(first.GetAttribute("MedDiffFM.Facts")) == run.facts and len(reports(app)) == 1
    widget.maskPanel.editor.undo()
    app.wait(lambda: len(starts) == 6 and not widget.logic.running)
    widget.maskPanel.editor.undo()
    app.wait(lambda: not filled(app))
    assert widget.resultPanel.run is None and not widget.logic.running


@pytest.mark.slow
def test_a_stroke_ends_the_run_that_replaces_a_draft_and_accepting_does(app: Any, widget: Any, ct: Any) -> None:
    starts = recorded(widget)
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    widget.ui.liveCheckBox.checked = True
    paint_ball(app, widget, (10, 12, 14), 4.0)
    app.wait(lambda: starts == ["none", "scan"] and widget.logic.running)
    paint_ball(app, widget, (10, 10, 10), 4.0)
    app.wait(lambda: starts == 2 * ["none", "scan"] and widget.logic.running)
    draft = filled(app)[0]
    widget.ui.acceptButton.click()
    app.wait(lambda: not widget.logic.running)
    assert filled(app) == [draft] and len(starts) == 4
    assert widget.ui.runStatusLabel.text.startswith("Kept")


@pytest.mark.slow
def test_without_live_nothing_runs_and_other_tasks_have_none(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    paint_ball(app, widget, (10, 12, 14), 4.0)
    app.qt.processEvents()
    assert not widget.liveRun._timer.isActive() and not widget.logic.running
    widget.taskPanel.choose("generate_lesion")
    assert widget.ui.liveCheckBox.isHidden()
