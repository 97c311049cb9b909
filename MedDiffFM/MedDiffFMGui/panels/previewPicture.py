"""The picture that a training draws of its newest kept checkpoint."""

from pathlib import Path

import qt

PREVIEW_FILE = "preview.png"


class PreviewPicture:
    """Shows the picture of a training's folder, read again only when it has changed.

    :param label: QLabel.
    """

    def __init__(self, label):
        self._label = label
        self._time = None
        label.visible = False

    def forget(self):
        """Another training is looked at: no picture until it has one of its own."""
        self._time = None
        self._label.setPixmap(qt.QPixmap())
        self._label.visible = False

    def look(self, folder):
        """Show the folder's picture as it is now, none where there is none."""
        path = Path(folder) / PREVIEW_FILE
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            changed = None
        if changed == self._time:
            return
        self._time = changed
        picture = qt.QPixmap(str(path)) if changed else qt.QPixmap()
        self._label.setPixmap(picture)
        self._label.visible = not picture.isNull()
