"""The nodes of an anomaly map. The findings' table refers to the others, so a saved scene brings all of them back."""

import contextlib
import json
from typing import Any

import slicer

from ..worker.eventLoopTasks import importing
from .findingList import Decisions, nearest, readingOrder
from .findingMarks import markNumbers
from .regionSegments import replacingRegions
from .resultNodes import addingDifference
from .resultRecord import accept, isAccepted
from .segmentationArrays import anatomyFromSegmentation
from .volumeNodes import moveToStudyOf, volumeFromNode

TASK_ATTRIBUTE = "MedDiffFM.Task"
THRESHOLD_ATTRIBUTE = "MedDiffFM.Threshold"
MINIMUM_ATTRIBUTE = "MedDiffFM.MinimumVolume"
AT_MOST_ATTRIBUTE = "MedDiffFM.AtMost"
REASONS_ATTRIBUTE = "MedDiffFM.Reasons"
ROLES = ("anomaly", "healthy", "difference", "uncertainty", "regions", "numbers", "report")
"""What belongs to the map besides its table, as saved scenes have it; the CT and the organs are the user's."""
KIND_ROLES = {"z-score": "anomaly", "ct": "healthy", "hu-spread": "uncertainty"}
"""Kind of an output -> role of its node."""
REGION_COLOR = (0.20, 0.85, 0.95)  # cyan stands out from Inferno for every kind of color vision
CHOSEN_COLOR = (1.0, 1.0, 1.0)
SHOWN_COLUMNS = {
    "number": "#",
    "slice": "slice",
    "place": "where",
    "size_ml": "ml",
    "peak_z": "peak z",
    "state": "",
}
"""Columns of the table node that the panel shows, and their headings."""
SEARCH_MODULES = ("numpy.testing", "numpy.f2py", "scipy._lib._util", "scipy._lib._array_api", "scipy.special",
                  "scipy.ndimage", "scipy.sparse", "scipy.sparse.csgraph")  # fmt: skip
"""What the search for findings imports, in parts of less than 0.1 s; SciPy is 0.4 s the first time."""
HIDDEN_COLUMNS = ("where", "volume_mm3", "mean_z", "r_mm", "a_mm", "s_mm", "mean_hu", "reason", "border")
LISTED = ("slice", "place", "border", "state", "comment")
"""What the panel knows of a finding besides the library's columns; in the CSV file too."""


