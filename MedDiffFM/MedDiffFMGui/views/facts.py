"""Figures of a result that a reader needs, in sentences; everything else is in its report."""

from slicer.i18n import tr as _

UNITS = {"hu": "HU", "mm3": "(mm3)", "mm": "(mm)", "ml": "(ml)"}
"""Words in the names of facts that are written otherwise."""
NOT_FOR_READERS = ("network_evaluations", "blocks_share", "detail_share", "means_share")


def factsText(run):
    """Texts of a run, its figures and its warnings, one line each.

    :param run: FinishedRun.
    """
    sentences = [sentence for sentence in (make(run.facts) for make in SENTENCES) if sentence]
    return "\n".join([*run.texts.values(), *(sentences or _listed(run.facts)), *run.warnings])


def _hounsfield(facts):
    if "mean_hu_before" in facts and "mean_hu_after" in facts:
        text = _("Mean {before:.0f} HU before, {after:.0f} HU after.")
        return text.format(before=facts["mean_hu_before"], after=facts["mean_hu_after"])
    return ""


def _volume(facts):
    for name, text in (("filled_mm3", _("{ml:.2g} ml filled.")), ("lesion_mm3", _("The lesion measures {ml:.2g} ml."))):
        if name in facts:
            return text.format(ml=facts[name] / 1000)
    return ""


def _noise(facts):
    if "noise_hu" not in facts:
        return ""
    text = _("Noise of {noise:.0f} HU, estimated.") if facts.get("noise_estimated") else _("Noise of {noise:.0f} HU.")
    return text.format(noise=facts["noise_hu"])


def _spacing(facts):
    before, after = facts.get("spacing_before_mm"), facts.get("spacing_after_mm")
    if not before or not after:
        return ""
    if max(before) > 1.2 * min(before):
        text = _("Slices of {before:.3g} mm before, {after:.3g} mm after.")
        thickest = before.index(max(before))
        return text.format(before=before[thickest], after=after[thickest])
    return _("Voxels of {before} mm before, {after} mm after.").format(before=_times(before), after=_times(after))


def _size(facts):
    size = facts.get("size_mm")
    return _("{size} mm.").format(size=_times(size)) if size else ""


def _check(facts):
    check = facts.get("check")
    if not check or check.get("good") is None:
        return ""
    text = _("Its outline agrees with the mask by a Dice of {dice:.2f} (lesion {kept} of {drawn} drawn).")
    return text.format(dice=check["dice"], kept=check["kept"], drawn=check["drawn"])


def _missed(facts):
    """Of a CT that was made of X-rays."""
    shares = [view["missed_percent"] for view in facts.get("views", {}).values() if "missed_percent" in view]
    if not shares:
        return ""
    text = _("Voxels of {mm:.3g} mm. Its projections miss {shares} of the X-rays.")
    return text.format(mm=facts["spacing_mm"], shares=_(" and ").join(f"{share:.2g} %" for share in shares))


def _outside(facts):
    """Of a CT that was made of an MR, or the other way round."""
    if "outside_share" not in facts:
        return ""
    text = _("{share:.1f} % of the body looks unlike what the model was trained on.")
    return text.format(share=100 * facts["outside_share"])


SENTENCES = (_hounsfield, _volume, _check, _noise, _spacing, _size, _missed, _outside)


def _times(numbers):
    return " x ".join(f"{number:.3g}" for number in numbers)


def _listed(facts):
    """Numbers of a task that no sentence speaks of."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in NOT_FOR_READERS:
            words = [UNITS.get(word, word) for word in name.split("_")]
            words[0] = words[0][:1].upper() + words[0][1:]
            lines.append(f"{' '.join(words)}: {value:g}")
    return lines
