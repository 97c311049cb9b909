"""Show the module's panel without Slicer: ``python -m Testing.harness panel.png [TASK [SIZE]]``.

SIZE is "small" for a window of 1280 x 720, "large" for one of 1400 x 900; without it all of the panel is drawn.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from . import application

SIZES = {"": None, "small": application.SMALL, "large": application.LARGE}


def main(path: Path, task: str = "", size: str = "") -> None:
    """Draw the panel as it opens, with a task chosen where one is named."""
    with tempfile.TemporaryDirectory() as folder:
        app = application.start(Path(folder))
        widget = app.open_widget(app.load_module())
        if task:
            widget.taskPanel.choose(task)
        app.picture(widget, path, SIZES[size])
        widget.cleanup()
        app.close_panels()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