class AnomalyNodes:
    """One anomaly map in the scene.

    :param table: vtkMRMLTableNode that :meth:`create` made, perhaps in an earlier session.
    """

    def __init__(self, table):
        self.table = table
        self._organs: Any = None  # label numbers on the CT's grid, once they were needed

    @classmethod
    def create(cls, run):
        """The table of a finished run, with references to what belongs together.

        :param run: FinishedRun of a task with a heat map and findings.
        """
        from MedDiffFMLib.tasks.registry import TASKS

        declared = TASKS[run.task]
        scene = slicer.mrmlScene
        name = scene.GenerateUniqueName(f"{run.inputNode.GetName()} findings")
        nodes = cls(scene.AddNewNodeByClass("vtkMRMLTableNode", name))
        nodes.table.SetAttribute(TASK_ATTRIBUTE, run.task)
        nodes.table.SetUseColumnTitleAsColumnHeader(True)
        nodes.table.SetLocked(True)
        moveToStudyOf(run.inputNode, nodes.table)
        others = {"input": run.inputNode, "report": run.reportNode, "organs": run.choices and run.choices.anatomy}
        maps = {KIND_ROLES[declared.output(name).kind.value]: node for name, node in run.volumes.items()}
        for role, node in {**others, **maps}.items():
            nodes._refer(role, node)
        parameters = nodes._defaults() | run.report.get("settings", {}).get("parameters", {})
        nodes.table.SetAttribute(MINIMUM_ATTRIBUTE, repr(float(parameters["minimum_volume"])))
        nodes.table.SetAttribute(AT_MOST_ATTRIBUTE, str(int(parameters["at_most"])))
        nodes.table.SetAttribute(REASONS_ATTRIBUTE, json.dumps(run.table))
        nodes.threshold = float(parameters["threshold"])
        return nodes

    @classmethod
    def ofScene(cls):
        """The latest anomaly map of the scene whose CT and map are there, or None."""
        from MedDiffFMLib.tasks.base import View
        from MedDiffFMLib.tasks.registry import tasks_shown_as

        names = tasks_shown_as(View.FINDINGS)
        tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
        maps = [cls(table) for table in tables if table.GetAttribute(TASK_ATTRIBUTE) in names]
        return next((nodes for nodes in reversed(maps) if nodes.complete and not nodes.accepted), None)

    @classmethod
    def ofRun(cls, run):
        """The nodes of a run: those that were made when it was shown before, else new ones."""
        for table in slicer.util.getNodesByClass("vtkMRMLTableNode"):
            if table.GetAttribute(TASK_ATTRIBUTE) == run.task and cls(table).node("anomaly") is run.main:
                return cls(table)
        return cls.create(run)

    @property
    def main(self):
        """The node that stands for the result."""
        return self.node("anomaly")

    @property
    def accepted(self):
        """Whether the user has kept the map."""
        return isAccepted(self.node("anomaly"))

    def accept(self):
        """The nodes are the user's from now on."""
        accept(self.node("anomaly"))

    @property
    def complete(self):
        """Whether table, CT and map are still in the scene."""
        return slicer.mrmlScene.IsNodePresent(self.table) and bool(self.node("input") and self.node("anomaly"))

    @property
    def threshold(self):
        """z-score above which a region is a finding."""
        return float(self.table.GetAttribute(THRESHOLD_ATTRIBUTE) or self._defaults()["threshold"])

    @threshold.setter
    def threshold(self, value):
        self.table.SetAttribute(THRESHOLD_ATTRIBUTE, repr(float(value)))

    @property
    def few(self):
        """Number of findings that the run listed, and that are drawn at first."""
        return int(self.table.GetAttribute(AT_MOST_ATTRIBUTE) or self._defaults()["at_most"])

    def _task(self):
        """The task that made the map, as the library declares it."""
        from MedDiffFMLib.tasks.registry import TASKS

        return TASKS[self.table.GetAttribute(TASK_ATTRIBUTE)]

    def _defaults(self):
        """The task's parameters by name, for a report or a scene that lacks one."""
        from dataclasses import asdict

        return asdict(self._task()())

    def columns(self):
        """What the library lists of a finding."""
        (findings,) = self._task().tables()
        return findings.columns

    def node(self, role):
        """The node of a role, None where it is not (any more) there."""
        return self.table.GetNodeReference(f"MedDiffFM.{role}")

    def _refer(self, role, node):
        self.table.SetNodeReferenceID(f"MedDiffFM.{role}", node.GetID() if node else None)

    # Findings

    def finding(self):
        """Look for regions above the threshold and write them into the table and the segmentation.

        A generator of short steps, the last of which changes the nodes; its value is the number of findings.
        """
        yield from importing(*SEARCH_MODULES)
        from MedDiffFMLib.tasks.anomaly.findings import search_regions

        score = slicer.util.arrayFromVolume(self.node("anomaly"))
        volume = volumeFromNode(self.node("input"))
        least = float(self.table.GetAttribute(MINIMUM_ATTRIBUTE) or 0.0)
        organs = yield from self._anatomy()
        regions = yield from search_regions(score, volume, self.threshold, least, organs)
        regions = yield from readingOrder(regions, self.node("input"))
        yield from replacingRegions(self._segmentation(), regions, self.node("input"), REGION_COLOR)
        reasons = json.loads(self.table.GetAttribute(REASONS_ATTRIBUTE) or "[]")
        own = [{"state": self._state(row), "reason": _reason(reasons, row)} for row in regions.rows]
        writeRows(self.table, [row | more for row, more in zip(regions.rows, own, strict=True)])
        return len(regions.rows)

    # What the user decides

    @property
    def decisions(self):
        """What the user decided about findings."""
        return Decisions(self.table)

    def _state(self, row):
        return self.decisions.of(row)[0] or ("border" if row["border"] else "")

    def findings(self):
        """The rows with everything that the panel shows: the library's columns and LISTED."""
        table = self.table.GetTable()
        found = []
        for row, listed in enumerate(self.rows()):
            own = {name: table.GetValueByName(row, name).ToInt() for name in ("slice", "border")}
            words = {name: table.GetValueByName(row, name).ToString() for name in ("place", "state")}
            found.append({**listed, **own, **words, "comment": self.decisions.of(listed)[1]})
        return found

    @property
    def listed(self):
        """Whether the table has the panel's columns; that of an earlier version has not."""
        return self.table.GetTable().GetColumnByName("reason") is not None

    def decide(self, row, state=None, comment=None):
        """Keep, dismiss or comment the finding of a row; None leaves that part as it is."""
        self.decisions.put(self.rows()[row], state, comment)
        self.writeStates()

    def writeStates(self):
        """Bring the table's column to what was decided."""
        table = self.table.GetTable()
        column = table.GetColumnByName("state")
        for row, finding in enumerate(self.findings()):
            column.SetValue(row, self._state(finding))
        table.Modified()
        self.table.Modified()

    def showOnly(self, rows):
        """Draw the regions and numbers of these rows, and of no other."""
        regions, shown = self.node("regions"), {str(row + 1) for row in rows}
        findings = self.findings()
        with slicer.util.RenderBlocker():
            if regions:
                display = regions.GetDisplayNode()
                with slicer.util.NodeModify(display):
                    for segmentID in regions.GetSegmentation().GetSegmentIDs():
                        display.SetSegmentVisibility(segmentID, segmentID in shown)
            chosen = [findings[row] for row in rows]
            self._refer("numbers", markNumbers(self.node("numbers"), self.node("input"), chosen))

    def _anatomy(self):
        """The organs that the map was made with, None where there were none or they do not name any."""
        from MedDiffFMLib.core.errors import InputError

        segmentation = self.node("organs")
        if segmentation and self._organs is None:
            with contextlib.suppress(InputError):  # segments were renamed since
                self._organs = yield from anatomyFromSegmentation(segmentation, self.node("input"))
        return self._organs if segmentation else None

    def rows(self):
        """The findings as one dict a row, as the library lists them."""
        table, names = self.table.GetTable(), self.columns()
        return [
            {name: _value(table.GetValueByName(row, name)) for name in names} | {"number": row + 1}
            for row in range(table.GetNumberOfRows())
        ]

    def location(self, row):
        """World coordinates (R, A, S) of the finding in a row, mm; the CT may be under a transform."""
        table = self.table.GetTable()
        own = [table.GetValueByName(row, name).ToDouble() for name in ("r_mm", "a_mm", "s_mm")]
        world = [0.0, 0.0, 0.0]
        self.node("input").TransformPointToWorld(own, world)
        return world

    # Regions

    def _segmentation(self):
        """The segmentation of the findings; made when it is first needed."""
        regions = self.node("regions")
        if regions:
            return regions
        image = self.node("input")
        name = slicer.mrmlScene.GenerateUniqueName(f"{image.GetName()} regions")
        regions = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        regions.CreateDefaultDisplayNodes()
        regions.SetAndObserveTransformNodeID(image.GetTransformNodeID())
        showInOutline(regions.GetDisplayNode())
        moveToStudyOf(image, regions)
        self._refer("regions", regions)
        return regions

    def choose(self, row):
        """Let the region of a row stand out; none for None."""
        node = self.node("regions")
        if node is None:
            return
        segmentation = node.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(index)
            color = CHOSEN_COLOR if index == row else REGION_COLOR
            if tuple(segment.GetColor()) != color:
                segment.SetColor(*color)

    # Difference and end

    def makingDifference(self):
        """Add the volume of the CT minus the normal tissue, HU, for who wants to see it; a generator of short steps."""
        image = self.node("input")
        name = slicer.mrmlScene.GenerateUniqueName(f"{image.GetName()} difference to normal")
        node = yield from addingDifference(self.node("healthy"), image, name)
        self._refer("difference", node)
        return node

    def remove(self):
        """Take everything but the CT out of the scene."""
        for node in [*map(self.node, ROLES), self.table]:
            if node and slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)


