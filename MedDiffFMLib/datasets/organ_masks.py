"""Masks of single organs, as TotalSegmentator writes them by default, as one organ map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..conditioning.totalsegmentator_labels import organ_number
from ..core.errors import InputError
from ..imaging.image_files import VOLUME_SUFFIXES, stem_of
from ..imaging.io import read_volume
from ..imaging.volume import Volume


def merge_organ_masks(folder: Path, note: Callable[[str], None] = lambda _: None) -> Volume:
    """One label map with TotalSegmentator's numbers of the files called as its structures (``liver.nii.gz``).

    Where masks overlap the structure with the higher number stays.

    Args:
        note: is told which files are no organs.

    Raises:
        InputError: no folder, no such file in it, or masks on different grids.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is no folder.", "Name the folder that TotalSegmentator wrote.")
    files = [path for path in sorted(folder.iterdir()) if path.name.lower().endswith(VOLUME_SUFFIXES)]
    numbered = {number: path for path in files if (number := organ_number(stem_of(path))) is not None}
    others = [path.name for path in files if path not in numbered.values()]
    if not numbered:
        raise InputError(
            f"'{folder}' holds no file called as one of TotalSegmentator's structures.", "They are called liver.nii.gz."
        )
    if others:
        note(f"Left out, called as no structure: {', '.join(others[:5])}{' ...' if len(others) > 5 else ''}.")
    merged: Volume | None = None
    for number, path in sorted(numbered.items()):
        mask = read_volume(path, "mask")
        if merged is None:
            merged = mask.with_voxels(np.zeros(mask.voxels.shape, np.uint8))
        if not mask.same_geometry(merged):
            raise InputError(f"'{path.name}' lies on another grid than the masks before it.", "Use masks of one scan.")
        merged.voxels[np.asarray(mask.voxels) > 0] = number
    assert merged is not None  # there is a file
    return merged
