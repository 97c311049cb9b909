"""Case: files to files; checks, computation, publication."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import Cancelled, InputError
from ..core.progress import CancelToken, ProgressCallback
from ..imaging.image_files import stem_of
from ..imaging.io import read_volume
from ..imaging.volume import Volume, check_ct, check_mask
from ..models.checkpoint import FoundationModel
from ..tasks.registry import TASKS, TaskResult
from .outputs import OutputPlan, check_outputs, publish
from .report import Stopwatch, input_record, run_report
from .settings import RunSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """The files of one case.

    Attributes:
        input: NRRD, NIfTI, DICOM folder or one file of a DICOM series; None for a task that makes a CT.
        mask: label map on the input's grid, for tasks that need one.
        anatomy: organ label map (TotalSegmentator numbers) on the input's grid.
    """

    input: Path | None = None
    mask: Path | None = None
    anatomy: Path | None = None

    @property
    def name(self) -> str:
        """What results are called after; empty where there is no input."""
        source = self.input or self.anatomy
        return "" if source is None else stem_of(source.resolve())


@dataclass
class LoadedCase:
    """A case that was read and passed every check.

    Attributes:
        volume: the CT, or for a task that makes one, the organ map whose grid it takes, None without a map.
    """

    volume: Volume | None
    mask: np.ndarray | None
    anatomy: np.ndarray | None
    records: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def load_case(case: Case, task: str) -> LoadedCase:
    """Read and check the files of a case.

    Raises:
        InputError: unreadable, not a CT, or a mask or organ map that does not fit.
    """
    check_volume_given(task, case.input is not None)
    check_mask_given(task, case.mask is not None)
    paths = {"volume": case.input, "mask": case.mask, "anatomy": case.anatomy}
    given = {
        name: read_volume(path, modality="CT" if name == "volume" else "mask")
        for name, path in paths.items()
        if path is not None
    }
    loaded = checked_case(task, given.get("volume"), given.get("mask"), given.get("anatomy"))
    loaded.records = {name: input_record(path, given[name]) for name, path in paths.items() if path is not None}
    return loaded


def checked_case(task: str, volume: Volume | None, mask: Volume | None, anatomy: Volume | None) -> LoadedCase:
    """A case from volumes in memory.

    Raises:
        InputError: not a CT, something missing or useless, or a mask or organ map that does not fit.
    """
    from ..conditioning.anatomy import check_anatomy
    from ..preprocessing.body_coordinates import turned_around

    check_volume_given(task, volume is not None)
    warnings = [] if volume is None else [*check_ct(volume), *turned_around(volume)]
    check_mask_given(task, mask is not None)
    inside = None if mask is None or volume is None else check_mask(mask, volume)
    labels = None if anatomy is None else check_anatomy(anatomy, volume)
    return LoadedCase(anatomy if volume is None else volume, inside, labels, warnings=warnings)


def check_volume_given(task: str, given: bool) -> None:
    """Refuse a missing CT, and one that would be ignored."""
    if TASKS[task].needs_volume and not given:
        raise InputError(f"{task} needs a CT to work on.", "Give one.")
    if given and not TASKS[task].needs_volume:
        raise InputError(
            f"{task} makes a CT and takes none.", "Leave the input and --batch out; run it once for each seed."
        )


def check_mask_given(task: str, given: bool) -> None:
    """Refuse a missing mask, and one that would be ignored."""
    if TASKS[task].needs_mask and not given:
        raise InputError(f"{task} needs a mask of what to change.", "Give one with --mask.")
    if given and not (TASKS[task].needs_mask or TASKS[task].takes_mask):
        raise InputError(f"{task} uses no mask.", "Leave --mask out.")


def compute(
    settings: RunSettings,
    case: LoadedCase,
    model: FoundationModel,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> tuple[TaskResult, dict[str, Any]]:
    """Run the task; gives its result and the report without outputs."""
    settings = settings.checked()
    task = TASKS[settings.task]
    watch = Stopwatch()
    shortages: list[str] = []

    def memory_ran_out(sentence: str) -> None:
        shortages.append(sentence)
        _log.warning(sentence)  # command line and worker show it at once

    model.engine.on_warning = memory_ran_out
    with _cpu_threads(settings.threads):
        result = task.run()(
            case.volume, model, settings.parameters, mask=case.mask, anatomy=case.anatomy, region=settings.region,
            seed=settings.seed, progress=progress, cancel=cancel,
        )  # fmt: skip
        report = run_report(settings, model, result, watch, [*case.warnings, *shortages])
    report["inputs"] = case.records
    report["synthetic"] = task.synthetic or (case.volume is not None and case.volume.synthetic)
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
    case: Case,
    plan: OutputPlan,
    load: Callable[[], FoundationModel],
    *,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> dict[str, Any]:
    """Files to files; gives the report.

    Args:
        load: gives the model, called only after every check has passed.

    Raises:
        MedDiffFMError: whatever is wrong; then no output exists.
    """
    settings = settings.checked()
    check_outputs(plan, settings.task, overwrite)
    loaded = load_case(case, settings.task)
    model = load()
    result, report = compute(settings, loaded, model, progress, cancel)
    if cancel is not None and cancel.cancelled:
        raise Cancelled()
    return publish(plan, loaded.volume, result, report, overwrite)
