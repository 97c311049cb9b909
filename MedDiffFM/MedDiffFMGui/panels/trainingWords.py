"""What the panel says about a training."""

from slicer.i18n import tr as _


def statusText(state):
    """What became of a training that does not go on.

    :param state: RunState, None where there is none.
    """
    if state is None:
        return ""
    texts = {
        "paused": _("Paused after step {step}. Resume goes on; Stop makes a model of it."),
        "failed": _("It ended: {message}"),
        "finished": _("Finished after step {step}: the model {model} is in the list.")
        if state.model
        else _("Finished after step {step}."),
    }
    return texts.get(state.state, "").format(step=state.step, message=state.message, model=state.model)


def runningText(line):
    """What a training that goes on does.

    :param line: the last line of its progress; empty where there is none.
    """
    stage = _({"training": "Training", "validated": "Training"}.get(line.get("state"), "Preparing"))
    if "step" not in line:
        return f"{stage}. {line.get('message') or ''}"
    left = line.get("seconds_left")
    parts = [f"{stage}, {_('step')} {line['step']}"]
    if line.get("best") is not None and line.get("best_step"):
        parts.append(_("best {best:.3g} at step {step}").format(best=line["best"], step=line["best_step"]))
    elif not line.get("best_step"):
        parts.append(_("not validated yet"))
    parts += _structures(line.get("figures") or {})
    if left:
        time = f"{left / 60:.0f} min" if left > 100 else f"{left:.0f} s"
        parts.append(_("at most {time} left").format(time=time))
    return ", ".join(parts)


def _structures(figures):
    """Dice of each structure, as far as a validation tells."""
    return [f"{name.removeprefix('dice_')}: {value:.2f}" for name, value in figures.items() if name.startswith("dice_")]
