"""Work of a node: a series and a rule to a folder of DICOM objects, whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.atomic_files import owned_name
from ..core.progress import CancelToken, ProgressCallback
from ..runner.case import run_case
from ..runner.case_files import CaseFiles
from ..runner.load import Loaded
from ..runner.outputs import plan_outputs
from .jobs import RESULTS, Job, Result
from .rules import Rule

_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "OtherPatientIDs", "AccessionNumber")


def work(
    job: Job,
    rule: Rule,
    targets: list[str],
    load: Callable[[], Loaded],
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> tuple[Result, list[str]]:
    """Run the task of a rule on a series; gives the result and its warnings.

    Raises:
        MedDiffFMError: whatever is wrong; then nothing is there.
    """
    staging = job.folder / RESULTS / f".{owned_name()}.part"
    staging.mkdir(parents=True)
    try:
        report = run_case(
            rule.settings, CaseFiles(job.images, force=rule.force),
            plan_outputs(rule.settings.task, job.images, staging / "files"), load,
            private=True, dicom=staging / "dicom", progress=progress, cancel=cancel,
        )  # fmt: skip
        shutil.rmtree(staging / "files", ignore_errors=True)
        objects = sorted((staging / "dicom").rglob("*.dcm"))
        return job.publish(staging, rule.name, objects, targets), list(report["warnings"])
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def without_names(job: Job, text: str) -> str:
    """A sentence without what tells who the patient is."""
    for value in sorted(_identities(job.images), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "...", text)
    return text


def _identities(folder: Path) -> set[str]:
    from pydicom import dcmread

    found: set[str] = set()
    for file in folder.glob("*.dcm"):
        try:
            header = dcmread(file, stop_before_pixels=True, specific_tags=list(_IDENTITY), force=True)
            values: list[Any] = [header.get(name) for name in _IDENTITY]
        except Exception:  # a parser of foreign data fails in many ways; what it cannot read nobody quotes
            continue
        found |= {str(value).strip() for value in values if value is not None}
    return found - {""}
