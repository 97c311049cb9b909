"""The Train section: a dataset, a training in its own process, its live curve, and the model that it makes."""

import logging
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .closeQuestion import CloseQuestion
from .previewPicture import PreviewPicture
from .trainingCases import TrainingCases
from .trainingChart import CHARTS, TrainingChart
from .trainingReason import startReason
from .trainingsList import TrainingsList
from .trainingWords import runningText, statusText

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "Training.ui"
RUN_SETTING, DATASET_SETTING = "MedDiffFM/TrainingFolder", "MedDiffFM/DatasetFolder"
TICK_MS = 1000
PRESET_WORDS = {"small": "quick", "standard": "standard", "paper": "long"}
"""What a user reads for the library's names of presets."""


class TrainingPanel:
    """Train section: follows the training whose folder is chosen.

    The training needs neither this panel nor Slicer: all that is known about it is read from its folder.

    :param parentWidget: widget with an empty layout.
    :param logic: has ``workerPython``.
    :param onModelAdded: called without arguments when a training became a model.
    """

    def __init__(self, parentWidget, logic, onModelAdded=lambda: None):
        self.workerPython = logic.workerPython
        self.onModelAdded = onModelAdded
        self.onStarted = lambda: None  # called when a training was started or goes on
        self.onTry = lambda model: None  # called with the name of a segmentation model that is to be tried
        panel = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self._process = None
        self._finishing = self._pausing = False
        self._state = None
        self._tail = None
        self._preview = PreviewPicture(self.ui.previewLabel)
        self._chart = TrainingChart()
        self._cases = TrainingCases(self.ui, self.workerPython, self.update)
        self._trainings = TrainingsList(self.ui.trainingsComboBox, self.ui.trainingsLabel, self._onTrainingChosen)
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._onTick)
        self._closeQuestion = CloseQuestion()
        self._closeQuestion.watch(self.isTraining, self.pause)
        self._fillChoices()
        self._connect()
        self._restoreSettings()

    def _fillChoices(self):
        from MedDiffFMLib.training.finetune.config import PRESETS
        from MedDiffFMLib.training.finetune.registry import FINETUNE_TASKS

        for row in sorted(FINETUNE_TASKS.values(), key=lambda row: not row.few):  # what a few CTs train comes first
            self.ui.trainTaskComboBox.addItem(_(row.title), row.name)
        for name in PRESETS:
            self.ui.presetComboBox.addItem(_(PRESET_WORDS.get(name, name)), name)
        for name in CHARTS:
            self.ui.curveComboBox.addItem(_(name), name)

    def _connect(self):
        ui = self.ui
        ui.trainTaskComboBox.connect("currentIndexChanged(int)", self._onRecipeChanged)
        ui.presetComboBox.connect("currentIndexChanged(int)", self._onRecipeChanged)
        ui.modelNameLineEdit.connect("textChanged(QString)", lambda *_text: self.update())
        ui.runPathLineEdit.connect("currentPathChanged(QString)", self._onRunChanged)
        ui.startTrainingButton.connect("clicked(bool)", self._onStart)
        ui.pauseTrainingButton.connect("clicked(bool)", self.pause)
        ui.finishTrainingButton.connect("clicked(bool)", self.finish)
        ui.tryModelButton.connect("clicked(bool)", self._onTry)
        ui.curveComboBox.connect("currentIndexChanged(int)", self._showCurve)

    def _restoreSettings(self):
        """The folders of the last session: a training that was paused or went on is there again."""
        self.ui.datasetPathLineEdit.currentPath = slicer.util.settingsValue(DATASET_SETTING, "", converter=str)
        self.ui.runPathLineEdit.currentPath = slicer.util.settingsValue(RUN_SETTING, "", converter=str)
        self._trainings.show(self.folder)
        self._onRecipeChanged()
        self._showRequest()
        self._cases.update()

    # Life of the module

    def setParameterNode(self, parameterNode):
        """Nothing of a training is saved in the scene."""

    def enter(self):
        """The module is opened."""
        self._cases.refresh()
        self._onTick()
        self._showCurve()

    def exit(self):
        """Another module is opened; a training goes on."""
        if not self.isTraining():
            self._timer.stop()

    def stop(self):
        """The widget goes away, on reload and when Slicer quits; the training goes on."""
        self._timer.stop()
        self._closeQuestion.remove()
        self._cases.close()
        self._chart.remove()

    # What is chosen

    @property
    def task(self):
        """Name of the chosen fine-tuning task."""
        return self.ui.trainTaskComboBox.currentData

    @property
    def folder(self):
        """Folder of the training, empty until chosen."""
        return self.ui.runPathLineEdit.currentPath.strip()

    def request(self, **changes):
        """What Start would train.

        :param changes: settings that differ from the preset's.
        """
        from MedDiffFMLib.training.finetune.background import Request

        return Request(
            data=self._cases.dataset,
            task=self.task,
            preset=self.ui.presetComboBox.currentData,
            name=self.ui.modelNameLineEdit.text.strip() or None,
            bfloat16=not self.ui.float32CheckBox.checked,
            changes={**self._changes(), **changes},
        )

    def _changes(self):
        """Steps, learning rate and augmentation where the user wants others than the length's."""
        steps, rate = self.ui.trainStepsSpinBox.value, self.ui.learningRateSpinBox.value
        changes = ({"steps": steps} if steps else {}) | ({"learning_rate": rate} if rate else {})
        mirrors = self.task == "segmentation" and self.ui.flipCheckBox.checked
        return changes | ({"options": {"flip": True}} if mirrors else {})

    def _onRecipeChanged(self, *_index):
        from MedDiffFMLib.training.finetune.config import PRESETS, settings
        from MedDiffFMLib.training.finetune.registry import FINETUNE_TASKS

        for index, name in enumerate(PRESETS):
            steps = settings(self.task, name).loop.steps
            self.ui.presetComboBox.setItemText(
                index, _("{name}: {steps} steps").format(name=_(PRESET_WORDS.get(name, name)), steps=steps)
            )
        row, preset = FINETUNE_TASKS[self.task], PRESETS[self.ui.presetComboBox.currentData]
        self._cases.task = row.name
        self.ui.flipLabel.visible = self.ui.flipCheckBox.visible = row.name == "segmentation"
        sentence = _("{task} For {preset}.").format(task=_(row.sentence), preset=_(preset.sentence))
        self.ui.recipeSentenceLabel.text = sentence
        self.ui.trainingIntroLabel.text = (
            _("One to five CTs with the structures outlined are enough. Of five patients or more some validate.")
            if row.few
            else _("Cases of at least two patients: one trains, one validates.")
        )
        self.update()

    def _onRunChanged(self, path):
        from MedDiffFMLib.training.finetune.background import ProgressTail

        qt.QSettings().setValue(RUN_SETTING, path)
        self._trainings.show(self.folder)
        self._tail = ProgressTail(self.folder) if self.folder else None
        self._process, self._finishing, self._pausing = None, False, False
        self._preview.forget()
        self._chart.clear()
        self._onTick()

    def _onTrainingChosen(self, folder):
        if folder != self.folder:
            self.ui.runPathLineEdit.currentPath = folder
            self._showRequest()

    def _onTry(self, *_clicked):
        if self._state is not None and self._state.model:
            self.onTry(self._state.model)

    def _showRequest(self):
        """What the chosen folder's training was started with, so that Start continues it."""
        from MedDiffFMLib.training.finetune.background import request_of

        known = request_of(self.folder) if self.folder else None
        if known is None:
            return
        self.ui.datasetPathLineEdit.currentPath = known.data
        for combo, value in ((self.ui.trainTaskComboBox, known.task), (self.ui.presetComboBox, known.preset)):
            combo.currentIndex = max(combo.findData(value), 0)
        self.ui.modelNameLineEdit.text = known.name or ""
        self.ui.float32CheckBox.checked = not known.bfloat16
        self.ui.flipCheckBox.checked = bool((known.changes.get("options") or {}).get("flip"))

    # Start, pause, stop

    def isTraining(self):
        """Whether a process trains in the chosen folder."""
        from MedDiffFMLib.training.finetune.background import is_running

        starting = self._process is not None and self._process.poll() is None
        return bool(self.folder) and (starting or is_running(self.folder))

    def _onStart(self):
        try:
            with slicer.util.tryWithErrorDisplay(_("The training could not be started.")):
                self.start()
        except Exception:  # shown to the user by then
            logging.exception("MedDiff-FM: the training could not be started")

    def start(self, request=None):
        """Start a training, or go on with a paused one.

        :param request: instead of what the panel shows.
        """
        from MedDiffFMLib.core.process_priority import leave_low_priority
        from MedDiffFMLib.training.finetune import background

        leave_low_priority()  # a training of normal priority would hold up the window
        state = background.state_of(self.folder).state
        known = background.request_of(self.folder) if state == "paused" else None
        qt.QSettings().setValue(DATASET_SETTING, self._cases.dataset)
        self._pausing = False
        self._process = background.start(
            self.folder,
            request or known or self.request(),
            self.workerPython.executable(),
            self.workerPython.environment(),
        )
        self._timer.start()
        self.update()
        self.onStarted()

    def pause(self):
        """Save and stop; Start goes on from there."""
        from MedDiffFMLib.training.finetune import background

        self._pausing = True
        background.pause(self.folder)
        self.update()

    def finish(self):
        """End the training where it is and make a model of its best checkpoint."""
        self._finishing = True
        if self.isTraining():
            self.pause()
        else:
            self._finishNow()

    def _finishNow(self):
        from MedDiffFMLib.core.errors import MedDiffFMError
        from MedDiffFMLib.training.finetune import background

        self._finishing = False
        try:
            self.start(background.finish_request(self.folder))
        except MedDiffFMError as problem:
            self.ui.startReasonLabel.text = str(problem)
            self.ui.startReasonLabel.visible = True

    # What is going on

    def _onTick(self):
        """Look at the folder; called every second while a training goes on."""
        try:
            self._look()
        except Exception:  # a slot of Qt, which swallows exceptions
            logging.exception("MedDiff-FM: the training cannot be followed")

    def _look(self):
        from MedDiffFMLib.training.finetune import background

        if not self.folder:
            self.update()
            return
        running = self.isTraining()
        if running and self._pausing:
            background.pause(self.folder)  # a process that was still starting has removed the first request
        if self._tail:
            lines, anew = self._tail.new()
            if anew:
                self._chart.clear()
            self._chart.add(lines)
            if lines or anew:
                self._showCurve()
        self._preview.look(self.folder)
        before, self._state = self._state, background.state_of(self.folder)
        if running:
            self._timer.start()
        else:
            self._timer.stop()
            self._process = None
            self._pausing = False
        if before is None or before.state != self._state.state:
            self._trainings.show(self.folder)
        if before is not None and before.state == "running" and self._state.state == "finished":
            self.onModelAdded()
        self.update()
        if self._finishing and not running:
            self._finishNow()

    def update(self):
        """Bring buttons and texts to the present state."""
        ui, training = self.ui, self.isTraining()
        state = self._state.state if self._state else "none"
        reason = "" if training else self.reason()
        paused = state == "paused" and not training
        ui.startTrainingButton.text = _("Resume") if paused else _("Start")
        ui.startTrainingButton.enabled = not training and not reason
        ui.startTrainingButton.toolTip = reason or _("Checks the cases and trains in a process of its own.")
        ui.pauseTrainingButton.enabled = training and not self._pausing
        ui.finishTrainingButton.enabled = (training and not self._finishing) or paused
        ui.startReasonLabel.text = reason
        ui.startReasonLabel.visible = bool(reason)
        chosen = (ui.trainTaskComboBox, ui.presetComboBox, ui.modelNameLineEdit, ui.runPathLineEdit, ui.float32CheckBox)
        for widget in chosen:
            widget.enabled = not training
        # Progress and curve are near the top while they are what counts.
        for widget in (
            ui.casesWidget,
            ui.addWidget,
            ui.changeWidget,
            ui.casesTableWidget,
            ui.recipeWidget,
            ui.trainMoreCollapsibleButton,
        ):
            widget.visible = not training
        finished = state == "finished" and bool(self._state and self._state.model) and not training
        ui.tryModelButton.visible = finished and self.task == "segmentation"
        self._showStatus(state, training)

    def reason(self):
        """Why nothing can be started, or an empty text."""
        return startReason(self.request(), self.folder, self._cases, self.workerPython, self._state)

    def _showStatus(self, state, training):
        run = self._state
        self.ui.trainingStatusLabel.text = self._activity(state) if training else statusText(run)
        share = run.step / run.steps if run and run.steps else 0.0
        self.ui.trainingProgressBar.value = 1000 if state == "finished" and not training else round(1000 * share)

    def _activity(self, state):
        """What goes on."""
        if self._finishing:
            return _("Stopping; the best checkpoint, or the last one where none was validated yet, becomes a model...")
        if self._pausing:
            return _("Saving...")
        return runningText(self._state.last if self._state and state == "running" else {})

    def _showCurve(self, *_index):
        self.ui.curveWidget.visible = self.ui.curvePlotWidget.visible = not self._chart.empty
        if not self._chart.empty:
            self._chart.show(self.ui.curveComboBox.currentData, self.ui.curvePlotWidget)
