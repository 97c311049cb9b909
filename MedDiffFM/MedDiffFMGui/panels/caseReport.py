"""The button "Report" below a result."""

import json
import tempfile
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.reportPage import pageOf
from ..worker.eventLoopTasks import EventLoopTask
from ..worker.libraryCommand import LibraryCommand


class CaseReport:
    """Saves one page about the run that is shown, and opens it.

    HTML is written here. PDF is drawn by the worker's Python, which has Matplotlib; Slicer's own need not.

    :param ui: widgets of the module's .ui file.
    :param workerPython: WorkerPython.
    """

    def __init__(self, ui, workerPython):
        self.ui, self._workerPython = ui, workerPython
        self._run: Any = None
        self._path: Any = None
        self._kept: Any = None  # folder of a page on its way to PDF
        self._command: Any = None
        self._loopTask = EventLoopTask()
        ui.reportButton.connect("clicked(bool)", self._onClicked)
        self.setRun(None)

    @property
    def busy(self):
        """Whether a page is being made."""
        return self._loopTask.busy or self._command is not None

    def setRun(self, run):
        """Offer the report of a run; one that is being made is broken off.

        :param run: FinishedRun, None for none.
        """
        self._loopTask.stop()
        self._endCommand()
        self._run = run
        self._say("")

    def _onClicked(self):
        run = self._run
        if run is None or self.busy:
            return
        name = f"{run.main.GetName()} report.html"
        filters = _("Web page (*.html);;PDF (*.pdf)")
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), _("Save the report"), name, filters)
        if path:
            self.save(path)

    def save(self, path):
        """Write the report, in steps between events of the window, and open it.

        :param path: ends with .html or .pdf; another ending becomes .html.
        """
        path = Path(path)
        self._path = path if path.suffix.lower() in (".html", ".pdf") else path.with_name(f"{path.name}.html")
        self._say(_("Making the report ..."))
        self._loopTask.start(pageOf(self._run), self._onPage, self._onError)

    def _onPage(self, page):
        from MedDiffFMLib.core.atomic_files import atomic_path
        from MedDiffFMLib.core.errors import OutputError
        from MedDiffFMLib.pages.content import as_json
        from MedDiffFMLib.pages.html import as_html

        if self._path.suffix.lower() == ".pdf":
            if self._workerPython.useRemote:
                self._say(_("PDFs are drawn by a worker on this computer: save HTML, and print that."))
                return
            self._kept = tempfile.TemporaryDirectory()
            file = Path(self._kept.name) / "page.json"
            file.write_text(json.dumps(as_json(page)), encoding="utf-8")
            arguments = ["page", str(file), "--pdf", str(self._path), "--overwrite", "--quiet"]
            self._command = LibraryCommand(self._workerPython, arguments, lambda line: None, self._onDrawn)
            return
        try:
            with atomic_path(self._path, overwrite=True) as temporary:
                temporary.write_text(as_html(page), encoding="utf-8")
        except OutputError as error:
            self._say(str(error))
        else:
            self._open()

    def _onDrawn(self, code, lastLines):
        self._endCommand()
        if code:
            self._say(lastLines or _("The report could not be drawn."))
        else:
            self._open()

    def _open(self):
        self._say(_("Saved as {path}").format(path=self._path))
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._path)))

    def _onError(self, error):
        from MedDiffFMLib.core.errors import expected, log_defect

        failure = expected(error)
        self._say(str(failure) if failure else log_defect(error))

    def _endCommand(self):
        command, self._command = self._command, None
        if command is not None:
            command.stop()
        if self._kept is not None:
            self._kept.cleanup()
            self._kept = None

    def _say(self, text):
        self.ui.reportLabel.text = text
        self.ui.reportLabel.visible = bool(text)
