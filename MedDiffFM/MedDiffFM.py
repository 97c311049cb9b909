"""MedDiff-FM in Slicer: the module, its parameter node, its widget and its logic. The parts are in MedDiffFMGui."""

from typing import Any

import qt
import slicer
import vtk
from MedDiffFMGui.nodes.findingMarks import copyRegion
from MedDiffFMGui.nodes.parameterNode import MedDiffFMParameterNode
from MedDiffFMGui.nodes.resultRecord import OUTPUT, TASK
from MedDiffFMGui.nodes.sampleData import registerSampleData
from MedDiffFMGui.nodes.volumeNodes import voxelsTime
from MedDiffFMGui.panels.caseReport import CaseReport
from MedDiffFMGui.panels.dicomExport import DicomExport
from MedDiffFMGui.panels.liveRun import LiveRun
from MedDiffFMGui.panels.maskPanel import MaskPanel
from MedDiffFMGui.panels.readingPanel import ReadingPanel
from MedDiffFMGui.panels.resultPanel import ResultPanel
from MedDiffFMGui.panels.setupPanel import SetupPanel
from MedDiffFMGui.panels.shortcuts import Shortcuts
from MedDiffFMGui.panels.taskPanel import TaskPanel
from MedDiffFMGui.panels.trainingPanel import TrainingPanel
from MedDiffFMGui.runs.scriptedRun import ScriptedRun
from MedDiffFMGui.views.anomalyView import AnomalyView
from MedDiffFMGui.views.compareView import CompareView
from MedDiffFMGui.views.segmentView import SegmentView
from MedDiffFMGui.views.sentencesView import SentencesView
from MedDiffFMGui.views.shownVolume import ShownVolumeWatch, shownVolume, showVolume
from MedDiffFMGui.views.windows import WINDOWS, setWindow
from MedDiffFMGui.views.xrayView import XrayView
from MedDiffFMGui.worker.workerPython import WorkerPython
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class MedDiffFM(ScriptedLoadableModule):
    """What Slicer shows about the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedDiff-FM")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = []
        parent.contributors = ["MedDiff-FM Contributors (SlicerMedDiffFM)"]
        parent.helpText = _(
            "One 3-D CT diffusion model behind many tools: anomaly maps, denoising, filling and inserting of lesions, "
            "thin slices, synthetic CTs. Choose a CT volume and a task, and press the button; the result is a new "
            "volume. Research use only."
        )
        parent.acknowledgementText = _("An independent open implementation of the ideas of the MedDiff-FM paper.")
        slicer.app.connect("startupCompleted()", registerSampleData)


class MedDiffFMWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Widget of the module: its panels, and the life of scene, module and application."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: MedDiffFMLogic  # from setup on
        self._parameterNode: Any = None
        self._parameterNodeGuiTag = None
        self._inputObserved = None
        self._voxelsTime = 0
        self._followsInput = True  # choosing a CT shows it

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedDiffFM.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = MedDiffFMLogic()
        self.logic.addListener(self)
        self.maskPanel = MaskPanel(self.ui, self.onMaskChanged)
        self.taskPanel = TaskPanel(self.ui, self.logic, self.iconPath, self.maskPanel)
        self.compareView = CompareView(self.ui, self.onResultClosed, self.onResultAccepted)
        self.anomalyView = AnomalyView(self.ui, self.logic, self.onResultClosed, self.onResultAccepted)
        self.anomalyView.findings.onFill, self.anomalyView.findings.onSegment = (
            self.onFillFinding,
            self.onSegmentFinding,
        )
        self.segmentView = SegmentView(self.ui, self.onResultClosed)
        self.sentencesView = SentencesView(self.ui, self.onResultClosed)
        self.xrayView = XrayView(self.ui, self.onResultClosed)
        views = {
            "findings": (self.anomalyView, self.ui.anomalyResultWidget),
            "structures": (self.segmentView, self.ui.segmentResultWidget),
            "sentences": (self.sentencesView, self.ui.sentencesResultWidget),
            "x-rays": (self.xrayView, self.ui.xrayResultWidget),
            "compare": (self.compareView, self.ui.compareResultWidget),
        }
        self.resultPanel = ResultPanel(self.ui, views)
        self.liveRun = LiveRun(self.ui, self.taskPanel, self.logic, self.onMaskEmptied)
        self.resultPanel.goesOn = lambda: self.liveRun.on
        self.dicomExport = DicomExport(self.ui)
        self.caseReport = CaseReport(self.ui, self.logic.workerPython)
        self.resultPanel.onShown = self.onResultShown
        self._shortcuts = Shortcuts({"Ctrl+Return": self.taskPanel.run, "Ctrl+.": self.taskPanel.cancel})
        self.setupPanel = SetupPanel(self.ui, self.logic.workerPython, self.onWorkerPythonChanged)
        self.setupPanel.update()
        self.setupPanel.openIfNeeded()
        self.trainingPanel = TrainingPanel(self.ui.trainingWidget, self.logic, self.taskPanel.refreshModels)
        self.trainingPanel.onTry = self.onTryModel
        self.trainingPanel.onStarted = self.onTrainingStarted

        self.readingPanel = ReadingPanel(self.ui.readingWidget)

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.onNodeRemoved)
        self._shownWatch = ShownVolumeWatch(self.onShownVolume)
        for name in WINDOWS:
            button = getattr(self.ui, f"{name}WindowButton")
            button.connect("clicked(bool)", lambda *_clicked, name=name: setWindow(name))
        self.ui.showInputButton.connect("clicked(bool)", self.showInput)
        slicer.app.connect("aboutToQuit()", self.logic.stop)
        self.initializeParameterNode()

    def iconPath(self, name):
        """Path of an icon of the module."""
        return self.resourcePath(f"Icons/{name}")

    def cleanup(self):
        """The widget goes away: on reload and when Slicer quits."""
        slicer.app.disconnect("aboutToQuit()", self.logic.stop)
        self._shortcuts.remove()
        self.dicomExport.setRun(None)
        self.caseReport.setRun(None)
        self._shownWatch.stop()
        self.liveRun.stop()
        self.resultPanel.clear()
        self.setParameterNode(None)
        self.taskPanel.stop()
        self.maskPanel.cleanup()
        self.trainingPanel.stop()
        self.readingPanel.pause()
        self.setupPanel.stop()
        self.removeObservers()
        self.logic.stop()

    def enter(self):
        self.initializeParameterNode()
        self.setupPanel.update()
        self.maskPanel.enter()
        self.trainingPanel.enter()
        self.resultPanel.enter()
        self._shortcuts.install()
        self.taskPanel.strip.setAway(False)

    def exit(self):
        """Another module is opened; a run goes on, is told of in the status bar, and is shown again by enter."""
        self.taskPanel.strip.setAway(True)
        self._shortcuts.remove()
        self.maskPanel.leave()
        self.trainingPanel.exit()
        self.readingPanel.pause()
        self.resultPanel.exit()
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.dicomExport.setRun(None)
        self.caseReport.setRun(None)
        self._shownWatch.stop()
        self.liveRun.stop()
        self.readingPanel.pause()
        self.resultPanel.clear()
        self.setParameterNode(None)
        self.maskPanel.cleanup()
        self.logic.abandon()
        self.taskPanel.strip.say("")  # it spoke of what is gone

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        """A scene was loaded: its parameters and its results are shown."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Make sure that there is a parameter node, with the scene's first volume where none was chosen."""
        self.setParameterNode(self.logic.getParameterNode())
        self._takeFirstVolume()
        self._shownWatch.start()

    def _takeFirstVolume(self):
        """Choose the volume that the scene has; the views are the user's."""
        if self._parameterNode and not self._parameterNode.inputVolume:
            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            firstVolume = next((node for node in volumes if not node.GetHideFromEditors()), None)
            if firstVolume:
                self._followsInput = False
                self._parameterNode.inputVolume = firstVolume
                self._followsInput = True

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, caller, event, node):
        """The first volume that comes is taken, when it has its voxels."""
        if node.IsA("vtkMRMLScalarVolumeNode"):
            qt.QTimer.singleShot(0, self._takeFirstVolume)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller, event, node):
        self.resultPanel.onNodeRemoved(node)

    def onShownVolume(self):
        """Say when the views show another volume than the chosen one."""
        chosen, shown = self._parameterNode.inputVolume if self._parameterNode else None, shownVolume()
        run = self.resultPanel.run
        isOther = shown is not chosen and not (run and shown in run.nodes)
        if chosen and shown and isOther:
            text = _("The views show {shown}: show {chosen}")
            self.ui.showInputButton.text = text.format(shown=shown.GetName(), chosen=chosen.GetName())
        self.ui.showInputButton.visible = bool(chosen and shown and isOther)

    def showInput(self):
        """The chosen CT in all slice views."""
        if self._parameterNode and self._parameterNode.inputVolume:
            self.readingPanel.pause()
            self.resultPanel.onInputChanged(self._parameterNode.inputVolume)
            showVolume(self._parameterNode.inputVolume)

    def setParameterNode(self, parameterNode):
        """Connect the widgets with ``parameterNode``, or disconnect them."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified
            )
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified
            )
        self._observeInput()
        self.maskPanel.setParameterNode(parameterNode)
        self.taskPanel.setParameterNode(parameterNode)
        self.resultPanel.setParameterNode(parameterNode)

    def onParameterNodeModified(self, caller=None, event=None):
        inputVolume = self._parameterNode.inputVolume
        if inputVolume is self._inputObserved:
            self.taskPanel.update()
            self.resultPanel.compareSettings(self.taskPanel.choices().settings)
            return
        self._observeInput()
        self.maskPanel.update()
        self.taskPanel.onInputChanged()
        if inputVolume and self._followsInput:
            self.showInput()
        self.onShownVolume()

    def _observeInput(self):
        """Hear of changes of the chosen CT's voxels."""
        if self._inputObserved is not None:
            self.removeObservers(self.onInputModified)
        self._inputObserved = self._parameterNode.inputVolume if self._parameterNode else None
        if self._inputObserved is not None:
            self._voxelsTime = voxelsTime(self._inputObserved)
            for event in (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent):
                self.addObserver(self._inputObserved, event, self.onInputModified)

    def onInputModified(self, caller=None, event=None):
        """Voxels that were edited make results untrue; a name or a window does not."""
        now = voxelsTime(caller)
        if now != self._voxelsTime:
            self._voxelsTime = now
            self.resultPanel.outdate(_("The CT has changed since this was computed."), image=caller)

    def onMaskChanged(self):
        if not self._parameterNode:  # the scene closes
            return
        if not self.liveRun.on:  # what is filled within a moment stays in sight
            self.maskPanel.showOutline(None)
        self.resultPanel.outdate(_("The mask has changed since this was computed."), mask=self._parameterNode.mask)
        self.taskPanel.update()
        self.liveRun.onMaskChanged()

    def onMaskEmptied(self):
        """Undo has taken the first stroke back: its filling goes with it, unless it was kept."""
        run = self.resultPanel.run
        if run and run.choices and run.choices.mask is self._parameterNode.mask:
            self.resultPanel.removeChosen()
            self.maskPanel.showOutline(None)

    def onResultAccepted(self, main):
        """What was kept is what the next task works on, so that one step builds on the other."""
        from MedDiffFMLib.tasks.output_kinds import OutputKind
        from MedDiffFMLib.tasks.registry import TASKS

        self.liveRun.stopRefining()
        self.resultPanel.list()
        output = TASKS[main.GetAttribute(TASK)].output(main.GetAttribute(OUTPUT))
        if output.kind is OutputKind.CT and self._parameterNode:
            self._parameterNode.inputVolume = main
            self.taskPanel.strip.say(_("Kept; {name} is the input now.").format(name=main.GetName()))
        else:
            self.taskPanel.strip.say(_("Kept: {name}.").format(name=main.GetName()))

    def onFillFinding(self, regions, segmentID):
        """The region of a finding as mask of the filling."""
        self._parameterNode.inputVolume = self.resultPanel.run.inputNode
        self.taskPanel.choose("inpaint")
        self.maskPanel.takeSegment(regions, segmentID)
        self.ui.taskCollapsibleButton.collapsed = False
        self.ui.panelScrollArea.verticalScrollBar().value = self.ui.taskCollapsibleButton.y

    def onSegmentFinding(self, regions, segmentID):
        """The region of a finding as a segment of the user's own."""
        name = _("finding {number}").format(number=segmentID)
        node, _added = copyRegion(regions, segmentID, self.resultPanel.run.inputNode, name)
        self.taskPanel.strip.say(_("{name} is in {segmentation}.").format(name=name, segmentation=node.GetName()))

    def onTrainingStarted(self):
        """Progress and curve come to the top of the section; so does the section."""
        self.ui.panelScrollArea.verticalScrollBar().value = self.ui.trainCollapsibleButton.y

    def onTryModel(self, model):
        """A segmentation that was just trained, on the chosen CT."""
        self.taskPanel.choose("segment")
        self.taskPanel.setValue("head", model)
        self.ui.taskCollapsibleButton.collapsed = False
        self.ui.panelScrollArea.verticalScrollBar().value = self.ui.taskCollapsibleButton.y

    def onResultShown(self, run):
        """Another result, or none, is looked at; one of an earlier session lacks the rows that objects are made of."""
        shown = run if run and run.choices else None
        self.dicomExport.setRun(shown)
        self.caseReport.setRun(shown)

    def onResultClosed(self):
        """The user accepted or discarded the result."""
        self.resultPanel.clear()
        self.maskPanel.showOutline(None)

    def onFinished(self, run):
        """From the logic: show what a run gave; a pair of a reading would be covered by it."""
        self.readingPanel.pause()
        self.resultPanel.show(run)
        self.maskPanel.showOutline(run.choices.mask)

    def onWorkerPythonChanged(self):
        """The user chose another Python or installed packages: the next run starts a new process."""
        self.logic.restartWorker()
        self.setupPanel.update()
        self.trainingPanel.update()
        self.taskPanel.refreshModels()


