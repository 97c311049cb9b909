"""The Result section: which view shows which result.

A view is an object with ``show(run)``, ``clear()`` (gives the user's view back) and ``setParameterNode(parameterNode)``
(None when the scene closes or the module is left). It fills one widget of the section, which is visible only while the
view has something to show. A view that has ``blink()``, ``next()`` or ``previous()`` is asked so by the keys K, N and P
while the module is open and a result is shown. One that has ``restore()`` may find its result in a scene that was
loaded, and then answers True.
"""

import qt

from .shortcuts import Shortcuts

KEYS = {"K": "blink", "N": "next", "P": "previous"}
"""Slicer's slice views take B, F, G, R, T, V and brackets, its Segment Editor Q, W, space and digits."""


class ResultPanel:
    """Hands a finished run to the view that its task declares and takes the one before away.

    :param ui: widgets of the module's .ui file.
    :param views: value of the library's ``View`` -> (view, its widget in the section).
    """

    def __init__(self, ui, views):
        self.ui = ui
        self._views = views
        self._shown = None
        self._isOpen = False
        self._shortcuts = Shortcuts({key: lambda name=name: self._ask(name) for key, name in KEYS.items()})
        self._showOnly(None)

    def enter(self):
        """The module is opened."""
        self._isOpen = True
        self._takeKeys()

    def exit(self):
        """Another module is opened."""
        self._isOpen = False
        self._takeKeys()

    def _takeKeys(self):
        if self._isOpen and self._shown is not None:
            self._shortcuts.install()
        else:
            self._shortcuts.remove()

    def setParameterNode(self, parameterNode):
        for view, _widget in self._views.values():
            view.setParameterNode(parameterNode)
        if parameterNode and self._shown is None:
            self._restore()

    def _restore(self):
        """Show again what the scene was saved with."""
        for name, (view, _widget) in self._views.items():
            if hasattr(view, "restore") and view.restore():
                self._showOnly(name)
                return

    def show(self, run):
        """Show ``run`` in place of what was shown."""
        from MedDiffFMLib.tasks.registry import TASKS

        name = TASKS[run.task].view.value
        if self._shown not in (None, name):
            self._views[self._shown][0].clear()
        self._showOnly(name)
        self._views[name][0].show(run)
        self.ui.resultCollapsibleButton.collapsed = False
        qt.QTimer.singleShot(0, self._scrollTo)  # the section gets its place in the next turn of the event loop

    def _scrollTo(self):
        """Bring the beginning of the section into sight."""
        if self._shown is not None:
            self.ui.panelScrollArea.verticalScrollBar().value = self.ui.resultCollapsibleButton.y

    def clear(self):
        """Show nothing and give the user's view back."""
        if self._shown is not None:
            self._views[self._shown][0].clear()
        self._showOnly(None)

    def _ask(self, method):
        view = self._views[self._shown][0] if self._shown is not None else None
        slot = getattr(view, method, None)
        if slot is not None:
            slot()

    def _showOnly(self, name):
        self._shown = name
        for key, (_view, widget) in self._views.items():
            widget.visible = key == name
        self.ui.resultCollapsibleButton.visible = name is not None
        self._takeKeys()
