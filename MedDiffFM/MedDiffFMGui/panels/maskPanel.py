"""Painting a mask: Slicer's Segment Editor inside the Task section, with a segmentation of the module's own.

Each CT has a mask for each task that changes it. A mask may also be taken from any segment of the scene.
"""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..nodes.boxMasks import addBox
from ..nodes.segmentationArrays import segmentFromSegmentation
from ..worker.eventLoopTasks import EventLoopTask

EFFECTS = ["Paint", "Draw", "Erase", "Threshold", "Scissors", "Islands", "Smoothing"]
MASK_ATTRIBUTE, EARLIER_MASK = "MedDiffFM.Mask", "1"
"""On masks the name of their task; scenes of earlier versions have one mask for all, which is the first task's now."""
SEGMENT = "region"
HIDDEN_ATTRIBUTE, OUTLINED_ATTRIBUTE = "MedDiffFM.Hidden", "MedDiffFM.Outlined"
"""On masks that the panel has taken out of the views, or drawn without their area; it shows them again."""
UNDO_STATES = 20
BRUSH = {"BrushSphere": "1", "BrushDiameterIsRelative": "0", "BrushAbsoluteDiameter": "12"}
"""Of Paint at first: a click makes a ball of 12 mm, Shift and the wheel change it. Slicer's own editor keeps its."""


