"""One task at a time on volume nodes, computed by a worker process that stays warm between runs."""

import logging
import time
import weakref
from typing import Any

import slicer
import vtk

from ..nodes.resultNodes import addResult, pasting
from ..nodes.volumeNodes import copying
from ..worker.deviceWords import deviceText, rememberDevices, rememberPrecision
from ..worker.eventLoopTasks import EventLoopTask
from ..worker.workerProcess import WorkerProcess
from .runRequest import makeRequest

_allRuns: Any = weakref.WeakSet()


class TaskRun:
    """Start and cancel of runs, results as nodes; without any widget.

    Listeners are objects with the methods ``onStateChanged()``, ``onReady(description)``,
    ``onProgress(fraction, stage, secondsLeft)``, ``onFinished(run)`` with a FinishedRun, ``onFailed(error)``,
    ``onCancelled()`` and ``onLog(text)``; a listener may lack any of them.

    :param workerPython: which Python runs the model.
    """

    def __init__(self, workerPython):
        self.workerPython = workerPython
        _allRuns.add(self)
        self.running = False
        self.cancelling = False
        self._listeners = []
        self._worker: WorkerProcess | None = None
        self._workerIsStale = False
        self._inputNode = None
        self._piece = None
        self._geometry: Any = None  # of the CT when it was sent
        self._abandoned = False
        self._loopTask = EventLoopTask()  # before and after the worker's own part
        self._isReading = False  # the worker has done its part
        self._choices: Any = None  # of the latest run
        self._startTime = 0.0

    def addListener(self, listener):
        """Tell ``listener`` what happens."""
        self._listeners.append(listener)

    def removeListener(self, listener):
        """Tell it no more."""
        self._listeners.remove(listener)

    def hasListener(self, listener):
        """Whether listeners are called; not after ``stop``."""
        return listener in self._listeners

    @property
    def seconds(self):
        """Since the latest run began."""
        return time.monotonic() - self._startTime

    def start(self, choices, inputNode=None):
        """Begin a run and return at once; an input that does not fit is reported to the listeners.

        :param choices: RunChoices.
        :param inputNode: CT volume node; it is copied, not changed. A task that makes a CT uses it only as the grid of
            an anatomy; else it may be None.
        :raises MedDiffFMError: a run is going on, or the worker's Python cannot be used.
        """
        from MedDiffFMLib.core.errors import MedDiffFMError

        problem = self.workerPython.problem()
        if self.running or problem:
            raise MedDiffFMError(problem or "Another run is going on.", "" if problem else "Wait for it or cancel it.")
        if not _usesInput(choices):
            inputNode = None
        self._inputNode, self._choices = inputNode, choices
        self._abandoned, self._startTime, self._geometry = False, time.monotonic(), _geometryOf(inputNode)
        self._setState(running=True)
        try:
            self._warmWorker()
        except Exception:
            self._setState(running=False)
            raise
        if self.running:  # else the failure was reported while the process was being started
            self._loopTask.start(makeRequest(inputNode, choices), self._send, self._onError)

    def _send(self, requestAndPiece):
        request, self._piece = requestAndPiece
        try:
            if self._worker:  # else its end was reported
                self._worker.session.run(request)
        except Exception as error:  # a callback of Qt, which swallows exceptions
            self._onError(error)

    def cancel(self):
        """Ask the run to stop; asked again, end its process."""
        if self._loopTask.busy:
            self._loopTask.stop()
            self._isReading = False
            self._onCancelled()
        elif self.running and self._worker:
            self._setState(running=True, cancelling=True)
            self._worker.session.cancel()

    def abandon(self):
        """The scene closes: the run is of no use any more, but a warm worker is."""
        self._inputNode, self._abandoned = None, True
        if not self.cancelling:
            self.cancel()

    def restartWorker(self):
        """The next run uses a new process; one that is going on is finished first."""
        self._workerIsStale = True
        if not self.running:
            self._releaseWorker()

    def stop(self):
        """End everything, for the end of Slicer and for reload; leaves no process and no folder behind."""
        worker, self._worker = self._worker, None
        self._listeners.clear()
        self._loopTask.stop()
        if worker:
            worker.end()

    def _warmWorker(self):
        """The worker of the last run if it can still be used, else a new one that is starting."""
        from MedDiffFMLib.worker.client import Callbacks

        if self._worker is None:
            callbacks = Callbacks(
                on_state=self._onWorkerState,
                on_progress=lambda event: self._tell("onProgress", event.fraction, event.stage, event.seconds_left),
                on_warning=lambda text: self._tell("onLog", text),
                on_result=self._onResult,
                on_error=self._onWorkerError,
                on_cancelled=self._onCancelled,
                on_log=lambda text: self._tell("onLog", text),
            )
            self._workerIsStale = False
            worker = self._adopted(callbacks)
            if worker:
                self._worker = worker
                return worker
            worker = WorkerProcess(self.workerPython.executable(), self.workerPython.environment(), callbacks)
            if not worker.alive:
                return worker
            self._worker = worker
        return self._worker

    def _adopted(self, callbacks):
        """The idle worker of another logic: each takes a gigabyte, and scripts make many logics."""
        for other in list(_allRuns):
            worker = other._worker
            free = other is not self and worker is not None and not other.running and not other._workerIsStale
            if free and worker.alive and worker.executable == self.workerPython.executable():
                other._worker = None
                worker.session.callbacks = callbacks
                return worker
        return None

    def _releaseWorker(self):
        worker, self._worker = self._worker, None
        if worker:
            worker.release()

    def _setState(self, running, cancelling=False):
        self.running, self.cancelling = running, cancelling
        if not running and self._workerIsStale:
            self._releaseWorker()
        self._tell("onStateChanged")

    def _tell(self, method, *arguments):
        for listener in list(self._listeners):
            slot = getattr(listener, method, None)
            if slot is None:
                continue
            try:
                slot(*arguments)
            except Exception:  # a view that fails must not pass for a worker that does
                logging.exception("MedDiff-FM: %s of %s failed", method, type(listener).__name__)

    # What the worker reports.

    def _onWorkerState(self, state):
        from MedDiffFMLib.worker.client import State

        if state is State.READY and self._worker:
            hello = self._worker.session.hello
            rememberDevices(self.workerPython.executable(), hello["devices"])
            devices = ", ".join(deviceText(device) for device in hello["devices"])
            self._tell("onReady", f"Python {hello['python']}, torch {hello['torch']}, {devices}")
        elif state in (State.FAILED, State.STOPPED):
            self._worker = None

    def _onResult(self, result):
        """Bring the arrays into memory, then into the scene; until then the run goes on."""
        from MedDiffFMLib.core.errors import MedDiffFMError

        worker, node, piece = self._worker, self._inputNode, self._piece

        def reading():
            for name in result.volumes:
                array = yield from copying(result.volumes[name])
                isThere = node is not None and slicer.mrmlScene.IsNodePresent(node)
                if isThere and _geometryOf(node) != self._geometry:
                    raise MedDiffFMError("The CT was cropped or moved during the run.", "Run again.")
                if isThere and piece is not None:
                    array = yield from pasting(array, piece, node)
                result.volumes[name] = array
            if worker:
                worker.session.discard_result()
                yield
            return result

        self._isReading = True
        self._loopTask.start(reading(), self._add, self._onError)

    def _add(self, result):
        from MedDiffFMLib.core.errors import MedDiffFMError

        node, self._inputNode, self._isReading = self._inputNode, None, False
        self._setState(running=False)
        isGone = node is None or not slicer.mrmlScene.IsNodePresent(node)
        if self._abandoned or (isGone and _needsInput(self._choices)):
            self._tell("onFailed", MedDiffFMError("The CT was removed during the run.", "Its result is dropped."))
            return
        try:
            run = addResult(self._choices.task, node, result)
        except Exception as error:  # a callback of Qt, which swallows exceptions
            logging.exception("MedDiff-FM: the result could not be added to the scene")
            self._tell("onFailed", error)
            return
        run.seconds, run.choices = self.seconds, self._choices
        rememberPrecision(self.workerPython.executable(), run.report.get("device"), run.report.get("precision"))
        logging.info("MedDiff-FM: %s took %.1f s", run.main.GetName(), run.seconds)
        self._tell("onReady", f"{self._choices.settings.model} on {run.report.get('device', 'unknown device')}")
        self._tell("onFinished", run)

    def _onWorkerError(self, error):
        """The process has failed; a result that it has given is as good as before."""
        if self._isReading:
            logging.warning("MedDiff-FM: %s", error)
            self._tell("onLog", str(error))
            return
        self._loopTask.stop()  # a request in preparation is dropped
        self._onError(error)

    def _onError(self, error):
        self._isReading = False
        logging.error("MedDiff-FM: %s", error)
        self._tell("onLog", str(error))
        wasRunning = self.running
        self._setState(running=False)
        if wasRunning:  # an idle worker that ends is started again by the next run
            self._tell("onFailed", error)

    def _onCancelled(self):
        self._setState(running=False)
        self._tell("onCancelled")


def _geometryOf(node):
    """What must not change while a run lasts; None where there is no CT."""
    if node is None or node.GetImageData() is None:
        return None
    toRAS = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(toRAS)
    places = [toRAS.GetElement(row, column) for row in range(3) for column in range(4)]
    return node.GetImageData().GetDimensions(), places


def _needsInput(choices):
    from MedDiffFMLib.tasks.inputs import NONE
    from MedDiffFMLib.tasks.registry import TASKS

    return TASKS[choices.task].inputs.volume is not NONE


def _usesInput(choices):
    """Whether the run belongs to the chosen CT; a synthetic one does only where it lies on the CT's anatomy."""
    return _needsInput(choices) or choices.anatomy is not None
