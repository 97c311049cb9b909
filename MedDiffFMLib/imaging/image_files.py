"""Names of image files."""

from __future__ import annotations

import os
from pathlib import Path

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip")
"""Of files that are one volume each."""
_STRIPPED = (".seg.nrrd", *VOLUME_SUFFIXES, ".dcm", ".png")


def stem_of(path: Path) -> str:
    """File name without the suffix of a known format; that of a link is its own, wherever it leads."""
    name = Path(os.path.abspath(path)).name
    suffix = next((known for known in _STRIPPED if name.lower().endswith(known)), "")
    return name[: -len(suffix)] if suffix else name
