"""Filling while painting: each stroke is filled, and undo takes stroke and filling back."""

from __future__ import annotations

from typing import Any

import pytest

from Testing.slicer.paint import paint_ball


def filled(app: Any) -> list[Any]:
    nodes = app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in nodes if "filled" in node.GetName()]


@pytest.mark.slow
def test_strokes_are_filled_by_themselves_and_undone_together(app: Any, widget: Any, ct: Any) -> None:
    starts: list[Any] = []
    begin = widget.logic.start
    widget.logic.start = lambda *given: (starts.append(given), begin(*given))[1]
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    assert not widget.ui.liveCheckBox.isHidden()
    widget.ui.liveCheckBox.checked = True
    paint_ball(app, widget, (10, 12, 14), 4.0)
    app.wait(lambda: len(filled(app)) == 1 and not widget.logic.running)
    first = filled(app)[0]
    paint_ball(app, widget, (10, 10, 10), 4.0)
    app.wait(lambda: filled(app) and filled(app)[0] is not first and not widget.logic.running)
    assert len(starts) == 2 and len(filled(app)) == 1 and not widget.ui.outdatedLabel.visible
    widget.maskPanel.editor.undo()
    app.wait(lambda: len(starts) == 3 and not widget.logic.running)
    widget.maskPanel.editor.undo()
    app.wait(lambda: not filled(app))
    assert widget.resultPanel.run is None and not widget.logic.running


@pytest.mark.slow
def test_without_live_nothing_runs_and_other_tasks_have_none(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    paint_ball(app, widget, (10, 12, 14), 4.0)
    app.qt.processEvents()
    assert not widget.liveRun._timer.isActive() and not widget.logic.running
    widget.taskPanel.choose("generate_lesion")
    assert widget.ui.liveCheckBox.isHidden()
