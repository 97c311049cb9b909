"""Location of the bundled files: starter weights, model catalogue, sample CT."""

from __future__ import annotations

from pathlib import Path

from .errors import MedDiffFMError

_PACKAGE = Path(__file__).resolve().parents[1]


def resource_folder() -> Path:
    """The folder that holds ``Models`` and ``SampleData``.

    A wheel carries it inside the package. In a source checkout and in an installed Slicer extension it is the
    package's neighbor.

    Raises:
        MedDiffFMError: the installation is incomplete.
    """
    candidates = (_PACKAGE / "Resources", _PACKAGE.parent / "Resources")
    for folder in candidates:
        if (folder / "Models").is_dir():
            return folder
    looked = " and ".join(str(folder) for folder in candidates)
    raise MedDiffFMError(f"The model folder is missing (looked for Models in {looked}).", "Install the package again.")
