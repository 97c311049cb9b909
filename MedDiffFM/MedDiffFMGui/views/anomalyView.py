"""Result of an anomaly map: heat map over the CT, findings to click, regions in 3D."""

import logging
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.anomalyNodes import HIDDEN_COLUMNS, LISTED, SHOWN_COLUMNS, AnomalyNodes, writeTitles
from ..nodes.findingList import DISMISSED, KEPT, SlicePlace
from ..nodes.findingMarks import measureRegion
from ..nodes.resultRecord import remember
from ..worker.eventLoopTasks import EventLoopTask
from .anomalyLayers import jump, layers, setThreshold, showLayer, showLegend, styleLayer
from .bodyRendering import BodyRendering
from .cameras import centerCameras
from .decision import showDecision
from .laterDrawing import LaterDrawing
from .sideBySide import VIEW_NAMES, SideBySide
from .viewState import ViewState

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "Anomaly.ui"
ROW_HEIGHT = 22  # ten findings fit without scrolling
NARROWEST_COLUMN = 24  # pixels; the view itself makes every column 60 wide when it gets a table
FEW = 10  # findings that are listed and drawn at first: as many as a reader looks through
REST_MS = 250  # findings are looked for when the threshold has rested so long
LAYER_ATTRIBUTE, OPACITY_ATTRIBUTE = "MedDiffFM.Layer", "MedDiffFM.Opacity"


