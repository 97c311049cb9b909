"""A Slicer without its windows: real MRML and VTK from slicer-core, Qt from PySide6, the rest from this folder.

It loads the module as Slicer does, from its file and by its name. The module has no branch for it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "MedDiffFM" / "MedDiffFM.py"
PANEL_WIDTH = 430  # pixels, beside a Slicer window of 1107 x 570
SMALL, LARGE = (PANEL_WIDTH, 400), (PANEL_WIDTH, 570)
"""Size of Slicer's module panel in a window of 1280 x 720 and of 1400 x 900, with Data Probe open below it."""
IN_SUBJECT_HIERARCHY = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLTextNode",
    "vtkMRMLTableNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLTransformNode",
)


class Application:
    """One per process; ``start()`` gives it."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        import slicer
        from PySide6 import QtWidgets

        from . import pythonqt, slicer_modules, views, widgets

        self.qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
        self.widgets = widgets
        self.slicer = slicer
        self.settings_file = folder / "settings.ini"
        self._panels: list[Any] = []
        sys.modules["qt"] = pythonqt.make_qt_module(str(self.settings_file))
        sys.modules["ctk"] = ctk = types.ModuleType("ctk")
        for kind in widgets.STAND_INS:
            setattr(ctk if kind.__name__.startswith("ctk") else slicer, kind.__name__, pythonqt.ProxyClass(kind))
        for name, module in slicer_modules.modules().items():
            sys.modules[f"slicer.{name}"] = module
            setattr(slicer, name, module)
        slicer.app = slicer_modules.Application()
        slicer.mrmlScene = slicer.vtkMRMLScene()
        slicer.util.loadUI = widgets.load_ui
        slicer.util.childWidgetVariables = widgets.child_widget_variables
        slicer.util.modulePath = lambda name: str(MODULE)
        self.main_window = QtWidgets.QMainWindow()
        slicer.util.mainWindow = lambda: pythonqt.wrap(self.main_window)
        slicer.app.start_logics(slicer.mrmlScene, folder / "home")
        slicer.app.layout_manager = views.layout_manager(slicer.app.applicationLogic(), slicer.mrmlScene)
        self._add_subject_hierarchy()

    def _add_subject_hierarchy(self) -> None:
        """Give every new node that a user sees an item, as Slicer's subject hierarchy plugins do."""
        slicer = self.slicer
        slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(slicer.mrmlScene)

        import vtk

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def on_node_added(scene: Any, event: int, node: Any) -> None:
            if any(node.IsA(kind) for kind in IN_SUBJECT_HIERARCHY) and not node.GetHideFromEditors():
                hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def on_node_about_to_be_removed(scene: Any, event: int, node: Any) -> None:
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
            item = hierarchy.GetItemByDataNode(node) if hierarchy and hierarchy is not node else 0
            if item:
                hierarchy.RemoveItem(item, False, False)

        slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, on_node_added)
        slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, on_node_about_to_be_removed)

    def load_module(self) -> types.ModuleType:
        """Import MedDiffFM.py under its name, as Slicer's module factory does."""
        if str(MODULE.parent) not in sys.path:
            sys.path.insert(0, str(MODULE.parent))
        spec = importlib.util.spec_from_file_location("MedDiffFM", MODULE)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["MedDiffFM"] = module
        spec.loader.exec_module(module)
        return module

    def open_widget(self, module: types.ModuleType) -> Any:
        """The module's widget, set up and entered."""
        from PySide6 import QtWidgets

        panel = self.widgets.qMRMLWidget()
        panel.setLayout(QtWidgets.QVBoxLayout())
        parent = PanelParent(panel)
        widget = module.MedDiffFMWidget(parent)
        widget.setup()
        parent.area = module_panel(panel)
        parent.area.resize(*LARGE)
        parent.area.show()
        self._panels.append(parent.area)
        widget.enter()
        return widget

    def close_panels(self) -> None:
        """Take the scene from the panels that were opened, as Slicer does when it destroys them."""
        for panel in self._panels:
            for combo in panel.findChildren(self.widgets.qMRMLNodeComboBox):
                combo.setMRMLScene(None)
        self._panels.clear()

    def picture(self, widget: Any, path: Path, size: tuple[int, int] | None = None) -> None:
        """The module panel as the user sees it.

        Args:
            size: of Slicer's panel, SMALL or LARGE; as high as its contents when None.
        """
        area, contents = widget.parent.area, widget.ui.panelContentsWidget._target
        for _ in range(3):  # folding and unfolding moves what lies below
            self.qt.processEvents()
            strip = widget.ui.runStripWidget._target.sizeHint().height()
            area.resize(*(size or (PANEL_WIDTH, contents.sizeHint().height() + strip + 60)))
        area.grab().save(str(path))

    def wait(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Turn the event loop until something is so; fail when it does not come."""
        end = time.monotonic() + seconds
        while not condition():
            self.qt.processEvents()
            time.sleep(0.005)
            assert time.monotonic() < end, f"waited {seconds} s in vain"


def module_panel(module_widget: Any) -> Any:
    """Slicer's qSlicerModulePanel: help and the module's widget, as wide as it asks for, in an area that scrolls."""
    from PySide6 import QtCore, QtWidgets

    policy = QtWidgets.QSizePolicy.Policy
    area, contents = QtWidgets.QScrollArea(), QtWidgets.QWidget()
    layout = QtWidgets.QVBoxLayout(contents)
    layout.addWidget(QtWidgets.QPushButton("Help && Acknowledgement"))
    layout.addWidget(module_widget, 1)
    layout.addItem(QtWidgets.QSpacerItem(0, 0, policy.Minimum, policy.MinimumExpanding))
    module_widget.layout().setContentsMargins(0, 0, 0, 0)
    module_widget.setSizePolicy(policy.Minimum, module_widget.sizePolicy().verticalPolicy())
    area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidgetResizable(True)
    area.setWidget(contents)
    return area


class PanelParent:
    """The module panel that Slicer hands to the widget."""

    isEntered = True

    def __init__(self, panel: Any) -> None:
        self.panel = panel
        self.area: Any = None  # Slicer's panel around it, with its scroll bar
        self._layout = types.SimpleNamespace(addWidget=lambda widget: panel.layout().addWidget(widget._target))

    def layout(self) -> Any:
        return self._layout


_application: list[Application] = []


def start(folder: Path) -> Application:
    """The application of this process."""
    if not _application:
        _application.append(Application(folder))
    return _application[0]
