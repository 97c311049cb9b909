"""The Set-up section: says what is missing, and lets the user choose how to mend it."""

import logging

import slicer
from slicer.i18n import tr as _

from . import installer
from .workerPython import missingRequirements


class SetupPanel:
    """Connects the widgets of the Set-up section with the choice of a Python.

    :param ui: widgets of the module's .ui file.
    :param workerPython: the choice to show and to change.
    :param onChanged: called without arguments whenever the choice or what is installed changed.
    """

    def __init__(self, ui, workerPython, onChanged):
        self.ui = ui
        self.workerPython = workerPython
        self.onChanged = onChanged
        self.ui.otherPythonRadioButton.checked = workerPython.useOther
        self.ui.slicerPythonRadioButton.checked = not workerPython.useOther
        self.ui.pythonPathLineEdit.currentPath = workerPython.otherPath
        self.ui.otherPythonRadioButton.connect("toggled(bool)", self.onOtherToggled)
        self.ui.pythonPathLineEdit.connect("currentPathChanged(QString)", self.onPathChanged)
        self.ui.installButton.connect("clicked(bool)", self.onInstall)

    def openIfNeeded(self):
        """Unfold the section where nothing can run without it."""
        if self.workerPython.problem():
            self.ui.setupCollapsibleButton.collapsed = False

    def update(self):
        """Show the present state."""
        useOther = self.workerPython.useOther
        missing = [] if useOther else missingRequirements()
        self.ui.pythonPathLineEdit.enabled = useOther
        self.ui.installButton.enabled = bool(missing)
        self.ui.setupStatusLabel.text = self.statusText(useOther, missing)

    def statusText(self, useOther, missing):
        """What the user should know and can do, in words."""
        if useOther:
            return self.workerPython.problem() or _(
                "The model runs in the environment below. It needs the package meddifffm or what it depends on."
            )
        if not missing:
            return _("Slicer's Python has everything that is needed.")
        return _(
            "Missing in Slicer's Python: {missing}. Three ways: install the PyTorch extension and click Install below "
            "(about 1 GB, several GB with CUDA, into Slicer's own Python folder); or choose another Python environment "
            "that has these packages; or make one with `python3 run.py test` in a copy of the project and choose its "
            ".venv. Nothing is installed without a click."
        ).format(missing=", ".join(missing))

    def onOtherToggled(self, checked):
        self.workerPython.useOther = checked
        self.onChanged()

    def onPathChanged(self, path):
        self.workerPython.otherPath = path
        self.onChanged()

    def onInstall(self):
        try:
            with slicer.util.tryWithErrorDisplay(_("The packages could not be installed."), waitCursor=True):
                installer.install()
        except Exception:  # shown to the user by then; the panel goes on with what there is
            logging.exception("MedDiff-FM: installation failed")
        self.onChanged()
