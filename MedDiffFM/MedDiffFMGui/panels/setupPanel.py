"""The Set-up section: says what is missing, and lets the user choose a remedy."""

import logging
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..worker import installer
from ..worker.deviceWords import deviceText, rememberDevices
from ..worker.packageFolder import SOURCES, FolderInstall, openFolder, sizeText
from ..worker.workerProcess import WorkerProcess
from ..worker.workerPython import TRAINING, brokenTorch, requirementsPath
from .extrasPanel import ExtrasPanel
from .modelDownload import ModelDownload


class SetupPanel:
    """Set-up section: connects its widgets with the choice of a Python.

    :param ui: widgets of the module's .ui file.
    :param workerPython: the choice to show and to change.
    :param onChanged: called without arguments whenever the choice, what is installed, or the models changed.
    """

    def __init__(self, ui, workerPython, onChanged):
        self.ui = ui
        self.workerPython = workerPython
        self.onChanged = onChanged
        self._install: Any = None
        self._check: Any = None
        for source, title in zip(SOURCES, self._sourceTitles(), strict=True):
            ui.folderSourceComboBox.addItem(title, source)
        self._showChoice()
        ui.slicerPythonRadioButton.connect("clicked(bool)", lambda *_clicked: self.choose("slicer"))
        ui.folderPythonRadioButton.connect("clicked(bool)", lambda *_clicked: self.choose("folder"))
        ui.otherPythonRadioButton.connect("clicked(bool)", lambda *_clicked: self.choose("other"))
        ui.remoteRadioButton.connect("clicked(bool)", lambda *_clicked: self.choose("remote"))
        ui.remoteLineEdit.connect("editingFinished()", self.onAddressChanged)
        ui.pythonPathLineEdit.connect("currentPathChanged(QString)", self.onPathChanged)
        ui.packageFolderLineEdit.connect("currentPathChanged(QString)", self.onFolderChanged)
        ui.installButton.connect("clicked(bool)", self.onInstall)
        ui.folderInstallButton.connect("clicked(bool)", self.onFolderInstall)
        ui.checkPythonButton.connect("clicked(bool)", self.check)
        ui.offlineButton.connect("clicked(bool)", self.onOffline)
        ui.openModelFolderButton.connect("clicked(bool)", self.onOpenModels)
        ui.emptyModelFolderButton.connect("clicked(bool)", self.onEmptyModels)
        self.extras = ExtrasPanel(ui, onChanged)
        self.modelDownload = ModelDownload(ui, workerPython, onChanged)

    def _sourceTitles(self):
        return _("for the processor, 1 GB"), _("with CUDA, several GB"), _("from a folder of wheels")

    def _showChoice(self):
        chosen = self.workerPython
        self.ui.otherPythonRadioButton.checked = chosen.useOther
        self.ui.folderPythonRadioButton.checked = chosen.useFolder
        self.ui.remoteRadioButton.checked = chosen.useRemote
        self.ui.slicerPythonRadioButton.checked = not (chosen.useOther or chosen.useFolder or chosen.useRemote)
        self.ui.remoteLineEdit.text = chosen.address
        self.ui.pythonPathLineEdit.currentPath = chosen.otherPath
        self.ui.packageFolderLineEdit.currentPath = chosen.folder

    def openIfNeeded(self):
        """Unfold the section where nothing can run without it."""
        if self.workerPython.problem():
            self.ui.setupCollapsibleButton.collapsed = False

    def stop(self):
        """The widget goes away: an installation or a check that is going on ends and leaves nothing behind."""
        install, self._install = self._install, None
        if install:
            install.stop()
        check, self._check = self._check, None
        if check:
            check.end()
        self.modelDownload.stop()

    # State

    def update(self):
        """Show the present state."""
        ui, chosen = self.ui, self.workerPython
        elsewhere = chosen.useOther or chosen.useRemote
        broken = "" if elsewhere else brokenTorch(chosen.searchPath())
        missing = [] if elsewhere else chosen.missing()
        forTraining = [] if elsewhere else chosen.missing(TRAINING)
        busy = self._install is not None
        ui.pythonPathLineEdit.enabled = chosen.useOther
        ui.packageFolderLineEdit.visible = ui.folderInstallWidget.visible = chosen.useFolder
        ui.packageFolderLineEdit.enabled = not busy
        ui.folderInstallButton.text = _("Cancel") if busy else _("Install into the folder...")
        ui.folderInstallButton.enabled = busy or bool(missing or forTraining)
        ui.remoteLineEdit.visible = chosen.useRemote
        inSlicer = not (elsewhere or chosen.useFolder)
        ui.installButton.visible = inSlicer
        ui.installButton.enabled = bool(missing or forTraining) and not broken
        ui.installStatusLabel.visible = busy
        ui.setupStatusLabel.text = broken or self.statusText(missing, forTraining)
        ui.pythonCheckLabel.visible = bool(ui.pythonCheckLabel.text)
        ui.checkPythonButton.enabled = self._check is None and not chosen.problem()
        self._showModels()
        self.extras.update()
        self.modelDownload.update()

    def statusText(self, missing, forTraining):
        """What the user should know and can do, in words."""
        if self.workerPython.useRemote:
            return self.workerPython.problem() or _(
                "The model runs on the computer below, which needs MedDiff-FM of the same version and a key of yours. "
                "Voxels travel there, and no name. Slicer needs no torch for it."
            )
        if self.workerPython.useOther:
            return self.workerPython.problem() or _(
                "The model runs in the environment below. Check says whether it has what is needed."
            )
        where = _("The folder below") if self.workerPython.useFolder else _("Slicer's Python")
        if not missing and not forTraining:
            return _("{where} has everything that is needed.").format(where=where)
        if not missing:
            return _("{where} has what the tasks need. Training also needs: {missing}.").format(
                where=where, missing=", ".join(forTraining)
            )
        return _(
            "{where} lacks: {missing}. Three ways: install the PyTorch extension and click Install below (about 1 GB, "
            "several GB with CUDA, into Slicer's own Python folder); or install into a folder of their own, which "
            "leaves Slicer's packages alone; or choose another Python environment that has them. "
            "Nothing is installed without a click."
        ).format(where=where, missing=", ".join(missing))

    # Choice of the Python

    def choose(self, way):
        """Let the model run in "slicer", "folder" or "other", or on a "remote" computer."""
        self.workerPython.useOther = way == "other"
        self.workerPython.useFolder = way == "folder"
        self.workerPython.useRemote = way == "remote"
        self._showChoice()
        self.onChanged()

    def onPathChanged(self, path):
        self.workerPython.otherPath = path
        self.onChanged()

    def onAddressChanged(self):
        if self.ui.remoteLineEdit.text.strip() != self.workerPython.address:
            self.workerPython.address = self.ui.remoteLineEdit.text
            self.onChanged()

    def onFolderChanged(self, path):
        self.workerPython.folder = path
        self.onChanged()

    def onInstall(self):
        try:
            with slicer.util.tryWithErrorDisplay(_("The packages could not be installed."), waitCursor=True):
                installer.install()
        except Exception:  # shown to the user by then; the panel goes on with what there is
            logging.exception("MedDiff-FM: installation failed")
        self.onChanged()

    # Folder of packages

    def onFolderInstall(self):
        if self._install:
            self._install.stop()
            self._endInstall(_("Cancelled; nothing was installed."))
            return
        source, wheels = self.ui.folderSourceComboBox.currentData, ""
        if source == "wheels":
            wheels = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of wheels"))
            if not wheels:
                return
        title = self.ui.folderSourceComboBox.currentText
        question = _("Install torch, MONAI and what else is needed ({title}) into {folder}?")
        if slicer.util.confirmOkCancelDisplay(question.format(title=title, folder=self.workerPython.folder)):
            self.installIntoFolder(source, wheels)

    def installIntoFolder(self, source, wheels=""):
        """Install everything into the chosen folder; asks nothing."""
        import slicer.packaging

        lists = [slicer.packaging.load_requirements(requirementsPath(name)) for name in ("requirements.txt", TRAINING)]
        requirements = [str(requirement) for names in lists for requirement in names]
        self.ui.installStatusLabel.text = _("Starting pip...")
        self._install = FolderInstall(
            self.workerPython.folder, requirements, source, wheels, self._onInstallLine, self._endInstall
        )
        self.update()

    def _onInstallLine(self, line):
        self.ui.installStatusLabel.text = line[:120]

    def _endInstall(self, problem):
        self._install = None
        self.onChanged()
        self.ui.installStatusLabel.text = problem
        self.ui.installStatusLabel.visible = bool(problem)

    # Handshake

    def check(self):
        """Start the chosen Python once and show what it says of itself."""
        from MedDiffFMLib.worker.client import Callbacks

        self.ui.pythonCheckLabel.text = _("Starting...")
        callbacks = Callbacks(on_state=self._onCheckState, on_error=lambda error: self._endCheck(str(error)))
        worker = WorkerProcess(self.workerPython.executable(), self.workerPython.environment(), callbacks)
        self._check = worker if worker.alive else None
        self.update()

    def _onCheckState(self, state):
        from MedDiffFMLib.worker.client import State

        if state is State.READY and self._check:
            hello = self._check.session.hello
            rememberDevices(self.workerPython.executable(), hello["devices"])
            devices = ", ".join(deviceText(device) for device in hello["devices"])
            text = _("Works: Python {python}, torch {torch}, {devices}.")
            worker = self._check
            self._endCheck(text.format(python=hello["python"], torch=hello["torch"], devices=devices))
            worker.release()

    def _endCheck(self, text):
        self._check = None
        self.ui.pythonCheckLabel.text = text
        self.update()

    def onOffline(self):
        slicer.util.infoDisplay(offlineText(), windowTitle=_("Without internet"))

    # Models

    def _showModels(self):
        from MedDiffFMLib.models.catalogue import user_folder

        folder = user_folder()
        size = sizeText(folder) if folder.is_dir() else _("empty")
        self.ui.modelFolderLabel.text = _("Your own models: {folder} ({size})").format(folder=folder, size=size)
        self.ui.emptyModelFolderButton.enabled = bool(ownModels())

    def onOpenModels(self):
        from MedDiffFMLib.models.catalogue import user_folder

        openFolder(user_folder())

    def onEmptyModels(self):
        names = ownModels()
        question = _("Remove your own models {names}? Their training folders stay.")
        if slicer.util.confirmOkCancelDisplay(question.format(names=", ".join(names))):
            self.emptyModels()

    def emptyModels(self):
        """Remove all own models; asks nothing."""
        from MedDiffFMLib.models.catalogue import remove_model

        for name in ownModels():
            remove_model(name)
        self.onChanged()


def ownModels():
    """Names of the user's own models."""
    from MedDiffFMLib.models.catalogue import list_models

    return [entry.name for entry in list_models() if entry.is_own]


def offlineText():
    """How to bring the packages to a computer without internet."""
    import sys

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(requirementsPath()).parent
    return _(
        "On a computer with internet and the same operating system:\n\n"
        "pip download --python-version {version} --only-binary :all: --dest wheels "
        "-r requirements.txt -r requirements-training.txt\n\n"
        "(add --extra-index-url https://download.pytorch.org/whl/cpu for a torch without CUDA). Both lists are in\n"
        "{folder}\n\n"
        "Copy the folder wheels to this computer, choose 'Packages in a folder of their own' and 'from a folder of "
        "wheels', and click Install. The model itself comes with the extension; nothing else is downloaded."
    ).format(version=version, folder=folder)
