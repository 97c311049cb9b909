"""DICOM objects of a case: checked before computing, written with the other results or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import OutputError
from ..dicom.out.export import Export, check_folder, written
from ..dicom.out.study import study_of
from ..dicom.series import source_files
from ..imaging.volume import Volume
from ..tasks.base import TaskResult
from ..tasks.registry import TASKS
from .case_files import CaseFiles
from .outputs import located


def check_export(folder: Path | None, name: str, case: CaseFiles) -> None:
    """Refuse before anything is computed what could not be exported afterwards.

    Args:
        folder: that the DICOM folders of cases lie in; None for no export.
        name: of this case's.

    Raises:
        DependencyError: highdicom is missing.
        InputError: the source mixes patients, or lacks what a reference needs.
        OutputError: the folder exists, cannot be written, or lies where the scan is read from.
    """
    if folder is None:
        return
    refuse_inside(folder, [case.input] if case.input is not None else [])
    check_folder(folder / name)
    with source_files(case.input) as files:
        if files:
            study_of(files)


def refuse_inside(folder: Path | None, sources: Sequence[Path]) -> None:
    """Refuse a DICOM folder inside one that is read: the next run would take the results for scans.

    Raises:
        OutputError: it lies there.
    """
    if folder is None:
        return
    whole = folder.resolve()
    for source in sources:
        if source.is_dir() and whole.is_relative_to(source.resolve()):
            raise OutputError(
                f"The DICOM folder '{folder}' lies in '{source}', which is read.", "Choose a folder outside of it."
            )


@contextlib.contextmanager
def exported(
    folder: Path | None, name: str, case: CaseFiles, volume: Volume | None, result: TaskResult, report: dict[str, Any]
) -> Iterator[None]:
    """Write the DICOM folder of a case and tell the report of it; when the block fails it is gone again.

    Args:
        volume: the scan, on whose grid the result lies unless it says otherwise.
    """
    if folder is None:
        yield
        return
    with source_files(case.input) as files:
        export = Export(
            task=TASKS[report["settings"]["task"]],
            name=case.name or name,
            volume=volume if case.input is not None else None,
            result=result,
            report=report,
            place=lambda output: located(output, volume, result),
            source=files,
        )
        with written(export, folder / name) as series:
            report["dicom"] = {
                "folder": str((folder / name).resolve()),
                "series": [dataclasses.asdict(one) for one in series],
            }
            report["warnings"] += export.notes
            yield
