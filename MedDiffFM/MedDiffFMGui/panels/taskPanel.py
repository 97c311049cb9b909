"""The Task section: choose a task, set what it needs, run it, or see why it cannot run."""

import json
import logging
from typing import Any

import qt
from slicer.i18n import tr as _

from ..nodes.storedValues import holdsStoredValues, subtracting1024
from ..runs.inputCheck import InputLine
from ..runs.manyRuns import ManyRuns
from ..runs.runRequest import runChoices
from ..runs.runtimeEstimate import RuntimeEstimate, duration
from ..worker.deviceWords import plannedDevice, takesAccelerator
from ..worker.eventLoopTasks import EventLoopTask
from .namedInputs import NamedInputs
from .parameterWidgets import ParameterWidgets
from .runStrip import RunStrip, firstSentence

BUTTONS_IN_A_ROW, ICON = 5, 24
LONGEST_TITLE = 11  # letters of a button in one line


class TaskPanel:
    """Input and Task sections: connects their widgets with runs of the logic.

    :param ui: widgets of the module's .ui file.
    :param logic: starts and cancels the run and reports to this panel (``onProgress`` and so on).
    :param iconPath: gives the path of an icon file.
    :param maskPanel: lets the user paint a mask; has ``setTask(task)``, ``segmentation()``, ``reason()``.
    """

    def __init__(self, ui, logic, iconPath, maskPanel):
        from MedDiffFMLib.tasks.registry import TASKS

        self.ui = ui
        self.logic = logic
        self.maskPanel = maskPanel
        self.parameterNode: Any = None
        self.strip = RunStrip(ui)
        self._speed = RuntimeEstimate()
        self._tasks = TASKS
        self._forms = {}
        self._inputReason, self._modality = "", ""
        self._inputLine = InputLine(ui.inputFactsLabel)
        self._loopTask = EventLoopTask()
        self._shownTask = None
        self._many: Any = None  # ManyRuns while several CTs are worked on
        self._isGivenUp = False  # nobody waits for the run that goes on
        self._makeButtons(iconPath)
        self.ui.runButton.connect("clicked(bool)", self.onRunButton)
        self.ui.hounsfieldButton.connect("clicked(bool)", self._onHounsfield)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self._onModelChosen)
        self.ui.alsoSelector.connect("checkedNodesChanged()", self.update)
        logic.addListener(self)

    def stop(self):
        """The widget goes away."""
        self._inputLine.stop()
        self._loopTask.stop()

    @property
    def task(self):
        """Name of the chosen task."""
        chosen = self.parameterNode.task if self.parameterNode else ""
        return chosen if chosen in self._tasks else next(iter(self._tasks))

    @property
    def declared(self):
        """The chosen task as the library declares it."""
        return self._tasks[self.task]

    @property
    def _takesMany(self):
        """Whether several scans can be done in one go: of a painted mask each scan has its own."""
        from MedDiffFMLib.tasks.inputs import REQUIRED

        return self.declared.inputs.volume is REQUIRED and not self.declared.inputs.paints

    # The choice of a task

    def _makeButtons(self, iconPath):
        self._group = qt.QButtonGroup(self.ui.taskButtonsWidget)
        self._group.setExclusive(True)
        self._buttons = {}
        for index, (name, task) in enumerate(self._tasks.items()):
            button = qt.QToolButton(self.ui.taskButtonsWidget)
            button.objectName = f"{name}TaskButton"
            button.text = _inTwoLines(_(task.title))
            button.toolTip = _(task.sentence)
            button.setIcon(qt.QIcon(iconPath(task.icon)))
            button.setIconSize(qt.QSize(ICON, ICON))
            button.setToolButtonStyle(qt.Qt.ToolButtonTextUnderIcon)
            button.checkable = True
            button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Minimum)
            button.connect("clicked(bool)", lambda checked, chosen=name: self.choose(chosen))
            self._group.addButton(button)
            self._buttons[name] = button
            place = divmod(index, BUTTONS_IN_A_ROW)
            self.ui.taskButtonsWidget.layout().addWidget(button, *place)

    def choose(self, task):
        """The user presses the button of a task."""
        if self.parameterNode:
            self.parameterNode.task = task

    # The parameter node

    def setParameterNode(self, parameterNode):
        """Work with another parameter node; with None the panel stays as it is until the next one."""
        self.parameterNode = parameterNode
        for form in self._forms.values():
            form.named.setParameterNode(parameterNode.parameterNode if parameterNode else None)
        if parameterNode:
            self._fillModels()
            self._shownTask = None
            self.onInputChanged()

    def onInputChanged(self):
        """Look at the chosen volume once, not at every update of the panel."""
        self._checkInput()
        if self.task in self._forms:
            self._forms[self.task].widgets.setScan(self.parameterNode.inputVolume)
        self.update()

    def _checkInput(self):
        from MedDiffFMLib.imaging.modality import WORDS

        self._modality = self._takenModality()
        self.ui.inputVolumeLabel.text = f"{WORDS[self._modality]}:"
        node = self.parameterNode.inputVolume
        self._inputReason = self._inputLine.show(node, self._modality)
        refused = bool(self._inputReason) and self._modality == "CT"
        self.ui.hounsfieldButton.visible = refused and holdsStoredValues(node)

    def _takenModality(self):
        """What the scan is taken for, by the values of the parameters."""
        from MedDiffFMLib.core.errors import InputError

        try:
            return self.declared(**self._stored().get(self.task, {})).takes.modality
        except (InputError, TypeError):  # values of another version, which the run will refuse
            return self.declared.inputs.modality

    def _onHounsfield(self):
        """The volume in Hounsfield units becomes the input."""
        node = self.parameterNode.inputVolume
        self._loopTask.start(subtracting1024(node, _("{name} HU").format(name=node.GetName())), self._onShifted)

    def _onShifted(self, node):
        if self.parameterNode:
            self.parameterNode.inputVolume = node

    def update(self):
        """Bring the section to the state of the parameter node and of the run."""
        if not self.parameterNode:
            return
        if self._shownTask != self.task:
            self._showTask()
        if self._modality != self._takenModality():
            self._checkInput()
        self._showParameters()
        self._updateButton()

    def _showTask(self):
        self._shownTask = self.task
        self._buttons[self.task].checked = True
        self.ui.taskSentenceLabel.text = " ".join(filter(None, map(_, (self.declared.sentence, self.declared.caveat))))
        self._showForm()
        self.ui.alsoWidget.visible = self._takesMany
        self.maskPanel.setTask(self.declared)

    def _showForm(self):
        """The widgets of this task's parameters; those of the other tasks are kept, but not shown."""
        if self.task not in self._forms:
            self._forms[self.task] = _TaskForm(self.declared, self.ui, self._onValuesChanged, self.update)
            self._forms[self.task].named.setParameterNode(self.parameterNode.parameterNode)
            self._forms[self.task].widgets.setModels(self.parameterNode.model)
        self._forms[self.task].widgets.setScan(self.parameterNode.inputVolume)
        for name, form in self._forms.items():
            form.setVisible(name == self.task)
        self.ui.moreCollapsibleButton.visible = self._forms[self.task].widgets.hasAdvanced

    def _showParameters(self):
        stored = self._stored()
        beginning = self._forms[self.task].widgets.beginning
        if beginning and self.task not in stored:
            self.parameterNode.parameters = json.dumps({**stored, self.task: beginning})
            return  # the parameter node has called back
        if stored.get(self.task, {}) != self._forms[self.task].widgets.values():
            self._forms[self.task].widgets.setValues(stored.get(self.task, {}))

    def _stored(self):
        """Task name -> values that differ from the defaults, as saved with the scene."""
        try:
            stored = json.loads(self.parameterNode.parameters or "{}")
        except ValueError:  # a scene that was edited by hand
            return {}
        return stored if isinstance(stored, dict) else {}

    def _onValuesChanged(self):
        stored = self._stored()
        stored[self.task] = self._forms[self.task].widgets.values()
        self.parameterNode.parameters = json.dumps(stored)

    def setValue(self, name, value):
        """Set one parameter of the chosen task."""
        stored = self._stored()
        stored[self.task] = {**stored.get(self.task, {}), name: value}
        self.parameterNode.parameters = json.dumps(stored)

    # Models

    def _fillModels(self):
        """The catalogue's priors; a model of the scene that is not there is listed so that the user sees its name."""
        from MedDiffFMLib.core.errors import MedDiffFMError
        from MedDiffFMLib.models.catalogue import list_models

        try:
            titles = {entry.name: entry.title for entry in list_models("prior")}
        except MedDiffFMError as error:
            self.onLog(str(error))
            titles = {}
        chosen = self.parameterNode.model
        titles.setdefault(chosen, chosen)
        combo = self.ui.modelComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for name, title in titles.items():
            combo.addItem(title, name)
        combo.currentIndex = combo.findData(chosen)
        combo.blockSignals(wasBlocked)
        self._offerModels()

    def _offerModels(self):
        """Models that belong to a prior are offered for the chosen one."""
        for form in self._forms.values():
            form.widgets.setModels(self.parameterNode.model)

    def refreshModels(self):
        """A model was trained or removed."""
        if self.parameterNode:
            self._fillModels()
            self.update()

    def _onModelChosen(self, index):
        if self.parameterNode and index >= 0:
            self.parameterNode.model = self.ui.modelComboBox.itemData(index)
            self._offerModels()

    # The button

    def choices(self, draft=False):
        """What the panel shows, as the logic takes it.

        :param draft: with the task's values for a first look in place of the panel's.
        """
        parameterNode = self.parameterNode
        return runChoices(
            self.task,
            parameters={**self._forms[self.task].widgets.values(), **(self.declared.draft if draft else {})},
            mask=self.maskPanel.segmentation(),
            anatomy=parameterNode.anatomy,
            scans=self._forms[self.task].named.scans(),
            texts=self._forms[self.task].named.texts(),
            region=parameterNode.region.value or None,
            seed=parameterNode.seed,
            model=parameterNode.model,
            device=parameterNode.device.value,
            precision=parameterNode.precision.value,
        )

    def reason(self):
        """Why the task cannot run, one sentence; empty when it can."""
        from MedDiffFMLib.tasks.inputs import NONE

        return (
            (firstSentence(self._inputReason) if self.declared.inputs.volume is not NONE else "")
            or self._modelReason()
            or self.maskPanel.reason()
            or self._forms[self.task].named.reason()
            or self._valuesReason()
            or self.logic.workerPython.problem()
        )

    def _modelReason(self):
        from .modelCheck import missingModel

        needs = self.declared.needs
        chosen = self._forms[self.task].widgets.values().get(needs.parameter) if needs else None
        return missingModel(needs, chosen, self.parameterNode.model)

    def _inputs(self):
        """The chosen CT, and where the task takes them the others that are checked."""
        first = self.parameterNode.inputVolume
        others = self.ui.alsoSelector.checkedNodes() if self._takesMany else ()
        return [first, *(node for node in others if node is not first)]

    def _valuesReason(self):
        """Values that are allowed each, but do not fit together."""
        from MedDiffFMLib.core.errors import MedDiffFMError

        try:
            self.choices().settings.checked()
        except MedDiffFMError as error:
            return str(error)
        return ""

    def _updateButton(self):
        reason = ""
        button = self.ui.runButton
        running = self.logic.running or self._many is not None
        if self.logic.cancelling:
            button.text, button.enabled = _("Stop now"), True
            button.toolTip = _("The model stops after its present step. Press to end its process at once.")
        elif running:
            button.text, button.enabled, button.toolTip = _("Cancel"), True, _("Stop; the scene stays as it was.")
            if self._many is not None:
                button.toolTip = _("Stop; what is done so far stays in the scene.")
        else:
            reason, count = self.reason(), len(self._inputs())
            button.text, button.enabled = _(self.declared.action or self.declared.title), not reason
            if count > 1:
                button.text = _("{action} {count} CTs").format(action=button.text, count=count)
            button.toolTip = reason or _("The result is a new volume; the original stays as it is.")
        self.strip.showReason(reason)
        self._showEstimate(possible=not reason and not running)
        ui = self.ui
        for widget in (ui.deviceComboBox, ui.precisionComboBox, ui.modelComboBox, ui.alsoSelector):
            widget.enabled = not running

    def _showEstimate(self, possible):
        self.strip.showEstimate(f"{self._estimate()} {self._device()}".strip() if possible else "")
        self.ui.settingsCollapsibleButton.text = _("Model {model} · region {region} · device {device}").format(
            model=self.parameterNode.model,
            region=self.parameterNode.region.label(),
            device=self.parameterNode.device.label(),
        )

    def _estimate(self):
        """How long the run, or the runs on all checked CTs, will take."""
        inputs, settings = self._inputs(), self.choices().settings
        if len(inputs) == 1:
            executable, device = self.logic.workerPython.executable(), self.parameterNode.device.value
            return self._speed.sentence(inputs[0], settings, not takesAccelerator(executable, device))
        seconds = [self._speed.seconds(node, settings) for node in inputs]
        return "" if None in seconds else _("About {time}.").format(time=duration(sum(seconds)))

    def _device(self):
        """Where the run will be computed, a sentence."""
        words = plannedDevice(self.logic.workerPython.executable(), self.parameterNode.device.value)
        return f"{words[0].upper()}{words[1:]}."

    def run(self, draft=False):
        """The key for it: as the button, but it never cancels.

        :param draft: for a first look, see ``choices``.
        """
        if self.ui.runButton.enabled and not self.logic.running and self._many is None:
            self._start(draft)

    def hasDraft(self):
        """Whether a first look differs from what the panel asks for."""
        draft, whole = (self.choices(draft).settings.checked().parameters for draft in (True, False))
        return draft != whole

    def cancel(self):
        """The key for it."""
        if self.logic.running or self._many is not None:
            self.onRunButton()

    def giveUp(self):
        """End a run whose result is not wanted any more; nothing is said about it."""
        self._isGivenUp = True
        self.logic.cancel()

    def onRunButton(self):
        if self.logic.running or self._many is not None:
            self.strip.say(_("Cancelling..."))
            (self._many or self.logic).cancel()
        else:
            self._start()

    def _start(self, draft=False):
        self._isGivenUp = False
        self.strip.begin(_("Starting the model..."))
        inputs = self._inputs()
        try:
            if len(inputs) > 1:
                self._many = ManyRuns(self.logic, inputs, self.choices(), self._onManyEnd)
                self._many.start()
            else:
                self.logic.start(self.choices(draft), inputs[0])
        except Exception as error:
            logging.exception("MedDiff-FM: the run could not start")
            self.onFailed(error)

    # What the logic reports

    def onStateChanged(self):
        self.update()

    def onReady(self, description):
        self.ui.modelLabel.text = description

    def onProgress(self, fraction, stage, secondsLeft):
        if self._isGivenUp:
            return
        if self._many is not None:
            fraction = (self._many.number - 1 + fraction) / self._many.count
            stage = _("{number} of {count}: {stage}").format(
                number=self._many.number, count=self._many.count, stage=stage
            )
        self.strip.progress(fraction, stage, secondsLeft)

    def onFinished(self, run):
        self._speed.remember(run)
        self.update()
        self._end(" ".join([_("Done: {name}.").format(name=run.main.GetName()), *run.warnings]))

    def onFailed(self, error):
        self._end(str(error))

    def onCancelled(self):
        if self._isGivenUp:
            self.strip.showProgress(False)
        else:
            self._end(_("Cancelled."))

    def _onManyEnd(self, many):
        self._many = None
        self.update()
        counted = _("Done: {done} of {count} CTs.").format(done=len(many.runs), count=many.count)
        self._end(" ".join([_("Cancelled.") if many.cancelled else "", counted, many.failureText()]).strip())

    def _end(self, text):
        self.strip.showProgress(self._many is not None)
        self.strip.end(text, self.logic.seconds)

    def onLog(self, text):
        self.ui.logTextEdit.appendPlainText(text)


class _TaskForm:
    """The two forms of one task inside the section's widgets.

    :param task: as the library declares it.
    """

    def __init__(self, task, ui, onValuesChanged, onInputsChanged):
        self._holders = []
        form, moreForm = self._form(ui.parametersWidget), self._form(ui.moreWidget)
        self.named = NamedInputs(task.name, task.inputs, form, onInputsChanged)
        self.widgets = ParameterWidgets(task, form, moreForm, onValuesChanged)

    def _form(self, parent):
        holder = qt.QWidget(parent)
        form = qt.QFormLayout(holder)
        form.setContentsMargins(0, 0, 0, 0)
        parent.layout().addWidget(holder)
        self._holders.append(holder)
        return form

    def setVisible(self, visible):
        for holder in self._holders:
            holder.visible = visible


def _inTwoLines(title):
    """A title of several words, broken so that its button is no wider than those of one word."""
    words = title.split()
    if len(title) <= LONGEST_TITLE or len(words) < 2:
        return title
    ways = [(" ".join(words[:n]), " ".join(words[n:])) for n in range(1, len(words))]
    return "\n".join(min(ways, key=lambda lines: max(map(len, lines))))
