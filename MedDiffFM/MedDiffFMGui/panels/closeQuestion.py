"""Asks, when Slicer is closed during a training, whether it goes on in the background."""

import qt
import slicer
from slicer.i18n import tr as _

KEEP, PAUSE, STAY = "keep", "pause", "stay"


def askUser():
    """The user's decision: KEEP, PAUSE or STAY."""
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.setWindowTitle(_("MedDiff-FM"))
    box.setText(_("A training is going on."))
    box.setInformativeText(
        _("It can go on in the background while Slicer is closed, or stop now and be resumed later. Nothing is lost.")
    )
    keep = box.addButton(_("Keep training"), qt.QMessageBox.AcceptRole)
    pause = box.addButton(_("Stop, resume later"), qt.QMessageBox.DestructiveRole)
    box.addButton(qt.QMessageBox.Cancel)
    box.setDefaultButton(keep)
    box.exec()
    chosen = box.clickedButton()
    return KEEP if chosen == keep else PAUSE if chosen == pause else STAY


class CloseQuestion(qt.QObject):
    """Looks at the main window's close event before Slicer does.

    A program that ends without closing its window, as scripts and tests do, is not asked: the training goes on.
    """

    _window = None

    def watch(self, isRunning, pause, ask=askUser):
        """Begin to look.

        :param isRunning: says whether there is something to ask about.
        :param pause: called if the user wants the training to stop.
        :param ask: gives the decision.
        """
        self._isRunning, self._pause, self._ask = isRunning, pause, ask
        self._window = slicer.util.mainWindow()
        if self._window is not None:
            self._window.installEventFilter(self)

    def remove(self):
        """Ask no more."""
        if self._window is not None:
            self._window.removeEventFilter(self)

    def eventFilter(self, watched, event):
        """True keeps the event from Slicer, so the window stays."""
        if event.type() != qt.QEvent.Close or not self._isRunning():
            return False
        decision = self._ask()
        if decision == STAY:
            event.ignore()
            return True
        if decision == PAUSE:
            self._pause()
        return False
