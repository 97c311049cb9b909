"""The list of an anomaly map's findings: to go through, to decide about, to go on from."""

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.anomalyNodes import HIDDEN_COLUMNS, LISTED, SHOWN_COLUMNS
from ..nodes.findingList import DISMISSED, KEPT, SlicePlace
from ..nodes.findingMarks import measureRegion
from .quietly import setQuietly

ROW_HEIGHT = 22  # ten findings fit without scrolling
NARROWEST_COLUMN = 24  # pixels; the view itself makes every column 60 wide when it gets a table


class FindingsView:
    """Table, decisions and what leads on from a finding.

    :param ui: widgets of Anomaly.ui.
    :param onChosen: called with the row that the user goes to.
    """

    def __init__(self, ui, onChosen):
        self.ui, self.onChosen = ui, onChosen
        self.onFill = self.onSegment = lambda regions, segmentID: None
        """What the module does with the region of a finding: a segmentation node and one of its segments."""
        self._nodes: Any = None  # AnomalyNodes while a map is shown
        self._row = -1
        self._undo: list[str] = []  # decisions before each change
        ui.findingsTableView.verticalHeader().hide()  # the table numbers its rows itself
        ui.findingsTableView.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self._connect()

    def _connect(self):
        ui = self.ui
        ui.findingsTableView.connect("selectionChanged()", self._onSelection)
        ui.allFindingsCheckBox.connect("toggled(bool)", lambda _checked: self.showFew())
        ui.keepFindingButton.connect("clicked(bool)", lambda *_clicked: self.decide(KEPT))
        ui.dismissFindingButton.connect("clicked(bool)", lambda *_clicked: self.decide(DISMISSED))
        ui.undoDecisionButton.connect("clicked(bool)", self.undoDecision)
        ui.commentLineEdit.connect("editingFinished()", self._onComment)
        ui.fillFindingButton.connect("clicked(bool)", lambda *_clicked: self._hand(self.onFill))
        ui.segmentFindingButton.connect("clicked(bool)", lambda *_clicked: self._hand(self.onSegment))
        ui.measureFindingButton.connect("clicked(bool)", self.measure)
        ui.exportButton.connect("clicked(bool)", self._onExport)

    @property
    def nodes(self):
        """The map's nodes, None where there is none or some of it is gone."""
        return self._nodes if self._nodes is not None and self._nodes.complete else None

    def open(self, nodes):
        """Take the nodes of a map, None for no map; nothing is chosen and nothing to undo."""
        self._nodes, self._row, self._undo = nodes, -1, []

    def fill(self):
        """The table with what the nodes hold now; nothing is chosen."""
        self._row = -1
        self._fillTable()
        self.showFew()
        if self.nodes:
            self.ui.findingsLabel.text = self._summary()

    def _fillTable(self):
        view = self.ui.findingsTableView
        view.setMRMLTableNode(self._nodes.table if self._nodes else None)
        view.horizontalHeader().setMinimumSectionSize(NARROWEST_COLUMN)
        for column in range(len(SHOWN_COLUMNS), len(SHOWN_COLUMNS) + len(HIDDEN_COLUMNS)):
            view.hideColumn(column)
        view.resizeColumnsToContents()
        if self._nodes:  # the last one that is shown takes the rest
            view.horizontalHeader().setSectionResizeMode(len(SHOWN_COLUMNS) - 1, qt.QHeaderView.Stretch)

    def _summary(self):
        from MedDiffFMLib.tasks.anomaly.findings import MAXIMUM_ROWS

        count = self._count()
        text = _("{count} findings above z {threshold:.1f}, most conspicuous first.")
        if count == 1:
            text = _("1 finding above z {threshold:.1f}.")
        elif count == 0:
            text = _("No finding above z {threshold:.1f}. Lower the threshold to see more.")
        elif count >= MAXIMUM_ROWS:
            text = _("{count} findings or more above z {threshold:.1f}; raise it.")
        return text.format(count=count, threshold=self._nodes.threshold)

    def _count(self):
        return self._nodes.table.GetTable().GetNumberOfRows()

    # Which findings are seen

    def shownRows(self):
        """Rows of the table that are seen: all, or the first few that were not dismissed."""
        if self.nodes is None:
            return []
        findings = self.nodes.findings()
        if self.ui.allFindingsCheckBox.checked:
            return list(range(len(findings)))
        return [row for row, finding in enumerate(findings) if finding["state"] != DISMISSED][: self.nodes.few]

    def showFew(self):
        """Draw and list the rows that are seen, and no other."""
        if self.nodes is None:
            return
        rows, view = self.shownRows(), self.ui.findingsTableView
        self.nodes.showOnly(rows)
        for row in range(self._count()):
            view.setRowHidden(row, row not in rows)
        self.ui.allFindingsCheckBox.text = _("all {count}").format(count=self._count())
        self.ui.allFindingsCheckBox.visible = self._count() > len(rows) or self.ui.allFindingsCheckBox.checked
        self._showFinding()

    # The chosen one

    def step(self, by):
        """Go to the next (1) or the previous (-1) finding; after the last one comes the first."""
        rows = self.shownRows()
        if not rows:
            return
        if self._row < 0:
            row = rows[0] if by > 0 else rows[-1]
        elif by > 0:
            row = next((one for one in rows if one > self._row), rows[0])
        else:
            row = next((one for one in reversed(rows) if one < self._row), rows[-1])
        self.ui.findingsTableView.selectRow(row)

    def _onSelection(self):
        index = self.ui.findingsTableView.currentIndex()
        if index.isValid() and index.row() != self._row and self.nodes:
            self._row = index.row()
            self._showFinding()
            self.onChosen(self._row)

    def _showFinding(self):
        """Everything about the chosen finding, and what can be done with it."""
        chosen = self._isChosen()
        for name in ("keepFinding", "dismissFinding", "fillFinding", "segmentFinding", "measureFinding"):
            getattr(self.ui, f"{name}Button").enabled = chosen
        self.ui.commentLineEdit.enabled = chosen
        self.ui.undoDecisionButton.enabled = bool(self._undo)
        self.ui.findingLabel.visible = chosen
        finding = self.nodes.findings()[self._row] if chosen else None
        setQuietly(self.ui.commentLineEdit, finding["comment"] if finding else "")
        if finding:
            self.ui.findingLabel.text = self._words(finding)

    def _isChosen(self):
        return self.nodes is not None and self._row >= 0

    def _words(self, finding):
        text = _("Slice {slice} of {count}, {place}. {ml:.2g} ml, peak z {peak:.1f}, mean {hu:.0f} HU.")
        text = text.format(
            slice=finding["slice"],
            count=SlicePlace(self.nodes.node("input")).count,
            place=finding["place"],
            ml=finding["volume_mm3"] / 1000,
            peak=finding["peak_z"],
            hu=finding["mean_hu"],
        )
        if finding["reason"]:
            text += " " + _("Reason: {reason}.").format(reason=finding["reason"])
        if finding["border"]:
            text += " " + _("It touches the border of the scan, where such marks are often artifacts.")
        return text

    # Decisions

    def decide(self, state=None, comment=None):
        """Keep or dismiss the chosen finding, or comment it; the same decision again takes it back."""
        if not self._isChosen():
            return
        finding = self.nodes.findings()[self._row]
        self._undo.append(self.nodes.decisions.text)
        self.nodes.decide(self._row, "" if state and finding["state"] == state else state, comment)
        self._afterDecision()

    def undoDecision(self):
        """The decision before."""
        if self._undo and self.nodes:
            self.nodes.decisions.text = self._undo.pop()
            self.nodes.writeStates()
            self._afterDecision()

    def _afterDecision(self):
        self._fillTable()
        self.showFew()

    def _onComment(self):
        if self._isChosen():
            text = self.ui.commentLineEdit.text.strip()
            if text != self.nodes.findings()[self._row]["comment"]:
                self.decide(comment=text)

    # On from a finding

    def _hand(self, receiver):
        """Give the chosen region on."""
        if self._isChosen() and self.nodes.node("regions"):
            receiver(self.nodes.node("regions"), str(self._row + 1))

    def measure(self):
        """A line along the longest diameter of the chosen finding."""
        if self._isChosen() and self.nodes.node("regions"):
            name = _("finding {number}").format(number=self._row + 1)
            image = self.nodes.node("input")
            _line, length = measureRegion(self.nodes.node("regions"), str(self._row + 1), image, name)
            self.ui.findingLabel.text += " " + _("Longest diameter {length:.0f} mm.").format(length=length)

    # Table to file

    def _onExport(self):
        name = f"{self.nodes.node('input').GetName()}_findings.csv" if self.nodes else "findings.csv"
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Save findings"), str(Path.home() / name), _("Comma-separated values (*.csv)")
        )
        if path:
            with slicer.util.tryWithErrorDisplay(_("The table could not be written.")):
                self.export(path)

    def export(self, path):
        """Write the findings with all their figures; the file is complete or not there.

        :raises OutputError: no permission or no space.
        """
        from MedDiffFMLib.core.csv_files import write_csv

        write_csv(self.nodes.findings(), (*self.nodes.columns(), *LISTED), Path(path), overwrite=True)
        self.ui.findingsLabel.text = _("Table written to {path}").format(path=path)
