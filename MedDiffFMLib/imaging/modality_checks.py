"""Check of an input by its modality: what no task can use is refused, what makes results less reliable is said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..core.errors import InputError
from .modality import CT, CT_OR_MR, MEMBERS, MR, WORDS, XR
from .volume import Volume, check_ct, check_grid, check_values, thinned

MIN_PIXELS = 16
"""Along each edge of an X-ray."""


def check_volume(volume: Volume, modality: str, force: bool = False) -> list[str]:
    """Check a volume that is to be of a modality.

    Args:
        modality: CT, MR or XR, or CT_OR_MR.
        force: values that do not look like those of the modality are warned of, not refused.

    Returns:
        Warnings, one sentence each.

    Raises:
        InputError: with the cause and the remedy.
    """
    if volume.modality not in (modality, *MEMBERS.get(modality, ())):
        kind = WORDS[modality]
        raise InputError(f"The volume is marked as {volume.modality}, not as {kind}.", f"Choose a {kind} volume.")
    return _CHECKS[modality](volume, force)


def _check_mr(volume: Volume, force: bool) -> list[str]:
    """Signal is not negative but for filtering; a CT has its air near -1000."""
    check_grid(volume)
    low, high = check_values(volume.voxels)
    coarse = thinned(volume).voxels
    if np.mean(coarse < -0.05 * high) > 0.02:
        cause = (
            f"The values ({low:.4g} to {high:.4g}) do not look like MR, whose signal is not negative; they fit CT or "
            "normalized data."
        )
        if not force:
            raise InputError(cause, "Choose an MR volume.")
        return [*volume.notes, cause]
    return list(volume.notes)


def _check_either(volume: Volume, force: bool) -> list[str]:
    """What any image needs; the task, which knows what it takes it for, checks the rest."""
    check_grid(volume)
    check_values(volume.voxels)
    return list(volume.notes)


def as_modality(volume: Volume, modality: str, force: bool = False) -> Volume:
    """A volume that may be one of several modalities, taken for one of them.

    Raises:
        InputError: it says that it is another one, or its values do.
    """
    from dataclasses import replace

    taken = replace(volume, modality=modality if volume.modality == CT_OR_MR else volume.modality)
    check_volume(taken, modality, force)
    return taken


def _check_radiograph(volume: Volume, force: bool) -> list[str]:
    """One plane (1, j, i)."""
    if volume.voxels.ndim == 3 and min(volume.voxels.shape[1:]) < MIN_PIXELS:
        _, rows, columns = volume.voxels.shape
        raise InputError(f"The X-ray has {columns} x {rows} pixels.", f"Give one of at least {MIN_PIXELS} a side.")
    check_grid(volume, least_slices=1)
    if volume.voxels.shape[0] != 1:
        count = volume.voxels.shape[0]
        raise InputError(f"The X-ray has {count} planes.", "Give one radiograph a file.")
    check_values(volume.voxels)
    return list(volume.notes)


_CHECKS: dict[str, Callable[[Volume, bool], list[str]]] = {
    CT: check_ct, MR: _check_mr, XR: _check_radiograph, CT_OR_MR: _check_either,
}  # fmt: skip
