"""Filling while painting: a stroke is filled when the brush is lifted, and undone with it.

Where the task has a draft that comes first, and the whole run replaces it unless the next stroke is made by then."""

import qt

REST_MS = 20
"""A stroke of the brush may change the mask more than once."""


class LiveRun:
    """Runs the task again whenever its painted mask has changed, as long as the user wishes so.

    :param ui: widgets of the module's .ui file.
    :param taskPanel: has ``declared``, ``run(draft)``, ``giveUp()``, ``hasDraft()`` and ``reason()``.
    :param logic: TaskRun.
    :param onEmpty: called without arguments when the mask was emptied, as by undoing the first stroke.
    """

    def __init__(self, ui, taskPanel, logic, onEmpty):
        self._box = ui.liveCheckBox
        self._taskPanel, self._logic, self._onEmpty = taskPanel, logic, onEmpty
        self._waiting = False  # the mask changed while a run was going on
        self._drafted = self._refining = False  # what the run that goes on is
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(REST_MS)
        self._timer.connect("timeout()", self._begin)
        self._box.connect("toggled(bool)", lambda *_checked: self.onMaskChanged())
        logic.addListener(self)

    @property
    def on(self):
        """Whether strokes are filled by themselves."""
        from MedDiffFMLib.tasks.inputs import REQUIRED

        inputs = self._taskPanel.declared.inputs
        return bool(self._box.checked) and inputs.paints and inputs.mask is REQUIRED

    def onMaskChanged(self):
        """A stroke, an undo, a segment that was taken."""
        if self.on:
            self._timer.start()

    def stop(self):
        """The scene closes or the widget goes away."""
        self._timer.stop()
        self._waiting = self._drafted = self._refining = False

    def stopRefining(self):
        """A draft was accepted: what would replace it is not wanted any more."""
        self._drafted = False
        if self._refining:
            self._refining = False
            self._taskPanel.giveUp()

    def _begin(self):
        if not self.on:
            return
        if self._logic.running:
            self._waiting = True
            if self._refining:
                self._taskPanel.giveUp()
        elif self._taskPanel.reason():
            self._onEmpty()
        else:
            self._drafted = self._taskPanel.hasDraft()
            self._taskPanel.run(self._drafted)

    def _refine(self):
        """The whole run for the mask of the draft, unless there is another mask by now."""
        if self._drafted and self.on and not self._logic.running and not self._timer.isActive():
            self._drafted, self._refining = False, True
            self._taskPanel.run()

    def onFinished(self, run):
        self._refining = False
        if self._waiting:
            self._next()
        elif self._drafted:
            qt.QTimer.singleShot(0, self._refine)  # the draft is drawn before

    def onFailed(self, error):
        self._waiting = self._drafted = self._refining = False

    def onCancelled(self):
        """By the user, or by a stroke that came while a draft was being replaced."""
        if self._refining and self._waiting:
            self._refining = False
            self._next()
        else:
            self.onFailed(None)

    def _next(self):
        self._waiting = self._drafted = False
        self._timer.start()
