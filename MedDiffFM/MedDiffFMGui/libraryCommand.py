"""One command of the library in its own process: what takes minutes must not hold up Slicer's window."""

import codecs

import qt

_running: set["LibraryCommand"] = set()


class LibraryCommand:
    """``python -m MedDiffFMLib ...`` with the worker's Python.

    :param workerPython: which Python.
    :param arguments: of the command line.
    :param onLine: called with each line of the progress that the command writes.
    :param onEnd: called with (exit code, last line of what it said about a failure).
    """

    def __init__(self, workerPython, arguments, onLine, onEnd):
        self._onLine, self._onEnd = onLine, onEnd
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._lines = []
        self._process = qt.QProcess()
        variables = qt.QProcessEnvironment()
        for name, value in workerPython.environment().items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.connect("readyReadStandardError()", self._onError)
        self._process.connect("readyReadStandardOutput()", self._process.readAllStandardOutput)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        _running.add(self)
        self._process.start(workerPython.executable(), ["-u", "-m", "MedDiffFMLib", *arguments])

    def stop(self):
        """End it now; ``onEnd`` is not called any more."""
        self._onLine = self._onEnd = lambda *arguments: None
        if self in _running:
            self._process.kill()
            self._process.waitForFinished(2000)

    def _onError(self):
        """Progress and messages are lines on standard error."""
        text = self._rest + self._decoder.decode(self._process.readAllStandardError().data())
        *lines, self._rest = text.replace("\r", "\n").split("\n")
        for line in filter(None, map(str.strip, lines)):
            self._lines = [*self._lines[-9:], line]
            self._onLine(line)

    def _onFinished(self, code, status):
        self._onError()
        _running.discard(self)
        crashed = status == qt.QProcess.CrashExit
        self._onEnd(code or (1 if crashed else 0), " ".join(self._lines[-2:]) + self._rest)

    def _onProcessError(self, error):
        """Only a start that failed: every other error is followed by ``finished``."""
        if error == qt.QProcess.FailedToStart:
            _running.discard(self)
            self._onEnd(1, self._process.errorString())
