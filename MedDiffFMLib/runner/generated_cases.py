"""Results of ``generate_lesion`` as cases to train on: CT and outline of each, by the reports beside them.

Lesions that did not pass the check of their outline are left out: a network would learn a mask without a lesion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..datasets.datalist import Entry, folder_name
from ..imaging.image_files import stem_of
from .outputs import OutputPlan
from .report import read_report

TASK, IMAGE, MASK = "generate_lesion", "with_lesion", "lesion"
LABELS = {1: "lesion"}


def generated_cases(folder: Path) -> list[Entry]:
    """The cases below a folder of results, all for training; those made from one CT are one patient's.

    Raises:
        InputError: there are none, or none whose lesion passed its check.
    """
    entries = [entry for path in sorted(folder.rglob("*.json")) if (entry := _case(path)) is not None]
    if not entries:
        raise InputError(
            f"'{folder}' holds no results of {TASK} whose lesion passed its check.",
            "Make some with `meddifffm generate_lesion --batch ... -o FOLDER`.",
        )
    return entries


def _case(path: Path) -> Entry | None:
    """The case of a report; None where it is none of this task, its files are gone, or its lesion failed the check."""
    try:
        report = read_report(path)
        plan = OutputPlan(path.parent, path.stem, "")
        outputs: dict[str, Any] = report["outputs"]
        image, mask = (plan.recorded(TASK, name, outputs[name]) for name in (IMAGE, MASK))
        if report["settings"]["task"] != TASK or not (image.is_file() and mask.is_file()):
            return None
        if report.get("facts", {}).get("check", {}).get("good") is False:
            return None
        source = report["inputs"]["volume"]
        patient = stem_of(Path(source["path"])) if "path" in source else str(source["sha256"])[:12]
    except (InputError, KeyError, TypeError):
        return None
    return Entry(folder_name(path.stem), "training", image, patient, None, {"label": mask})
