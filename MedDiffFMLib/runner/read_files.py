"""Files that a run reads: images with their detached voxels, series, weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..core.errors import InputError
from ..core.safe_load import is_there, plain_path
from ..imaging.formats.dicom import is_dicom_file
from ..imaging.io import files_of
from .settings import RunSettings


def files_read(paths: Iterable[Path], settings: RunSettings) -> Iterator[Path]:
    """Every file that a run reads, as far as it is there.

    Args:
        paths: images, masks and maps.
        settings: may name weights, also among the task's parameters.
    """
    for path in paths:
        yield from _files_of(path)
    parameters = settings.as_dict()["parameters"]
    for value in (settings.model, *parameters.values()):
        if value and plain_path(value) and is_there(Path(value)):
            yield Path(value)


def _files_of(path: Path) -> Iterator[Path]:
    try:
        if path.is_dir():  # what else lies in the folder of a series may be an earlier result
            yield from (file for file in path.rglob("*") if file.is_file() and is_dicom_file(file))
        else:
            yield from files_of(path)
    except (OSError, InputError):  # reading it says what is wrong with it
        yield path
