"""What a finished run hands to the panels."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class FinishedRun:
    """One run of a task and the nodes that hold its result.

    :param task: name of the task in the library's table.
    :param inputNode: the scan that it was computed from, None for a task that takes none.
    :param volumes: output name -> node in the scene, the main one first; labels are a vtkMRMLSegmentationNode, the
        others are volumes.
    :param report: everything that decides about the numbers, as written beside results on disk.
    :param reportNode: vtkMRMLTextNode with the report as JSON.
    :param tables: output name -> rows, one dict each; for another view than that of findings each is a node too.
    :param texts: output name -> text, each a vtkMRMLTextNode too.
    :param others: the nodes of tables and texts by output name.
    :param facts: figures worth showing.
    :param warnings: sentences for the user.
    :param seconds: from the click to the result.
    :param choices: the RunChoices it was started with.
    """

    task: str
    inputNode: Any
    volumes: dict[str, Any]
    report: dict[str, Any]
    reportNode: Any
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    choices: Any = None

    @property
    def main(self):
        """The node to show first."""
        return next(iter(self.nodes))

    @property
    def nodes(self):
        """All nodes of the result, those with voxels first."""
        return [*self.volumes.values(), *self.others.values()]

    @property
    def table(self):
        """The first table; empty where the task has none."""
        return next(iter(self.tables.values()), [])
