"""A finished run as the content of a one-page report."""

from .boxMasks import isBox, maskFromBox
from .dicomNodes import exportOf
from .segmentationArrays import maskFromSegmentation


def pageOf(run):
    """The page of a run, as its nodes are now; a generator of short steps.

    :param run: FinishedRun.
    :return: ``MedDiffFMLib.pages.content.Page``.
    :raises MedDiffFMError: a node of the result or the scan is gone.
    """
    from MedDiffFMLib.pages.layout import Subject, page_of
    from MedDiffFMLib.tasks.base import Case

    made = exportOf(run)
    yield
    node, mask = (run.choices.mask if run.choices else None), None
    if node is not None and run.inputNode is not None:
        mask = yield from (maskFromBox if isBox(node) else maskFromSegmentation)(node, run.inputNode)
    case = Case(made.volume, mask, texts=run.choices.texts if run.choices else {})
    yield
    return page_of(Subject(made.task, made.name, case, made.result, made.report, made.place))
