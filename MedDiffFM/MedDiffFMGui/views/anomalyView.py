"""Result of an anomaly map: heat map over the CT, findings to click, regions in 3D."""

import logging
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.anomalyNodes import AnomalyNodes, writeTitles
from ..nodes.resultRecord import remember
from ..worker.eventLoopTasks import EventLoopTask
from .anomalyLayers import jump, layers, setThreshold, showLayer, showLegend, styleLayer
from .bodyView import BodyView
from .cameras import centerCameras
from .decision import showDecision
from .findingsView import FindingsView
from .following import Following
from .laterDrawing import LaterDrawing
from .quietly import setQuietly
from .sideBySide import VIEW_NAMES, SideBySide
from .viewState import ViewState

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "Anomaly.ui"
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
        self.nodes: Any = None  # AnomalyNodes while a map is shown
        self.layer = "heat"  # name of what is shown over the CT
        self._before: Any = None
        self._isCutShort = False  # the user left the module while findings were looked for
        self._sideBySide = SideBySide()
        self._body = BodyView()
        self._following = Following(self._onTheCT)
        self._laterDrawing = LaterDrawing()
        panel = slicer.util.loadUI(str(UI_FILE))
        ui.anomalyResultWidget.layout().addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.findings = FindingsView(self.ui, self._goTo)
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
        ui.renderingCheckBox.connect("toggled(bool)", self._showBody)
        ui.legendCheckBox.connect("toggled(bool)", self._showLegend)
        ui.anomalyAcceptButton.connect("clicked(bool)", self.accept)
        ui.anomalyDiscardButton.connect("clicked(bool)", self.discard)
        ui.anomalySideBySideButton.connect("toggled(bool)", self._onSideBySide)

    # What the Result section asks for

    def setParameterNode(self, parameterNode):
        """None when the scene closes or another module is opened; a map that is shown stays in the views."""
        if parameterNode is None:
            self._isCutShort = self._loopTask.busy or self._restTimer.isActive()
            self._stopFinding()
        if self.nodes and not self.nodes.complete:
            self._forget()
        if parameterNode is not None and self._isCutShort:
            self._isCutShort = False
            self.findAgain()

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
                self._afterFinding()
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
        self.findings.step(1)

    def previous(self):
        """Go to the finding before."""
        self.findings.step(-1)

    # Opening and closing

    def _open(self, nodes):
        self.nodes, self.layer = nodes, "heat"
        self._following.start(nodes.node("input"))
        self.findings.open(nodes)
        ui = self.ui
        self._showDecision()
        ui.anomalyTitleLabel.text = nodes.node("anomaly").GetName()
        setQuietly(ui.anomalyThresholdSlider, nodes.threshold)
        for name in ("healthy", "difference"):
            self._buttons[name].enabled = nodes.node("healthy") is not None
        self._buttons["uncertainty"].enabled = nodes.node("uncertainty") is not None
        self.chooseLayer(nodes.table.GetAttribute(LAYER_ATTRIBUTE) or "heat")
        self._showRegions()
        self._showBody()

    def _putAway(self):
        """Take the map out of the views but leave its nodes in the scene."""
        self._stopFinding()
        self._leaveSideBySide()
        self._body.remove()
        if self.nodes and self.nodes.complete:
            for layer in layers().values():
                node = self.nodes.node(layer.role)
                if node and layer.legend:
                    showLegend(node, layer.legend, False)
            for role in ("regions", "numbers"):
                node = self.nodes.node(role)
                if node:
                    node.GetDisplayNode().SetVisibility(False)
        self._close()

    def _onTheCT(self):
        """Nodes that lie on the CT: maps, regions, numbers, body."""
        roles = ("anomaly", "healthy", "difference", "uncertainty", "regions", "numbers")
        return [*(self.nodes.node(role) for role in roles), *self._body.models]

    def _forget(self):
        """The scene is gone, or the nodes are the user's now."""
        self._stopFinding()
        self._body.forget()
        self._before = None
        self._close()

    def _close(self):
        self._following.stop()
        self.nodes = None
        self.findings.open(None)
        self.findings.fill()

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
        setQuietly(self.ui.anomalyOpacitySlider, self._usualOpacity())
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

    def _showBody(self):
        if self.nodes is None or not self.nodes.complete:
            return
        if self.ui.renderingCheckBox.checked:
            self._body.show(self.nodes.node("input"))
        else:
            self._body.hide()

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
        self._loopTask.start(self.nodes.finding(), self._afterFinding)
        if self._loopTask.busy:
            self.ui.findingsLabel.text = _("Looking for findings...")

    def _stopFinding(self):
        self._restTimer.stop()
        self._loopTask.stop()
        self._stopMaking()

    def _afterFinding(self, *_count):
        self._laterDrawing.begin()
        self.findings.fill()
        self._showRegions()

    def _goTo(self, row):
        """All views go to the finding in a row of the table."""
        location = self.nodes.location(row)
        self._laterDrawing.begin()
        with slicer.util.RenderBlocker():
            self.nodes.choose(row)
            jump(location)
            if self.ui.renderingCheckBox.checked:
                centerCameras(location)

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
        setQuietly(self.ui.anomalySideBySideButton, False)


def _viewComposite(name):
    return slicer.app.layoutManager().sliceWidget(name).sliceLogic().GetSliceCompositeNode()
