"""Copies of the files of a series in a folder of their own, which appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..core.atomic_files import owned_name, sweep
from ..core.errors import OutputError, reason_of


def copy_series(files: Sequence[Path], folder: Path) -> list[Path]:
    """Copy files into a new folder, numbered, as names of media may repeat.

    Raises:
        OutputError: the folder exists, or the disk refuses.
    """
    staging = folder.parent / f".{owned_name()}.dicom"
    try:
        if os.path.lexists(folder):
            raise OutputError(f"The folder '{folder}' exists already.", "Choose another folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        staging.mkdir()
        for number, file in enumerate(files, 1):
            shutil.copyfile(file, staging / f"{number:05d}.dcm")
        os.rename(staging, folder)
    except OSError as problem:
        raise OutputError(
            f"The series cannot be copied to '{folder}': {reason_of(problem)}.", "Choose another folder."
        ) from problem
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return sorted(folder.iterdir())
