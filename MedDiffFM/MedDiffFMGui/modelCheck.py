"""What the catalogue of models lacks for a task, in words."""

from slicer.i18n import tr as _


def missingControl(task, model):
    """Why there is no ControlNet for ``task`` and the prior ``model``; empty where there is one, or it cannot be told.

    :param task: what the ControlNet must be trained for.
    :param model: name in the catalogue, or path of a weight file.
    """
    from MedDiffFMLib.errors import MedDiffFMError
    from MedDiffFMLib.models.catalogue import list_models

    try:
        prior = next((entry for entry in list_models("prior") if entry.name == model), None)
        fitting = prior and [e for e in list_models("control") if e.task == task and e.prior == prior.sha256]
    except MedDiffFMError as error:
        return str(error)
    if prior is None or fitting:
        return ""
    return _("There is no ControlNet for {task} with {model} yet. Train one below, or name a file under More.").format(
        task=task, model=model
    )