def showInOutline(display):
    """Outlines in the slices, for an area would hide the heat map; opaque in 3D, where translucency takes time."""
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(True)
    display.SetOpacity3D(1.0)


def writeRows(node, rows):
    """Fill a table node with findings: what the panel shows, then what else the library lists."""
    import vtk

    text, whole = vtk.vtkStringArray, vtk.vtkIntArray
    kinds = dict.fromkeys(("where", "place", "state", "reason"), text)
    kinds |= dict.fromkeys(("number", "slice", "border"), whole)
    table = vtk.vtkTable()
    for name in (*SHOWN_COLUMNS, *HIDDEN_COLUMNS):
        column = kinds.get(name, vtk.vtkDoubleArray)()
        column.SetName(name)
        for row in rows:
            column.InsertNextValue(_cell(name, row))
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    writeTitles(node)


def writeTitles(node):
    """Headings of the shown columns; a scene file does not keep them."""
    for name, title in SHOWN_COLUMNS.items():
        node.SetColumnTitle(name, title)


def _reason(rows, row):
    """What the run said of the same finding; empty for one that it did not list."""
    same = nearest(rows, row)
    return same.get("reason", "") if same else ""


def _value(cell):
    return cell.ToString() if cell.IsString() else cell.ToDouble()


def _cell(name, row):
    return round(row["volume_mm3"] / 1000, 2) if name == "size_ml" else row[name]  # vtkIntArray takes a bool