class AnomalyView:
    """One anomaly map in the user's views.

    :param ui: widgets of the module's .ui file; ``anomalyResultWidget`` is filled.
    :param logic: not needed by this view, which works on nodes alone.
    :param onClosed: called without arguments when the user discarded or closed the result.
    :param onAccepted: called with the map's node when the user accepted it.
    """

    def __init__(self, ui, logic, onClosed=lambda: None, onAccepted=lambda node: None):
        self.onClosed, self.onAccepted = onClosed, onAccepted
        self.onFill = self.onSegment = lambda regions, segmentID: None
        """What the module does with the region of a finding: a segmentation node and one of its segments."""
        self._undo: list[str] = []  # decisions before each change
        self.nodes: Any = None  # AnomalyNodes while a map is shown
        self.layer = "heat"  # name of what is shown over the CT
        self._before: Any = None
        self._row = -1
        self._sideBySide = SideBySide()
        self._rendering = BodyRendering()
        self._laterDrawing = LaterDrawing()
        panel = slicer.util.loadUI(str(UI_FILE))
        ui.anomalyResultWidget.layout().addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.ui.findingsTableView.verticalHeader().hide()  # the table numbers its rows itself
        self.ui.findingsTableView.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.ui.anomalyTitleLabel.visible = False  # the list of results names it
        self._buttons = {name: getattr(self.ui, f"{name}RadioButton") for name in layers()}
        self._loopTask, self._layerTask = EventLoopTask(), EventLoopTask()
        self._restTimer = qt.QTimer()
        self._restTimer.setSingleShot(True)
        self._restTimer.setInterval(REST_MS)
        self._restTimer.connect("timeout()", self.findAgain)
        self._connect()

    def _connect(self):
        for name, button in self._buttons.items():
            button.connect("clicked(bool)", lambda *_clicked, chosen=name: self.chooseLayer(chosen))
        ui = self.ui
        ui.anomalyOpacitySlider.connect("valueChanged(double)", self._onOpacity)
        ui.anomalyThresholdSlider.connect("valueChanged(double)", self._onThreshold)
        ui.regionsCheckBox.connect("toggled(bool)", self._showRegions)
        ui.renderingCheckBox.connect("toggled(bool)", self._showRendering)
        ui.legendCheckBox.connect("toggled(bool)", self._showLegend)
        ui.findingsTableView.connect("selectionChanged()", self._onSelection)
        ui.anomalyAcceptButton.connect("clicked(bool)", self.accept)
        ui.anomalyDiscardButton.connect("clicked(bool)", self.discard)
        ui.exportButton.connect("clicked(bool)", self._onExport)
        ui.anomalySideBySideButton.connect("toggled(bool)", self._onSideBySide)
        ui.allFindingsCheckBox.connect("toggled(bool)", self._showFew)
        ui.keepFindingButton.connect("clicked(bool)", lambda *_clicked: self.decide(KEPT))
        ui.dismissFindingButton.connect("clicked(bool)", lambda *_clicked: self.decide(DISMISSED))
        ui.undoDecisionButton.connect("clicked(bool)", self.undoDecision)
        ui.commentLineEdit.connect("editingFinished()", self._onComment)
        ui.fillFindingButton.connect("clicked(bool)", lambda *_clicked: self._hand(self.onFill))
        ui.segmentFindingButton.connect("clicked(bool)", lambda *_clicked: self._hand(self.onSegment))
        ui.measureFindingButton.connect("clicked(bool)", self.measure)

    # What the Result section asks for

    def setParameterNode(self, parameterNode):
        """None when the scene closes or another module is opened; a map that is shown stays in the views."""
        if parameterNode is None:
            self._stopFinding()
        if self.nodes and not self.nodes.complete:
            self._forget()

    def show(self, run):
        """Show a finished run; the views of before the first one are remembered."""
        if self._before is None:
            self._before = ViewState()
        self._putAway()
        remember(run)
        self._open(AnomalyNodes.ofRun(run))
        self.findAgain()

    def restore(self):
        """Show the map that a loaded scene holds.

        :return: whether there is one.
        """
        nodes = self.nodes or AnomalyNodes.ofScene()
        if nodes is None or not nodes.complete:
            return False
        if self.nodes is None:
            self._before = ViewState()
            self._open(nodes)
            if nodes.listed:
                writeTitles(nodes.table)
                self._afterFinding(nodes.table.GetTable().GetNumberOfRows())
            else:
                self.findAgain()
        return True

    def clear(self):
        """Nothing is shown any more; the views are as they were before the map."""
        before = self._before
        self._putAway()
        if before:
            before.restore()
        self._before = None

    def accept(self):
        """Keep the nodes; map and findings stay in the views until the user closes them."""
        if self.nodes and self.nodes.complete:
            self.nodes.accept()
            self._showDecision()
            self.onAccepted(self.nodes.node("anomaly"))

    def discard(self):
        """Take the nodes out of the scene unless the user has accepted them; the views are as before."""
        nodes = self.nodes
        accepted = nodes is not None and nodes.complete and nodes.accepted
        self.clear()
        if nodes and not accepted:
            nodes.remove()
        self.onClosed()

    def _showDecision(self):
        showDecision(self.ui.anomalyAcceptButton, self.ui.anomalyDiscardButton, self.nodes.accepted)

    def blink(self):
        """The CT alone, or with the layer again."""
        slider = self.ui.anomalyOpacitySlider
        slider.value = self._usualOpacity() if slider.value == 0 else 0.0

    def next(self):
        """Go to the next finding; after the last one comes the first."""
        self._go(1)

    def previous(self):
        """Go to the finding before."""
        self._go(-1)

    # Opening and closing

    def _open(self, nodes):
        self.nodes, self._row, self.layer, self._undo = nodes, -1, "heat", []
        ui = self.ui
        self._showDecision()
        ui.anomalyTitleLabel.text = nodes.node("anomaly").GetName()
        _set(ui.anomalyThresholdSlider, nodes.threshold)
        for name in ("healthy", "difference"):
            self._buttons[name].enabled = nodes.node("healthy") is not None
        self._buttons["uncertainty"].enabled = nodes.node("uncertainty") is not None
        self.chooseLayer(nodes.table.GetAttribute(LAYER_ATTRIBUTE) or "heat")
        self._showRegions()
        self._showRendering()

    def _putAway(self):
        """Take the map out of the views but leave its nodes in the scene."""
        self._stopFinding()
        self._leaveSideBySide()
        self._rendering.remove()
        if self.nodes and self.nodes.complete:
            for layer in layers().values():
                node = self.nodes.node(layer.role)
                if node and layer.legend:
                    showLegend(node, layer.legend, False)
            for role in ("regions", "numbers"):
                node = self.nodes.node(role)
                if node:
                    node.GetDisplayNode().SetVisibility(False)
        self.nodes = None
        self._fillTable()

    def _forget(self):
        """The scene is gone, or the nodes are the user's now."""
        self._stopFinding()
        self._rendering.forget()
        self.nodes = self._before = None
        self._fillTable()

    # Layers

    def chooseLayer(self, name):
        """Show one of the layers over the CT."""
        if self.nodes is None or not self.nodes.complete:
            return
        layer = layers()[name]
        node = self.nodes.node(layer.role)
        self._stopMaking()
        if node is None:
            if name == "difference":
                self._layerTask.start(
                    self.nodes.makingDifference(), lambda _node: self.chooseLayer(name), self._onNotMade
                )
            return
        self.layer = name
        self._buttons[name].checked = True
        self.nodes.table.SetAttribute(LAYER_ATTRIBUTE, name)
        self._laterDrawing.begin()
        styleLayer(name, node, self.nodes.threshold)
        _set(self.ui.anomalyOpacitySlider, self._usualOpacity())
        self._showLayer()
        self._showLegend()

    def _stopMaking(self):
        """A layer that was chosen and is not there yet is not wanted any more."""
        self._layerTask.stop()
        self._buttons[self.layer].checked = True

    def _onNotMade(self, error):
        logging.error("MedDiff-FM: the layer cannot be shown: %s", error)
        self._stopMaking()

    def _layerNode(self):
        return self.nodes.node(layers()[self.layer].role)

    def _usualOpacity(self):
        """What the user last chose for this layer, else the layer's own."""
        stored = self.nodes.table.GetAttribute(f"{OPACITY_ATTRIBUTE}.{self.layer}") if self.nodes else None
        return float(stored or layers()[self.layer].opacity)

    def _showLayer(self):
        showLayer(self.nodes.node("input"), self._layerNode(), self.ui.anomalyOpacitySlider.value)
        if self._sideBySide.shown:
            _viewComposite(VIEW_NAMES[0]).SetForegroundVolumeID(None)

    def _onOpacity(self, value):
        if self.nodes is None or not self.nodes.complete:
            return
        if value > 0:  # 0 is a look at the CT alone, not a choice
            self.nodes.table.SetAttribute(f"{OPACITY_ATTRIBUTE}.{self.layer}", repr(value))
        slicer.util.setSliceViewerLayers(foregroundOpacity=value)

    def _showLegend(self):
        if self.nodes is None or not self.nodes.complete:
            return
        for name, layer in layers().items():
            node = self.nodes.node(layer.role)
            if node and layer.legend:
                showLegend(node, layer.legend, self.ui.legendCheckBox.checked and name == self.layer)

    def _showRegions(self):
        for role in ("regions", "numbers") if self.nodes else ():
            node = self.nodes.node(role)
            if node:
                node.GetDisplayNode().SetVisibility(self.ui.regionsCheckBox.checked)

    def _showRendering(self):
        if self.nodes is None or not self.nodes.complete:
            return
        if self.ui.renderingCheckBox.checked:
            self._rendering.show(self.nodes.node("input"))
        else:
            self._rendering.hide()

    # Findings

    def _onThreshold(self, value):
        if self.nodes is None or not self.nodes.complete:
            return
        self.nodes.threshold = value
        setThreshold(self.nodes.node("anomaly"), value)
        self._loopTask.stop()
        self._restTimer.start()

    def findAgain(self):
        """List the findings above the present threshold, in the course of the next turns of the event loop."""
        if self.nodes is None or not self.nodes.complete:
            return
        self._laterDrawing.begin()
        self._loopTask.start(self.nodes.finding(), self._afterFinding)
        if self._loopTask.busy:
            self.ui.findingsLabel.text = _("Looking for findings...")

    def _stopFinding(self):
        self._restTimer.stop()
        self._loopTask.stop()
        self._stopMaking()

    def _afterFinding(self, count):
        from MedDiffFMLib.tasks.anomaly.findings import MAXIMUM_ROWS

        self._row = -1
        self._laterDrawing.begin()
        self._fillTable()
        self._showFew()
        self._showRegions()
        text = _("{count} findings above z {threshold:.1f}, most conspicuous first.")
        if count == 1:
            text = _("1 finding above z {threshold:.1f}.")
        elif count == 0:
            text = _("No finding above z {threshold:.1f}. Lower the threshold to see more.")
        elif count >= MAXIMUM_ROWS:
            text = _("{count} findings or more above z {threshold:.1f}; raise it.")
        self.ui.findingsLabel.text = text.format(count=count, threshold=self.nodes.threshold)

    # Which findings are seen, and what is decided about them

    def shownRows(self):
        """Rows of the table that are seen: all, or the first few that were not dismissed."""
        if self.nodes is None or not self.nodes.complete:
            return []
        findings = self.nodes.findings()
        if self.ui.allFindingsCheckBox.checked:
            return list(range(len(findings)))
        return [row for row, finding in enumerate(findings) if finding["state"] != DISMISSED][:FEW]

    def _showFew(self, *_checked):
        rows = self.shownRows()
        if self.nodes is None or not self.nodes.complete:
            return
        self.nodes.showOnly(rows)
        view, count = self.ui.findingsTableView, self.nodes.table.GetTable().GetNumberOfRows()
        for row in range(count):
            view.setRowHidden(row, row not in rows)
        self.ui.allFindingsCheckBox.text = _("all {count}").format(count=count)
        self.ui.allFindingsCheckBox.visible = count > len(rows) or self.ui.allFindingsCheckBox.checked
        self._showFinding()

    def _showFinding(self):
        """Everything about the chosen finding, and what can be done with it."""
        chosen = self.nodes is not None and self.nodes.complete and self._row >= 0
        for name in ("keepFinding", "dismissFinding", "fillFinding", "segmentFinding", "measureFinding"):
            getattr(self.ui, f"{name}Button").enabled = chosen
        self.ui.commentLineEdit.enabled = chosen
        self.ui.undoDecisionButton.enabled = bool(self._undo)
        self.ui.findingLabel.visible = chosen
        finding = self.nodes.findings()[self._row] if chosen else None
        _set(self.ui.commentLineEdit, finding["comment"] if finding else "")
        if finding:
            self.ui.findingLabel.text = self._words(finding)

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
        if finding["border"]:
            text += " " + _("It touches the border of the scan, where such marks are often artifacts.")
        return text

    def decide(self, state=None, comment=None):
        """Keep or dismiss the chosen finding, or comment it; the same decision again takes it back."""
        if self.nodes is None or not self.nodes.complete or self._row < 0:
            return
        row, finding = self._row, self.nodes.findings()[self._row]
        self._undo.append(self.nodes.decisions.text)
        self.nodes.decide(row, "" if state and finding["state"] == state else state, comment)
        self._afterDecision()

    def undoDecision(self):
        """The decision before."""
        if self._undo and self.nodes and self.nodes.complete:
            self.nodes.decisions.text = self._undo.pop()
            self.nodes.writeStates()
            self._afterDecision()

    def _afterDecision(self):
        self._fillTable()
        self._showFew()

    def _onComment(self):
        if self.nodes and self.nodes.complete and self._row >= 0:
            text = self.ui.commentLineEdit.text.strip()
            if text != self.nodes.findings()[self._row]["comment"]:
                self.decide(comment=text)

    def _hand(self, receiver):
        """Give the chosen region on."""
        if self.nodes and self.nodes.complete and self._row >= 0 and self.nodes.node("regions"):
            receiver(self.nodes.node("regions"), str(self._row + 1))

    def measure(self, *_clicked):
        """A line along the longest diameter of the chosen finding."""
        if self.nodes and self.nodes.complete and self._row >= 0 and self.nodes.node("regions"):
            name = _("finding {number}").format(number=self._row + 1)
            image = self.nodes.node("input")
            _line, length = measureRegion(self.nodes.node("regions"), str(self._row + 1), image, name)
            self.ui.findingLabel.text += " " + _("Longest diameter {length:.0f} mm.").format(length=length)

    def _fillTable(self):
        view = self.ui.findingsTableView
        view.setMRMLTableNode(self.nodes.table if self.nodes else None)
        view.horizontalHeader().setMinimumSectionSize(NARROWEST_COLUMN)
        for column in range(len(SHOWN_COLUMNS), len(SHOWN_COLUMNS) + len(HIDDEN_COLUMNS)):
            view.hideColumn(column)
        view.resizeColumnsToContents()

    def _onSelection(self):
        index = self.ui.findingsTableView.currentIndex()
        if index.isValid() and index.row() != self._row:
            self.goTo(index.row())

    def goTo(self, row):
        """All views go to the finding in a row of the table."""
        if self.nodes is None or not self.nodes.complete:
            return
        self._row = row
        self._showFinding()
        location = self.nodes.location(row)
        self._laterDrawing.begin()
        with slicer.util.RenderBlocker():
            self.nodes.choose(row)
            jump(location)
            if self.ui.renderingCheckBox.checked:
                centerCameras(location)

    def _go(self, step):
        rows = self.shownRows()
        if not rows:
            return
        if self._row < 0:
            row = rows[0] if step > 0 else rows[-1]
        elif step > 0:
            row = next((one for one in rows if one > self._row), rows[0])
        else:
            row = next((one for one in reversed(rows) if one < self._row), rows[-1])
        self.ui.findingsTableView.selectRow(row)

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

    # Side by side

    def _onSideBySide(self, checked):
        if not checked:
            self._sideBySide.hide()
        elif self.nodes and self.nodes.complete:
            image = self.nodes.node("input")
            self._sideBySide.show(image, image)
            self._showLayer()

    def _leaveSideBySide(self):
        self._sideBySide.hide()
        _set(self.ui.anomalySideBySideButton, False)


def _viewComposite(name):
    return slicer.app.layoutManager().sliceWidget(name).sliceLogic().GetSliceCompositeNode()


def _set(widget, value):
    """Show a value without telling that it changed."""
    wasBlocked = widget.blockSignals(True)
    if isinstance(value, bool):
        widget.checked = value
    elif isinstance(value, str):
        widget.text = value
    else:
        widget.value = value
    widget.blockSignals(wasBlocked)
