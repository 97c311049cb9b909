"""Filling while painting: a stroke is filled when the brush is lifted, and undone with it."""

import qt

REST_MS = 150
"""A stroke of the brush may change the mask more than once."""


class LiveRun:
    """Runs the task again whenever its painted mask has changed, as long as the user wishes so.

    :param ui: widgets of the module's .ui file.
    :param taskPanel: has ``declared``, ``run()`` and ``reason()``.
    :param logic: TaskRun.
    :param onEmpty: called without arguments when the mask was emptied, as by undoing the first stroke.
    """

    def __init__(self, ui, taskPanel, logic, onEmpty):
        self._box = ui.liveCheckBox
        self._taskPanel, self._logic, self._onEmpty = taskPanel, logic, onEmpty
        self._waiting = False  # the mask changed while a run was going on
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
        self._waiting = False

    def _begin(self):
        if not self.on:
            return
        if self._logic.running:
            self._waiting = True
        elif self._taskPanel.reason():
            self._onEmpty()
        else:
            self._taskPanel.run()

    def onFinished(self, run):
        self._next()

    def onFailed(self, error):
        self._waiting = False

    def onCancelled(self):
        self._waiting = False

    def _next(self):
        if self._waiting:
            self._waiting = False
            self._timer.start()
