"""A description as a user reads it: sentences as a list, a click to the evidence, a correction, keep or discard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def widget(app: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with this very Python as worker."""
    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    opened = app.open_widget(module)
    yield opened
    opened.cleanup()


@pytest.fixture
def run(app: Any, widget: Any, small_ct: Any) -> Any:
    """A finished description of a CT under a transform, shown."""
    node = app.slicer.util.addVolumeFromArray(small_ct.voxels, small_ct.ijk_to_ras, "chest")
    transform = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = np.eye(4)
    matrix[:3, 3] = 10, -20, 30
    transform.SetMatrixTransformToParent(app.slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    finished = widget.logic.run("describe", node)
    widget.resultPanel.show(finished)
    return finished


def sentences(widget: Any) -> list[str]:
    shown = widget.sentencesView.ui.sentencesTableWidget
    return [shown.item(row, 0).text() for row in range(shown.rowCount)]


def visible_segments(run: Any) -> set[str]:
    display, segmentation = run.main.GetDisplayNode(), run.main.GetSegmentation()
    ids = [one for one in segmentation.GetSegmentIDs() if display.GetSegmentVisibility(one)]
    return {segmentation.GetSegment(one).GetName() for one in ids} if display.GetVisibility() else set()


def test_a_click_goes_to_what_a_sentence_rests_on(app: Any, widget: Any, run: Any) -> None:
    assert sentences(widget) == [row["sentence"] for row in run.table] and len(run.table) > 10
    assert visible_segments(run) == set()
    row = next(n for n, fact in enumerate(run.table) if fact["evidence"] == "left lung")
    widget.sentencesView.ui.sentencesTableWidget.selectRow(row)
    assert visible_segments(run) == {"left lung"}
    fact = run.table[row]
    red = app.slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceOffset() == pytest.approx(fact["s_mm"] + 30, abs=0.1)
    assert widget.sentencesView.ui.sentenceEvidenceLabel.text == f"left lung, certainty {fact['certainty']:.2f}"
    widget.sentencesView.next()
    assert visible_segments(run) == {"right lung"}, "the share of the right lung comes next"
    assert "Not assessed" in widget.sentencesView.ui.notAssessedLabel.text


def test_rows_are_as_high_as_their_words(app: Any, widget: Any, run: Any, tmp_path: Any) -> None:
    """The panel gets its width after the words: rows of a narrow table would show one sentence and a half."""
    app.picture(widget, tmp_path / "panel.png")
    table = widget.sentencesView.ui.sentencesTableWidget
    line = table.fontMetrics().height()
    heights = [table.rowHeight(row) for row in range(table.rowCount)]
    assert table.columnWidth(0) > 200 and max(heights) <= 3.5 * line, heights


def test_a_correction_reaches_the_text_node(app: Any, widget: Any, run: Any) -> None:
    shown, text = widget.sentencesView.ui.sentencesTableWidget, run.others["description"]
    assert text.IsA("vtkMRMLTextNode")
    row = next(n for n, line in enumerate(sentences(widget)) if line.startswith("The shown body has"))
    shown.item(row, 0).setText("The shown body has 99.9 l.")
    assert "The shown body has 99.9 l." in text.GetText()
    assert "not understood" not in widget.sentencesView.ui.sentenceEvidenceLabel.text
    shown.item(row, 0).setText("A stout body.")
    assert "A stout body." in text.GetText() and "99.9" not in text.GetText()
    assert "not understood" in widget.sentencesView.ui.sentenceEvidenceLabel.text


def test_what_was_kept_comes_back_and_stays(app: Any, widget: Any, run: Any) -> None:
    """From the list of results, with its sentences and their evidence; closing it removes nothing."""
    present = app.slicer.mrmlScene.IsNodePresent
    before = sentences(widget)
    widget.sentencesView.ui.sentencesAcceptButton.click()
    assert all(present(node) for node in [*run.nodes, run.reportNode]) and visible_segments(run) == set()
    widget.ui.resultsComboBox.currentIndex = 1
    assert sentences(widget) == before
    widget.sentencesView.ui.sentencesTableWidget.selectRow(before.index(next(s for s in before if "left lung" in s)))
    assert visible_segments(run) == {"left lung"}
    widget.sentencesView.ui.sentencesDiscardButton.click()
    assert all(present(node) for node in [*run.nodes, run.reportNode])


def test_discard(app: Any, widget: Any, run: Any) -> None:
    present = app.slicer.mrmlScene.IsNodePresent
    widget.sentencesView.ui.sentencesDiscardButton.click()
    assert not any(present(node) for node in [*run.nodes, run.reportNode])
    assert present(run.inputNode)
