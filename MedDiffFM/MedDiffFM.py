"""MedDiff-FM in Slicer: the module, its parameter node, its widget and its logic. The parts are in MedDiffFMGui."""

from enum import Enum
from typing import Any

import slicer
import vtk
from MedDiffFMGui.denoisePanel import DenoisePanel
from MedDiffFMGui.setupPanel import SetupPanel
from MedDiffFMGui.taskRun import TaskRun
from MedDiffFMGui.workerPython import WorkerPython
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
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
            "One 3-D CT diffusion model behind many tools. Choose a CT volume and press Denoise; the result is a new "
            "volume on the same grid. Research use only."
        )
        parent.acknowledgementText = _("An independent open implementation of the ideas of the MedDiff-FM paper.")


class Device(Enum):
    """Where the model computes; the values are the library's names."""

    AUTOMATIC = "auto"
    CPU = "cpu"
    CUDA = "cuda"

    def label(self):
        """Text in the panel."""
        return {"auto": _("automatic"), "cpu": _("processor (CPU)"), "cuda": _("NVIDIA GPU (CUDA)")}[self.value]


@parameterNodeWrapper
class MedDiffFMParameterNode:
    """What is saved with the scene."""

    inputVolume: vtkMRMLScalarVolumeNode
    device: Device = Device.AUTOMATIC


class MedDiffFMWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Puts the panels together and follows the life of scene, module and application."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: MedDiffFMLogic  # from setup on
        self._parameterNode: Any = None
        self._parameterNodeGuiTag = None
        self._inputObserved = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedDiffFM.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = MedDiffFMLogic()
        self.denoisePanel = DenoisePanel(self.ui, self.logic)
        self.setupPanel = SetupPanel(self.ui, self.logic.workerPython, self.onWorkerPythonChanged)
        self.ui.modelLabel.text = self.logic.modelName
        self.setupPanel.update()
        self.setupPanel.openIfNeeded()

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        slicer.app.connect("aboutToQuit()", self.logic.stop)
        self.initializeParameterNode()

    def cleanup(self):
        """The widget goes away: on reload and when Slicer quits."""
        slicer.app.disconnect("aboutToQuit()", self.logic.stop)
        self.setParameterNode(None)
        self.removeObservers()
        self.logic.stop()

    def enter(self):
        self.initializeParameterNode()
        self.setupPanel.update()

    def exit(self):
        """Another module is opened; a run goes on and is shown again by enter."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)
        self.logic.abandon()

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Make sure that there is a parameter node, with the scene's first volume where none was chosen."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            firstVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if firstVolume:
                self._parameterNode.inputVolume = firstVolume

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
        self._inputObserved = parameterNode.inputVolume if parameterNode else None
        self.denoisePanel.setParameterNode(parameterNode)

    def onParameterNodeModified(self, caller=None, event=None):
        inputVolume = self._parameterNode.inputVolume
        if inputVolume is not self._inputObserved:
            self._inputObserved = inputVolume
            self.denoisePanel.onInputChanged()

    def onWorkerPythonChanged(self):
        """The user chose another Python or installed packages: the next run starts a new process."""
        self.logic.restartWorker()
        self.setupPanel.update()
        self.denoisePanel.update()


class MedDiffFMLogic(TaskRun, ScriptedLoadableModuleLogic):
    """Runs tasks without any widget; see TaskRun for the functions."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        TaskRun.__init__(self, WorkerPython())

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
        from MedDiffFMGui.volumeNodes import addResultNode, volumeFromNode

        ijkToRAS = np.array([[-1.5, 0.2, 0, 30], [0.2, -1.5, 0, 40], [0, 0, 2.5, -60], [0, 0, 0, 1]])
        node = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), dtype=np.int16), ijkToRAS, "CT")
        volume = volumeFromNode(node)
        result = addResultNode(volume.voxels + 1.0, node, "CT denoised", sameDisplay=True)
        assert volumeFromNode(result).same_geometry(volume, tolerance=0)
        assert slicer.util.arrayFromVolume(node).max() == 0

    def test_wrongInputIsNamed(self):
        from MedDiffFMGui.inputCheck import describeInput

        assert "Choose a CT" in describeInput(None)[1]
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        assert "no voxels" in describeInput(empty)[1]
