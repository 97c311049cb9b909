"""Installation of torch and the rest into a folder of their own, where Slicer does not see them."""

import os
import shutil
import sys
from pathlib import Path

import qt

from .libraryCommand import ProcessLines

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SOURCES = ("cpu", "cuda", "wheels")


def pipArguments(requirements, target, source, wheels=""):
    """Arguments of Python that install into ``target``.

    :param source: one of SOURCES.
    :param wheels: folder of wheels for the source "wheels"; nothing is downloaded then.
    """
    arguments = ["-m", "pip", "install", "--target", str(target), "--only-binary", ":all:", "--progress-bar", "off"]
    if source == "cpu":
        arguments += ["--extra-index-url", CPU_INDEX]
    elif source == "wheels":
        arguments += ["--no-index", "--find-links", wheels]
    return [*arguments, *requirements]


class FolderInstall:
    """One installation; the folder appears complete or not at all.

    :param folder: where to; an older one is replaced at the end.
    :param requirements: as in requirements.txt.
    :param onLine: called with each line that pip writes.
    :param onEnd: called with an empty text, or with why it failed.
    """

    def __init__(self, folder, requirements, source, wheels, onLine, onEnd):
        self._folder = Path(folder)
        self._partial = self._folder.with_name(f"{self._folder.name}.partial")
        self._onEnd = onEnd
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUTF8": "1"}
        arguments = pipArguments(requirements, self._partial, source, wheels)
        self._process = ProcessLines(sys.executable, arguments, environment, onLine, self._onFinished)

    def stop(self):
        """End it; nothing is left behind."""
        self._process.stop()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _onFinished(self, code, text):
        if code == 0:
            try:
                self._replace()
            except OSError as error:
                code, text = 1, f"{error.strerror or error}: {error.filename}"
        shutil.rmtree(self._partial, ignore_errors=True)
        self._onEnd("" if code == 0 else text or f"pip ended with code {code}.")

    def _replace(self):
        old = self._folder.with_name(f"{self._folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._folder.exists():
            self._folder.rename(old)
        self._partial.rename(self._folder)
        shutil.rmtree(old, ignore_errors=True)


def sizeText(folder):
    """Size of a folder, such as 1.2 GB."""
    total = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return f"{total / 1e9:.1f} GB" if total > 1e9 else f"{total / 1e6:.0f} MB"


def openFolder(folder):
    """Show a folder in the file manager; it is made if it is not there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))
