"""Inputs as a caller may give them: a volume, a label map or a model as an object, or where to find it."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np

from ..core.errors import InputError
from ..imaging.io import read_volume
from ..imaging.volume import Volume
from ..models.checkpoint import FoundationModel, load_model

FilePath: TypeAlias = str | os.PathLike[str]
VolumeLike: TypeAlias = Volume | FilePath
LabelsLike: TypeAlias = Volume | np.ndarray | FilePath
ModelLike: TypeAlias = FoundationModel | FilePath


def as_volume(source: Any, modality: str = "CT") -> Volume:
    """A volume, read where a path is given.

    Raises:
        InputError: neither a volume nor a path, or a file that cannot be read.
    """
    if isinstance(source, Volume):
        return source
    if isinstance(source, (str, os.PathLike)):
        return read_volume(os.fspath(source), modality)
    raise InputError(
        f"A value of type {type(source).__name__} is no volume.",
        "Give a Volume (voxels (k, j, i) and ijk_to_ras), or the path of a file or DICOM folder.",
    )


def as_labels(source: Any, grid: Volume | None) -> Volume:
    """A label map; an array (k, j, i) is taken to lie on ``grid``.

    Raises:
        InputError: an array without a grid, or what is no volume.
    """
    if isinstance(source, np.ndarray):
        if grid is None:
            raise InputError("An array alone does not say where it lies.", "Give a Volume, or the path of a file.")
        return Volume(source, grid.ijk_to_ras, "mask")
    return as_volume(source, "mask")


def as_model(source: Any) -> FoundationModel:
    """A model, loaded where a catalogue name or a path is given.

    Raises:
        InputError: neither a model nor a name.
        ModelError: there is no such model, or its file cannot be used.
    """
    if isinstance(source, FoundationModel):
        return source
    if isinstance(source, (str, os.PathLike)):
        return load_model(os.fspath(source))
    raise InputError(
        f"A value of type {type(source).__name__} is no model.",
        "Give what load_model gives, or a name.",
    )
