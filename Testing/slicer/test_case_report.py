"""One page about a result from the panel, and the list of places of a comparison."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def opened_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the desktop was asked to open."""
    import qt

    opened: list[str] = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    yield opened


def report(app: Any, widget: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Press the button; gives what the panel then says."""
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *words: str(path))
    widget.ui.reportButton.click()
    app.wait(lambda: not widget.caseReport.busy, 120)
    return widget.ui.reportLabel.text


@pytest.mark.slow
def test_a_result_becomes_a_page(
    app: Any, widget: Any, ct: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened_files: list[str]
) -> None:
    """HTML without any package; an edited file name gets its ending; a scan that is gone is said."""
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running, 120)
    said = report(app, widget, tmp_path / "page", monkeypatch)
    path = tmp_path / "page.html"
    assert str(path) in said and opened_files == [str(path)]
    text = path.read_text(encoding="utf-8")
    assert "Denoise: thorax" in text and text.count("<figure>") == 6 and "Research use only" in text
    app.slicer.mrmlScene.RemoveNode(ct)
    assert widget.ui.exportDicomWidget.isHidden()


@pytest.mark.slow
def test_a_pdf_is_drawn_by_the_workers_python(
    app: Any, widget: Any, ct: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened_files: list[str]
) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running, 120)
    monkeypatch.setattr(widget.logic.workerPython, "executable", lambda: sys.executable)
    said = report(app, widget, tmp_path / "page.pdf", monkeypatch)
    assert "Saved as" in said, said
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF") and opened_files == [str(tmp_path / "page.pdf")]
    assert not list(tmp_path.glob("tmp*"))


def test_places_of_a_comparison_lead_there(app: Any, widget: Any, ct: Any) -> None:
    """Lesions and changed regions are listed; a click moves the views; the list goes with the result."""
    from MedDiffFMGui.nodes.finishedRun import FinishedRun
    from MedDiffFMGui.nodes.volumeNodes import addResultNode

    array = app.slicer.util.arrayFromVolume(ct)
    volumes = {name: addResultNode(array * 0.5, ct, f"thorax {name}", False) for name in ("aligned", "change")}
    bounds = [0.0] * 6
    ct.GetRASBounds(bounds)
    place = [round(float(np.mean(bounds[n : n + 2])) + 5, 1) for n in (0, 2, 4)]
    point = dict(zip(("r_mm", "a_mm", "s_mm"), place, strict=True))
    lesion = {"number": 1, "state": "grown", "where": "here", "growth_percent": 80.0, "later_mm3": 900.0, **point}
    text = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "report")
    run = FinishedRun("compare", ct, volumes, {"settings": {}}, text, tables={"lesions": [lesion], "changes": []})
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.resultPanel.show(run)
    table = widget.compareView._places.table
    assert not table.isHidden() and table.rowCount == 1
    assert table.item(0, 1).text() == "grown, later (mm³) 900, growth (%) 80"
    table.selectRow(0)
    matrix = app.slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed").GetSliceToRAS()
    assert matrix.GetElement(2, 3) == pytest.approx(place[2], abs=2.0)
    widget.resultPanel.clear()
    assert table.isHidden()
