"""Where the model runs: Slicer's own Python, the same with packages in a folder apart, another environment, or another
computer."""

import functools
import importlib
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import qt
import slicer

PATH_SETTING = "MedDiffFM/WorkerPython"
OTHER_SETTING = "MedDiffFM/UseOtherPython"
FOLDER_SETTING = "MedDiffFM/PackageFolder"
USE_FOLDER_SETTING = "MedDiffFM/UsePackageFolder"
REMOTE_SETTING = "MedDiffFM/RemoteAddress"
USE_REMOTE_SETTING = "MedDiffFM/UseRemote"


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

    @property
    def useFolder(self):
        """True when Slicer's Python takes the packages from a folder of their own; Slicer itself does not see them."""
        stored = slicer.util.settingsValue(USE_FOLDER_SETTING, False, converter=slicer.util.toBool)
        return stored and not self.useOther

    @useFolder.setter
    def useFolder(self, value):
        qt.QSettings().setValue(USE_FOLDER_SETTING, bool(value))

    @property
    def folder(self):
        """That folder; beside the user's models unless another one was chosen."""
        return slicer.util.settingsValue(FOLDER_SETTING, "", converter=str) or str(defaultPackageFolder())

    @folder.setter
    def folder(self, path):
        qt.QSettings().setValue(FOLDER_SETTING, str(path))

    @property
    def useRemote(self):
        """True when the model runs on another computer, which is reached by OpenSSH."""
        stored = slicer.util.settingsValue(USE_REMOTE_SETTING, False, converter=slicer.util.toBool)
        return stored and not self.useOther and not self.useFolder

    @useRemote.setter
    def useRemote(self, value):
        qt.QSettings().setValue(USE_REMOTE_SETTING, bool(value))

    @property
    def address(self):
        """That computer, such as ``ssh://user@host``; empty until the user names one."""
        return slicer.util.settingsValue(REMOTE_SETTING, "", converter=str)

    @address.setter
    def address(self, text):
        qt.QSettings().setValue(REMOTE_SETTING, str(text).strip())

    def executable(self):
        """The program to start, or the address of another computer."""
        if self.useRemote:
            return self.address
        return self.otherPath if self.useOther else sys.executable

    def problem(self):
        """One sentence that says why the model cannot run there, or an empty text."""
        if oldSlicer():
            return oldSlicer()
        if self.useRemote:
            return self._remoteProblem()
        if self.useOther:
            return self._otherProblem()
        broken = brokenTorch(self.searchPath())
        if broken:
            return broken
        missing = self.missing()
        if missing:
            where = f"The folder {self.folder}" if self.useFolder else "Slicer's Python"
            return f"{where} lacks {', '.join(missing)}. Open Set-up to install, or choose another environment."
        return ""

    def localProblem(self):
        """The same for what runs on this computer alone: checking and training of the user's own cases."""
        if self.useRemote:
            return "Training runs on this computer: choose one of its Pythons under Set-up."
        return self.problem()

    def trainingProblem(self):
        """The same for what training needs beyond that; another environment says so itself."""
        missing = [] if self.useOther else self.missing(TRAINING)
        if missing:
            return f"Training also needs {', '.join(missing)}. Open Set-up to install."
        return ""

    def missing(self, name="requirements.txt"):
        """Requirements of a list that are not met, as text; at once as long as no package comes or goes."""
        if oldSlicer():
            return []
        import slicer.packaging

        folders = (self.folder,) if self.useFolder else ()
        return list(_missing(name, folders, _times((*folders, *sys.path)), slicer.packaging.pip_check))

    def searchPath(self):
        """Folders in which the child looks for packages first."""
        return [self.folder, *sys.path] if self.useFolder else list(sys.path)

    def _otherProblem(self):
        path = self.otherPath
        if not path:
            return "Choose the python program of the other environment under Set-up."
        if not (os.path.isfile(path) and shutil.which(path)):
            return f"{path} is not a program that can be started. Choose the python program under Set-up."
        return ""

    def _remoteProblem(self):
        from MedDiffFMLib.core.errors import MedDiffFMError
        from MedDiffFMLib.worker.address import parse_address, ssh_command

        if not self.address:
            return "Name the other computer under Set-up, for example ssh://user@host."
        try:
            ssh_command(parse_address(self.address))
        except MedDiffFMError as error:
            return str(error)
        return ""

    def environment(self):
        """Environment variables for the child, a dict.

        Slicer's launcher sets PYTHONHOME, PYTHONPATH and the library path for its own Python; another Python breaks
        with them and gets the environment that Slicer was started from.
        """
        from MedDiffFMLib.worker.client import worker_environment

        base = slicer.util.startupEnvironment() if self.useOther else os.environ
        environment = worker_environment(base, foreign=self.useOther)
        if self.useFolder:
            environment["PYTHONPATH"] = os.pathsep.join([self.folder, environment["PYTHONPATH"]])
        return environment


