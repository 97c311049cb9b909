"""What views of a Slicer would show that are there before a result is: color legends and renderings need that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

from .views import displayable_managers, off_screen_window, write_picture

MANAGERS = [
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLVolumeRenderingDisplayableManager",
    "vtkMRMLModelDisplayableManager",
]


class ThreeDView:
    """One 3D view from now on: what is shown after its making appears in its pictures.

    Slicer has its views before any volume is rendered, and a rendering is given the views that there are.

    Attributes:
        draws: how often Slicer's view would have been drawn at once. A view that is asked to draw while Python works
            draws there and then, unless rendering is paused.
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
        self.draws = 0
        self._group.AddObserver(vtk.vtkCommand.UpdateEvent, self._on_request)

    def _on_request(self, caller: Any, event: str) -> None:
        self.draws += slicer.app.render_pauses == 0

    def props(self) -> list[Any]:
        """What would be drawn, hidden or not."""
        return list(self._renderer.GetViewProps())

    def picture(self, path: Path) -> None:
        """Write a PNG."""
        self._renderer.ResetCameraClippingRange()
        write_picture(self._window, path)

    def close(self) -> None:
        """Follow the scene no longer."""
        self._group.SetMRMLDisplayableNode(None)


class SliceView:
    """One slice view from now on, with color legends."""

    def __init__(self, name: str, size: int) -> None:
        self._logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
        self._logic.ResizeSliceNode(size, size)
        self._renderer, self._window, self._interactor = off_screen_window((size, size))
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        image = vtk.vtkActor2D()
        image.SetMapper(self._mapper)
        image.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(image)  # before the displayable managers add their actors, which are drawn over it
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        names = ["vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLColorLegendDisplayableManager"]
        names.append("vtkMRMLMarkupsDisplayableManager")
        self._group: Any = displayable_managers(self._renderer, factory, names)
        self._group.SetMRMLDisplayableNode(self._logic.GetSliceNode())

    def picture(self, path: Path) -> None:
        """Write a PNG."""
        self._logic.UpdatePipeline()
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())  # another one once there are layers
        write_picture(self._window, path)

    def close(self) -> None:
        """Follow the scene no longer."""
        self._group.SetMRMLDisplayableNode(None)
