"""What the catalogue of models lacks for a task, in words."""

from slicer.i18n import tr as _


def fittingModels(kind, prior):
    """Entries of the catalogue that were made for a prior, the latest first; none where it cannot be read.

    :param kind: "control" or "segmentation".
    :param prior: name in the catalogue, or path of a weight file.
    """
    from MedDiffFMLib.core.errors import MedDiffFMError
    from MedDiffFMLib.models.catalogue import list_models

    try:
        digest = _priorDigest(prior)
        fitting = [entry for entry in list_models(kind) if digest and entry.prior == digest]
    except MedDiffFMError:
        return []
    return sorted(fitting, key=lambda entry: entry.path.stat().st_mtime if entry.path.exists() else 0, reverse=True)


def missingControl(task, model):
    """Why there is no ControlNet for ``task`` and the prior ``model``; empty where there is one, or it is unknown.

    :param task: what the ControlNet must be trained for.
    :param model: name in the catalogue, or path of a weight file.
    """
    from MedDiffFMLib.core.errors import MedDiffFMError

    try:
        digest = _priorDigest(model)
    except MedDiffFMError as error:
        return str(error)
    if not digest or any(entry.task == task for entry in fittingModels("control", model)):
        return ""
    return _("There is no ControlNet for {task} with {model} yet. Train one below, or name a file under More.").format(
        task=task, model=model
    )


def missingHead(chosen, model):
    """Why ``segment`` has no head for the prior ``model``; empty where it has one, or it is unknown.

    :param chosen: name or file that the user chose, None for the latest one.
    """
    from MedDiffFMLib.core.errors import MedDiffFMError
    from MedDiffFMLib.models.catalogue import list_models

    try:
        digest = _priorDigest(model)
        entry = next((one for one in list_models("segmentation") if one.name == chosen), None)
    except MedDiffFMError as error:
        return str(error)
    if not digest:
        return ""
    if chosen is None and not fittingModels("segmentation", model):
        return _(
            "Train a segmentation first: under Train add a few CTs with outlined segments and choose the task "
            "Segmentation with {model}."
        ).format(model=model)
    if entry is not None and entry.prior != digest:
        return _("{head} was trained with another model than {model}. Choose that model, or another head.").format(
            head=entry.name, model=model
        )
    return ""


def _priorDigest(model):
    """SHA-256 of a prior of the catalogue; empty for a file, whose digest takes long."""
    from MedDiffFMLib.models.catalogue import list_models

    return next((entry.sha256 for entry in list_models("prior") if entry.name == model), "")
