"""Result of a description: a list of sentences; a click goes to what one rests on, a double click corrects it."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.textNodes import tableRows
from .anomalyLayers import jump
from .placesList import keepRowsFitting
from .runView import RunView

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "Sentences.ui"
BOTH_LUNGS = {"lungs": ("right lung", "left lung", "lung")}
"""Evidence that several segments make up."""


class SentencesView(RunView):
    """One description in the user's views.

    :param ui: widgets of the module's .ui file; ``sentencesResultWidget`` is filled.
    :param onClosed: called without arguments when the user accepted or discarded the result.
    """

    def __init__(self, ui, onClosed=lambda: None):
        super().__init__(onClosed)
        self._rows: list = []
        panel = slicer.util.loadUI(str(UI_FILE))
        ui.sentencesResultWidget.layout().addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        table = self.ui.sentencesTableWidget
        table.setColumnCount(1)
        table.horizontalHeader().hide()
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        keepRowsFitting(table)
        table.connect("itemSelectionChanged()", self._onSentence)
        table.connect("cellChanged(int,int)", self._onCorrected)
        self.ui.sentencesAcceptButton.connect("clicked(bool)", self.accept)
        self.ui.sentencesDiscardButton.connect("clicked(bool)", self.discard)

    def show(self, run):
        """Show a finished run; the views of before the first one are remembered."""
        self._take(run, self.ui.sentencesAcceptButton, self.ui.sentencesDiscardButton)
        self._rows = run.table or tableRows(run.others["facts"])  # of a result that was shown before
        self.ui.sentencesTitleLabel.text = self._textNode().GetName()
        self._fill(self._rows)
        missing = [line for line in self._lines() if line.startswith("Not assessed")]
        self.ui.notAssessedLabel.text = "\n".join([*missing, *run.warnings])
        self.ui.sentenceEvidenceLabel.text = _("Choose a sentence to see what it rests on.")
        slicer.util.setSliceViewerLayers(background=run.inputNode, foreground=None)
        self._showSegments(())

    # List and text

    def _textNode(self):
        return self.run.others[next(iter(self.run.texts))]

    def _lines(self):
        return self._textNode().GetText().splitlines()

    def _fill(self, rows):
        """A row for each sentence, which can be edited."""
        table = self.ui.sentencesTableWidget
        wasBlocked = table.blockSignals(True)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            table.setItem(number, 0, qt.QTableWidgetItem(row["sentence"]))
        table.clearSelection()
        table.resizeRowsToContents()
        table.blockSignals(wasBlocked)

    def _onCorrected(self, number, column):
        """A sentence was corrected: the text node follows, and what is no fact any more is told."""
        if not self._exists():
            return
        from MedDiffFMLib.multimodal.facts.grammar import read

        row = self._rows[number]
        sentence = " ".join(self.ui.sentencesTableWidget.item(number, column).text().split())
        lines = [sentence if line == row["sentence"] else line for line in self._lines()]
        row["sentence"] = sentence
        self._textNode().SetText("\n".join([*lines, ""]))
        if read(sentence) is None:
            self.ui.sentenceEvidenceLabel.text = _("Kept as you wrote it, but not understood as a fact.")

    def _chosen(self):
        """Number of the chosen row; -1 for none."""
        rows = self.ui.sentencesTableWidget.selectionModel().selectedRows()
        return rows[0].row() if rows else -1

    # Evidence

    def _onSentence(self):
        """All views go to the evidence of the chosen sentence, whose structure alone is shown."""
        index = self._chosen()
        if not self._exists() or index < 0:
            return
        row = self._rows[index]
        evidence = row["evidence"]
        text = _("{evidence}, certainty {certainty:.2f}")
        self.ui.sentenceEvidenceLabel.text = text.format(evidence=evidence, certainty=row["certainty"])
        with slicer.util.RenderBlocker():
            self._showSegments(BOTH_LUNGS.get(evidence, (evidence,)))
            jump(self._world([row["r_mm"], row["a_mm"], row["s_mm"]]))

    def _world(self, point):
        """World coordinates of a place in the scan, which may be under a transform."""
        world = [0.0, 0.0, 0.0]
        self.run.inputNode.TransformPointToWorld(point, world)
        return world

    def _showSegments(self, names):
        """Outlines of some segments, by name, of the map of evidence."""
        node = self.run.main
        display = node.GetDisplayNode()
        segmentation = node.GetSegmentation()
        with slicer.util.NodeModify(display):
            display.SetVisibility(True)
            display.SetVisibility2DFill(False)
            for segmentID in segmentation.GetSegmentIDs():
                shown = segmentation.GetSegment(segmentID).GetName() in names
                display.SetSegmentVisibility(segmentID, shown)

    def _hide(self):
        if self._exists():
            self.run.main.GetDisplayNode().SetVisibility(False)

    def _go(self, step):
        if self._exists() and self._rows:
            table, start = self.ui.sentencesTableWidget, max(self._chosen(), -1 if step > 0 else 0)
            row = (start + step) % len(self._rows)
            table.selectRow(row)
            table.scrollToItem(table.item(row, 0))
