"""The Result section: which view shows which result.

A view is an object with ``show(run)``, ``clear()`` (gives the user's view back) and ``setParameterNode(parameterNode)``
(None when the scene closes or the module is left). It fills one widget of the section, which is visible only while the
view has something to show. A view that has ``blink()``, ``next()`` or ``previous()`` is asked so by the keys K, N and P
while the module is open and a result is shown. One that has ``restore()`` may find its result in a scene that was
loaded, and then answers True.
"""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.resultRecord import MASK, OUTDATED, isAccepted, mainNodes, recall, removeResult
from ..views.following import Following
from .shortcuts import Shortcuts

KEYS = {"K": "blink", "N": "next", "P": "previous"}
"""Slicer's slice views take B, F, G, R, T, V and brackets, its Segment Editor Q, W, space and digits."""
SETTLE_MS = 50  # layouts in each other are laid out one by one, in turns of the event loop


class ResultPanel:
    """Hands a finished run to the view that its task declares, and lists the results of the scene.

    :param ui: widgets of the module's .ui file.
    :param views: value of the library's ``View`` -> (view, its widget in the section).
    """

    def __init__(self, ui, views):
        self.ui = ui
        self._views = views
        self._shown = None
        self._run: Any = None  # FinishedRun that is shown
        self.onShown = lambda run: None  # called with the FinishedRun that is shown from now on, None for none
        self.goesOn = lambda: False  # whether the user is at something else, such as painting, and is left there
        self._told: Any = None
        self._following = Following(self._onTheScan)
        self._differs = False  # the panel's settings are not those of the shown result
        self._isOpen = False
        self._shortcuts = Shortcuts({key: lambda name=name: self._ask(name) for key, name in KEYS.items()})
        ui.resultsComboBox.connect("currentIndexChanged(int)", self._onChosen)
        ui.removeResultButton.connect("clicked(bool)", self.removeChosen)
        self._showOnly(None)

    @property
    def run(self):
        """The FinishedRun that is shown, or None."""
        return self._run

    def enter(self):
        """The module is opened."""
        self._isOpen = True
        self._takeKeys()

    def exit(self):
        """Another module is opened."""
        self._isOpen = False
        self._takeKeys()

    def _takeKeys(self):
        if self._isOpen and self._shown is not None:
            self._shortcuts.install()
        else:
            self._shortcuts.remove()

    def setParameterNode(self, parameterNode):
        for view, _widget in self._views.values():
            view.setParameterNode(parameterNode)
        if parameterNode and self._shown is None:
            self._restore()
        self.list()

    def _restore(self):
        """Show again what the scene was saved with."""
        for name, (view, _widget) in self._views.items():
            if hasattr(view, "restore") and view.restore():
                self._showOnly(name)
                return

    def _follow(self):
        """A view may go from one result to another by itself, or find one in a loaded scene."""
        view = self._views[self._shown][0] if self._shown is not None else None
        nodes = getattr(view, "nodes", None)
        if nodes is not None and nodes.complete and (self._run is None or self._run.main is not nodes.main):
            self._run = recall(nodes.main)
            self._run.inputNode = nodes.node("input")  # scenes of earlier versions say it there alone

    def show(self, run):
        """Show ``run`` in place of what was shown."""
        from MedDiffFMLib.tasks.registry import TASKS

        name = TASKS[run.task].view.value
        if self._shown not in (None, name):
            self._views[self._shown][0].clear()
        self._run, self._differs = run, False
        self._showOnly(name)
        self._views[name][0].show(run)
        self.list()
        self.ui.resultCollapsibleButton.collapsed = False
        if not self.goesOn():
            qt.QTimer.singleShot(SETTLE_MS, self._scrollTo)

    def _scrollTo(self):
        """Bring the beginning of the section into sight."""
        if self._shown is not None:
            self.ui.panelScrollArea.verticalScrollBar().value = self.ui.resultCollapsibleButton.y

    def clear(self):
        """Show nothing and give the user's view back."""
        if self._shown is not None:
            self._views[self._shown][0].clear()
        self._showOnly(None)
        self.list()

    def _ask(self, method):
        view = self._views[self._shown][0] if self._shown is not None else None
        slot = getattr(view, method, None)
        if slot is not None:
            slot()

    def _showOnly(self, name):
        self._shown = name
        if name is None:
            self._run = None
        for key, (_view, widget) in self._views.items():
            widget.visible = key == name
        self._takeKeys()

    # Results of the scene

    def list(self):
        """Name every result of the scene, and what the user has decided about it."""
        self._follow()
        mains = mainNodes()
        combo = self.ui.resultsComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        combo.addItem(_("no result is shown"), "")
        for node in mains:
            combo.addItem(_words(node), node.GetID())
        combo.currentIndex = max(combo.findData(self._run.main.GetID()), 0) if self._run else 0
        combo.blockSignals(wasBlocked)
        self.ui.resultsWidget.visible = bool(mains)
        self.ui.removeResultButton.enabled = self._run is not None and not isAccepted(self._run.main)
        self.ui.resultCollapsibleButton.visible = self._shown is not None or bool(mains)
        reason = self._run.main.GetAttribute(OUTDATED) if self._run else ""
        if self._run and not reason and self._differs:
            reason = _("The settings above are not those of this result.")
        self.ui.outdatedLabel.text = reason or ""
        self.ui.outdatedLabel.visible = bool(reason)
        if self._run is not self._told:
            self._told = self._run
            self._following.stop()
            if self._run and self._run.inputNode:
                self._following.start(self._run.inputNode)
            self.onShown(self._run)

    def _onTheScan(self):
        """What moves with the scan when that is put under a transform."""
        return [node for node in self._run.nodes if node.IsA("vtkMRMLTransformableNode")] if self._run else []

    def _onChosen(self, index):
        node = slicer.mrmlScene.GetNodeByID(self.ui.resultsComboBox.itemData(index) or "")
        if node is None:
            self.clear()
        elif self._run is None or node is not self._run.main:
            self.show(recall(node))

    def removeChosen(self):
        """Take the shown result out of the scene; one that was accepted is left."""
        self._follow()
        run = self._run
        if run is not None:
            self.clear()
            if not isAccepted(run.main):
                removeResult(run)
            self.list()

    # What makes a result untrue

    def outdate(self, reason, mask=None, image=None):
        """Mark results whose mask or scan has changed.

        :param reason: one sentence.
        :param mask, image: the node that changed.
        """
        for main in mainNodes():
            run = recall(main)
            changed = (mask is not None and main.GetNodeReference(MASK) is mask) or run.inputNode is image is not None
            if changed and not main.GetAttribute(OUTDATED):
                main.SetAttribute(OUTDATED, reason)
        self.list()

    def compareSettings(self, settings):
        """Say whether the panel's settings are those of the shown result.

        :param settings: RunSettings that a run would have now.
        """
        differs = False
        if self._run and self._run.choices:
            made = self._run.choices.settings
            own, now = (made.parameters, made.seed), (settings.parameters, settings.seed)
            differs = made.task == settings.task and own != now
        if differs != self._differs:
            self._differs = differs
            self.list()

    def onInputChanged(self, inputNode):
        """Another scan was chosen: a result of the one before leaves the views and stays in the list."""
        if self._run and inputNode and inputNode not in (self._run.inputNode, *self._run.nodes):
            self.clear()

    def onNodeRemoved(self, node):
        """The scan or the main node of the shown result is gone."""
        self._follow()
        if self._run and node in (self._run.inputNode, self._run.main):
            self.clear()


def _words(node):
    state = _("kept") if isAccepted(node) else _("undecided")
    if node.GetAttribute(OUTDATED):
        state = _("{state}, outdated").format(state=state)
    return f"{node.GetName()} ({state})"
