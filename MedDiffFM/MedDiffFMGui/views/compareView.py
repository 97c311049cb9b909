"""Result of a task that makes a CT: before and after, what was changed, keep or discard."""

import logging
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.colors import differenceColors
from ..nodes.resultNodes import addingDifference
from ..nodes.resultRecord import OUTDATED, accept, isAccepted, mainNodes, recall, remember, removeResult
from ..nodes.volumeNodes import thinnedOut, volumeFromNode
from ..worker.eventLoopTasks import EventLoopTask
from .decision import showDecision
from .facts import factsText
from .mixture import Mixture
from .placesList import PlacesList
from .sideBySide import SideBySide
from .viewState import ViewState, sliceNodes

MODES = ("blend", "swipe", "checkerboard")
BUTTONS_IN_A_ROW = 3  # more would make the panel wider
GREY = "vtkMRMLColorTableNodeGrey"
CHANGE_REACH = 20.0
"""Standard deviations at the ends of the colors of a change; a tenth of it is transparent, which is most noise."""


class CompareView:
    """One finished run in the user's views.

    Of runs that repeat each other while a mask is being painted only the newest is kept, unless the user accepted one.

    :param ui: widgets of the module's .ui file.
    :param onClosed: called without arguments when the user accepted or discarded the result.
    :param onAccepted: called with the main node when the user accepted it.
    """

    def __init__(self, ui, onClosed, onAccepted=lambda node: None):
        self.ui = ui
        self.onClosed, self.onAccepted = onClosed, onAccepted
        self.run: Any = None
        self._before: Any = None
        self._sideBySide = SideBySide()
        self._difference: Any = None
        self._mixture = Mixture()
        self._base: Any = None  # what the result is compared with: its input, or another result
        self._loopTask = EventLoopTask()
        self._shownNode: Any = None
        self._choices: dict[str, Any] = {}
        self._places = PlacesList(ui.compareResultWidget.layout())
        ui.resultTitleLabel.visible = False  # the list of results names it
        for name in MODES:
            ui.compareModeComboBox.addItem(_(name.capitalize()), name)
        ui.compareModeComboBox.connect("currentIndexChanged(int)", lambda *_index: self._showMode())
        ui.beforeComboBox.connect("currentIndexChanged(int)", self._onBase)
        ui.outlineCheckBox.connect("toggled(bool)", self._onOutline)
        ui.blendSlider.connect("valueChanged(double)", self._onBlend)
        ui.blinkButton.connect("clicked(bool)", self.blink)
        ui.sideBySideButton.connect("toggled(bool)", self._onSideBySide)
        ui.acceptButton.connect("clicked(bool)", self.accept)
        ui.discardButton.connect("clicked(bool)", self.discard)

    def setParameterNode(self, parameterNode):
        """Nothing of this view is saved besides the nodes themselves."""

    def show(self, run):
        """Show ``run`` over its input; the views of before the first run are remembered."""
        if self._before is None:
            self._before = ViewState()
        self._forgetDifference()
        if self.run and _repeats(run, self.run) and not isAccepted(self.run.main):
            _replace(self.run, run)
        self.run = run
        remember(run)
        showDecision(self.ui.acceptButton, self.ui.discardButton, isAccepted(run.main))
        hasInput = self._original() is not None and bool(run.volumes)
        self.ui.resultTitleLabel.text = run.main.GetName()
        self.ui.resultFactsLabel.text = factsText(run)
        self.ui.blendWidget.visible = self.ui.compareButtonsWidget.visible = hasInput
        self._places.show(run)
        self._listBases()
        self._makeChoices()
        if self._choices:
            self._choose(next(iter(self._choices)))

    def clear(self):
        """Nothing is shown any more; views as they were before the result."""
        self._leaveSideBySide()
        if self._before and self.run:
            self._before.restore(places=self.run.inputNode is None)  # the views were fitted to a synthetic CT
        self._forgetDifference()
        self._mixture.remove()
        self._places.hide()
        self.run = self._before = self._base = None

    def blink(self):
        """The original, or the result again."""
        if self._original() is not None:
            self.ui.blendSlider.value = 0.0 if self.ui.blendSlider.value > 0.5 else 1.0

    def accept(self):
        """Keep the nodes and show the result in place of the original."""
        if not self._exists():
            self._close()
            return
        self._leaveSideBySide()
        main = self.run.main
        accept(main)
        self._before.restore()
        self._mixture.remove()
        self.run = self._before = None  # the views stay as they are now
        if main.IsA("vtkMRMLVolumeNode"):
            slicer.util.setSliceViewerLayers(background=main)
        self._close()
        self.onAccepted(main)

    def discard(self):
        """Take the nodes out of the scene unless the user has accepted them; the views are as before."""
        run = self.run
        self.clear()
        if run and not isAccepted(run.main):
            removeResult(run)
        self._close()

    # Layers

    def _original(self):
        """What the result is compared with, None where it is not (any more) there."""
        for node in (self._base, self.run.inputNode) if self.run else ():
            if node and slicer.mrmlScene.IsNodePresent(node):
                return node
        return None

    def _listBases(self):
        """The input, and other results of it on the same grid: two seeds, two strengths."""
        combo, run = self.ui.beforeComboBox, self.run
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        combo.addItem(_("original"), "")
        for main in mainNodes():
            isAnother = main is not run.main and main.IsA("vtkMRMLScalarVolumeNode")
            if isAnother and recall(main).inputNode is run.inputNode is not None and _sameGrid(main, run.main):
                combo.addItem(main.GetName(), main.GetID())
        combo.blockSignals(wasBlocked)
        self._base = None
        combo.visible = self.ui.beforeLabel.visible = combo.count > 1

    def _onOutline(self, _checked):
        if self._exists() and self._choices:
            self._choose(self._shownName())

    def _shownName(self):
        shown = next((name for name, node in self.run.volumes.items() if node is self._shownNode), None)
        return shown if shown in self._choices else next(iter(self._choices))

    def _onBase(self, index):
        self._base = slicer.mrmlScene.GetNodeByID(self.ui.beforeComboBox.itemData(index) or "")
        self._forgetDifference()
        self._mixture.remove()
        if self._exists() and self._choices:
            self._choose(self._shownName())

    def _exists(self):
        return self.run is not None and slicer.mrmlScene.IsNodePresent(self.run.main)

    def _makeChoices(self):
        """A radio button for each output that can be looked at, and for the difference where it has none of its own."""
        for button in self._choices.values():
            button.setParent(None)
            button.deleteLater()
        self._choices = {}
        from MedDiffFMLib.tasks.output_kinds import OutputKind

        names = [name for name in self.run.volumes if self._output(name).kind is not OutputKind.MASK]
        kinds = {self._output(name).kind for name in names}
        kind = self._output(names[0]).kind if names else None
        isLikeInput = kind in (OutputKind.CT, OutputKind.MR) and kind.modality == self._inputModality()
        signed = {OutputKind.DIFFERENCE, OutputKind.CHANGE}
        if self._original() is not None and isLikeInput and not signed & kinds and self._sameGrid():
            names.append("difference")
        for number, name in enumerate(names):
            button = qt.QRadioButton(self.ui.shownWidget)
            button.text = self._output(name).words
            button.toolTip = _("Shows this volume over the original.")
            button.connect("clicked(bool)", lambda checked, chosen=name: self._choose(chosen))
            self.ui.shownWidget.layout().addWidget(button, *divmod(number, BUTTONS_IN_A_ROW))
            self._choices[name] = button
        self.ui.shownWidget.visible = len(names) > 1

    def _sameGrid(self):
        return _sameGrid(self.run.main, self._original())

    def _output(self, name):
        """What a volume of the run is, as the library's table says."""
        from MedDiffFMLib.tasks.registry import TASKS

        return TASKS[self.run.task].output(name)

    def _inputModality(self):
        """Of the run's task; a result of another one has no difference to it."""
        from MedDiffFMLib.tasks.registry import TASKS

        return TASKS[self.run.task].inputs.modality

    def _choose(self, name):
        from MedDiffFMLib.tasks.output_kinds import OutputKind

        self._choices[name].checked = True
        self._loopTask.stop()
        isOwn = name not in self.run.volumes  # the difference, made here because the task gives none
        node = self._difference if isOwn else self.run.volumes[name]
        if node is None or not slicer.mrmlScene.IsNodePresent(node):
            if isOwn and self._original() is not None:
                self._makeDifference()
            return
        if isOwn:
            showSigned(node, differenceColors().GetID())
        elif self._output(name).kind is OutputKind.CHANGE:
            showSigned(node, differenceColors().GetID(), CHANGE_REACH)
        elif self._output(name).kind is OutputKind.DIFFERENCE:  # it is everywhere: colors would hide its texture
            showSigned(node, GREY)
        names = [other for other in self.run.volumes if self._output(other).kind is OutputKind.MASK]
        masks = [self.run.volumes[other] for other in names]
        self.ui.outlineCheckBox.visible = bool(masks)
        if names:
            self.ui.outlineCheckBox.text = _("Outline: {what}").format(what=_(self._output(names[0]).words))
        label = next(iter(masks), None) if self.ui.outlineCheckBox.checked else None
        if label is not None:
            for sliceNode in sliceNodes():
                sliceNode.SetUseLabelOutline(True)  # an area would hide the lesion
        original = self._original()
        wasBlocked = self.ui.blendSlider.blockSignals(True)
        self.ui.blendSlider.value = 1.0
        self.ui.blendSlider.blockSignals(wasBlocked)
        if original is None:
            slicer.util.setSliceViewerLayers(background=node, foreground=None, label=label, fit=True)
        else:
            slicer.util.setSliceViewerLayers(background=original, foreground=node, label=label, foregroundOpacity=1.0)
            self._shownNode = node
            self.ui.compareModeComboBox.enabled = _sameGrid(node, original)
            self._showMode()
            if self._sideBySide.shown:
                self._sideBySide.show(original, node)

    def _makeDifference(self):
        """Result minus original, which is shown when it is there."""
        name = _("{name} difference").format(name=self.run.main.GetName())
        steps = addingDifference(self._original(), self.run.main, name)
        self._loopTask.start(steps, self._onDifference, self._onNoDifference)

    def _onDifference(self, node):
        self._difference = node
        self._choose("difference")

    def _onNoDifference(self, error):
        logging.error("MedDiff-FM: the difference cannot be shown: %s", error)
        self._choose(next(iter(self._choices)))

    def _forgetDifference(self):
        self._loopTask.stop()
        if self._difference and slicer.mrmlScene.IsNodePresent(self._difference):
            slicer.mrmlScene.RemoveNode(self._difference)
        self._difference = None

    def _mode(self):
        combo = self.ui.compareModeComboBox
        return combo.currentData if combo.enabled else MODES[0]

    def _showMode(self):
        """The slider does what the chosen way of comparing needs."""
        if self._exists() and self._original() is not None and self._shownNode is not None:
            self.ui.blendSlider.enabled = self._mode() != "checkerboard"
            self._onBlend(self.ui.blendSlider.value)

    def _onBlend(self, value):
        """Opacity of the result, or the share of the width that shows it."""
        original, shown, mode = self._original(), self._shownNode, self._mode()
        if not self._exists() or original is None or not slicer.mrmlScene.IsNodePresent(shown):
            return
        if mode == MODES[0]:
            slicer.util.setSliceViewerLayers(foreground=shown, foregroundOpacity=value)
            self._mixture.remove()
            return
        if mode == "swipe":
            node = self._mixture.swipe(original, shown, value)
        else:
            node = self._mixture.checkerboard(original, shown)
        slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=1.0)

    def _onSideBySide(self, checked):
        if not checked:
            self._sideBySide.hide()
        elif self._exists() and self._original():
            self._sideBySide.show(self._original(), self._shownNode)

    def _leaveSideBySide(self):
        self._sideBySide.hide()
        wasBlocked = self.ui.sideBySideButton.blockSignals(True)
        self.ui.sideBySideButton.checked = False
        self.ui.sideBySideButton.blockSignals(wasBlocked)

    def _close(self):
        self.clear()
        self.onClosed()


