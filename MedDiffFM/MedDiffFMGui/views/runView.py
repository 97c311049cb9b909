"""What views that show one run alone have in common: views of before, decision, end."""

from typing import Any

import slicer

from ..nodes.resultRecord import accept, isAccepted, remember, removeResult
from .decision import showDecision
from .viewState import ViewState


class RunView:
    """One finished run in the user's views; a subclass draws it.

    :param onClosed: called without arguments when the user accepted or discarded the result.
    """

    def __init__(self, onClosed=lambda: None):
        self.onClosed = onClosed
        self.run: Any = None
        self._before: Any = None

    def setParameterNode(self, parameterNode):
        """Nothing of this view is saved besides the nodes themselves."""
        if self.run and not self._exists():
            self.run = self._before = None

    def clear(self):
        """Nothing is shown any more; views as they were before the result."""
        self._hide()
        if self._before and self.run:
            self._restore()
        self.run = self._before = None

    def accept(self):
        """Keep the nodes."""
        if self._exists():
            accept(self.run.main)
        self.clear()
        self.onClosed()

    def discard(self):
        """Take the nodes out of the scene unless the user has accepted them; the views are as before."""
        run = self.run
        self.clear()
        if run and not isAccepted(run.main):
            removeResult(run)
        self.onClosed()

    def next(self):
        """The next of what the result consists of."""
        self._go(1)

    def previous(self):
        """The previous one."""
        self._go(-1)

    def _take(self, run, acceptButton, discardButton):
        """Show a run from now on; the views of before the first one are remembered."""
        if self._before is None:
            self._before = ViewState()
        self._hide()
        self.run = run
        remember(run)
        showDecision(acceptButton, discardButton, isAccepted(run.main))

    def _exists(self):
        return self.run is not None and all(slicer.mrmlScene.IsNodePresent(node) for node in self.run.nodes)

    def _restore(self):
        self._before.restore()

    def _hide(self):
        """What the view has drawn of its run leaves the views."""
        raise NotImplementedError

    def _go(self, step):
        raise NotImplementedError
