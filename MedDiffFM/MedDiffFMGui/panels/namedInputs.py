"""Widgets for what a task takes besides its first scan, mask and organs: further scans and texts, by name."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..runs.inputCheck import describeInput
from .promptEditor import PromptEditor


class NamedInputs:
    """One row of the task's form for each scan and each text; kept with the scene in the module's parameter node.

    :param task: name in the library's table.
    :param inputs: ``MedDiffFMLib.tasks.inputs.Inputs``.
    :param form: QFormLayout.
    :param onChanged: called without arguments when the user chose a scan or changed a text.
    """

    def __init__(self, task, inputs, form, onChanged):
        self._task, self._inputs, self._onChanged = task, inputs, onChanged
        self._node: Any = None  # vtkMRMLScriptedModuleNode
        self._quiet = False
        self._selectors = {scan.name: _selector(scan) for scan in inputs.scans}
        self._prompts = {text.name: PromptEditor(text) for text in inputs.texts if text.facts}
        lines = {name: prompt.edit for name, prompt in self._prompts.items()}
        self._edits = {text.name: _prepared(lines.get(text.name) or qt.QLineEdit(), text) for text in inputs.texts}
        shown = {name: prompt.widget for name, prompt in self._prompts.items()}
        widgets = {**self._selectors, **self._edits, **shown}
        for row in inputs.named:
            form.addRow(_(row.caption) + ":", widgets[row.name])
        for name, selector in self._selectors.items():
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node, name=name: self._onNode(name, node))
        for name, edit in self._edits.items():
            edit.connect("textChanged(QString)", lambda text, name=name: self._onText(name, text))

    def setParameterNode(self, node):
        """Show what a scene was saved with.

        :param node: vtkMRMLScriptedModuleNode; None leaves the widgets as they are until the next one.
        """
        self._node = node
        if node is None:
            return
        self._quiet = True
        try:
            for name, selector in self._selectors.items():
                selector.setCurrentNode(node.GetNodeReference(self._role(name)))
            for name, edit in self._edits.items():
                edit.text = node.GetParameter(self._role(name))
        finally:
            self._quiet = False

    def scans(self):
        """Name -> node of the scans that are chosen."""
        nodes = {name: selector.currentNode() for name, selector in self._selectors.items()}
        return {name: node for name, node in nodes.items() if node is not None}

    def texts(self):
        """Name -> text of those that are not empty."""
        return {name: edit.text.strip() for name, edit in self._edits.items() if edit.text.strip()}

    def reason(self):
        """Why the task cannot run with these, one sentence; empty when it can."""
        from MedDiffFMLib.tasks.inputs import REQUIRED

        scans, texts = self.scans(), self.texts()
        for scan in self._inputs.scans:
            if scan.on:
                continue
            if scan.need is REQUIRED or scan.name in scans:
                _facts, reason = describeInput(scans.get(scan.name), scan.modality)
                if reason:
                    return f"{_(scan.caption)}: {reason}"
        for text in self._inputs.texts:
            if text.need is REQUIRED and text.name not in texts:
                return _("Write the text first: {name}.").format(name=_(text.caption))
        return ""

    def _role(self, name):
        return f"{self._task}.{name}"

    def _onNode(self, name, node):
        if self._node and not self._quiet:
            self._node.SetNodeReferenceID(self._role(name), node.GetID() if node else None)
            self._onChanged()

    def _onText(self, name, text):
        if self._node and not self._quiet:
            self._node.SetParameter(self._role(name), text)
            self._onChanged()


def _selector(scan):
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLSegmentationNode" if scan.on else "vtkMRMLScalarVolumeNode"]
    selector.showChildNodeTypes = False
    selector.noneEnabled = True
    selector.addEnabled = selector.removeEnabled = False
    selector.setMRMLScene(slicer.mrmlScene)
    selector.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)  # a long name must not widen the panel
    selector.toolTip = _(scan.help)
    return selector


def _prepared(edit, text):
    edit.toolTip = _(text.help)
    edit.placeholderText = _(text.example)
    return edit
