"""Batch: many cases with one warm model; resumes, goes on after a bad case, ends with a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.csv_files import write_csv
from ..core.errors import Cancelled, InputError, MedDiffFMError, expected, log_defect
from ..core.file_hash import file_sha256
from ..core.input_guard import InputGuard
from ..core.json_files import write_json
from ..core.parts import WHOLE, Claimed, Part, claimed
from ..core.progress import CancelToken, ProgressCallback, ProgressEvent
from ..imaging.io import source_of
from ..tasks.registry import TASKS
from .bids import BIDS, PLAIN, describe_derivatives, planned
from .case import run_case
from .case_files import CaseFiles
from .load import Loaded
from .one_series import with_one_series
from .outputs import OutputPlan, make_folder
from .pages import NO_PAGES, PageFiles
from .read_files import files_read
from .report import NOTICE, found_again, read_report, was_forced
from .settings import RunSettings


@dataclass
class CaseStatus:
    """One row of the final table.

    Attributes:
        status: "done", "skipped" (was done before), "elsewhere" (another process computes it), "failed" or "cancelled".
        exit_code: what the case alone would have given on the command line.
        report: path of its report, empty where there is none.
    """

    name: str
    status: str
    seconds: float
    message: str = ""
    exit_code: int = 0
    report: str = ""


def run_batch(
    settings: RunSettings,
    cases: Sequence[CaseFiles],
    folder: Path,
    load: Callable[[], Loaded],
    *,
    overwrite: bool = False,
    private: bool = False,
    dicom: Path | None = None,
    names: str = PLAIN,
    pages: PageFiles = NO_PAGES,
    part: Part = WHOLE,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
    on_case: Callable[[CaseStatus], None] = lambda _: None,
) -> list[CaseStatus]:
    """Run all cases; the table is kept up to date as ``batch_<task>.json`` and ``.csv`` in the output folder.

    Args:
        overwrite: also replace outputs that were made with other settings. What is done already is always skipped.
        private: reports name no files.
        dicom: folder that gets a folder of DICOM objects for each case; None for none.
        names: of the results, one of ``bids.NAMES``.
        pages: one-page reports that are wanted beside each result.
        part: which of the cases; others may run in other processes at the same time, each with its own table.

    Raises:
        ModelError, DeviceError: the model cannot be loaded at all.
        Cancelled: after the table was written.
    """
    settings = settings.checked()
    pages.beside_each()
    make_folder(folder)
    if names == BIDS:
        describe_derivatives(folder, settings.task)
    model = load()
    rows: list[CaseStatus] = []
    cases = part.of(cases)
    guard = InputGuard(files_read((path for case in cases for path in case.paths.values()), settings))
    for number, case in enumerate(cases):
        row = run_claimed(
            settings, case, folder, model, guard, overwrite=overwrite, private=private, dicom=dicom, names=names,
            pages=pages, progress=_prefixed(progress, f"{number + 1}/{len(cases)} {case.name}"), cancel=cancel,
        )  # fmt: skip
        rows.append(row)
        on_case(row)
        write_table(rows, folder, settings.task, part)
        if row.status == "cancelled":
            raise Cancelled()
    write_ranking(rows, folder, settings.task, part)
    return rows


def run_claimed(
    settings: RunSettings,
    case: CaseFiles,
    folder: Path,
    model: Loaded,
    guard: InputGuard,
    *,
    overwrite: bool = False,
    private: bool = False,
    dicom: Path | None = None,
    names: str = PLAIN,
    pages: PageFiles = NO_PAGES,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> CaseStatus:
    """One case of a batch, unless another process computes it; every failure becomes a row.

    Args:
        guard: of the inputs of all cases.
        overwrite, private, dicom, names, pages: as for :func:`run_batch`.
    """
    try:
        plan = planned(settings.task, case.source, folder, names)
    except InputError as problem:
        return failed(case, problem)
    try:
        with claimed(folder, plan.base):
            return _run_one(settings, case, plan, model, guard, overwrite, private, dicom, pages, progress, cancel)
    except Claimed:
        return CaseStatus(case.name, "elsewhere", 0.0, "another process computes it")


def _run_one(
    settings: RunSettings,
    case: CaseFiles,
    plan: OutputPlan,
    model: Loaded,
    guard: InputGuard,
    overwrite: bool,
    private: bool,
    dicom: Path | None,
    pages: PageFiles,
    progress: ProgressCallback | None,
    cancel: CancelToken | None,
) -> CaseStatus:
    """One case; every failure becomes a row."""
    start = time.monotonic()
    try:
        if cancel is not None:
            cancel.check()
        case = with_one_series(case, settings.task, settings.checked().parameters.takes)
        done = is_done(settings, case, plan, model)
        complete = all(path.exists() for path in pages.files(plan).values())
        if done and complete and (dicom is None or (dicom / plan.base).is_dir()):
            return CaseStatus(case.name, "skipped", 0.0, "done before", report=str(plan.report))
        guard.refuse(plan.expected(settings.task))  # also those of other cases
        run_case(
            settings, case, plan, lambda: model,
            overwrite=overwrite or done, private=private, dicom=dicom, pages=pages, progress=progress, cancel=cancel,
        )  # fmt: skip
    except Exception as problem:
        return failed(case, problem, time.monotonic() - start)
    return CaseStatus(case.name, "done", time.monotonic() - start, report=str(plan.report))


def failed(case: CaseFiles, problem: Exception, seconds: float = 0.0) -> CaseStatus:
    """The row of a case without a result."""
    failure = expected(problem) or _defect(problem)
    status = "cancelled" if isinstance(failure, Cancelled) else "failed"
    return CaseStatus(case.name, status, seconds, str(failure), failure.exit_code)


def _defect(problem: Exception) -> MedDiffFMError:
    failure = MedDiffFMError(f"Unexpected failure: {log_defect(problem)}.")
    failure.exit_code = 1
    return failure


def is_done(settings: RunSettings, case: CaseFiles, plan: OutputPlan, model: Loaded) -> bool:
    """Whether the report says that the same input, model and settings gave the files that are there."""
    try:
        report = read_report(plan.report)
        before, now = report["settings"], settings.as_dict()
        before["parameters"] = {n: found_again(v, plan.folder) for n, v in before["parameters"].items()}
        if not _same_model(report["model"], settings, model):
            return False
        if any(before.get(name) != now[name] for name in ("task", "parameters", "seed", "region")):
            return False
        if case.paths.keys() != report["inputs"].keys() or case.texts != report.get("texts", {}):
            return False
        if report["inputs"].get("mask", {}).get("label") != case.label or was_forced(report) > case.force:
            return False
        same_inputs = all(
            report["inputs"][name]["sha256"] == source_of(path).sha256 for name, path in case.paths.items()
        )
        outputs = [
            (plan.recorded(settings.task, name, record), record["sha256"]) for name, record in report["outputs"].items()
        ]
        return same_inputs and all(file_sha256(path) == digest for path, digest in outputs)
    except (InputError, OSError, KeyError, TypeError, AttributeError):  # no report, or not a whole one
        return False


def _same_model(recorded: dict[str, Any], settings: RunSettings, model: Loaded) -> bool:
    """Whether a report's model is this one; of one elsewhere that computed nothing yet, the name alone is known."""
    if model.sha256 is None:
        return bool(recorded.get("name") == Path(settings.model).name.removesuffix(".safetensors"))
    return bool(recorded.get("sha256") == model.sha256)


