"""Stand-ins for Slicer's table and plot widgets: real Qt views of real MRML nodes."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets


class qMRMLTableView(QtWidgets.QTableView):
    """Shows a vtkMRMLTableNode as Slicer's qMRMLTableModel does, and follows it."""

    selectionChanged = QtCore.Signal()  # type: ignore[assignment]  # hides the method of the same name, as in Slicer

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._tag: int | None = None
        self.setModel(QtGui.QStandardItemModel(self))
        self.selectionModel().selectionChanged.connect(lambda *_: self.selectionChanged.emit())

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def mrmlTableNode(self) -> Any:
        return self._node

    def setMRMLTableNode(self, node: Any) -> None:
        if self._node is not None and self._tag is not None:
            self._node.RemoveObserver(self._tag)
        self._node, self._tag = node, None
        if node is not None:
            self._tag = node.AddObserver("ModifiedEvent", lambda *_: self._fill())
        self._fill()

    def _fill(self) -> None:
        model: Any = self.model()
        table = self._node.GetTable() if self._node is not None else None
        if table is None or table.GetNumberOfColumns() == 0:
            model.setRowCount(0)
            model.setColumnCount(0)
            return
        titled = self._node.GetUseColumnTitleAsColumnHeader()
        above = 0 if titled else 1  # else the names stand in the first row
        model.setRowCount(table.GetNumberOfRows() + above)
        model.setColumnCount(table.GetNumberOfColumns())
        for column in range(table.GetNumberOfColumns()):
            name = table.GetColumnName(column)
            title = (self._node.GetColumnTitle(name) or name) if titled else chr(ord("A") + column)
            unit = self._node.GetColumnUnitLabel(name) if titled else ""
            header = f"{title} [{unit}]" if unit else title
            model.setHeaderData(column, QtCore.Qt.Orientation.Horizontal, header)
            if above:
                model.setItem(0, column, QtGui.QStandardItem(name))
            for row in range(table.GetNumberOfRows()):
                text = table.GetValue(row, column).ToString()
                model.setItem(row + above, column, QtGui.QStandardItem(text))


class qMRMLPlotView(QtWidgets.QWidget):
    """Draws a chart with VTK, axes and titles included. As in Slicer its axes stay where the first data have put them
    until they are fitted."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.ranges: list[tuple[float, float]] | None = None
        self._drawn: Any = None

    def fitToContent(self) -> None:
        self.ranges = None
        self.update()

    def picture(self, chart: Any) -> QtGui.QImage:
        """What is drawn of a vtkMRMLPlotChartNode."""
        if chart is not self._drawn:
            self._drawn, self.ranges = chart, None
        self.ranges = self.ranges or data_ranges(chart)
        return chart_picture(chart, self.width(), self.height(), self.ranges)


class qMRMLPlotWidget(QtWidgets.QWidget):
    """Shows the chart of a plot view's node."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._node: Any = None
        self._view = qMRMLPlotView(self)
        self._view.hide()  # its picture is drawn here

    def plotView(self) -> qMRMLPlotView:
        return self._view

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._node = node

    def mrmlPlotViewNode(self) -> Any:
        return self._node

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), QtCore.Qt.GlobalColor.white)
        chart = self._node.GetPlotChartNode() if self._node is not None else None
        if chart is not None and min(self.width(), self.height()) > 20:
            self._view.resize(self.size())
            painter.drawImage(0, 0, self._view.picture(chart))
        painter.end()


def data_ranges(node: Any) -> list[tuple[float, float]] | None:
    """Of x and y over all series of a chart; None where there are no data."""
    found: list[list[float]] = [[], []]
    for index in range(node.GetNumberOfPlotSeriesNodes()):
        series = node.GetNthPlotSeriesNode(index)
        table = series.GetTableNode().GetTable() if series.GetTableNode() else None
        if table is not None and table.GetNumberOfRows():
            for values, name in zip(found, (series.GetXColumnName(), series.GetYColumnName()), strict=True):
                values.extend(table.GetColumnByName(name).GetRange())
    return [(min(values), max(values)) for values in found] if found[0] else None


def chart_picture(node: Any, width: int, height: int, ranges: list[tuple[float, float]] | None = None) -> QtGui.QImage:
    """A vtkMRMLPlotChartNode, drawn off screen.

    Args:
        ranges: of the axes, bottom and left; fitted to the data when None.
    """
    import vtk
    from vtkmodules.util.numpy_support import vtk_to_numpy

    from .views import off_screen_window

    renderer, window, interactor = off_screen_window((width, height))
    renderer.SetBackground(1, 1, 1)
    chart, scene, actor = vtk.vtkChartXY(), vtk.vtkContextScene(), vtk.vtkContextActor()
    scene.AddItem(chart)
    actor.SetScene(scene)
    scene.SetRenderer(renderer)
    renderer.AddActor(actor)
    chart.SetTitle(node.GetTitle() or "")
    chart.SetShowLegend(node.GetLegendVisibility())
    chart.GetAxis(vtk.vtkAxis.BOTTOM).SetTitle(node.GetXAxisTitle() or "")
    chart.GetAxis(vtk.vtkAxis.LEFT).SetTitle(node.GetYAxisTitle() or "")
    for index in range(node.GetNumberOfPlotSeriesNodes()):
        add_series(chart, node.GetNthPlotSeriesNode(index))
    for axis, (low, high) in zip((vtk.vtkAxis.BOTTOM, vtk.vtkAxis.LEFT), ranges or (), strict=False):
        chart.GetAxis(axis).SetBehavior(vtk.vtkAxis.FIXED)
        chart.GetAxis(axis).SetRange(low, high if high > low else low + 1)
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
    rows = pixels.reshape(height, width, 3)[::-1].copy()
    del interactor  # must live as long as the window
    return QtGui.QImage(rows.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888).copy()


def add_series(chart: Any, series: Any) -> None:
    """One vtkMRMLPlotSeriesNode as a line, with its markers."""
    import vtk

    table = series.GetTableNode().GetTable() if series is not None and series.GetTableNode() else None
    if table is None or table.GetNumberOfRows() == 0:
        return
    line = chart.AddPlot(vtk.vtkChart.LINE)
    line.SetInputData(table, series.GetXColumnName(), series.GetYColumnName())
    line.SetColorF(*series.GetColor())
    line.SetWidth(series.GetLineWidth())
    line.SetMarkerStyle(series.GetMarkerStyle())
    line.SetMarkerSize(series.GetMarkerSize())
    line.SetLabel(series.GetName())


class ctkDirectoryButton(QtWidgets.QPushButton):
    """A button that shows a folder and lets the user choose another one."""

    directoryChanged = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._directory = ""

    def _set_directory(self, path: str) -> None:
        if path != self._directory:
            self._directory = path
            self.setText(path)
            self.directoryChanged.emit(path)

    directory = QtCore.Property(str, lambda self: self._directory, _set_directory)


STAND_INS = (qMRMLTableView, qMRMLPlotWidget, ctkDirectoryButton)
