"""What the catalogue of models lacks for a task, in words."""

from slicer.i18n import tr as _


def fittingModels(kind, prior):
    """Entries of the catalogue that were made for a prior or for none, the latest first; none where it cannot be read.

    :param kind: "control", "segmentation" or "encoders".
    :param prior: name in the catalogue, or path of a weight file.
    """
    from MedDiffFMLib.core.errors import MedDiffFMError
    from MedDiffFMLib.models.catalogue import list_models

    try:
        digest = _priorDigest(prior)
        fitting = [entry for entry in list_models(kind) if not entry.prior or entry.prior == digest]
    except MedDiffFMError:
        return []
    return sorted(fitting, key=lambda entry: entry.path.stat().st_mtime if entry.path.exists() else 0, reverse=True)


def missingModel(needs, chosen, model):
    """Why a task lacks its fine-tuned model for the prior ``model``; empty where it has one, or it is unknown.

    :param needs: ``MedDiffFMLib.tasks.base.FineTuned``, None for a task that works with the prior alone.
    :param chosen: name or file that the user chose, None for the latest one.
    :param model: name in the catalogue, or path of a weight file.
    """
    from MedDiffFMLib.core.errors import MedDiffFMError
    from MedDiffFMLib.models.catalogue import list_models

    if needs is None:
        return ""
    if needs.kind == "encoders":  # they belong to no prior
        return "" if chosen is not None or fittingModels(needs.kind, model) else _nothingTrained(needs, model)
    try:
        digest = _priorDigest(model)
        entry = next((listed for listed in list_models(needs.kind) if listed.name == chosen), None)
    except MedDiffFMError as error:
        return str(error)
    if not digest:
        return ""
    # A ControlNet says what it was trained for, a segmentation head does not: there is one fine-tuning task for them.
    if chosen is None and not any(entry.task in ("", needs.task) for entry in fittingModels(needs.kind, model)):
        return _nothingTrained(needs, model)
    if entry is not None and entry.prior != digest:
        return _("{name} was trained with another model than {model}. Choose that model, or another one here.").format(
            name=entry.name, model=model
        )
    return ""


def _nothingTrained(needs, model):
    if needs.kind == "segmentation":
        return _(
            "Train a segmentation first: under Train add a few CTs with outlined segments and choose the task "
            "Segmentation with {model}."
        ).format(model=model)
    if needs.kind == "encoders":
        return _("There are no encoders yet. Name a file of `meddifffm multimodal train` under More.")
    return _("There is no ControlNet for {task} with {model} yet. Train one below, or name a file under More.").format(
        task=needs.task, model=model
    )


def _priorDigest(model):
    """SHA-256 of a prior of the catalogue; empty for a file, whose digest takes long."""
    from MedDiffFMLib.models.catalogue import list_models

    return next((entry.sha256 for entry in list_models("prior") if entry.name == model), "")
