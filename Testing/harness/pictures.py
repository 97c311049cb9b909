"""What the 3D view of a Slicer would show, rendered off screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from .views import displayable_managers, off_screen_window, write_picture

MANAGERS = [
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLVolumeRenderingDisplayableManager",
]


class ThreeDView:
    """One 3D view from now on: what is shown after its making appears in its pictures.

    Slicer has its views before any volume is rendered, and a rendering is given the views that there are.
    """

    def __init__(self, size: tuple[int, int] = (500, 500)) -> None:
        self._renderer, self._window, self._interactor = off_screen_window(size)
        self._renderer.SetUseDepthPeeling(True)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        self._group: Any = displayable_managers(self._renderer, factory, MANAGERS)
        view = slicer.util.getNodesByClass("vtkMRMLViewNode")[0]
        view.SetBoxVisible(False)
        view.SetAxisLabelsVisible(False)
        self._group.SetMRMLDisplayableNode(view)

    def picture(self, path: Path) -> None:
        """Write a PNG."""
        self._renderer.ResetCameraClippingRange()
        write_picture(self._window, path)

    def close(self) -> None:
        """Follow the scene no longer."""
        self._group.SetMRMLDisplayableNode(None)
