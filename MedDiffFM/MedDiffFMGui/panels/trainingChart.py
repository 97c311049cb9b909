"""Loss and validation figure of a training as live charts."""

from collections import deque
from statistics import median

import slicer
import vtk

CHARTS = ("loss", "validation")
WINDOW = 25
AXIS_POINTS = 12  # Slicer's own 16 take half of so small a chart
MOST_POINTS = 1000
"""A curve of more is drawn with every second, third, ... of its points: the panel is narrower than that."""
METRIC_TITLES = {"dice": "Dice"}
"""Figures that are written otherwise than their names."""
_TAG = "MedDiffFMTraining"


class TrainingChart:
    """Tables, series and charts in the scene; made anew when the scene was closed meanwhile.

    They are not saved with the scene: the run's folder holds the curves.
    """

    def __init__(self):
        self._nodes = {}
        self._begin()

    def _begin(self):
        self._rows: dict[str, list[tuple[float, float]]] = {name: [] for name in CHARTS}
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._metric = "validation"

    def clear(self):
        """Another run begins to be shown."""
        self._begin()
        if self._nodes:
            self._redraw(CHARTS)

    @property
    def empty(self):
        """Whether there is nothing to draw yet; then nothing is put into the scene."""
        return not any(self._rows.values())

    def add(self, lines):
        """Draw what the progress says.

        :param lines: dicts of ``progress.jsonl``.
        """
        changed = set()
        for line in lines:
            step = line.get("step")
            if step is None:
                continue
            if line.get("state") == "training" and line.get("loss") is not None:
                self._losses.append(line["loss"])
                self._rows["loss"].append((step, median(self._losses)))  # single windows differ too much to show
                changed.add("loss")
            elif line.get("state") == "validated" and line.get("value") is not None:
                self._rows["validation"].append((step, line["value"]))
                self._metric = str(line.get("metric") or self._metric)
                changed.add("validation")
        self._redraw(changed)

    def show(self, name, plotWidget):
        """Let a plot widget show one of the charts."""
        chart = self._nodes.get((name, "chart"))
        if chart is None or not slicer.mrmlScene.IsNodePresent(chart):  # the scene was closed meanwhile
            self._redraw(CHARTS)
        view = self._node("vtkMRMLPlotViewNode", "view")
        view.SetPlotChartNodeID(self._nodes[name, "chart"].GetID())
        if plotWidget.mrmlPlotViewNode() is not view:
            plotWidget.setMRMLPlotViewNode(view)
        plotWidget.plotView().fitToContent()  # by itself the view keeps the axes of the first points

    def values(self, name):
        """(step, value) pairs that are drawn, the newest among them; of the loss the median of the last WINDOW."""
        rows = self._rows[name]
        return rows[:: -max(1, -(-len(rows) // MOST_POINTS))][::-1]

    def remove(self):
        """Take the nodes out of the scene."""
        for node in self._nodes.values():
            if slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)
        self._nodes = {}

    def _redraw(self, names):
        for name in names:
            table = self._node("vtkMRMLTableNode", name)
            self._fill(table, name)
            series = self._node("vtkMRMLPlotSeriesNode", name)
            chart = self._node("vtkMRMLPlotChartNode", name)
            title = METRIC_TITLES.get(self._metric, self._metric.replace("_", " "))
            if name == "loss":
                title = f"loss (median of {WINDOW})"
            if series.GetTableNodeID() != table.GetID():
                self._connect(table, series, chart, name)
            chart.SetYAxisTitle(title)
            self._join(chart, series, len(self._rows[name]), name)

    def _connect(self, table, series, chart, name):
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName("value")
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetColor(0.24, 0.56, 0.82) if name == "loss" else series.SetColor(0.91, 0.53, 0.12)
        chart.SetXAxisTitle("step")
        chart.SetLegendVisibility(False)
        chart.SetAxisTitleFontSize(AXIS_POINTS)
        chart.SetAxisLabelFontSize(AXIS_POINTS)

    @staticmethod
    def _join(chart, series, points, name):
        """The curve in its chart; not before its first point, for VTK complains of an empty line at each repaint."""
        if not points:
            chart.RemoveAllPlotSeriesNodeIDs()
        elif chart.GetNumberOfPlotSeriesNodes() == 0:
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
        lone = points == 1  # nothing is seen of a line without length
        series.SetMarkerStyle(series.MarkerStyleNone if name == "loss" and not lone else series.MarkerStyleCircle)

    def _fill(self, node, name):
        table = vtk.vtkTable()
        columns = []
        for title in ("step", "value"):
            column = vtk.vtkDoubleArray()
            column.SetName(title)
            table.AddColumn(column)
            columns.append(column)
        rows = self.values(name)
        for row in rows * 2 if len(rows) == 1 else rows:  # VTK complains of a line of one point at each repaint
            for column, value in zip(columns, row, strict=True):
                column.InsertNextValue(value)
        node.SetAndObserveTable(table)

    def _node(self, kind, name):
        key = (name, "chart") if kind == "vtkMRMLPlotChartNode" else (name, kind)
        node = self._nodes.get(key)
        if node is None or not slicer.mrmlScene.IsNodePresent(node):
            node = slicer.mrmlScene.CreateNodeByClass(kind)
            node.UnRegister(None)
            node.SetName(f"MedDiff-FM training {name}")
            node.SetSaveWithScene(False)
            node.SetHideFromEditors(True)
            if kind == "vtkMRMLPlotViewNode":
                node.SetSingletonTag(_TAG)
                node.SetLayoutName(_TAG)
            node = slicer.mrmlScene.AddNode(node)
            self._nodes[key] = node
        return node