class MaskPanel(VTKObservationMixin):
    """The mask that a task changes, painted on the chosen CT; each CT keeps its own.

    :param ui: widgets of the module's .ui file; the editor is put into ``maskWidget``.
    :param onChanged: called without arguments when the mask changed.
    """

    def __init__(self, ui, onChanged):
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self.onChanged = onChanged
        self.parameterNode: Any = None
        self.editor: Any = None
        self._editorNode: Any = None
        self._inputs: Any = None  # of the chosen task, as the library declares them
        self._task = ""
        self._observed: Any = None
        self._volume: Any = None  # whose transform the mask follows
        self._loopTask = EventLoopTask()
        self._hasKeys = False
        self.ui.maskWidget.visible = False
        self._menu = qt.QMenu(self.ui.segmentMaskButton)
        self._menu.connect("aboutToShow()", self._listSegments)
        self.ui.segmentMaskButton.setMenu(self._menu)
        self.ui.newBoxButton.connect("clicked(bool)", self.newBox)
        self.ui.clearMaskButton.connect("clicked(bool)", self.clearMask)

    # What the Task section asks

    def setTask(self, task):
        """Show the editor for a task that is painted, and hide it for any other."""
        self._task, self._inputs = task.name, task.inputs
        self.update()

    def segmentation(self):
        """The mask of the task, None where it has none."""
        if self._inputs is None or not self.parameterNode:
            return None
        if self._inputs.paints:
            return self.parameterNode.mask if self._isPainted() else None
        return self.parameterNode.searchArea if self._takesArea() else None

    def _takesArea(self):
        """Whether the task takes a mask that is not painted."""
        from MedDiffFMLib.tasks.inputs import NONE

        return self._inputs is not None and self._inputs.mask is not NONE and not self._inputs.paints

    def reason(self):
        """Why the task cannot run with this mask, one sentence."""
        from MedDiffFMLib.tasks.inputs import REQUIRED

        if self._inputs is None or self._inputs.mask is not REQUIRED or self.segmentation() is not None:
            return ""
        return _("Paint what is to be changed first.") if self._inputs.paints else _("Choose a mask first.")

    # What the widget tells

    def setParameterNode(self, parameterNode):
        self.parameterNode = parameterNode
        self.update()

    def update(self):
        """Bring editor and mask to the chosen task and CT."""
        volume = self.parameterNode.inputVolume if self.parameterNode else None
        paints = bool(self._inputs and self._inputs.paints and volume and volume.GetImageData())
        self.ui.searchAreaWidget.visible = self._takesArea()
        self.ui.maskWidget.visible = paints
        self.ui.liveCheckBox.visible = paints and self._inputs.mask.value == "required"
        self._followTransformOf(volume if paints else None)
        if not paints:
            self.leave()
            self._observe(None)
            return
        self._makeEditor()
        mask = self._maskOf(volume)
        if self.parameterNode.mask is not mask:
            self.parameterNode.mask = mask
        self._observe(mask)
        self._connectEditor(mask, volume)
        self.enter()

    def showOutline(self, mask):
        """Draw a mask of the panel without its area, which would hide its result, and all others with it.

        :param mask: whose result is looked at; None for no mask. Segmentations of the user's own stay as they are.
        """
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            if node.GetAttribute(OUTLINED_ATTRIBUTE) and node is not mask:
                node.RemoveAttribute(OUTLINED_ATTRIBUTE)
                node.GetDisplayNode().SetVisibility2DFill(True)
        if mask and slicer.mrmlScene.IsNodePresent(mask) and mask.GetAttribute(MASK_ATTRIBUTE):
            mask.SetAttribute(OUTLINED_ATTRIBUTE, "1")
            mask.GetDisplayNode().SetVisibility2DFill(False)

    def enter(self):
        """The mask is seen, and the editor's keys (Ctrl+Z and so on) work, while it can be painted."""
        mask = self._observed
        if mask and slicer.mrmlScene.IsNodePresent(mask) and mask.GetAttribute(HIDDEN_ATTRIBUTE):
            mask.RemoveAttribute(HIDDEN_ATTRIBUTE)
            mask.GetDisplayNode().SetVisibility(True)
        if self.editor and self.ui.maskWidget.visible and not self._hasKeys:
            self.editor.installKeyboardShortcuts()
            self._hasKeys = True

    def leave(self):
        """No effect and no mask stays in the views, no key stays taken."""
        _hide(self._observed)
        if self.editor:
            self.editor.setActiveEffect(None)
        if self._hasKeys:
            self.editor.uninstallKeyboardShortcuts()
            self._hasKeys = False

    def cleanup(self):
        """The scene closes or the widget goes away."""
        self._loopTask.stop()
        self._followTransformOf(None)
        self.leave()
        self._observe(None)
        if self.editor:
            self.editor.setSegmentationNode(None)
            self.editor.setSourceVolumeNode(None)
            self.editor.setMRMLSegmentEditorNode(None)
        self._editorNode = None

    # The editor

    def _makeEditor(self):
        """Made when the first mask is painted: most runs need none, and it takes a while."""
        if self.editor:
            return
        editor = slicer.qMRMLSegmentEditorWidget()
        editor.setMaximumNumberOfUndoStates(UNDO_STATES)
        editor.setEffectNameOrder(EFFECTS)
        editor.unorderedEffectsVisible = False
        editor.setSegmentationNodeSelectorVisible(False)
        editor.setSourceVolumeNodeSelectorVisible(False)
        editor.setAddRemoveSegmentButtonsVisible(False)
        editor.setShow3DButtonVisible(False)
        editor.setSwitchToSegmentationsButtonVisible(False)
        editor.setMRMLScene(slicer.mrmlScene)
        self.ui.maskWidget.layout().addWidget(editor)
        self.editor = editor

    def _connectEditor(self, mask, volume):
        """The order matters: editor node, segmentation, volume, segment."""
        if self._editorNode is None or not slicer.mrmlScene.IsNodePresent(self._editorNode):
            self._editorNode = slicer.mrmlScene.GetSingletonNode("MedDiffFM", "vtkMRMLSegmentEditorNode")
        if self._editorNode is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("MedDiffFM")
            self._editorNode = slicer.mrmlScene.AddNode(node)
        for name, value in BRUSH.items():  # before the effects set their own defaults
            if self._editorNode.GetAttribute(name) is None:
                self._editorNode.SetAttribute(name, value)
        if self.editor.mrmlSegmentEditorNode() is not self._editorNode:
            self.editor.setMRMLSegmentEditorNode(self._editorNode)
        if self.editor.segmentationNode() is not mask:
            self.editor.setSegmentationNode(mask)
        if self.editor.sourceVolumeNode() is not volume:
            self.editor.setSourceVolumeNode(volume)
        segmentID = mask.GetSegmentation().GetNthSegmentID(0)
        if segmentID and not self._editorNode.GetSelectedSegmentID():
            self._editorNode.SetSelectedSegmentID(segmentID)

    # The mask

    def _maskOf(self, volume):
        """The segmentation for this task's masks on this CT, made where there is none yet."""
        from MedDiffFMLib.tasks.registry import TASKS

        for mask in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            if mask.GetAttribute(MASK_ATTRIBUTE) == EARLIER_MASK:
                mask.SetAttribute(MASK_ATTRIBUTE, self._task)
            if mask.GetAttribute(MASK_ATTRIBUTE) == self._task and _referenceVolume(mask) is volume:
                return mask
        name = slicer.mrmlScene.GenerateUniqueName(f"{volume.GetName()} mask ({TASKS[self._task].title})")
        mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        mask.SetAttribute(MASK_ATTRIBUTE, self._task)
        mask.CreateDefaultDisplayNodes()
        mask.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        mask.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        mask.GetSegmentation().AddEmptySegment(SEGMENT, _("region to change"), [0.9, 0.6, 0.1])
        mask.GetDisplayNode().SetOpacity2DFill(0.25)
        return mask

    def _followTransformOf(self, volume):
        """The mask stays on its CT when the CT is put under a transform."""
        if volume is not self._volume:
            self.removeObservers(self._onMoved)
            self._volume = volume
            if volume is not None:
                self.addObserver(volume, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._onMoved)
        self._onMoved()

    def _onMoved(self, caller=None, event=None):
        for mask in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if self._volume else ():
            ofVolume = mask.GetAttribute(MASK_ATTRIBUTE) and _referenceVolume(mask) is self._volume
            if ofVolume and mask.GetTransformNodeID() != self._volume.GetTransformNodeID():
                mask.SetAndObserveTransformNodeID(self._volume.GetTransformNodeID())

    def newBox(self, *_clicked):
        """A box in the middle of the red view, inside which is looked."""
        volume = self.parameterNode.inputVolume if self.parameterNode else None
        if volume:
            self.parameterNode.searchArea = addBox(volume)

    def clearMask(self):
        """An empty mask; the editor's undo brings it back."""
        if self._observed and self._editable():
            self.editor.saveStateForUndo()
            self._observed.GetSegmentation().ClearSegment(self._segmentID())

    def _listSegments(self):
        """Every segment of the scene but the panel's own masks."""
        self._menu.clear()
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            if node.GetAttribute(MASK_ATTRIBUTE) or node.GetHideFromEditors():
                continue
            content = node.GetSegmentation()
            for segmentID in content.GetSegmentIDs():
                action = self._menu.addAction(f"{node.GetName()}: {content.GetSegment(segmentID).GetName()}")
                take = lambda node=node, segmentID=segmentID: self.takeSegment(node, segmentID)  # noqa: E731
                action.connect("triggered()", take)
        if not self._menu.actions():
            self._menu.addAction(_("The scene has no segment.")).enabled = False

    def takeSegment(self, node, segmentID, onTaken=lambda: None):
        """The mask becomes what a segment covers on the CT; the editor's undo brings the one before back.

        :param onTaken: called when it is there, a few turns of the event loop later for a large CT.
        """
        mask, volume = self._observed, self._volume
        if mask is None or not self._editable():
            return

        def put(covered):
            self.editor.saveStateForUndo()
            slicer.util.updateSegmentBinaryLabelmapFromArray(covered, mask, self._segmentID(), volume)
            onTaken()

        self._loopTask.start(segmentFromSegmentation(node, segmentID, volume), put)

    def _editable(self):
        return slicer.mrmlScene.IsNodePresent(self._observed) and bool(self._segmentID())

    def _segmentID(self):
        """The first segment; the user may have removed the one that was made."""
        return self._observed.GetSegmentation().GetNthSegmentID(0)

    def _isPainted(self):
        mask = self.parameterNode.mask if self.parameterNode else None
        if mask is None:
            return False
        return any(_isFilled(mask, segmentID) for segmentID in mask.GetSegmentation().GetSegmentIDs())

    def _observe(self, mask):
        if mask is self._observed:
            return
        if self._observed:
            self.removeObservers(self._onMaskModified)
            _hide(self._observed)
        self._observed = mask
        if mask:
            for event in (
                slicer.vtkSegmentation.SourceRepresentationModified,
                slicer.vtkSegmentation.SegmentModified,
                slicer.vtkSegmentation.SegmentAdded,
                slicer.vtkSegmentation.SegmentRemoved,
            ):
                self.addObserver(mask.GetSegmentation(), event, self._onMaskModified)

    def _onMaskModified(self, caller=None, event=None):
        self.onChanged()


def _hide(mask):
    """Take a mask out of the views, and keep it distinct from one that the user has hidden."""
    if mask and slicer.mrmlScene.IsNodePresent(mask) and mask.GetDisplayNode().GetVisibility():
        mask.SetAttribute(HIDDEN_ATTRIBUTE, "1")
        mask.GetDisplayNode().SetVisibility(False)


def _referenceVolume(segmentation):
    """The volume whose grid a segmentation was made for."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role)


def _isFilled(segmentation, segmentID):
    """Whether a segment has a voxel; only the painted part of the grid is stored, so this is quick for any CT."""
    labelmap = segmentation.GetBinaryLabelmapInternalRepresentation(segmentID)
    scalars = labelmap.GetPointData().GetScalars() if labelmap else None
    return scalars is not None and scalars.GetNumberOfTuples() > 0 and scalars.GetRange()[1] > 0
