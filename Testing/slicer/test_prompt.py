"""The prompt of a synthesis, written as a user writes it, and the check boxes of what to make."""

from __future__ import annotations

from typing import Any

from Testing.harness import application
from Testing.slicer.test_panel import editors, press


def prompt_of(widget: Any) -> Any:
    return widget.taskPanel._forms["synthesize"].named._prompts["prompt"]


def test_a_prompt_is_completed_and_told_back(app: Any, widget: Any) -> None:
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    press(app, widget, "synthesize")
    prompt = prompt_of(widget)
    width = widget.parent.panel.minimumSizeHint().width()
    QTest.keyClicks(prompt.edit._target, "chest with con")
    app.qt.processEvents()
    popup = prompt._completer.popup()
    assert popup.visible and list(prompt._phrases.stringList()) == ["with contrast agent"]
    QTest.keyClick(popup._target, Qt.Key.Key_Down)
    QTest.keyClick(popup._target, Qt.Key.Key_Return)
    assert prompt.edit.text == "chest with contrast agent" and not popup.visible
    assert "contrast&nbsp;agent" in prompt.chips.text and "chest" in prompt.chips.text
    assert not prompt.rest.text and not prompt.rest.visible
    prompt.edit.text += ", nodul, nodule in the right upper lobe, spleen"
    assert "<i>nodule,&nbsp;right,&nbsp;upper&nbsp;third</i>" in prompt.chips.text and "measured" in prompt.chips.text
    assert prompt.rest.text == "Not understood: nodul (nodule?), spleen."
    assert widget.taskPanel.choices().texts == {"prompt": prompt.edit.text}
    app.qt.processEvents()
    assert widget.parent.panel.minimumSizeHint().width() == width <= application.PANEL_WIDTH


def test_what_to_make_is_ticked(app: Any, widget: Any) -> None:
    press(app, widget, "synthesize")
    boxes = editors(widget)["make"].boxes
    assert [box.text for box in boxes.values()] == ["CT", "MR", "X-ray", "sentences"] and boxes["ct"].checked
    boxes["xray"].click()
    boxes["text"].click()
    assert widget.taskPanel.choices().settings.parameters == {"make": "ct,xray,text"} and widget.ui.runButton.enabled
    for name in ("ct", "xray", "text"):
        boxes[name].click()
    assert not widget.ui.runButton.enabled and "Nothing is asked for" in widget.ui.reasonLabel.text