class MedDiffFMLogic(ScriptedRun, ScriptedLoadableModuleLogic):
    """Runs of tasks without any widget: ``run`` and ``runFolder`` of ScriptedRun for scripts, ``start`` for panels."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        ScriptedRun.__init__(self, WorkerPython())

    def getParameterNode(self):
        return MedDiffFMParameterNode(super().getParameterNode())  # type: ignore[call-arg]  # made by the wrapper


class MedDiffFMTest(ScriptedLoadableModuleTest):
    """Self-test for Reload and Test; needs no model and no network."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        self.setUp()
        self.test_resultKeepsGeometry()
        self.setUp()
        self.test_wrongInputIsNamed()

    def test_resultKeepsGeometry(self):
        import numpy as np
        from MedDiffFMGui.nodes.volumeNodes import addResultNode, volumeFromNode

        ijkToRAS = np.array([[-1.5, 0.2, 0, 30], [0.2, -1.5, 0, 40], [0, 0, 2.5, -60], [0, 0, 0, 1]])
        node = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), dtype=np.int16), ijkToRAS, "CT")
        volume = volumeFromNode(node)
        result = addResultNode(volume.voxels + 1.0, node, "CT denoised", sameDisplay=True)
        assert volumeFromNode(result).same_geometry(volume, tolerance=0)
        assert slicer.util.arrayFromVolume(node).max() == 0

    def test_wrongInputIsNamed(self):
        from MedDiffFMGui.runs.inputCheck import describeInput

        assert "Choose a CT" in describeInput(None)[1]
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        assert "no voxels" in describeInput(empty)[1]
