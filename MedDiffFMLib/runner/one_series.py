"""One series for each scan of a case, where its folder or medium holds several; no mixture of patients."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from ..core.errors import InputError
from ..dicom.series import choose_series, find_series, is_directory_record, place_of
from ..tasks.inputs import Inputs
from ..tasks.registry import TASKS
from .case_files import CaseFiles

_log = logging.getLogger(__name__)


def with_one_series(case: CaseFiles, task: str, inputs: Inputs | None = None) -> CaseFiles:
    """The case with each DICOM folder and DICOMDIR replaced by what a reader of volumes takes for the one series.

    Args:
        case: its ``series`` chooses that of the first scan; without it the only fitting one is taken, with a note.
        inputs: what the run takes, where its parameters say otherwise than the task.

    Raises:
        InputError: none or several series fit, one mixes patients, or the scans are of different patients.
    """
    modalities = (inputs or TASKS[task].inputs).modalities
    patients: dict[str, str] = {}
    places: dict[str, Path] = {}
    for name, path in case.paths.items():
        wanted = case.series if name == "volume" else None
        if modalities.get(name, "mask") == "mask" or not _may_hold_several(path):
            if wanted is not None:
                raise InputError(f"'{path}' is no DICOM folder and no DICOMDIR.", "Leave --series out.")
            continue
        found = find_series(path)
        chosen = choose_series(path.name or str(path), found, wanted, modalities[name], _log.warning)
        alone = len([series for series in found if series.images]) == 1
        places[name] = place_of(path, chosen, alone)
        patients[name] = chosen.patients[0] if chosen.patients else ""
    _refuse_strangers(patients)
    return _placed(case, places)


def _may_hold_several(path: Path) -> bool:
    return path.is_dir() or (path.exists() and is_directory_record(path))


def _refuse_strangers(patients: dict[str, str]) -> None:
    """Scans of one case are of one patient."""
    named = {patient: name for name, patient in patients.items() if patient}
    if len(named) > 1:
        sentence = " and ".join(f"{name} {patient!r}" for patient, name in named.items())
        raise InputError(f"The scans are of different patients: {sentence}.", "Give scans of one patient.")


def _placed(case: CaseFiles, places: dict[str, Path]) -> CaseFiles:
    scans = {name: places.get(name, path) for name, path in case.scans.items()}
    return replace(case, input=places.get("volume", case.input), scans=scans, series=None)
