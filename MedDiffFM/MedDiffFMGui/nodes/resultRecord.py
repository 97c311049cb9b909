"""Results as the scene remembers them: what belongs together, and whether the user has decided about it.

The main node of a result refers to everything else, so a saved scene brings back every result, not only the last one.
"""

import json

import slicer

from .finishedRun import FinishedRun

TASK, OUTPUT, ACCEPTED, OUTDATED, FACTS, HAD_INPUT = (
    f"MedDiffFM.{name}" for name in ("Task", "Output", "Accepted", "Outdated", "Facts", "HadInput")
)
"""Attributes of a main node; TASK and OUTPUT of every node of a result."""
INPUT, REPORT, MASK, PARTS = "MedDiffFM.input", "MedDiffFM.report", "MedDiffFM.mask", "MedDiffFM.part"
"""References of a main node."""


def remember(run):
    """Write a FinishedRun into the attributes and references of its nodes; once more changes nothing."""
    main = run.main
    outputs = {**run.volumes, **run.others}
    for name, node in outputs.items():
        node.SetAttribute(TASK, run.task)
        node.SetAttribute(OUTPUT, name)
    main.SetAttribute(FACTS, json.dumps(run.facts, default=str))
    mask = run.choices.mask if run.choices else None
    for role, node in ((INPUT, run.inputNode), (REPORT, run.reportNode), (MASK, mask)):
        if node is not None:
            main.SetNodeReferenceID(role, node.GetID())
    if run.inputNode is not None:
        main.SetAttribute(HAD_INPUT, "1")
    if not main.GetNumberOfNodeReferences(PARTS):
        for node in outputs.values():
            if node is not main:
                main.AddNodeReferenceID(PARTS, node.GetID())


def recall(main):
    """The FinishedRun of a main node; its rows and texts stay where they are, in its nodes."""
    parts = [main.GetNthNodeReference(PARTS, index) for index in range(main.GetNumberOfNodeReferences(PARTS))]
    nodes = {node.GetAttribute(OUTPUT): node for node in [main, *parts] if node is not None}
    hasVoxels = {name: isVoxels(node) for name, node in nodes.items()}
    reportNode = main.GetNodeReference(REPORT)
    return FinishedRun(
        task=main.GetAttribute(TASK),
        inputNode=main.GetNodeReference(INPUT),
        volumes={name: node for name, node in nodes.items() if hasVoxels[name]},
        report=_json(reportNode.GetText() if reportNode else ""),
        reportNode=reportNode,
        texts={name: node.GetText() for name, node in nodes.items() if node.IsA("vtkMRMLTextNode")},
        others={name: node for name, node in nodes.items() if not hasVoxels[name]},
        facts=_json(main.GetAttribute(FACTS)),
    )


def isVoxels(node):
    """Whether a node of a result is a volume or a segmentation."""
    return node.IsA("vtkMRMLVolumeNode") or node.IsA("vtkMRMLSegmentationNode")


def mainNodes():
    """The main node of every result of the scene whose input, if it had one, is there; the latest last."""
    from MedDiffFMLib.tasks.registry import TASKS

    nodes = slicer.util.getNodesByClass("vtkMRMLStorableNode")
    found = [node for node in nodes if node.GetAttribute(FACTS) is not None and node.GetAttribute(TASK) in TASKS]
    return list(filter(_hasInput, found))


def removeResult(run):
    """Take a result that the user has not kept out of the scene."""
    for node in [*run.nodes, run.reportNode]:
        if node and slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)


def accept(node):
    """The result is the user's from now on: nothing of the panel removes it."""
    node.SetAttribute(ACCEPTED, "1")


def isAccepted(node):
    """Whether the user has kept it."""
    return bool(node.GetAttribute(ACCEPTED))


def _hasInput(main):
    return not main.GetAttribute(HAD_INPUT) or main.GetNodeReference(INPUT) is not None


def _json(text):
    try:
        found = json.loads(text or "{}")
    except ValueError:  # edited by hand
        return {}
    return found if isinstance(found, dict) else {}
