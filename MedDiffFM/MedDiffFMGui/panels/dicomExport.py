"""The button "Export to DICOM" below a result."""

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.dicomNodes import exportOf, importInto
from ..worker.eventLoopTasks import EventLoopTask


class DicomExport:
    """Writes the run that is shown into a folder that the user chooses, and lists it in Slicer's DICOM database.

    :param ui: widgets of the module's .ui file.
    """

    def __init__(self, ui):
        self.ui = ui
        self._run: Any = None
        self._folder: Any = None
        self._loopTask = EventLoopTask()
        ui.exportDicomButton.connect("clicked(bool)", self._onClicked)
        self.setRun(None)

    @property
    def busy(self):
        """Whether objects are being written."""
        return self._loopTask.busy

    def setRun(self, run):
        """Offer the export of a run; one that goes on is broken off and leaves nothing behind.

        :param run: FinishedRun, None for none.
        """
        self._loopTask.stop()
        self._run = run
        self.ui.exportDicomWidget.visible = run is not None
        self._say("")

    def _onClicked(self):
        if self.busy:
            self._loopTask.stop()
            self._say(_("Cancelled; nothing was written."))
            return
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder for DICOM objects"))
        if folder and self._run:
            self.export(folder)

    def export(self, folder):
        """Write the run into a new folder in ``folder``, file by file between events of the window.

        :param folder: path.
        """
        self._loopTask.start(self._steps(Path(folder)), self._onDone, self._onError)
        if self.busy:
            self._say(_("Writing DICOM objects ..."), busy=True)

    def _steps(self, folder):
        from MedDiffFMLib.dicom.out.export import check_folder, exporting

        run = exportOf(self._run)
        yield
        self._folder = folder / f"{_fileName(run.name)}_{self._run.task}"
        check_folder(self._folder)
        return (yield from exporting(run, self._folder)), run.notes

    def _onDone(self, made):
        series, notes = made
        text = _("{count} series in {folder}").format(count=len(series), folder=self._folder)
        if importInto(self._folder):
            text = _("{text}, listed in the DICOM database").format(text=text)
        self._say("\n".join([text, *notes]))

    def _onError(self, error):
        from MedDiffFMLib.core.errors import expected, log_defect

        failure = expected(error)
        self._say(str(failure) if failure else log_defect(error))

    def _say(self, text, busy=False):
        self.ui.exportDicomButton.text = _("Cancel export") if busy else _("Export to DICOM ...")
        self.ui.exportDicomLabel.text = text
        self.ui.exportDicomLabel.visible = bool(text)


def _fileName(name):
    """A node's name without what a file name cannot have."""
    return "".join(letter if letter.isalnum() or letter in "-_ ." else "_" for letter in name).strip(" .") or "result"
