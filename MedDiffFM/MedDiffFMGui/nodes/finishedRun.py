"""What a finished run hands to the panels."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class FinishedRun:
    """One run of a task and the nodes that hold its result.

    :param task: name of the task in the library's table.
    :param inputNode: the CT that it was computed from, None for a task that makes one.
    :param volumes: output name -> node in the scene, the main one first; "segmentation" is a vtkMRMLSegmentationNode,
        the others are volumes.
    :param report: everything that decides about the numbers, as written beside results on disk.
    :param reportNode: vtkMRMLTextNode with the report as JSON.
    :param table: findings, one dict a row; empty where the task has none.
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
    table: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    choices: Any = None

    @property
    def main(self):
        """The node to show first."""
        return next(iter(self.volumes.values()))

    @property
    def nodes(self):
        """All nodes with voxels."""
        return list(self.volumes.values())
