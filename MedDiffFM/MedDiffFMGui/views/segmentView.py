"""Result of a segmentation: outlines over the CT, how sure the head is as a heat map, a table of the structures."""

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.resultRecord import remember
from ..nodes.segmentNodes import SegmentNodes
from .anomalyLayers import jump, showLayer, showLegend
from .cameras import Cameras
from .colorIcon import colorIcon
from .decision import showDecision
from .viewState import ViewState

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "Segment.ui"
HEADINGS = ("Structure", "ml", "uncertainty")


class SegmentView:
    """One of the segmentations of the scene in the user's views; the others are hidden until chosen.

    :param ui: widgets of the module's .ui file; ``segmentResultWidget`` is filled.
    :param onClosed: called without arguments when the user has decided about the last result.
    """

    def __init__(self, ui, onClosed=lambda: None):
        self.onClosed = onClosed
        self.nodes: Any = None  # SegmentNodes while a result is shown
        self._before: Any = None
        self._cameras = Cameras()
        self._warnings = ""
        panel = slicer.util.loadUI(str(UI_FILE))
        ui.segmentResultWidget.layout().addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        table = self.ui.structuresTableWidget
        table.setColumnCount(len(HEADINGS))
        table.setHorizontalHeaderLabels([_(text) for text in HEADINGS])
        table.verticalHeader().hide()
        table.horizontalHeader().setStretchLastSection(True)
        self._connect()

    def _connect(self):
        ui = self.ui
        ui.segmentationComboBox.connect("currentIndexChanged(int)", self._onResultChosen)
        ui.uncertaintyComboBox.connect("currentIndexChanged(int)", lambda *_index: self._showMap())
        ui.uncertaintyCheckBox.connect("toggled(bool)", lambda *_checked: self._showMap())
        ui.uncertaintyLegendCheckBox.connect("toggled(bool)", lambda *_checked: self._showMap())
        ui.uncertaintyOpacitySlider.connect("valueChanged(double)", self._onOpacity)
        ui.segments3DCheckBox.connect("toggled(bool)", self._show3D)
        ui.structuresTableWidget.connect("itemSelectionChanged()", self._onStructure)
        ui.segmentBlinkButton.connect("clicked(bool)", self.blink)
        ui.segmentAcceptButton.connect("clicked(bool)", self.accept)
        ui.segmentDiscardButton.connect("clicked(bool)", self.discard)

    # What the Result section asks for

    def setParameterNode(self, parameterNode):
        """None when the scene closes or another module is opened; a result that is shown stays in the views."""
        if self.nodes and not self.nodes.complete:
            self.nodes = self._before = None
            self._cameras.forget()

    def show(self, run):
        """Show a finished run; the views of before the first one are remembered."""
        self._warnings = "\n".join(run.warnings)
        remember(run)
        self._switch(SegmentNodes(run.main))

    def restore(self):
        """Show the latest result that a loaded scene holds.

        :return: whether there is one.
        """
        if self.nodes and self.nodes.complete:
            return True
        results = SegmentNodes.ofScene()
        if results:
            self._switch(results[-1])
        return bool(results)

    def clear(self):
        """Nothing is shown any more; the views are as they were before the result."""
        self._putAway()
        self._restoreViews()

    def accept(self):
        """Keep the nodes, and the views as they are unless another result waits."""
        nodes, self.nodes = self.nodes, None
        if nodes and nodes.complete:
            nodes.accept()
            if SegmentNodes.ofScene():
                _hideLegends(nodes)
        self._showNextOrClose()

    def discard(self):
        """Take the nodes out of the scene unless the user has accepted them; the views are as before."""
        nodes = self.nodes
        accepted = nodes is not None and nodes.complete and nodes.accepted
        self._putAway()
        if nodes and not accepted:
            nodes.remove()
        self._showNextOrClose(restore=True)

    def blink(self):
        """The CT alone, or with what was found again."""
        if self._complete():
            display = self.nodes.segmentation.GetDisplayNode()
            display.SetVisibility(not display.GetVisibility())
            self._showMap()

    # Opening and closing

    def _complete(self):
        return self.nodes is not None and self.nodes.complete

    def _switch(self, nodes):
        if self._before is None:
            self._before = ViewState()
        self._putAway()
        self.nodes = nodes
        self.ui.segmentTitleLabel.text = nodes.segmentation.GetName()
        self.ui.segmentWarningLabel.text = self._warnings
        self.ui.segmentWarningLabel.visible = bool(self._warnings)
        self._warnings = ""
        showDecision(self.ui.segmentAcceptButton, self.ui.segmentDiscardButton, nodes.accepted)
        self._listResults()
        self._listMaps()
        self._fillTable()
        nodes.segmentation.GetDisplayNode().SetVisibility(True)
        wasBlocked = self.ui.segments3DCheckBox.blockSignals(True)
        self.ui.segments3DCheckBox.checked = nodes.has3D()
        self.ui.segments3DCheckBox.blockSignals(wasBlocked)
        self._show3D(nodes.has3D())
        self._showMap()

    def _putAway(self):
        """Take the result out of the views but leave its nodes in the scene."""
        nodes, self.nodes = self.nodes, None
        if nodes and nodes.complete:
            nodes.segmentation.GetDisplayNode().SetVisibility(False)
            _hideLegends(nodes)

    def _showNextOrClose(self, restore=False):
        """Another result that waits for a decision, or the end."""
        waiting = SegmentNodes.ofScene()
        if waiting:
            self._switch(waiting[-1])
            return
        if restore:
            self._restoreViews()
        self._before = None
        self._cameras.forget()
        self.onClosed()

    def _restoreViews(self):
        if self._before:
            self._before.restore()
        self._before = None
        self._cameras.restore()

    # Lists

    def _listResults(self):
        results = SegmentNodes.ofScene()
        _fill(self.ui.segmentationComboBox, [result.segmentation for result in results], self.nodes.segmentation)
        self.ui.segmentationComboBox.visible = len(results) > 1
        self.ui.segmentTitleLabel.visible = len(results) <= 1

    def _listMaps(self):
        maps = self.nodes.maps()
        _fill(self.ui.uncertaintyComboBox, maps, maps[0] if maps else None)
        self.ui.uncertaintyComboBox.visible = self.ui.uncertaintyMapLabel.visible = len(maps) > 1
        self.ui.uncertaintyCheckBox.enabled = bool(maps)

    def _onResultChosen(self, index):
        node = slicer.mrmlScene.GetNodeByID(self.ui.segmentationComboBox.itemData(index) or "")
        if node and SegmentNodes(node).complete:
            self._switch(SegmentNodes(node))

    def _fillTable(self):
        table = self.ui.structuresTableWidget
        rows = self.nodes.rows()
        wasBlocked = table.blockSignals(True)
        table.setRowCount(len(rows))
        for row, (_segmentID, name, color, volume, uncertainty) in enumerate(rows):
            texts = (name, _rounded(volume), _rounded(uncertainty))
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
            table.item(row, 0).setIcon(colorIcon(color))
        table.clearSelection()
        table.resizeColumnsToContents()
        table.blockSignals(wasBlocked)

    def _onStructure(self):
        """All views go to the structure that was clicked."""
        rows = self.ui.structuresTableWidget.selectionModel().selectedRows()
        if not self._complete() or not rows:
            return
        segmentID, _name, _color, volume, _uncertainty = self.nodes.rows()[rows[0].row()]
        if volume:
            jump(self.nodes.location(segmentID))

    # Layers

    def _show3D(self, visible):
        if self._complete():
            self.nodes.show3D(visible)
            if visible:
                self._cameras.lookAt(self.nodes.node("input"))

    def _showMap(self):
        """The CT, and over it the chosen uncertainty; then the segments are outlines, since areas would hide it."""
        if not self._complete():
            return
        ui, display = self.ui, self.nodes.segmentation.GetDisplayNode()
        shown = ui.uncertaintyCheckBox.checked and bool(display.GetVisibility())
        chosen = slicer.mrmlScene.GetNodeByID(ui.uncertaintyComboBox.currentData or "") if shown else None
        display.SetVisibility2DFill(chosen is None)
        showLayer(self.nodes.node("input"), chosen, ui.uncertaintyOpacitySlider.value)
        for node in self.nodes.maps():
            visible = node is chosen and ui.uncertaintyLegendCheckBox.checked
            showLegend(node, _("uncertainty"), visible, "%.1f")

    def _onOpacity(self, value):
        if self._complete():
            slicer.util.setSliceViewerLayers(foregroundOpacity=value)


def _rounded(number):
    """Three digits, more before the point; no exponent."""
    return "-" if number is None else f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _hideLegends(nodes):
    for node in nodes.maps():
        showLegend(node, "", False)


def _fill(combo, nodes, chosen):
    """Names and identifiers of nodes, without telling that the choice changed."""
    wasBlocked = combo.blockSignals(True)
    combo.clear()
    for node in nodes:
        combo.addItem(node.GetName(), node.GetID())
    combo.currentIndex = combo.findData(chosen.GetID()) if chosen else -1
    combo.blockSignals(wasBlocked)
