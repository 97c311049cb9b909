"""The section "Which is real?": a reader goes through the pairs of a reading kit."""

import logging
import time
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..views.pairView import PairView

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "Reading.ui"
KIT_SETTING, READER_SETTING = "MedDiffFM/ReadingKit", "MedDiffFM/Reader"


class ReadingPanel:
    """One reading at a time; each answer is on the disk before the next pair is shown.

    :param parentWidget: widget with an empty layout.
    """

    def __init__(self, parentWidget):
        panel = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        self._reading: Any = None  # while a pair is shown
        self._shownAt = 0.0
        self._pairView = PairView()
        ui = self.ui
        ui.kitPathLineEdit.currentPath = slicer.util.settingsValue(KIT_SETTING, "", converter=str)
        ui.readerLineEdit.text = slicer.util.settingsValue(READER_SETTING, "", converter=str)
        ui.beginReadingButton.connect("clicked(bool)", self.begin)
        ui.leftRealButton.connect("clicked(bool)", lambda *_clicked: self.choose("left"))
        ui.rightRealButton.connect("clicked(bool)", lambda *_clicked: self.choose("right"))
        ui.readingPlaceButton.connect("clicked(bool)", self._pairView.placeAgain)
        ui.pauseReadingButton.connect("clicked(bool)", self.pause)
        self._update()

    def begin(self):
        """Begin the reading of the chosen kit, or go on with it."""
        from MedDiffFMLib.core.errors import MedDiffFMError
        from MedDiffFMLib.reading.answers import Reading
        from MedDiffFMLib.reading.kit import read_kit

        folder, reader = self.ui.kitPathLineEdit.currentPath.strip(), self.ui.readerLineEdit.text.strip()
        try:
            reading = Reading(read_kit(folder), reader)
        except MedDiffFMError as problem:
            self._say(str(problem))
            return
        qt.QSettings().setValue(KIT_SETTING, folder)
        qt.QSettings().setValue(READER_SETTING, reader)
        self._reading = reading
        self._showNext()

    def choose(self, side):
        """Take what is on a side, "left" or "right", for real."""
        from MedDiffFMLib.core.errors import MedDiffFMError

        if self._reading is None:
            return
        try:
            self._reading.choose(side, time.monotonic() - self._shownAt)
        except MedDiffFMError as problem:  # the pair stays, to be answered when there is room again
            self._say(str(problem))
            return
        self._showNext()

    def pause(self):
        """Close the pair without an answer; Begin goes on with it."""
        reading, self._reading = self._reading, None
        if reading is not None:
            self._pairView.close()
            self._update()
            self._say(_("Paused after {done} of {count}.").format(done=reading.done, count=len(reading.kit.pairs)))

    def _showNext(self):
        """The next pair, or the end."""
        from MedDiffFMLib.core.errors import MedDiffFMError
        from MedDiffFMLib.imaging.io import read_volume

        reading = self._reading
        if reading.next is None:
            self._finish()
            return
        pair, letters = reading.next
        try:
            volumes = [read_volume(reading.kit.folder / pair.file(letter)) for letter in letters]
        except MedDiffFMError as problem:
            self.pause()
            self._say(str(problem))
            return
        self._pairView.show(volumes, (pair.window, pair.level))
        self._shownAt = time.monotonic()
        self._update()
        self._say(_("Pair {number} of {count}.").format(number=reading.done + 1, count=len(reading.kit.pairs)))

    def _finish(self):
        """All pairs are answered: close them, and tell the result where the key lies beside the kit."""
        reading, self._reading = self._reading, None
        self._pairView.close()
        self._update()
        told = _("All {count} pairs are answered: {file}.").format(count=reading.done, file=reading.path.name)
        self._say(f"{told} {_result(reading)}")

    def _update(self):
        """Show what can be done now."""
        ui, reading = self.ui, self._reading
        active = reading is not None
        for widget in (ui.readingQuestionLabel, ui.readingAnswerWidget, ui.readingWayWidget):
            widget.visible = active
        for widget in (ui.readingIntroLabel, ui.readingChoiceWidget, ui.beginReadingButton):
            widget.visible = not active
        ui.readingQuestionLabel.text = _(reading.kit.question) if active else ""

    def _say(self, text):
        self.ui.readingStatusLabel.text = text
        self.ui.readingStatusLabel.visible = bool(text)


def _result(reading):
    """The reader's result in words, where the key lies beside the kit; else who has it."""
    from MedDiffFMLib.core.errors import MedDiffFMError
    from MedDiffFMLib.reading.answers import summarize
    from MedDiffFMLib.reading.kit import key_path, read_key

    path = key_path(reading.kit.folder)
    if path.exists():
        try:
            (summary,) = summarize(reading.answers, *read_key(path))
            return summary.sentence()
        except MedDiffFMError as problem:
            logging.warning("MedDiff-FM: the reading cannot be judged: %s", problem)
    return _("Give that file to who made the kit and has its key.")
