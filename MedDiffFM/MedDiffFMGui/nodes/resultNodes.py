"""What a run gave, as nodes of the scene."""

import json

import slicer

from .finishedRun import FinishedRun
from .segmentNodes import TASK as SEGMENT_TASK
from .segmentNodes import SegmentNodes, addSegmentation, styleUncertainty
from .volumeNodes import (
    addLabelNode,
    addResultNode,
    copying,
    moveToStudyOf,
    subtracting,
    uniqueName,
    volumeFromNode,
)

SYNTHETIC_WINDOW = {"chest": (1400, -350)}
"""Width and level for a CT without a patient; soft tissue for other regions."""


def addResult(task, inputNode, result):
    """Add everything that a run gave, beside its input.

    :param inputNode: the CT, None where there is none.
    :param result: ``MedDiffFMLib.worker.client.WorkerResult``, see :func:`pasting` where it covers a piece of the CT.
    :return: FinishedRun; its ``seconds`` are still 0.
    """
    from MedDiffFMLib.tasks.registry import TASKS

    volumes = {}
    try:
        for name, array in result.volumes.items():
            volumes[name] = _addVolume(TASKS[task].output(name), array, inputNode, result)
        reportNode = _addReport(next(iter(volumes.values())), inputNode, result.report)
    except Exception:
        for node in volumes.values():
            slicer.mrmlScene.RemoveNode(node)
        raise
    for node in volumes.values():
        node.SetAttribute("MedDiffFM.Task", task)
        node.SetAttribute("MedDiffFM.Report", reportNode.GetID())
    if task == SEGMENT_TASK:
        segmentation, *maps = volumes.values()
        SegmentNodes(segmentation).refer(inputNode, reportNode, maps)
    return FinishedRun(
        task=task,
        inputNode=inputNode,
        volumes=volumes,
        report=result.report,
        reportNode=reportNode,
        table=result.table,
        facts=result.facts,
        warnings=list(result.warnings),
    )


def _addVolume(output, array, inputNode, result):
    """The node of one volume, with the window of its kind.

    :param output: ``MedDiffFMLib.tasks.output_kinds.Output``.
    """
    from MedDiffFMLib.tasks.output_kinds import OutputKind

    title, kind = output.words, output.kind
    nodeName = f"{inputNode.GetName()} {title}" if inputNode else f"{title} {result.facts.get('region') or 'CT'}"
    if kind is OutputKind.LABELS:
        return addSegmentation(array, result.facts["labels"], inputNode, nodeName)
    if kind is OutputKind.MASK:
        return addLabelNode(array, inputNode, nodeName, ijkToRAS=result.ijk_to_ras)
    node = addResultNode(array, inputNode, nodeName, kind is OutputKind.CT, ijkToRAS=result.ijk_to_ras)
    if kind is OutputKind.LABEL_SPREAD:
        styleUncertainty(node)
    if inputNode is None:
        width, level = SYNTHETIC_WINDOW.get(result.facts.get("region"), (400, 40))
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(width, level)
    return node


def pasting(part, piece, inputNode):
    """The whole CT with a piece of it replaced, a mask empty elsewhere; as the value of a generator of short steps.

    :param piece: index box (k, j, i) of the CT that ``part`` covers.
    """
    import numpy as np

    before = volumeFromNode(inputNode).voxels
    if part.dtype == bool:
        whole = np.zeros(before.shape, bool)
    else:
        whole = yield from copying(before)
    whole[piece] = part
    return whole


def _addReport(mainNode, inputNode, report):
    name = uniqueName(slicer.mrmlScene, f"{mainNode.GetName()} report")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", name)
    node.SetText(json.dumps(report, indent=2, ensure_ascii=False))
    moveToStudyOf(inputNode or mainNode, node)
    return node


def removeNodes(run):
    """Take a result out of the scene again."""
    for node in [*run.nodes, run.reportNode]:
        if node and slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)


def addingDifference(first, second, name):
    """Add ``second`` - ``first`` as a volume beside ``first``; both lie on the same grid.

    A generator of short steps, the last of which changes the scene; its value is the node.
    """
    array = yield from subtracting(slicer.util.arrayFromVolume(second), slicer.util.arrayFromVolume(first))
    return addResultNode(array, first, name, sameDisplay=False)
