"""Models of stores in the Set-up section: chosen, asked about, and downloaded by a process of its own."""

from typing import Any

import slicer
from slicer.i18n import tr as _

from ..worker.libraryCommand import LibraryCommand


class ModelDownload:
    """A list of what can be downloaded, and a button that asks, downloads and cancels.

    :param ui: widgets of the module's .ui file.
    :param workerPython: which Python downloads.
    :param onChanged: called without arguments when a model arrived.
    """

    def __init__(self, ui, workerPython, onChanged):
        self.ui = ui
        self.workerPython = workerPython
        self.onChanged = onChanged
        self._command: Any = None
        ui.downloadModelButton.connect("clicked(bool)", self.onDownload)

    def update(self):
        """Show what stores offer; nothing where they offer nothing, or the model runs on another computer."""
        from MedDiffFMLib.models.catalogue import available_models

        entries = [] if self.workerPython.useRemote else available_models()
        box = self.ui.availableModelComboBox
        if self._command is None and [box.itemData(n) for n in range(box.count)] != [entry.name for entry in entries]:
            box.clear()
            for entry in entries:
                box.addItem(_("{title}, {size:.0f} MB").format(title=entry.title, size=entry.bytes / 1e6), entry.name)
        self.ui.downloadModelWidget.visible = bool(entries) or self._command is not None
        box.enabled = self._command is None
        self.ui.downloadModelButton.text = _("Cancel") if self._command else _("Download...")
        self.ui.downloadStatusLabel.visible = bool(self.ui.downloadStatusLabel.text)

    def onDownload(self):
        """Ask, then download; or cancel what is going on."""
        from MedDiffFMLib.models.catalogue import find_available
        from MedDiffFMLib.models.download import question

        if self._command:
            self.stop()
            self._show(_("Cancelled; what came is kept, and the next download goes on."))
            return
        entry = find_available(self.ui.availableModelComboBox.currentData)
        if entry and slicer.util.confirmOkCancelDisplay(question(entry), windowTitle=_("Download a model")):
            self.download(entry.name)

    def download(self, name):
        """Download a model; asks nothing."""
        arguments = ["models", "download", name, "--yes"]
        self.ui.downloadStatusLabel.text = _("Starting...")
        self._command = LibraryCommand(self.workerPython, arguments, self._show, self._onEnd)
        self.update()

    def stop(self):
        """End a download that is going on; it can be gone on with."""
        command, self._command = self._command, None
        if command:
            command.stop()

    def _onEnd(self, code, words):
        self._command = None
        self._show(words if code else _("Downloaded."))
        self.onChanged()

    def _show(self, text):
        self.ui.downloadStatusLabel.text = text[:300]
        self.update()
