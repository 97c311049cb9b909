"""Texts, tables and points of a result as nodes of the scene."""

import slicer
import vtk

from .volumeNodes import moveToStudyOf, uniqueName

PLACE = ("r_mm", "a_mm", "s_mm")
"""Columns of points: where each is, in the scan's own coordinates."""


def addText(name, text, beside):
    """Add a text node.

    :param beside: node in whose study it is put; None for none.
    """
    return _add("vtkMRMLTextNode", name, beside, lambda node: node.SetText(text))


def addTable(name, output, rows, beside):
    """Add rows as a table node, and points as a markups node with one control point a row.

    :param output: ``MedDiffFMLib.tasks.output_kinds.Output``, a table or points.
    :param rows: one dict each, with the declared columns.
    """
    from MedDiffFMLib.tasks.output_kinds import OutputKind

    if output.kind is OutputKind.POINTS:
        return _add("vtkMRMLMarkupsFiducialNode", name, beside, lambda node: _fillPoints(node, output, rows, beside))
    return _add("vtkMRMLTableNode", name, beside, lambda node: _fillTable(node, output, rows))


def _add(nodeClass, name, beside, fill):
    node = slicer.mrmlScene.AddNewNodeByClass(nodeClass, uniqueName(slicer.mrmlScene, name))
    fill(node)
    if beside:
        moveToStudyOf(beside, node)
    return node


def _fillPoints(node, output, rows, beside):
    """The first column names a point, the others describe it."""
    described = [column for column in output.columns if column not in PLACE]
    for row in rows:
        index = node.AddControlPoint(*(float(row[column]) for column in PLACE))
        node.SetNthControlPointLabel(index, str(row[described[0]]) if described else str(index + 1))
        node.SetNthControlPointDescription(index, ", ".join(f"{column} {row[column]}" for column in described[1:]))
    if beside and beside.IsA("vtkMRMLTransformableNode"):
        node.SetAndObserveTransformNodeID(beside.GetTransformNodeID())


def _fillTable(node, output, rows):
    table = vtk.vtkTable()
    for name in output.columns:
        values = [row[name] for row in rows]
        areNumbers = all(isinstance(value, (int, float)) for value in values)
        column = vtk.vtkDoubleArray() if areNumbers else vtk.vtkStringArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(value if areNumbers else str(value))
        table.AddColumn(column)
    node.SetAndObserveTable(table)


def tableRows(node):
    """Rows of a table node as they were given to :func:`addTable`: one dict each, numbers as float."""
    table = node.GetTable()
    columns = [table.GetColumn(index) for index in range(table.GetNumberOfColumns())]
    return [{column.GetName(): column.GetValue(row) for column in columns} for row in range(table.GetNumberOfRows())]
