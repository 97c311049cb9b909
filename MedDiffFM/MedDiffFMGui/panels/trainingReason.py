"""Why a training cannot be started."""

import re
from pathlib import Path

from slicer.i18n import tr as _


def modelNames():
    """Names that are taken."""
    from MedDiffFMLib.core.errors import MedDiffFMError
    from MedDiffFMLib.models.catalogue import list_models

    try:
        return {entry.name for entry in list_models()}
    except MedDiffFMError:  # a damaged catalogue is reported where models are chosen
        return set()


def startReason(request, folder, cases, workerPython, state):
    """Why what the panel shows cannot be trained, or an empty text.

    :param request: what Start would train.
    :param folder: of the training, empty until chosen.
    :param cases: TrainingCases.
    :param state: RunState of the folder, None where there is none.
    """
    from MedDiffFMLib.training.finetune.registry import FINETUNE_TASKS

    problem = workerPython.localProblem() or workerPython.trainingProblem()
    if problem:
        return problem
    if not cases.dataset or not cases.count():
        if FINETUNE_TASKS[request.task].few:
            return _("Choose a dataset and add a CT with its segments first.")
        return _("Choose a dataset and add cases of at least two patients first.")
    if not folder:
        return _("Choose a folder for the training.")
    if Path(folder) == Path(cases.dataset):
        return _("The training needs a folder of its own, not that of the dataset.")
    if request.name and not re.fullmatch("[a-z0-9][a-z0-9-]*", request.name):
        return _("The name may have lower-case letters, digits and hyphens only.")
    taken = _takenReason(request.name, folder, state)
    if taken:
        return taken
    if cases.busy:
        return _("Wait until the cases are ready.")
    return cases.problem if FINETUNE_TASKS[request.task].name == cases.task else ""


def _takenReason(name, folder, state):
    """Why a name cannot be used; the training of the folder may replace the model that it has made."""
    from MedDiffFMLib.training.finetune.background import request_of

    if not name or name not in modelNames():
        return ""
    known = request_of(folder)
    if known is None or known.name != name:
        return _("There is a model called {name} already. Choose another name.").format(name=name)
    if state is not None and state.state == "finished":
        return _("This training is done. For another one choose a name and a folder.")
    return ""
