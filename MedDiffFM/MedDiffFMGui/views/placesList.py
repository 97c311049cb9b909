"""A list of places below a comparison: a click moves the views there."""

from typing import Any

import qt
from slicer.i18n import tr as _

from .anomalyLayers import jump

ROWS = 6
"""Shown without scrolling."""


def keepRowsFitting(table):
    """Keep rows as high as their words need at the width that the panel gives them, which comes after the words.

    :param table: QTableWidget.
    """
    table.horizontalHeader().connect("sectionResized(int,int,int)", lambda *_sizes: table.resizeRowsToContents())


class PlacesList:
    """Rows of a run's tables that have a place each, such as matched lesions; hidden where there are none.

    :param layout: QLayout that the list is added to.
    """

    def __init__(self, layout):
        self._points: list[Any] = []
        self._node: Any = None  # scan in whose coordinates the places are
        self.table = qt.QTableWidget()
        self.table.setColumnCount(2)
        self.table.setHorizontalHeaderLabels([_("Place"), _("What changed")])
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.verticalHeader().setVisible(False)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        keepRowsFitting(self.table)
        self.table.connect("itemSelectionChanged()", self._onSelected)
        layout.addWidget(self.table)
        self.hide()

    def show(self, run):
        """List the places of a run.

        :param run: FinishedRun.
        """
        rows = [(name, row) for name, rows in run.tables.items() for row in rows if _point(row)]
        self._points, self._node = [_point(row) for _name, row in rows], run.inputNode
        wasBlocked = self.table.blockSignals(True)
        self.table.setRowCount(len(rows))
        for number, (name, row) in enumerate(rows):
            for column, text in enumerate((str(row.get("where", "")), _words(run.task, name, row))):
                self.table.setItem(number, column, qt.QTableWidgetItem(text))
        self.table.clearSelection()
        self.table.resizeRowsToContents()
        self.table.blockSignals(wasBlocked)
        self.table.setMinimumHeight(min(len(rows) + 1, ROWS) * 26)
        self.table.visible = bool(rows)

    def hide(self):
        """Nothing is listed any more."""
        self._points, self._node = [], None
        self.table.visible = False

    def _onSelected(self):
        chosen = self.table.selectionModel().selectedRows()
        if not chosen or not self._points:
            return
        point = self._points[chosen[0].row()]
        if self._node is not None:
            world = [0.0, 0.0, 0.0]
            self._node.TransformPointToWorld(point, world)
            point = world
        jump(point)


def _point(row):
    """RAS mm, None where the row has no place."""
    values = [row.get(name) for name in ("r_mm", "a_mm", "s_mm")]
    return None if None in values else [float(value) for value in values]


def _words(task, table, row):
    """The cells of a row that say something, with their names."""
    from MedDiffFMLib.pages.layout import figure, heading
    from MedDiffFMLib.tasks.registry import TASKS

    skipped = ("number", "where", "r_mm", "a_mm", "s_mm", "earlier_number", "later_number")
    output = TASKS[task].output(table)
    cells = [(name, row.get(name)) for name in output.columns if name not in skipped]
    said = [
        figure(value) if isinstance(value, str) else f"{heading(name)} {figure(value)}"
        for name, value in cells
        if value is not None
    ]
    return ", ".join(said)
