"""3D views that are drawn once the user rests."""

import qt
import slicer

REST_MS = 300


class LaterDrawing:
    """Lets slices be seen at once: the view is drawn for every change of a color or a camera, and that takes software
    some tenths of a second, with a volume rendering of the user's own seconds."""

    def __init__(self):
        self._views = []
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(REST_MS)
        self._timer.connect("timeout()", self.end)

    def begin(self):
        """Nothing is drawn in the 3D views until a while after the last call."""
        if not self._views:
            self._views = _threeDViews()
            for view in self._views:
                view.pauseRender()
        self._timer.start()

    def end(self):
        """Draw what has changed."""
        self._timer.stop()
        for view in _threeDViews():
            if view in self._views:  # another layout may have come since
                view.resumeRender()
        self._views = []


def _threeDViews():
    manager = slicer.app.layoutManager()
    return [manager.threeDWidget(index).threeDView() for index in range(manager.threeDViewCount)]
