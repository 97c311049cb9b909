"""What a run gave, as nodes of the scene."""

import json

import slicer

from .finishedRun import FinishedRun
from .resultRecord import remember
from .segmentNodes import SegmentNodes, addSegmentation, styleUncertainty
from .textNodes import addTable, addText
from .volumeNodes import (
    BEAM_SOURCE,
    PARALLEL,
    addLabelNode,
    addResultNode,
    copying,
    subtracting,
    volumeFromNode,
)
from .xrayNodes import FRUSTUM, addFrustum

CT_WINDOWS = {"chest": (1400, -350)}
"""Width and level for a CT that was made without one; soft tissue for other regions."""


def addResult(task, inputNode, result):
    """Add everything that a run gave, beside its input.

    :param inputNode: the scan, None where there is none.
    :param result: ``MedDiffFMLib.worker.client.WorkerResult``, see :func:`pasting` where it covers a piece of the scan.
    :return: FinishedRun; its ``seconds`` are still 0.
    """
    from MedDiffFMLib.tasks.base import View
    from MedDiffFMLib.tasks.output_kinds import OutputKind
    from MedDiffFMLib.tasks.registry import TASKS

    declared = TASKS[task]
    volumes, others = {}, {}
    try:
        for name, array in result.volumes.items():
            volumes[name] = _addVolume(declared, name, array, inputNode, result)
        for name, facts in result.facts.get("views", {}).items():
            others[name + FRUSTUM] = addFrustum(facts, volumes[name], inputNode)
        for name, text in result.texts.items():
            others[name] = addText(_nodeName(declared.output(name), inputNode, result), text, inputNode)
        for name, rows in result.tables.items() if declared.view is not View.FINDINGS else ():  # it makes its own
            output = declared.output(name)
            others[name] = addTable(_nodeName(output, inputNode, result), output, rows, inputNode)
        main = next(iter([*volumes.values(), *others.values()]))
        text = json.dumps(result.report, indent=2, ensure_ascii=False)
        reportNode = addText(f"{main.GetName()} report", text, inputNode or main)
    except Exception:
        for node in [*volumes.values(), *others.values()]:
            slicer.mrmlScene.RemoveNode(node)
        raise
    for name, node in volumes.items():
        if declared.output(name).kind is OutputKind.LABELS:
            maps = [other for other in volumes.values() if other is not node]
            SegmentNodes(node).refer(inputNode, reportNode, maps)
    run = FinishedRun(
        task=task,
        inputNode=inputNode,
        volumes=volumes,
        report=result.report,
        reportNode=reportNode,
        tables=result.tables,
        texts=result.texts,
        others=others,
        facts=result.facts,
        warnings=list(result.warnings),
    )
    remember(run)
    return run


def _nodeName(output, inputNode, result):
    return (
        f"{inputNode.GetName()} {output.words}" if inputNode else f"{output.words} {result.facts.get('region') or 'CT'}"
    )


def _addVolume(declared, name, array, inputNode, result):
    """The node of one volume, with the window of its kind.

    :param declared: the task, a class of the library.
    """
    from MedDiffFMLib.tasks.base import View
    from MedDiffFMLib.tasks.output_kinds import OutputKind

    output = declared.output(name)
    kind, nodeName, place = output.kind, _nodeName(output, inputNode, result), result.ijk_to_ras.get(name)
    if kind is OutputKind.LABELS:
        surfaces = declared.view is View.STRUCTURES
        return addSegmentation(array, result.facts["labels"], inputNode, nodeName, surfaces)
    if kind is OutputKind.MASK:
        return addLabelNode(array, inputNode, nodeName, ijkToRAS=place)
    isLikeInput = kind in (OutputKind.CT, OutputKind.MR, OutputKind.XRAY) and kind.modality == declared.inputs.modality
    node = addResultNode(array, inputNode, nodeName, isLikeInput, ijkToRAS=place)
    if kind is OutputKind.XRAY and (beam := result.facts.get("views", {}).get(name)):
        node.SetAttribute(BEAM_SOURCE, " ".join(map(repr, beam["source_ras_mm"] or ())) or PARALLEL)
    if kind is OutputKind.LABEL_SPREAD:
        styleUncertainty(node)
    window = result.facts.get("windows", {}).get(name)
    if window is not None:
        node.GetDisplayNode().SetWindowLevelMinMax(*window)
    if kind is OutputKind.CT and (inputNode is None or not isLikeInput):
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(*CT_WINDOWS.get(result.facts.get("region"), (400, 40)))
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


def addingDifference(first, second, name):
    """Add ``second`` - ``first`` as a volume beside ``first``; both lie on the same grid.

    A generator of short steps, the last of which changes the scene; its value is the node.
    """
    array = yield from subtracting(slicer.util.arrayFromVolume(second), slicer.util.arrayFromVolume(first))
    return addResultNode(array, first, name, sameDisplay=False)
