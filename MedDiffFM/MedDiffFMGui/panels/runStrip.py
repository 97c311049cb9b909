"""The strip below the panel's scroll area: what runs, how far it is, or why nothing can; it is always in sight.

While another module is open, Slicer's status bar says the same.
"""

import qt
import slicer
from slicer.i18n import tr as _

from ..runs.runtimeEstimate import duration

LONG_SECONDS = 20.0
"""After so long a run the window's entry in the task bar asks for a look; the user may be in another program."""


class RunStrip:
    """Progress, status and reason; the button is the task's.

    :param ui: widgets of the module's .ui file.
    """

    def __init__(self, ui):
        self.ui = ui
        self._away = False  # another module is open
        self.showProgress(False)
        self.say("")
        self.showReason("")

    def setAway(self, away):
        """Tell whether another module is open; the status bar says what goes on from then on."""
        self._away = away
        if self.ui.runProgressBar.visible or not away:
            self._tellSlicer(self.ui.runStatusLabel.text if away else "")

    def showReason(self, reason):
        """Why nothing can run, or an empty text. Only its first sentence: the remedy stands under what it speaks of."""
        label = self.ui.reasonLabel
        label.text, label.toolTip = reason, reason
        label.visible = bool(reason)

    def showEstimate(self, text):
        """How long a run will take and where it will be computed."""
        self.ui.estimateLabel.text = text
        self.ui.estimateLabel.visible = bool(text)

    def showProgress(self, visible):
        """The bar beside the button; it leaves the button the width when nothing runs."""
        self.ui.runProgressBar.visible = visible

    def begin(self, text):
        """A run starts."""
        self.ui.runProgressBar.value = 0
        self.showProgress(True)
        self.say(text)

    def progress(self, fraction, stage, secondsLeft):
        """How far it is.

        :param fraction: 0 to 1.
        :param secondsLeft: None where it is unknown.
        """
        self.ui.runProgressBar.value = round(1000 * fraction)
        left = _(", {time} left").format(time=duration(secondsLeft)) if secondsLeft is not None else ""
        self.say(f"{stage}{left}")

    def say(self, text):
        """The status line, and Slicer's status bar while another module is open."""
        label = self.ui.runStatusLabel
        label.text, label.toolTip = text, text
        label.visible = bool(text)
        if self._away:
            self._tellSlicer(text)

    def end(self, text, seconds):
        """It is over.

        :param seconds: that it took.
        """
        self.say(text)
        window = slicer.util.mainWindow()
        if seconds >= LONG_SECONDS and window is not None:
            qt.QApplication.alert(window)

    def _tellSlicer(self, text):
        if text and self.ui.runProgressBar.visible:
            share = self.ui.runProgressBar.value / 10
            text = _("{text} ({share:.0f} %)").format(text=text, share=share)
        slicer.util.showStatusMessage(_("MedDiff-FM: {text}").format(text=text) if text else "")


def firstSentence(text):
    """The cause alone, of a sentence about the cause and one about the remedy."""
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]