TRAINING = "requirements-training.txt"


def requirementsPath(name="requirements.txt"):
    """A list of what is needed, beside the module's other resources."""
    return Path(__file__).resolve().parents[2] / "Resources" / name


def oldSlicer():
    """Why the module cannot install packages here, in words; empty for Slicer 5.12 and newer, which have
    ``slicer.packaging``."""
    try:
        importlib.import_module("slicer.packaging")
    except ImportError:
        return "MedDiff-FM needs 3D Slicer 5.12 or newer. Install the current version of Slicer."
    return ""


def missingRequirements(name="requirements.txt", folders=()):
    """Requirements that are not met, read from package metadata without importing anything.

    :param name: file of the list.
    :param folders: where else than in Slicer's Python packages may lie.
    """
    if oldSlicer():
        return []
    import slicer.packaging

    requirements = slicer.packaging.load_requirements(requirementsPath(name))
    here = _versionsIn(folders)
    return [
        str(requirement)
        for requirement in requirements
        if not (
            requirement.specifier.contains(here[_plain(requirement.name)], prereleases=True)
            if _plain(requirement.name) in here
            else slicer.packaging.pip_check(requirement)
        )
    ]


@functools.lru_cache(maxsize=4)
def _missing(name, folders, _changed, _check):
    """:func:`missingRequirements` for packages as they are: the panel asks with every stroke of a brush.

    :param _changed, _check: tell one state of the packages from another; nothing is done with them.
    """
    return tuple(missingRequirements(name, folders))


def _times(folders):
    """When a package came to or went from these folders, as far as they exist."""
    return tuple((folder, os.stat(folder).st_mtime_ns) for folder in folders if os.path.isdir(folder))


def _versionsIn(folders):
    """Versions by name of the packages that lie in ``folders``."""
    distributions = metadata.distributions(path=[str(folder) for folder in folders]) if folders else ()
    return {
        _plain(distribution.metadata["Name"]): distribution.version
        for distribution in distributions
        if distribution.metadata["Name"]
    }


def _plain(name):
    return name.lower().replace("_", "-").replace(".", "-")


def brokenTorch(searchPath):
    """Why an installed torch cannot work, in words; empty for a whole one and for none.

    A torch that pip could not install or remove completely leaves a folder without its code: Windows' limit on path
    lengths does that, and so does an installation that was interrupted. Python then imports an empty package.
    """
    for folder in map(Path, searchPath):
        package = folder / "torch"
        if not package.is_dir():
            continue
        whole = (package / "__init__.py").is_file() and (package / "version.py").is_file()
        if whole and any((package / "lib").glob("*torch*")):
            return ""
        return (
            f"The torch in {folder} is installed only in part. Close Slicer, remove the folder {package}, and install "
            "again; on Windows choose a shorter folder or allow long paths."
        )
    return ""


def defaultPackageFolder():
    """Where packages apart from Slicer's own go: beside the user's models, apart for each version of Python."""
    from MedDiffFMLib.models.catalogue import user_folder

    return user_folder().parent / f"packages-{sys.version_info.major}.{sys.version_info.minor}"
