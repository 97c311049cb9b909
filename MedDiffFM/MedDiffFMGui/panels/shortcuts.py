"""Keys that work while the module is open."""

import qt
import slicer


class Shortcuts:
    """Single keys on Slicer's main window.

    :param slots: key -> function without arguments.
    """

    def __init__(self, slots):
        self._slots = slots
        self._shortcuts = []

    def install(self):
        """Take the keys; without a main window there are none to take."""
        window = slicer.util.mainWindow()
        if self._shortcuts or window is None:
            return
        for key, slot in self._slots.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.connect("activated()", slot)
            self._shortcuts.append(shortcut)

    def remove(self):
        """Give the keys back to the views, which have their own use for them."""
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts.clear()
