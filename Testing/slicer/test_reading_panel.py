"""A reader goes through a reading kit, is interrupted, and is told the result."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.reading.kit import LETTERS, Pair, read_kit, write_key, write_kit
from Testing.harness import pythonqt

ROOT = Path(__file__).resolve().parents[2]
PAIRS = 4


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """Pairs of which the real one ("a" of the odd ones) is the one with a bright middle."""
    folder = tmp_path / "kit"
    folder.mkdir()
    rows = [Pair(number, 400, 40) for number in range(1, PAIRS + 1)]
    matrix = np.diag([-2.0, -2.0, 3.0, 1.0])
    matrix[:3, 3] = [20, 18, -15]
    real = {row.pair: LETTERS[row.pair % 2 == 0] for row in rows}
    for row in rows:
        for letter in LETTERS:
            piece = np.zeros((11, 19, 21), np.int16)
            piece[5, 9, 10] = 1000 if real[row.pair] == letter else -1000
            write_volume(Volume(piece, matrix, synthetic=True), folder / row.file(letter))
    write_key(tmp_path / "kit-key.json", write_kit(folder, 3, "Which one is real?", rows), real, {})
    return folder


def begin(widget: Any, kit: Path, reader: str = "A") -> Any:
    widget.ui.readingCollapsibleButton.collapsed = False
    panel = widget.readingPanel
    panel.ui.kitPathLineEdit.currentPath = str(kit)
    panel.ui.readerLineEdit.text = reader
    panel.ui.beginReadingButton.click()
    return panel


def views(app: Any) -> list[Any]:
    manager = app.slicer.app.layoutManager()
    return [manager.sliceWidget(name).sliceLogic() for name in ("MedDiffFMLeft", "MedDiffFMRight")]


def bright_side(app: Any) -> str:
    """Where the middle is bright: both views are centered on it."""
    voxels = [app.slicer.util.arrayFromVolume(logic.GetBackgroundLayer().GetVolumeNode()) for logic in views(app)]
    return "left" if voxels[0].max() > 0 else "right"


def hidden(app: Any) -> list[str]:
    volumes = app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return sorted(node.GetName() for node in volumes if node.GetHideFromEditors())


def test_ui_file_names_only_what_slicer_has(app: Any) -> None:
    assert app.widgets.ui_problems(ROOT / "MedDiffFM" / "Resources" / "UI" / "Reading.ui") == []


def test_a_reader_who_sees_the_difference_is_told_so(app: Any, widget: Any, kit: Path) -> None:
    manager = app.slicer.app.layoutManager()
    before = manager.layout
    panel = begin(widget, kit)
    assert pythonqt.refused_connections == []
    for number in range(1, PAIRS + 1):
        assert panel.ui.readingStatusLabel.text == f"Pair {number} of {PAIRS}."
        assert hidden(app) == ["left", "right"] and manager.layout != before
        for logic in views(app):
            node, display = logic.GetSliceNode(), logic.GetBackgroundLayer().GetVolumeNode().GetDisplayNode()
            assert (display.GetWindow(), display.GetLevel()) == (400, 40)
            assert abs(node.GetSliceOffset()) < 1e-6
            across, down = node.GetXYToRAS().MultiplyPoint((*(n / 2 for n in node.GetDimensions()[:2]), 0, 1))[:2]
            assert abs(across) < 2 and abs(down) < 2
        getattr(panel.ui, f"{bright_side(app)}RealButton").click()
    assert manager.layout == before and hidden(app) == []
    assert f"{PAIRS} of {PAIRS} right (100%, 95 % interval 40% to 100%" in panel.ui.readingStatusLabel.text
    with open(kit / "answers-A.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["choice"] for row in sorted(rows, key=lambda row: int(row["pair"]))] == ["a", "b", "a", "b"]
    assert all(float(row["seconds"]) >= 0 for row in rows) and {row["reader"] for row in rows} == {"A"}


def test_an_interrupted_reading_goes_on_and_leaves_nothing(app: Any, widget: Any, kit: Path, ct: Any) -> None:
    panel = begin(widget, kit)
    panel.ui.leftRealButton.click()
    widget.exit()  # another module is opened
    assert hidden(app) == [] and "Paused after 1 of 4" in panel.ui.readingStatusLabel.text
    widget.enter()
    begin(widget, kit)
    assert panel.ui.readingStatusLabel.text == "Pair 2 of 4."
    app.slicer.mrmlScene.Clear(0)
    assert panel.ui.beginReadingButton.visible and not panel.ui.leftRealButton.visible
    panel.choose("left")  # by nothing that is shown
    assert len((kit / "answers-A.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_nothing_of_the_scene_lies_over_a_pair(app: Any, widget: Any, kit: Path, ct: Any) -> None:
    """Segments and markups are hidden meanwhile; a run that ends, or another input, pauses the reading first."""
    nodes = [
        app.slicer.mrmlScene.AddNewNodeByClass(kind)
        for kind in ("vtkMRMLSegmentationNode", "vtkMRMLMarkupsFiducialNode")
    ]
    for node in nodes:
        node.CreateDefaultDisplayNodes()
    nodes.append(app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode"))
    nodes[2].CreateDefaultDisplayNodes()
    nodes[2].GetDisplayNode().SetVisibility(False)
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    panel = begin(widget, kit)
    panel.ui.leftRealButton.click()
    assert [node.GetDisplayNode().GetVisibility() for node in nodes] == [0, 0, 0]
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running, seconds=60)
    assert hidden(app) == [] and "Paused after 1" in panel.ui.readingStatusLabel.text
    assert [node.GetDisplayNode().GetVisibility() for node in nodes] == [1, 1, 0]
    begin(widget, kit)
    widget.showInput()
    assert hidden(app) == []


def test_a_pair_of_a_reading_is_never_the_input(app: Any, widget: Any, kit: Path) -> None:
    begin(widget, kit)
    app.wait(lambda: len(hidden(app)) == 2)
    assert widget.ui.inputVolumeSelector.currentNode() is None


def test_what_is_wrong_is_said_and_nothing_is_lost(app: Any, widget: Any, kit: Path, tmp_path: Path) -> None:
    panel = begin(widget, tmp_path)
    assert "is not a reading kit" in panel.ui.readingStatusLabel.text
    panel = begin(widget, kit, " ")
    assert "needs a name" in panel.ui.readingStatusLabel.text
    first = read_kit(kit).order("B")[0][0]
    (kit / first.file("b")).write_bytes(b"")
    panel = begin(widget, kit, "B")
    assert "empty file" in panel.ui.readingStatusLabel.text and hidden(app) == []
    assert not (kit / "answers-B.csv").exists()