def _prefixed(progress: ProgressCallback | None, prefix: str) -> ProgressCallback | None:
    if progress is None:
        return None
    return lambda event: progress(ProgressEvent(event.fraction, f"{prefix}: {event.stage}", event.seconds_left))


def table_files(folder: Path, task: str, part: Part = WHOLE) -> tuple[Path, Path]:
    """Paths of the table, as JSON and CSV."""
    name = f"batch_{task}{part.suffix}"
    return folder / f"{name}.json", folder / f"{name}.csv"


def write_table(rows: Sequence[CaseStatus], folder: Path, task: str, part: Part = WHOLE) -> None:
    """The table as JSON and CSV; each replaces the one of the case before."""
    records: list[dict[str, Any]] = [{**vars(row), "report": Path(row.report).name} for row in rows]
    as_json, as_csv = table_files(folder, task, part)
    write_json({"notice": NOTICE, "task": task, "cases": records}, as_json, overwrite=True)
    write_csv(records, list(records[0]), as_csv, overwrite=True)


def write_ranking(rows: Sequence[CaseStatus], folder: Path, task: str, part: Part = WHOLE) -> None:
    """``ranking_<task>.json`` and ``.csv``: the cases that are there by the fact that ranks them, the best first.

    Nothing is written for a task that ranks none.
    """
    fact = TASKS[task].ranked_by
    if not fact:
        return
    scores = [(row.name, row.report, read_report(Path(row.report))["facts"][fact]) for row in rows if row.report]
    ordered = sorted(scores, key=lambda score: (-score[2], score[0]))
    ranking = [
        {"rank": rank, "name": name, fact: value, "report": Path(report).name}
        for rank, (name, report, value) in enumerate(ordered, 1)
    ]
    name = f"ranking_{task}{part.suffix}"
    write_json({"notice": NOTICE, "task": task, "ranking": ranking}, folder / f"{name}.json", overwrite=True)
    write_csv(ranking, ["rank", "name", fact, "report"], folder / f"{name}.csv", overwrite=True)
