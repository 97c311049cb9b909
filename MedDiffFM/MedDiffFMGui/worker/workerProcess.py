"""One worker process inside Slicer: Qt's process on one side, the library's session on the other."""

import qt

from .eventLoopTasks import EventLoopTask

# Python would end a QProcess that it collects, and wait for it; each stays here until it has ended by itself.
_processes: set["WorkerProcess"] = set()


class WorkerProcess:
    """A worker from its start to its end; after that, make another one.

    Nothing here waits: Qt's event loop brings what the process writes, and the session calls back from there.

    :param executable: the Python to start.
    :param environment: its environment variables, a dict.
    :param callbacks: calls of the owner, ``MedDiffFMLib.worker.client.Callbacks``.
    """

    def __init__(self, executable, environment, callbacks):
        from MedDiffFMLib.core.process_priority import leave_low_priority
        from MedDiffFMLib.worker.client import START_SECONDS, WorkerSession, worker_command

        leave_low_priority()  # with a worker of normal priority on all cores the window would stand still
        self.executable = executable
        self._loopTask = EventLoopTask()
        self.session = WorkerSession(
            self._write,
            self._kill,
            callbacks,
            work=lambda steps: self._loopTask.start(steps, onError=self.session.callbacks.on_error),
            mapped=True,
        )
        self._process = qt.QProcess()
        variables = qt.QProcessEnvironment()
        for name, value in environment.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.connect("started()", self.session.process_started)
        self._process.connect("readyReadStandardOutput()", self._onOutput)
        self._process.connect("readyReadStandardError()", self._onLog)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onError)

        generation = self.session.starting()
        self._startTimer = qt.QTimer()
        self._startTimer.setSingleShot(True)
        self._startTimer.connect("timeout()", lambda: self.session.start_timed_out(generation))
        self._startTimer.start(int(1000 * START_SECONDS))
        _processes.add(self)
        self._process.start(*worker_command(executable))

    @property
    def alive(self):
        """False once the process has ended or could not start."""
        return self in _processes

    @property
    def processId(self):
        """Number of the process, 0 when there is none."""
        return self._process.processId() if self.alive else 0

    def release(self):
        """Let the process end when it is done with what it does; does not wait."""
        self.session.shutdown()
        self._process.closeWriteChannel()

    def end(self):
        """End the process now and remove its folder; for the end of Slicer, waits up to two seconds."""
        self.session.shutdown()
        self._kill()
        if self.alive:
            self._process.waitForFinished(2000)
        self.session.process_finished(0, crashed=False)  # counts only if Qt has not reported it

    def _write(self, data):
        if self.alive:
            self._process.write(data)

    def _kill(self):
        if self.alive:
            self._process.kill()

    def _onOutput(self):
        self.session.feed(self._process.readAllStandardOutput().data())

    def _onLog(self):
        self.session.feed_log(self._process.readAllStandardError().data())

    def _onFinished(self, code, status):
        """It has ended; what it wrote before comes first."""
        self._onOutput()
        self._onLog()
        self._forget()
        self.session.process_finished(code, crashed=status == qt.QProcess.CrashExit)

    def _onError(self, error):
        """Only a start that failed: every other error is followed by ``finished``."""
        if error == qt.QProcess.FailedToStart:
            self._forget()
            self.session.failed_to_start(self._process.errorString())

    def _forget(self):
        self._startTimer.stop()
        _processes.discard(self)
