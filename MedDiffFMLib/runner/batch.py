"""Batch: many cases with one warm model; resumes, goes on after a bad case, ends with a table."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.atomic_files import atomic_path
from ..core.errors import Cancelled, InputError, MedDiffFMError, expected, log_defect
from ..core.file_hash import file_sha256
from ..core.json_files import write_json
from ..core.progress import CancelToken, ProgressCallback, ProgressEvent
from ..imaging.image_files import input_sha256
from ..imaging.io import NIFTI_SUFFIXES, NRRD_SUFFIXES
from ..models.checkpoint import FoundationModel
from ..tasks.inputs import NONE, Inputs
from ..tasks.registry import TASKS
from .case import CaseFiles, run_case
from .outputs import OutputPlan, make_folder, plan_outputs
from .report import NOTICE, read_report
from .settings import RunSettings

_SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)


@dataclass
class CaseStatus:
    """One row of the final table.

    Attributes:
        status: "done", "skipped" (was done before), "failed" or "cancelled".
        exit_code: what the case alone would have given on the command line.
        report: path of its report, empty where there is none.
    """

    name: str
    status: str
    seconds: float
    message: str = ""
    exit_code: int = 0
    report: str = ""


def find_cases(
    sources: Sequence[Path],
    task: str,
    folders: Mapping[str, Path] | None = None,
    texts: Mapping[str, str] | None = None,
) -> list[CaseFiles]:
    """The cases in folders, files and lists.

    Args:
        sources: folders of volumes or of DICOM folders, single volumes, .txt with one path a line, .csv with the
            columns input, mask, anatomy and the task's further scans and texts. Paths in a list are relative to it.
        folders: mask, anatomy or further scan -> folder that holds a file of the same name for every case.
        texts: for every case that has none of its own.

    Raises:
        InputError: nothing found, no name or one twice, a label map missing, or a task that works on no CT.
    """
    inputs = TASKS[task].inputs
    if inputs.volume is NONE:
        inputs.check(task, ["volume"])
    cases = [case for source in sources for case in _cases_of(source, inputs)]
    cases = [_completed(case, folders or {}, texts or {}) for case in cases]
    if not cases:
        places = ", ".join(map(str, sources))
        raise InputError(f"No volumes in {places}.", "Give .nrrd, .nii, .nii.gz files or DICOM folders.")
    names = [case.name for case in cases]
    if "" in names:
        nameless = cases[names.index("")].input
        raise InputError(f"'{nameless}' has no name that results could be called after.", "Name a file or a folder.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Several cases are called {twice[0]!r}.", "Rename them, or run them into different folders.")
    for case in cases:
        inputs.check(task, case.names)
    return cases


def _cases_of(source: Path, inputs: Inputs) -> list[CaseFiles]:
    if source.is_dir():
        entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
        volumes = [path for path in entries if path.is_file() and path.name.lower().endswith(_SUFFIXES)]
        folders = [path for path in entries if path.is_dir()]
        return [CaseFiles(path) for path in volumes or folders]
    try:
        if source.suffix in (".txt", ".csv") and b"\0" in source.read_bytes():
            raise InputError(f"'{source}' is no text.", "Save the list as plain text (UTF-8).")
        if source.suffix == ".txt":
            lines = source.read_text(encoding="utf-8").splitlines()
            return [CaseFiles(source.parent / line.strip()) for line in lines if line.strip()]
        if source.suffix == ".csv":
            with open(source, newline="", encoding="utf-8-sig") as stream:
                return [_case_from_row(source, row, inputs) for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"'{source}' cannot be read: {problem}.", "Check the list.") from None
    return [CaseFiles(source)]


def _case_from_row(source: Path, row: dict[str, str], inputs: Inputs) -> CaseFiles:
    if not row.get("input"):
        raise InputError(f"'{source}' has a row without input.", "Give the columns input, mask and anatomy.")
    given = {name: source.parent / row[name] for name in inputs.modalities if row.get(name)}
    texts = {text.name: row[text.name] for text in inputs.texts if row.get(text.name)}
    return _with_files(CaseFiles(source.parent / row["input"], texts=texts), given)


def _completed(case: CaseFiles, folders: Mapping[str, Path], texts: Mapping[str, str]) -> CaseFiles:
    """The case with files of its name from folders, and texts for all, where it has none of its own."""
    partners = {name: _partner(case, folder) for name, folder in folders.items() if name not in case.paths}
    return replace(_with_files(case, partners), texts={**texts, **case.texts})


def _with_files(case: CaseFiles, given: Mapping[str, Path]) -> CaseFiles:
    scans = {name: path for name, path in given.items() if name not in ("mask", "anatomy")}
    mask, anatomy = given.get("mask", case.mask), given.get("anatomy", case.anatomy)
    return replace(case, mask=mask, anatomy=anatomy, scans={**case.scans, **scans})


def _partner(case: CaseFiles, folder: Path) -> Path:
    """The file that belongs to a case."""
    for suffix in _SUFFIXES:
        if (folder / (case.name + suffix)).is_file():
            return folder / (case.name + suffix)
    raise InputError(f"'{folder}' has no file for {case.name!r}.", f"Add {case.name}.nrrd, or use a .csv list.")


def run_batch(
    settings: RunSettings,
    cases: Sequence[CaseFiles],
    folder: Path,
    load: Callable[[], FoundationModel],
    *,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
    on_case: Callable[[CaseStatus], None] = lambda _: None,
) -> list[CaseStatus]:
    """Run all cases; the table is kept up to date as ``batch_<task>.json`` and ``.csv`` in the output folder.

    Args:
        overwrite: also replace outputs that were made with other settings. What is done already is always skipped.

    Raises:
        ModelError, DeviceError: the model cannot be loaded at all.
        Cancelled: after the table was written.
    """
    settings = settings.checked()
    make_folder(folder)
    model = load()
    rows: list[CaseStatus] = []
    for number, case in enumerate(cases):
        stage = f"{number + 1}/{len(cases)} {case.name}"
        row = _run_one(settings, case, folder, model, overwrite, _prefixed(progress, stage), cancel)
        rows.append(row)
        on_case(row)
        write_table(rows, folder, settings.task)
        if row.status == "cancelled":
            raise Cancelled()
    return rows


def _run_one(
    settings: RunSettings,
    case: CaseFiles,
    folder: Path,
    model: FoundationModel,
    overwrite: bool,
    progress: ProgressCallback | None,
    cancel: CancelToken | None,
) -> CaseStatus:
    """One case; every failure becomes a row."""
    plan = plan_outputs(settings.task, case.input, folder)
    start = time.monotonic()
    try:
        if cancel is not None:
            cancel.check()
        if is_done(settings, case, plan, model):
            return CaseStatus(case.name, "skipped", 0.0, "done before", report=str(plan.report))
        run_case(settings, case, plan, lambda: model, overwrite=overwrite, progress=progress, cancel=cancel)
    except Exception as problem:
        failure = expected(problem) or _defect(problem)
        status = "cancelled" if isinstance(failure, Cancelled) else "failed"
        return CaseStatus(case.name, status, time.monotonic() - start, str(failure), failure.exit_code)
    return CaseStatus(case.name, "done", time.monotonic() - start, report=str(plan.report))


def _defect(problem: Exception) -> MedDiffFMError:
    failure = MedDiffFMError(f"Unexpected failure: {log_defect(problem)}.")
    failure.exit_code = 1
    return failure


def is_done(settings: RunSettings, case: CaseFiles, plan: OutputPlan, model: FoundationModel) -> bool:
    """Whether the report says that the same input, model and settings gave the files that are there."""
    try:
        report = read_report(plan.report)
        before, now = report["settings"], settings.as_dict()
        if report["model"].get("sha256") != model.sha256:
            return False
        if any(before.get(name) != now[name] for name in ("task", "parameters", "seed", "region")):
            return False
        if case.paths.keys() != report["inputs"].keys() or case.texts != report.get("texts", {}):
            return False
        same_inputs = all(report["inputs"][name]["sha256"] == input_sha256(path) for name, path in case.paths.items())
        outputs = [(plan.folder / record["file"], record["sha256"]) for record in report["outputs"].values()]
        return same_inputs and all(file_sha256(path) == digest for path, digest in outputs)
    except (InputError, OSError, KeyError, TypeError):  # no report, or not a whole one
        return False


def _prefixed(progress: ProgressCallback | None, prefix: str) -> ProgressCallback | None:
    if progress is None:
        return None
    return lambda event: progress(ProgressEvent(event.fraction, f"{prefix}: {event.stage}", event.seconds_left))


def write_table(rows: Sequence[CaseStatus], folder: Path, task: str) -> None:
    """The table as JSON and CSV; each replaces the one of the case before."""
    records: list[dict[str, Any]] = [vars(row) for row in rows]
    write_json({"notice": NOTICE, "task": task, "cases": records}, folder / f"batch_{task}.json", overwrite=True)
    with (
        atomic_path(folder / f"batch_{task}.csv", overwrite=True) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
