"""Show the module's panel without Slicer: ``python -m Testing.harness panel.png [TASK]``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from . import application


def main(path: Path, task: str = "") -> None:
    """Draw the panel as it opens, with a task chosen where one is named."""
    with tempfile.TemporaryDirectory() as folder:
        app = application.start(Path(folder))
        widget = app.open_widget(app.load_module())
        if task:
            widget.taskPanel.choose(task)
        app.picture(widget, path)
        widget.cleanup()
        app.close_panels()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