def _sameGrid(first, second):
    """Whether two volumes have their voxels in the same places."""
    if first.GetImageData() is None or second.GetImageData() is None:
        return False
    return volumeFromNode(first).same_geometry(volumeFromNode(second), tolerance=1e-3)


def _repeats(run, earlier):
    """Whether a run was made again with the mask of the one before."""
    return (
        run.choices is not None
        and run.choices.mask is not None
        and (run.task, run.inputNode) == (earlier.task, earlier.inputNode)
    )


def _replace(earlier, run):
    """Nodes of before hold from now on what ``run`` gave: their names, windows and places in the views stay."""
    scene = slicer.mrmlScene
    for name, node in list(run.volumes.items()):
        kept = earlier.volumes.get(name)
        if not kept or not scene.IsNodePresent(kept):
            continue
        if kept.IsA("vtkMRMLScalarVolumeNode"):
            with slicer.util.NodeModify(kept):
                kept.CopyOrientation(node)
                kept.SetAndObserveImageData(node.GetImageData())
                kept.RemoveAttribute(OUTDATED)
                for attribute in node.GetAttributeNames():
                    kept.SetAttribute(attribute, node.GetAttribute(attribute))
            run.volumes[name] = kept  # before the other goes: to lose its main node ends a result
            scene.RemoveNode(node)
        else:
            keptName = kept.GetName()
            scene.RemoveNode(kept)
            node.SetName(keptName)
    if earlier.reportNode and scene.IsNodePresent(earlier.reportNode):
        earlier.reportNode.SetText(run.reportNode.GetText())
        scene.RemoveNode(run.reportNode)
        run.reportNode = earlier.reportNode
    for node in earlier.nodes:
        if node not in run.nodes and scene.IsNodePresent(node):
            scene.RemoveNode(node)


def showSigned(node, colors, reach=None):
    """A volume around zero: the same range to both sides.

    :param colors: ID of a color node.
    :param reach: end of the range; wide enough for most of the voxels that are not zero where it is None.
    """
    import numpy as np

    display = node.GetDisplayNode()
    if reach is None:
        sample = np.abs(thinnedOut(slicer.util.arrayFromVolume(node)))
        changed = sample[sample > 0]
        reach = max(float(np.percentile(changed, 95)), 1.0) if changed.size else 100.0
    display.SetAndObserveColorNodeID(colors)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(-reach, reach)
