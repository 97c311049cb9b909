"""Commands in processes of their own: what takes minutes must not hold up Slicer's window."""

import codecs

import qt

# Python would end a QProcess that it collects; each stays here until it has ended by itself.
_running: set["ProcessLines"] = set()


class ProcessLines:
    """A program whose lines are passed on.

    :param program: path.
    :param arguments: list of texts.
    :param environment: dict.
    :param onLine: called with each line that it writes.
    :param onEnd: called with (exit code, its last lines).
    """

    def __init__(self, program, arguments, environment, onLine, onEnd):
        self._onLine, self._onEnd = onLine, onEnd
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._lines = []
        self._process = qt.QProcess()
        variables = qt.QProcessEnvironment()
        for name, value in environment.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self._process.connect("readyReadStandardOutput()", self._onOutput)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        _running.add(self)
        self._process.start(program, arguments)

    def stop(self):
        """End it now; no callback follows."""
        self._onLine = self._onEnd = lambda *arguments: None
        if self in _running:
            self._process.kill()
            self._process.waitForFinished(2000)

    def _onOutput(self):
        text = self._rest + self._decoder.decode(self._process.readAllStandardOutput().data())
        *lines, self._rest = text.replace("\r", "\n").split("\n")
        for line in filter(None, map(str.strip, lines)):
            self._lines = [*self._lines[-9:], line]
            self._onLine(line)

    def _onFinished(self, code, status):
        self._onOutput()
        _running.discard(self)
        crashed = status == qt.QProcess.CrashExit
        self._onEnd(code or (1 if crashed else 0), " ".join([*self._lines[-2:], self._rest]).strip())

    def _onProcessError(self, error):
        """Only a start that failed: every other error is followed by ``finished``."""
        if error == qt.QProcess.FailedToStart:
            _running.discard(self)
            self._onEnd(1, self._process.errorString())


class LibraryCommand(ProcessLines):
    """``python -m MedDiffFMLib ...`` with the worker's Python; see ProcessLines for the functions.

    :param workerPython: which Python.
    """

    def __init__(self, workerPython, arguments, onLine, onEnd):
        program = ["-u", "-m", "MedDiffFMLib", *arguments]
        ProcessLines.__init__(self, workerPython.executable(), program, workerPython.environment(), onLine, onEnd)
