"""One task on several CTs, one after the other."""

import qt
import slicer

from .inputCheck import describeInput


class ManyRuns:
    """Sequence of runs, each started when the one before has ended; a CT that cannot be done does not stop the others.

    :param logic: TaskRun.
    :param nodes: CT volume nodes.
    :param choices: RunChoices.
    :param onEnd: called with this object when all is done or the user cancelled.
    """

    def __init__(self, logic, nodes, choices, onEnd):
        self._logic, self._choices, self._onEnd = logic, choices, onEnd
        self._waiting = list(nodes)
        self._name = ""
        self._over = False
        self.count, self.number = len(self._waiting), 0
        self.runs = []
        self.failures = []  # (name of the CT, exception)
        self.cancelled = False

    def start(self):
        """Begin with the first CT and return at once."""
        self._logic.addListener(self)
        self._next()

    def cancel(self):
        """Stop the present run and begin no other; what is done stays."""
        self._waiting, self.cancelled = [], True
        if self._logic.running:
            self._logic.cancel()
        else:
            self._end()

    @property
    def outcome(self):
        """All FinishedRuns, or a MedDiffFMError where not every CT was done; the results of the others stay."""
        from MedDiffFMLib.core.errors import Cancelled, MedDiffFMError

        if self.cancelled:
            return Cancelled()
        return MedDiffFMError(self.failureText()) if self.failures else self.runs

    def failureText(self):
        """Which CTs could not be done, and why."""
        return " ".join(f"{name}: {error}" for name, error in self.failures)

    def onFinished(self, run):
        self.runs.append(run)
        self._later()

    def onFailed(self, error):
        self.failures.append((self._name, error))
        self._later()

    def onCancelled(self):
        self.cancelled = True
        self._end()

    def _later(self):
        """The next one begins when every other listener has heard of this end."""
        qt.QTimer.singleShot(0, self._next)

    def _next(self):
        if self._over or not self._logic.hasListener(self):  # Slicer quits
            return
        while self._waiting and not self.cancelled:
            node = self._waiting.pop(0)
            self.number += 1
            try:
                self._begin(node)
                return
            except Exception as error:
                self.failures.append((self._name, error))
        self._end()

    def _begin(self, node):
        from MedDiffFMLib.core.errors import InputError

        if not slicer.mrmlScene.IsNodePresent(node):
            self._name = "A CT"
            raise InputError("It was removed from the scene meanwhile.", "Its result is left out.")
        self._name = node.GetName()
        _facts, reason = describeInput(node, self._choices.settings.checked().parameters.takes.modality)
        if reason:
            raise InputError(reason, "")
        self._logic.start(self._choices, node)

    def _end(self):
        if not self._over:
            self._over = True
            self._logic.removeListener(self)
            self._onEnd(self)
