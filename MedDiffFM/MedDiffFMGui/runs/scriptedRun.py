"""Runs from the Python console and from scripts: blocking or with a callback; volumes, sequences and folders."""

import time
from typing import Any

import slicer

from ..nodes.resultRecord import removeResult
from .manyRuns import ManyRuns
from .runRequest import runChoices
from .taskHelp import checkedChoices, taskHelp
from .taskRun import TaskRun

TURN_SECONDS = 0.01


class ScriptedRun(TaskRun):
    """A TaskRun that scripts can wait for."""

    def __enter__(self):
        """``with MedDiffFM.MedDiffFMLogic() as logic:`` ends the worker where the block ends."""
        return self

    def __exit__(self, *problem):
        self.stop()

    def help(self, task=""):
        """Print what ``run`` takes: the tasks, or with the name of one its inputs and parameters."""
        print(taskHelp(task))

    def run(self, task, inputNode=None, callback=None, progress=None, **choices):
        """Run a task.

        :param task: "anomaly", "denoise", "inpaint" ...
        :param inputNode: CT volume node, a list of them, or a vtkMRMLSequenceNode of CT volumes; None for a task that
            makes a CT.
        :param callback: called with the FinishedRun or with the exception; then this function returns at once.
        :param progress: called with (fraction from 0 to 1, stage, seconds left or None) while it runs.
        :param choices: mask and anatomy, further ``scans`` (nodes) and ``texts`` by name, and fields of the library's
            RunSettings: parameters, region, seed, model, device, precision, threads.
        :return: FinishedRun, its ``volumes`` are the nodes by name; for a sequence a vtkMRMLSequenceNode of the main
            results; for a list a list of FinishedRuns; None with a callback.
        :raises MedDiffFMError: the run failed; of kind Cancelled when it was cancelled. Of a list all CTs are tried;
            the text says which could not be done.

        The window stays usable while a blocking run lasts. From the console::

            logic = slicer.util.getModuleLogic("MedDiffFM")
            run = logic.run("denoise", getNode("thorax"), parameters={"strength": 1.2})
            slicer.util.setSliceViewerLayers(background=run.main)
        """
        chosen = checkedChoices(task, inputNode, choices)
        if progress:
            return self._runTelling(progress, inputNode, chosen, callback)
        return self._run(inputNode, chosen, callback)

    def _runTelling(self, progress, inputNode, chosen, callback):
        """As _run, with progress told until it has ended."""
        teller = _Teller(progress)
        self.addListener(teller)

        def ended(outcome):
            self.removeListener(teller)
            callback(outcome)

        try:
            found = self._run(inputNode, chosen, ended if callback else None)
        except Exception:
            self.removeListener(teller)
            raise
        if not callback:
            self.removeListener(teller)
        return found

    def _run(self, inputNode, chosen, callback):
        if isinstance(inputNode, (list, tuple)):
            return self._runMany(inputNode, chosen, callback)
        if inputNode is not None and inputNode.IsA("vtkMRMLSequenceNode"):
            if callback:
                raise ValueError("a sequence is run without callback")
            return self._runSequence(inputNode, chosen)
        listener = _Listener(self, callback)
        try:
            self.start(chosen, inputNode)
        except Exception:
            listener.leave()
            raise
        return None if callback else listener.wait()

    def runFolder(self, task, inputFolder, outputFolder, onLine=print, **choices):
        """Run a task on every CT of a folder, in a process of its own; finished cases are skipped when it runs again.

        :param inputFolder: holds .nrrd and .nii files or DICOM folders.
        :param outputFolder: where results and reports go.
        :param onLine: called with each line of the progress.
        :param choices: fields of RunSettings as for ``run``; masks as folder ``mask``.
        :raises MedDiffFMError: not every case could be done; the text says which.
        """
        from MedDiffFMLib.core.errors import MedDiffFMError

        from ..worker.libraryCommand import LibraryCommand

        ended = []
        arguments = _commandLine(inputFolder, outputFolder, runChoices(task, **choices))
        command = LibraryCommand(self.workerPython, arguments, onLine, lambda code, words: ended.append((code, words)))
        try:
            while not ended:
                _turn()
        finally:
            command.stop()
        code, words = ended[0]
        if code:
            raise MedDiffFMError(f"Not every case could be done: {words}")

    def _runMany(self, nodes, choices, callback):
        outcomes: list[Any] = []
        tell = callback or outcomes.append
        many = ManyRuns(self, nodes, choices, lambda ended: tell(ended.outcome))
        many.start()
        if callback:
            return None
        while not outcomes:
            _turn()
        if isinstance(many.outcome, Exception):
            raise many.outcome
        return many.outcome

    def _runSequence(self, sequence, choices):
        """Each item in turn; the items lie in a scene of their own, so each is copied into the user's for its run."""
        results = None
        for index in range(sequence.GetNumberOfDataNodes()):
            item = sequence.GetNthDataNode(index)
            volume = slicer.mrmlScene.AddNewNodeByClass(item.GetClassName(), f"{sequence.GetName()} {index}")
            volume.CopyContent(item)
            run = None
            try:
                listener = _Listener(self, None)
                self.start(choices, volume)
                run = listener.wait()
                results = results or _emptyLike(sequence, next(iter(run.volumes)))
                results.SetDataNodeAtValue(run.main, sequence.GetNthIndexValue(index))
            finally:
                if run:
                    removeResult(run)
                slicer.mrmlScene.RemoveNode(volume)
        return results


class _Teller:
    """Hands progress on to a script."""

    def __init__(self, progress):
        self._progress = progress

    def onProgress(self, fraction, stage, secondsLeft):
        self._progress(fraction, stage, secondsLeft)


class _Listener:
    """Listener that waits for the end of one run."""

    def __init__(self, logic, callback):
        self._logic, self._callback = logic, callback
        self._outcome = None
        logic.addListener(self)

    def leave(self):
        """Stop listening."""
        self._logic.removeListener(self)

    def wait(self):
        """Let Slicer's window work until the run has ended; gives its result."""
        while self._outcome is None:
            _turn()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def onFinished(self, run):
        self._end(run)

    def onFailed(self, error):
        self._end(error)

    def onCancelled(self):
        from MedDiffFMLib.core.errors import Cancelled

        self._end(Cancelled())

    def _end(self, outcome):
        self._outcome = outcome
        self.leave()
        if self._callback:
            self._callback(outcome)


def _turn():
    """One turn of the event loop."""
    slicer.app.processEvents()
    time.sleep(TURN_SECONDS)


def _emptyLike(sequence, title):
    name = slicer.mrmlScene.GenerateUniqueName(f"{sequence.GetName()} {title}")
    results = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    results.SetIndexName(sequence.GetIndexName())
    results.SetIndexUnit(sequence.GetIndexUnit())
    results.SetIndexType(sequence.GetIndexType())
    return results


def _commandLine(inputFolder, outputFolder, choices):
    """The batch as the library's command line takes it."""
    from MedDiffFMLib.tasks.registry import TASKS

    settings = choices.settings
    words = [settings.task, "--batch", str(inputFolder), "--output", str(outputFolder), "--device", settings.device]
    words += ["--threads", str(settings.threads)] if settings.threads else []
    if TASKS[settings.task].needs_model:
        words += ["--seed", str(settings.seed), "--model", settings.model, "--precision", settings.precision]
        words += ["--region", settings.region] if settings.region else []
    words += ["--mask", str(choices.mask)] if choices.mask else []
    for name, value in settings.parameters.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif value is not None:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [option, *map(str, values)]
    return words
