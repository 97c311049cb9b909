"""The trainings of this computer, to go back to one."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from ..views.quietly import quiet

RUNS_SETTING = "MedDiffFM/TrainingFolders"


class TrainingsList:
    """A list of the folders of trainings that are still there.

    :param combo: QComboBox.
    :param label: before it; both are hidden while there is no training.
    :param onChosen: called with a folder that the user chooses.
    """

    def __init__(self, combo, label, onChosen):
        self._combo, self._label, self._onChosen = combo, label, onChosen
        combo.connect("currentIndexChanged(int)", self._onIndex)

    def show(self, folder):
        """List them, with ``folder`` chosen, which is remembered if it is a training's."""
        from MedDiffFMLib.training.finetune.background import request_of

        known = slicer.util.settingsValue(RUNS_SETTING, "", converter=str).split("\n")
        if folder and folder not in known:
            known.append(folder)
        known = [one for one in known if one and request_of(one)]
        qt.QSettings().setValue(RUNS_SETTING, "\n".join(known))
        with quiet(self._combo):
            self._combo.clear()
            self._combo.addItem(_("another training"), "")
            for one in known:
                self._combo.addItem(Path(one).name, one)
            self._combo.currentIndex = max(self._combo.findData(folder), 0)
        self._combo.visible = self._label.visible = bool(known)

    def _onIndex(self, index):
        folder = self._combo.itemData(index)
        if folder:
            self._onChosen(folder)
