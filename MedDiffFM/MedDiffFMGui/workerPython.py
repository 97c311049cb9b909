"""Which Python runs the model: Slicer's own, or another environment that the user names."""

import os
import shutil
import sys
from pathlib import Path

import qt
import slicer

PATH_SETTING = "MedDiffFM/WorkerPython"
OTHER_SETTING = "MedDiffFM/UseOtherPython"


class WorkerPython:
    """The user's choice; it belongs to this computer, so the application settings keep it, not the scene."""

    @property
    def useOther(self):
        """True when the model runs in another environment than Slicer's."""
        return slicer.util.settingsValue(OTHER_SETTING, False, converter=slicer.util.toBool)

    @useOther.setter
    def useOther(self, value):
        qt.QSettings().setValue(OTHER_SETTING, bool(value))

    @property
    def otherPath(self):
        """Program of the other environment, empty until the user names one."""
        return slicer.util.settingsValue(PATH_SETTING, "", converter=str)

    @otherPath.setter
    def otherPath(self, path):
        qt.QSettings().setValue(PATH_SETTING, str(path))

    def executable(self):
        """The program to start."""
        return self.otherPath if self.useOther else sys.executable

    def problem(self):
        """One sentence that says why this Python cannot run the model, or an empty text."""
        if self.useOther:
            return self._otherProblem()
        missing = missingRequirements()
        if missing:
            return f"Slicer's Python lacks {', '.join(missing)}. Open Set-up to install, or choose another environment."
        return ""

    def _otherProblem(self):
        path = self.otherPath
        if not path:
            return "Choose the python program of the other environment under Set-up."
        if not (os.path.isfile(path) and shutil.which(path)):
            return f"{path} is not a program that can be started. Choose the python program under Set-up."
        return ""

    def environment(self):
        """Environment variables for the child, a dict.

        Slicer's launcher sets PYTHONHOME, PYTHONPATH and the library path for its own Python; another Python breaks
        with them and gets the environment that Slicer was started from.
        """
        from MedDiffFMLib.worker.client import worker_environment

        base = slicer.util.startupEnvironment() if self.useOther else os.environ
        return worker_environment(base, foreign=self.useOther)


def requirementsPath():
    """The list of what the worker needs, beside the module's other resources."""
    return Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"


def missingRequirements():
    """Requirements that Slicer's Python does not meet, read from package metadata without importing anything."""
    import slicer.packaging

    requirements = slicer.packaging.load_requirements(requirementsPath())
    return [str(requirement) for requirement in requirements if not slicer.packaging.pip_check(requirement)]
