"""The Denoise section: one button that runs, cancels, and says why it cannot."""

import logging
from typing import Any

import slicer
from slicer.i18n import tr as _

from .inputCheck import describeInput


class DenoisePanel:
    """Connects the widgets of the Input and Denoise sections with one run of the task.

    :param ui: widgets of the module's .ui file.
    :param logic: starts and cancels the run and reports to this panel (``onProgress`` and so on).
    """

    TASK = "denoise"

    def __init__(self, ui, logic):
        from MedDiffFMLib.tasks.registry import TASKS

        self.ui = ui
        self.logic = logic
        self.parameterNode: Any = None
        self._inputReason = ""
        self.ui.taskSentenceLabel.text = _(TASKS[self.TASK].sentence)
        self.ui.runButton.connect("clicked(bool)", self.onRunButton)
        logic.addListener(self)

    def setParameterNode(self, parameterNode):
        """Work with another parameter node; with None the panel stays as it is until the next one."""
        self.parameterNode = parameterNode
        if parameterNode:
            self.onInputChanged()

    def onInputChanged(self):
        """Look at the chosen volume once, not at every update of the panel."""
        facts, self._inputReason = describeInput(self.parameterNode.inputVolume)
        self.ui.inputFactsLabel.text = facts
        self.update()

    def update(self):
        """Bring the button and what explains it to the present state."""
        reason = ""
        button = self.ui.runButton
        if self.logic.cancelling:
            button.text, button.enabled = _("Stop now"), True
            button.toolTip = _("The model stops after its present step. Press to end its process at once.")
        elif self.logic.running:
            button.text, button.enabled, button.toolTip = _("Cancel"), True, _("Stop; the scene stays as it was.")
        else:
            reason = self._inputReason or self.logic.workerPython.problem()
            button.text, button.enabled = _("Denoise"), not reason
            button.toolTip = reason or _("Removes noise from the CT and adds the result as a new volume.")
        self.ui.reasonLabel.text = reason
        self.ui.reasonLabel.visible = bool(reason)
        self.ui.deviceComboBox.enabled = not self.logic.running

    def onRunButton(self):
        if self.logic.running:
            self.ui.runStatusLabel.text = _("Cancelling...")
            self.logic.cancel()
            return
        self.ui.runProgressBar.value = 0
        self.ui.runStatusLabel.text = _("Starting the model...")
        try:
            self.logic.start(self.TASK, self.parameterNode.inputVolume, self.parameterNode.device.value)
        except Exception as error:
            logging.exception("MedDiff-FM: the run could not start")
            self.onFailed(error)

    # What the logic reports.

    def onStateChanged(self):
        self.update()

    def onReady(self, description):
        self.ui.modelLabel.text = description

    def onProgress(self, fraction, stage, secondsLeft):
        self.ui.runProgressBar.value = round(1000 * fraction)
        left = _(", {time} left").format(time=_duration(secondsLeft)) if secondsLeft is not None else ""
        self.ui.runStatusLabel.text = f"{stage}{left}"

    def onFinished(self, nodes, warnings):
        self.ui.runProgressBar.value = 1000
        self.ui.runStatusLabel.text = " ".join([_("Done: {name}.").format(name=nodes[0].GetName()), *warnings])
        slicer.util.setSliceViewerLayers(background=nodes[0])

    def onFailed(self, error):
        self.ui.runProgressBar.value = 0
        self.ui.runStatusLabel.text = str(error)

    def onCancelled(self):
        self.ui.runProgressBar.value = 0
        self.ui.runStatusLabel.text = _("Cancelled.")

    def onLog(self, text):
        self.ui.logTextEdit.appendPlainText(text)


def _duration(seconds):
    """12 s, or 3 min."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
