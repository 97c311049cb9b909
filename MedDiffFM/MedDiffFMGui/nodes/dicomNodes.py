"""A finished run as DICOM objects: nodes and the scan's own files for the library, objects for Slicer's database."""

from pathlib import Path

import slicer

from .segmentationArrays import labelsFromSegmentation
from .volumeNodes import volumeFromNode


def exportOf(run):
    """What the library exports of a run, as the nodes are now; edited segments count as they were edited.

    :param run: FinishedRun.
    :return: ``MedDiffFMLib.dicom.out.export.Export``.
    :raises MedDiffFMError: a node of the result or the scan is gone, or two segments have the same name.
    """
    from MedDiffFMLib.core.errors import InputError
    from MedDiffFMLib.dicom.out.export import Export
    from MedDiffFMLib.tasks.base import TaskResult
    from MedDiffFMLib.tasks.output_kinds import OutputKind
    from MedDiffFMLib.tasks.registry import TASKS

    nodes = [*run.volumes.values(), *([run.inputNode] if run.inputNode else [])]
    if not all(slicer.mrmlScene.IsNodePresent(node) for node in nodes):
        raise InputError("The result or its scan is not in the scene any more.", "Run the task again.")
    task = TASKS[run.task]
    scan = volumeFromNode(run.inputNode, _modality(run)) if run.inputNode else None
    facts, volumes = dict(run.facts), {}
    for name, node in run.volumes.items():
        if task.output(name).kind is OutputKind.LABELS:
            labels, looks, _warnings = labelsFromSegmentation(node, run.inputNode)
            volumes[name] = volumeFromNode(run.inputNode).with_voxels(labels)
            facts["labels"] = [{"value": value, **look} for value, look in looks.items()]
        else:
            volumes[name] = volumeFromNode(node)
    voxels = {name: volume.voxels for name, volume in volumes.items()}
    return Export(
        task=task,
        name=run.inputNode.GetName() if run.inputNode else run.main.GetName(),
        volume=scan,
        result=TaskResult(voxels, run.tables, run.texts, facts),
        report=run.report,
        place=volumes.__getitem__,
        source=sourceFiles(run.inputNode),
    )


def _modality(run):
    """What the scan of a run is, which may depend on the parameters: an MR that was described is no CT."""
    from MedDiffFMLib.core.errors import InputError
    from MedDiffFMLib.tasks.parameters import from_dict
    from MedDiffFMLib.tasks.registry import TASKS

    task = TASKS[run.task]
    try:
        return from_dict(task, run.report.get("settings", {}).get("parameters", {})).takes.modality
    except InputError:  # a report of another version
        return task.inputs.modality


def sourceFiles(node):
    """The DICOM files that a volume node was loaded from and still lies on; none where they are not in the database.

    :param node: volume node or None.
    """
    from MedDiffFMLib.dicom.out.study import decoded, lies_on

    database = openDatabase()
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split() if node else []
    if database is None or not uids:
        return []
    names = [database.fileForInstance(uid) for uid in uids]
    files = [Path(name) for name in names if name and Path(name).is_file()]
    if len(files) < len(uids) or not lies_on(volumeFromNode(node), [decoded(file) for file in files]):
        return []
    return files


def openDatabase():
    """Slicer's DICOM database, None where it has none that is open."""
    database = getattr(slicer, "dicomDatabase", None)
    return database if database is not None and database.isOpen else None


def importInto(folder):
    """Have Slicer's DICOM database list a folder's objects, which stay where they are.

    :return: whether there is one.
    """
    if openDatabase() is None:
        return False
    from DICOMLib import DICOMUtils

    DICOMUtils.importDicom(str(folder))
    return True
