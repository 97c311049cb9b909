"""Extras of the Set-up section: packages that only some tools need, into Slicer's own Python, on a click."""

import logging

import slicer
from slicer.i18n import tr as _

from ..worker import installer
from ..worker.workerPython import TRAINING, missingRequirements

EXTRAS = {"dicom": "requirements-dicom.txt", "pacs": "requirements-pacs.txt", "training": TRAINING}
"""Name, which begins that of the check box -> list of requirements."""


class ExtrasPanel:
    """A check box for each extra, and a button that installs the chosen ones.

    :param ui: widgets of the module's .ui file.
    :param onChanged: called without arguments after an installation.
    """

    def __init__(self, ui, onChanged):
        self.ui = ui
        self.onChanged = onChanged
        self._boxes = {name: getattr(ui, f"{name}ExtraCheckBox") for name in EXTRAS}
        for box in self._boxes.values():
            box.connect("toggled(bool)", lambda *_checked: self._showButton())
        ui.installExtrasButton.connect("clicked(bool)", self.onInstall)

    def update(self):
        """Show what is there: checked, and not to be chosen."""
        for name, box in self._boxes.items():
            missing = bool(missingRequirements(EXTRAS[name]))
            if not missing or not box.enabled:
                box.checked = not missing
            box.enabled = missing
        self._showButton()

    def chosen(self):
        """Requirements of the chosen extras that are not met."""
        names = [name for name, box in self._boxes.items() if box.enabled and box.checked]
        return list(dict.fromkeys(line for name in names for line in missingRequirements(EXTRAS[name])))

    def onInstall(self):
        """Install the chosen extras; Slicer lists them and asks."""
        try:
            with slicer.util.tryWithErrorDisplay(_("The packages could not be installed."), waitCursor=True):
                installer.installPackages(self.chosen())
        except Exception:  # shown to the user by then; the panel goes on with what there is
            logging.exception("MedDiff-FM: installation of extras failed")
        self.onChanged()

    def _showButton(self):
        self.ui.installExtrasButton.enabled = any(box.enabled and box.checked for box in self._boxes.values())
