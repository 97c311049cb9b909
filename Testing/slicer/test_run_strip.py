"""The strip with the button, progress and reason: in sight at every size, in the status bar while the user is away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.tasks.registry import TASKS
from Testing.harness import application
from Testing.slicer.paint import paint_ball


def settle(app: Any, widget: Any, size: tuple[int, int]) -> None:
    for _ in range(3):
        widget.parent.area.resize(*size)
        app.qt.processEvents()


@pytest.mark.slow
@pytest.mark.parametrize("size", [application.SMALL, application.LARGE])
def test_strip_is_in_sight_and_the_panel_keeps_its_width_whatever_is_shown(
    app: Any, widget: Any, ct: Any, size: tuple[int, int]
) -> None:
    area, strip = widget.parent.area, widget.ui.runStripWidget._target
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    ct.SetName("a name that is so long that it would be wider than the panel if anything were as wide as it")
    widths = set()
    for task in TASKS:
        widget.taskPanel.choose(task)
        for section in ("input", "task", "more", "train", "setup", "log", "settings"):
            getattr(widget.ui, f"{section}CollapsibleButton").collapsed = False
        widget.taskPanel.strip.say("The volume has values from 0 to 4095, which do not look like CT. " * 4)
        settle(app, widget, size)
        widths.add(area.widget().minimumSizeHint().width())
        assert area.verticalScrollBar().maximum() == 0, task  # Slicer's panel itself has nothing to scroll
        top = strip.mapTo(area, strip.rect().topLeft()).y()
        assert top > 0 and top + strip.height() <= area.height(), task
        assert widget.ui.panelContentsWidget.width <= widget.ui.panelScrollArea.width, task
        assert widget.ui.panelScrollArea.height >= 120
    assert len(widths) == 1 and widths.pop() <= application.PANEL_WIDTH


@pytest.mark.slow
def test_a_result_comes_into_sight(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    settle(app, widget, application.SMALL)
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    settle(app, widget, application.SMALL)
    section, area = widget.ui.resultCollapsibleButton, widget.ui.panelScrollArea
    assert area.verticalScrollBar().maximum > 0  # else there would be nothing to scroll
    app.wait(lambda: 0 <= section.y - area.verticalScrollBar().value < area.height)


@pytest.mark.slow
def test_a_filling_comes_into_sight_but_not_while_painting_live(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    settle(app, widget, application.SMALL)
    bar = widget.ui.panelScrollArea.verticalScrollBar()
    widget.ui.liveCheckBox.checked = True
    paint_ball(app, widget, (10, 12, 14), 4.0)
    app.wait(lambda: widget.resultPanel.run is not None and not widget.logic.running)
    assert bar.value == 0
    widget.ui.liveCheckBox.checked = False
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    settle(app, widget, application.SMALL)
    app.wait(lambda: bar.value > 0)


@pytest.mark.slow
def test_progress_of_a_training_comes_into_sight(app: Any, widget: Any) -> None:
    widget.ui.trainCollapsibleButton.collapsed = False
    settle(app, widget, application.SMALL)
    area, section = widget.ui.panelScrollArea, widget.ui.trainCollapsibleButton
    assert section.y > 0 == area.verticalScrollBar().value
    widget.trainingPanel.onStarted()
    assert section.y == area.verticalScrollBar().value


@pytest.mark.slow
def test_reason_stands_under_its_input_and_its_first_sentence_in_the_strip(app: Any, widget: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 900, (20, 24, 28)).astype(np.int16)
    mr = app.slicer.util.addVolumeFromArray(noise, None, "mr")
    widget.ui.inputVolumeSelector.setCurrentNode(mr)
    below = widget.ui.inputFactsLabel
    assert below.visible and widget.ui.reasonLabel.text in below.text
    assert len(widget.ui.reasonLabel.text) < len(below.text)
    assert "--" not in below.text  # an option of the command line


@pytest.mark.slow
def test_status_bar_tells_of_a_run_while_another_module_is_open(app: Any, widget: Any, ct: Any) -> None:
    said: list[str] = []
    app.main_window.statusBar().messageChanged.connect(said.append)
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    assert not said
    widget.exit()
    app.wait(lambda: not widget.logic.running)
    assert any("reconstructing" in text and "%" in text for text in said)
    assert app.main_window.statusBar().currentMessage() == "MedDiff-FM: Done: thorax denoised."
    widget.enter()
    assert app.main_window.statusBar().currentMessage() == ""


@pytest.mark.slow
def test_keys_run_and_cancel_and_are_given_back(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    keys = {str(key.key.toString()): key for key in widget._shortcuts._shortcuts}
    assert list(keys) == ["Ctrl+Return", "Ctrl+."]
    assert not widget.resultPanel._shortcuts._shortcuts  # without a result the views keep their keys
    keys["Ctrl+Return"]._target.activated.emit()
    assert widget.logic.running
    keys["Ctrl+Return"]._target.activated.emit()
    assert widget.logic.running and not widget.logic.cancelling
    keys["Ctrl+."]._target.activated.emit()
    app.wait(lambda: not widget.logic.running)
    assert widget.ui.runStatusLabel.text == "Cancelled."
    widget.exit()
    assert not widget._shortcuts._shortcuts
    widget.enter()


@pytest.mark.slow
def test_device_is_named_before_the_run(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    assert "GPU if there is one, else the processor" in widget.ui.estimateLabel.text
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    assert "Pretend GPU (6.5 of 8 GB free)." in widget.ui.estimateLabel.text
    widget.ui.deviceComboBox.currentIndex = 1
    assert "Processor, " in widget.ui.estimateLabel.text


@pytest.mark.slow
def test_stored_values_become_hounsfield_units_by_a_click(app: Any, widget: Any, ct: Any) -> None:
    slicer = app.slicer
    voxels = slicer.util.arrayFromVolume(ct)
    stored = slicer.util.addVolumeFromArray((voxels.clip(-1024) + 1024).astype(np.uint16), None, "stored")
    widget.ui.inputVolumeSelector.setCurrentNode(stored)
    assert widget.ui.hounsfieldButton.visible and not widget.ui.runButton.enabled
    widget.ui.hounsfieldButton.click()
    app.wait(lambda: widget.logic.getParameterNode().inputVolume is not stored)
    made = widget.logic.getParameterNode().inputVolume
    assert made.GetName() == "stored HU" and widget.ui.runButton.enabled and not widget.ui.hounsfieldButton.visible
    assert np.array_equal(slicer.util.arrayFromVolume(made), voxels.clip(-1024))
