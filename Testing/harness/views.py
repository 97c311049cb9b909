"""Slicer's layout manager and slice views without windows: real layout node, real slice logics, real rendering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .pythonqt import wrap

CONVENTIONAL, FOUR_UP = 2, 3


class qMRMLSliceWidget(QtWidgets.QWidget):
    """One slice view."""

    def __init__(self, name: str, logic: Any) -> None:
        super().__init__()
        self._name, self._logic = name, logic

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()


class qMRMLThreeDView(QtWidgets.QWidget):
    """The 3-D view, as far as a module asks for its node and its focal point."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        self.focal_point_resets = 0
        self.render_pauses = 0
        self.draws_after_pauses = 0

    def mrmlViewNode(self) -> Any:
        return self._node

    def resetFocalPoint(self) -> None:
        self.focal_point_resets += 1

    def pauseRender(self) -> None:
        self.render_pauses += 1

    def resumeRender(self) -> None:
        self.render_pauses -= 1
        self.draws_after_pauses += self.render_pauses == 0


class qMRMLThreeDWidget(QtWidgets.QWidget):
    """Holds the 3-D view."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._view = qMRMLThreeDView(node)

    def threeDView(self) -> Any:
        return self._view

    def mrmlViewNode(self) -> Any:
        return self._view.mrmlViewNode()


class qSlicerLayoutManager(QtCore.QObject):
    """Follows the layout node of the scene; views are made for the view nodes that the layout logic makes."""

    layoutChanged = QtCore.Signal(int)

    def __init__(self, application_logic: Any, scene: Any) -> None:
        super().__init__()
        self._application_logic, self._scene = application_logic, scene
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        self._slices: dict[str, qMRMLSliceWidget] = {}
        self._three_d: list[qMRMLThreeDWidget] = []
        self.setLayout(FOUR_UP)
        scene.AddObserver(slicer.vtkMRMLScene.EndCloseEvent, lambda *_: self._make_views())

    def layoutLogic(self) -> Any:
        return self._logic

    def setLayout(self, layout: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(layout)
        self._make_views()
        self.layoutChanged.emit(layout)

    layout = QtCore.Property(
        int, lambda self: self._logic.GetLayoutNode().GetViewArrangement(), lambda self, value: self.setLayout(value)
    )

    def _make_views(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            name = node.GetLayoutName()
            if name not in self._slices or self._slices[name].mrmlSliceNode() is not node:
                self._slices[name] = qMRMLSliceWidget(name, self._slice_logic(node))
        nodes = slicer.util.getNodesByClass("vtkMRMLViewNode")
        if [widget.mrmlViewNode() for widget in self._three_d] != nodes:
            self._three_d = [qMRMLThreeDWidget(node) for node in nodes]

    def _slice_logic(self, node: Any) -> Any:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self._application_logic)
        self._application_logic.GetSliceLogics().AddItem(logic)
        logic.SetMRMLScene(self._scene)
        logic.SetSliceNode(node)
        logic.ResizeSliceNode(400, 400)
        return logic

    def sliceViewNames(self) -> list[str]:
        return list(self._slices)

    def sliceWidget(self, name: str) -> Any:
        return self._slices.get(name)

    def mrmlSliceLogics(self) -> Any:
        return self._application_logic.GetSliceLogics()

    threeDViewCount = QtCore.Property(int, lambda self: len(self._three_d))

    def threeDWidget(self, index: int) -> Any:
        return self._three_d[index] if index < len(self._three_d) else None

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget.sliceLogic().FitSliceToBackground()

    def resetThreeDViews(self) -> None: ...


def slice_picture(name: str, path: Path, size: int = 400, labels: bool = True) -> None:
    """What a slice view shows now, as PNG: layers, segmentations, and color legends if ``labels``."""
    logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
    node = logic.GetSliceNode()
    logic.ResizeSliceNode(size, size)
    renderer, window, interactor = off_screen_window((size, size))
    renderer.GetActiveCamera().ParallelProjectionOn()
    mapper = vtk.vtkImageMapper()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    mapper.SetInputConnection(logic.GetImageDataConnection())
    image = vtk.vtkActor2D()
    image.SetMapper(mapper)
    image.GetProperty().SetDisplayLocationToBackground()
    renderer.AddViewProp(image)  # before the displayable managers add their actors, which are drawn over it
    names = ["vtkMRMLSegmentationsDisplayableManager2D"]
    names += ["vtkMRMLColorLegendDisplayableManager"] if labels else []
    group = displayable_managers(renderer, slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), names)
    group.SetMRMLDisplayableNode(node)
    logic.UpdatePipeline()
    write_picture(window, path)
    group.SetMRMLDisplayableNode(None)


def off_screen_window(size: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Renderer, window and interactor; the last one must be kept as long as the others."""
    renderer, window, interactor = vtk.vtkRenderer(), vtk.vtkRenderWindow(), vtk.vtkRenderWindowInteractor()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    interactor.SetRenderWindow(window)
    interactor.Initialize()
    return renderer, window, interactor


def displayable_managers(renderer: Any, factory: Any, names: list[str]) -> Any:
    """A group of displayable managers that draw into ``renderer``."""
    factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    for name in names:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.SetRenderer(renderer)
    group.Initialize(factory, renderer)
    return group


def write_picture(window: Any, path: Path) -> None:
    """Render and write a PNG."""
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(grab.GetOutput())
    writer.Write()


def layout_manager(application_logic: Any, scene: Any) -> Any:
    """The layout manager as a module sees it."""
    return wrap(qSlicerLayoutManager(application_logic, scene))
