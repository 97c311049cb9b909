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


class qMRMLPlotWidget(QtWidgets.QWidget):
    """Holds the node of a plot view, and draws the first series of its chart as a line without axes."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._node: Any = None

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._node = node

    def mrmlPlotViewNode(self) -> Any:
        return self._node

    def _points(self) -> list[tuple[float, float]]:
        chart = self._node.GetPlotChartNode() if self._node is not None else None
        series = chart.GetNthPlotSeriesNode(0) if chart is not None else None
        table = series.GetTableNode().GetTable() if series is not None else None
        if table is None:
            return []
        rows = range(table.GetNumberOfRows())
        return [(table.GetValue(row, 0).ToDouble(), table.GetValue(row, 1).ToDouble()) for row in rows]

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), QtCore.Qt.GlobalColor.white)
        points = self._points()
        if len(points) < 2:
            return
        low, high = ([pick(p[axis] for p in points) for axis in (0, 1)] for pick in (min, max))
        scale = [
            (self.width() - 20) / max(high[0] - low[0], 1e-9), (self.height() - 20) / max(high[1] - low[1], 1e-9)
        ]  # fmt: skip
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        painter.setPen(QtGui.QPen(QtGui.QColor(61, 143, 209), 1.5))
        painter.drawPolyline(
            [QtCore.QPointF(10 + (x - low[0]) * scale[0], 10 + (high[1] - y) * scale[1]) for x, y in points]
        )
        painter.end()


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
