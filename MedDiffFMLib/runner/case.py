"""Case: files to files; checks, computation, publication."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..conditioning.totalsegmentator_labels import organ_number
from ..core.errors import Cancelled, InputError
from ..core.input_guard import InputGuard
from ..core.progress import CancelToken, ProgressCallback
from ..dicom.masks import read_mask
from ..imaging.formats.dicom_structures import structures_file
from ..imaging.io import read_volume
from ..imaging.modality import CT
from ..imaging.modality_checks import check_volume
from ..imaging.segments import chosen
from ..imaging.volume import Volume, check_mask, label_notes, several_labels
from ..models.checkpoint import FoundationModel
from ..tasks.base import Case, Run, TaskResult
from ..tasks.inputs import Inputs
from ..tasks.registry import TASKS
from .case_files import CaseFiles
from .dicom_export import check_export, exported
from .load import Elsewhere, Here, Loaded
from .one_series import with_one_series
from .outputs import OutputPlan, check_outputs, publish
from .pages import NO_PAGES, PageFiles, check_pages, paged
from .read_files import files_read
from .report import Stopwatch, input_record, run_report
from .settings import RunSettings

_log = logging.getLogger(__name__)


@dataclass
class LoadedCase(Case):
    """A case that was read and passed every check.

    Attributes:
        records: what the report says about each input.
        warnings: what the checks had to say.
    """

    records: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def load_case(case: CaseFiles, task: str, inputs: Inputs | None = None) -> LoadedCase:
    """Read and check the files of a case.

    Args:
        inputs: what the run takes, where its parameters say otherwise than the task.

    Raises:
        InputError: unreadable, of another modality, or a mask or organ map that does not fit.
    """
    inputs = inputs or TASKS[task].inputs
    inputs.check(task, case.names)
    volumes: dict[str, Volume] = {}
    label = case.label
    for name, path in case.paths.items():
        grid = inputs.grid_of(name)
        is_mask = name == "mask" or grid != "volume"
        structures = structures_file(path) if is_mask else None
        if structures is not None and grid in volumes:
            chosen_label = label if name == "mask" else None
            volumes[name] = read_mask(structures, chosen_label, volumes[grid], case.paths[grid])
            label = None if name == "mask" else label
        else:
            volumes[name] = read_volume(path, inputs.modalities[name])
    loaded = checked_case(task, volumes, case.texts, label, case.force, inputs)
    loaded.records = {name: input_record(path, volumes[name]) for name, path in case.paths.items()}
    if case.label is not None:
        loaded.records["mask"]["label"] = case.label
    if case.force:
        next(iter(loaded.records.values()))["forced"] = True
    return loaded


def checked_case(
    task: str,
    volumes: Mapping[str, Volume],
    texts: Mapping[str, str] | None = None,
    label: str | None = None,
    force: bool = False,
    inputs: Inputs | None = None,
) -> LoadedCase:
    """A case from volumes in memory.

    Args:
        volumes: volume, mask, anatomy and further scans by name.
        label: name or number of the one label of the mask that is taken; None for all.
        force: values that do not look like those of the modality are warned of, not refused.
        inputs: what the run takes, where its parameters say otherwise than the task.

    Raises:
        InputError: of another modality, something missing or useless, or a mask or organ map that does not fit.
    """
    from ..conditioning.anatomy import check_anatomy

    inputs, texts = inputs or TASKS[task].inputs, texts or {}
    inputs.check(task, [*volumes, *texts])
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InputError(f"{name} is {text!r:.80}.", "Give a text.")
    volume, mask, anatomy = (volumes.get(name) for name in ("volume", "mask", "anatomy"))
    warnings = [] if volume is None else scan_warnings(volume, inputs.modality, force)
    scans = {scan.name: volumes[scan.name] for scan in inputs.scans if scan.name in volumes}
    for name, scan in scans.items():
        grid = inputs.grid_of(name)
        if grid != "volume":
            scans[name] = Volume(check_mask(scan, volumes[grid]), volumes[grid].ijk_to_ras, scan.modality)
            warnings += label_notes(scan, volumes[grid], name)
            continue
        warnings += [f"{name}: {sentence}" for sentence in check_volume(scan, inputs.modalities[name], force)]
    inside = None
    if mask is not None and volume is not None:
        mask = mask if label is None else mask.with_voxels(chosen(mask.voxels, mask.segments, _number(mask, label)))
        inside = check_mask(mask, volume)
        warnings += [*several_labels(mask), *label_notes(mask, volume, "mask")]
    elif label is not None:
        raise InputError("A label is chosen, but there is no mask.", "Give a mask, or leave --label out.")
    labels = None if anatomy is None else check_anatomy(anatomy, volume)
    if anatomy is not None and volume is not None:
        warnings += label_notes(anatomy, volume, "organ map")
    return LoadedCase(anatomy if volume is None else volume, inside, labels, scans, dict(texts), warnings=warnings)


def _number(mask: Volume, label: str) -> str:
    """The label; for an organ's name in a map without names TotalSegmentator's number."""
    number = None if mask.segments else organ_number(label)
    return label if number is None else str(number)


def scan_warnings(volume: Volume, modality: str, force: bool = False) -> list[str]:
    """Warnings that every task gives of the scan that it works on.

    Args:
        force: values that do not look like those of the modality are warned of, not refused.

    Raises:
        InputError: no task can work on it.
    """
    from ..preprocessing.body_coordinates import turned_around

    warnings = check_volume(volume, modality, force)
    return warnings + turned_around(volume) if modality == CT else warnings


def compute(
    settings: RunSettings,
    case: LoadedCase,
    model: Loaded,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> tuple[TaskResult, dict[str, Any]]:
    """Run the task; gives its result and the report without outputs."""
    settings = settings.checked()
    if isinstance(model, Elsewhere):
        result, report = model.compute(settings, case, progress, cancel)
        report["warnings"] = list(dict.fromkeys([*case.warnings, *report["warnings"]]))
    else:
        result, report = _compute_here(settings, case, model, progress, cancel)
    report["inputs"] = case.records
    if case.texts:
        report["texts"] = case.texts
    scans = (case.volume, *case.scans.values())
    report["synthetic"] = TASKS[settings.task].synthetic or any(scan.synthetic for scan in scans if scan)
    return result, report


def _compute_here(
    settings: RunSettings,
    case: LoadedCase,
    model: Here,
    progress: ProgressCallback | None,
    cancel: CancelToken | None,
) -> tuple[TaskResult, dict[str, Any]]:
    watch = Stopwatch()
    shortages: list[str] = []

    def memory_ran_out(sentence: str) -> None:
        shortages.append(sentence)
        _log.warning(sentence)  # command line and worker show it at once

    if isinstance(model, FoundationModel):
        model.engine.on_warning = memory_ran_out
    with _cpu_threads(settings.threads):
        result = settings.parameters.run(case, Run(model, settings.seed, settings.region, progress, cancel))
        report = run_report(settings, model, result, watch, [*case.warnings, *shortages])
    return result, report


@contextlib.contextmanager
def _cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch use a number of CPU threads; None changes nothing."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_case(
    settings: RunSettings,
    case: CaseFiles,
    plan: OutputPlan,
    load: Callable[[], Loaded],
    *,
    overwrite: bool = False,
    private: bool = False,
    dicom: Path | None = None,
    pages: PageFiles = NO_PAGES,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> dict[str, Any]:
    """Files to files; gives the report.

    Args:
        load: gives the model, called only after every check has passed.
        private: the report that is written names no file.
        dicom: folder that gets a folder of DICOM objects called as the report; None for none.
        pages: one-page reports that are wanted.

    Raises:
        MedDiffFMError: whatever is wrong; then no output exists.
    """
    settings = settings.checked()
    takes = settings.parameters.takes
    case = with_one_series(case, settings.task, takes)
    guard = InputGuard(files_read(case.paths.values(), settings))
    guard.refuse([*plan.expected(settings.task), *pages.files(plan).values()])
    check_outputs(plan, settings.task, overwrite)
    check_pages(pages, plan, overwrite)
    check_export(dicom, plan.base, case)
    loaded = load_case(case, settings.task, takes)
    if case.origin is not None:
        record = loaded.records["volume"]
        loaded.records["volume"] = {"source": case.origin, **{key: record[key] for key in record if key != "path"}}
    model = load()
    result, report = compute(settings, loaded, model, progress, cancel)
    if cancel is not None and cancel.cancelled:
        raise Cancelled()
    guard.refuse(plan.file(settings.task, name) for name in (*result.volumes, *result.tables, *result.texts))
    name = "" if private else case.name
    with (
        exported(dicom, plan.base, case, loaded.volume, result, report),
        paged(pages, plan, loaded, result, report, overwrite, name),
    ):
        return publish(plan, loaded.volume, result, report, overwrite, private)
