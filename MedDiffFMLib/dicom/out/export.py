"""Export of a result: a folder of DICOM objects that appears whole or not at all.

The kind of each output decides what becomes of it; no task is named.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic_files import owned_name, sweep
from ...core.errors import OutputError, reason_of
from ...core.extras import needed
from ...imaging.modality import CT, MR, XR
from ...imaging.volume import Volume
from ...tasks.base import Task, TaskResult
from ...tasks.output_kinds import Output, OutputKind
from .images import image_series
from .maps import parametric_map
from .radiographs import radiograph
from .reports import measurement_report, text_report
from .segments import FINDING, Segment, segmentation, segments_of
from .shell import SCHEME, Purpose
from .structures import structure_set
from .study import Study, new_study, new_uid, study_of

Steps = Generator[None, None, Any]
"""Work that may be interrupted after each file."""
RESTORED = ("PRIOR", SCHEME, "Prediction of a diffusion model")
RESAMPLED = ("113085", "DCM", "Spatial resampling")
SUBTRACTED = ("113062", "DCM", "Pixel by pixel subtraction")
_MAPS = {
    OutputKind.Z_SCORE: ("z", "z"),
    OutputKind.CHANGE: ("z", "z"),
    OutputKind.HU_SPREAD: ("hu", "spread"),
    OutputKind.LABEL_SPREAD: ("", "spread"),
    OutputKind.VALUES: ("", ""),
}
"""Kind -> unit and quantity of a parametric map."""


@dataclass
class Exported:
    """One series that was written.

    Attributes:
        output: of the task; "source" for the scan itself, where it came without DICOM.
        folder: within that of the export.
    """

    output: str
    modality: str
    description: str
    series: str
    folder: str
    files: int = 0


@dataclass
class Export:
    """Contents of one export.

    Attributes:
        task: that made the result.
        name: of the case; also the patient's where the scan says nothing of one.
        volume: the scan, None where the task takes none.
        result: with voxels where they are.
        report: of the run, see ``runner.report``.
        source: the DICOM files of the scan; none where it came in another format.
        place: where an output lies.
    """

    task: type[Task]
    name: str
    volume: Volume | None
    result: TaskResult
    report: dict[str, Any]
    place: Callable[[str], Volume]
    source: Sequence[Path] = ()
    written: list[Exported] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def synthetic(self) -> bool:
        """Whether the whole result shows no patient as scanned."""
        return bool(self.report.get("synthetic", self.task.synthetic))

    def purpose(self, output: Output, title: str = "") -> Purpose:
        """Purpose that objects of an output state."""
        settings, model = self.report.get("settings", {}), self.report.get("model", {})
        sha = str(model.get("sha256") or "")[:12]
        return Purpose(
            title=title or output.words,
            task=self.task.sentence,
            model=f"model {model.get('name')} {sha}".strip(),
            parameters=settings.get("parameters") or {},
            invented=self.synthetic or output.invented,
            seed=int(settings.get("seed") or 0),
        )


def check_folder(folder: Path) -> None:
    """Refuse early what could not be written later.

    Args:
        folder: of one case; must not exist.

    Raises:
        DependencyError: highdicom is missing.
        OutputError: it exists, or cannot be made.
    """
    needed("highdicom", "--dicom")
    if os.path.lexists(folder):
        raise OutputError(
            f"The DICOM folder '{folder}' exists already.",
            "Choose another folder or move it away: DICOM objects are never overwritten, not with --overwrite either.",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        trial = folder.parent / f".{owned_name()}.dicom"
        trial.mkdir()
        trial.rmdir()
    except OSError as problem:
        raise OutputError(
            f"The DICOM folder '{folder.parent}' cannot be used: {reason_of(problem)}.",
            "Choose a folder where you may write.",
        ) from None


@contextlib.contextmanager
def written(export: Export, folder: Path) -> Iterator[list[Exported]]:
    """Write everything, then show it as ``folder``; when the block fails it is gone again.

    Raises:
        InputError: mixed patients, or a grid that DICOM cannot hold.
        OutputError: the folder exists, or the disk refuses.
    """
    for _ in exporting(export, folder):
        pass
    try:
        yield export.written
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def exporting(export: Export, folder: Path) -> Generator[None, None, list[Exported]]:
    """As :func:`written`, in steps of one file; the generator's value is what was written.

    Closed early, it leaves nothing.

    Raises:
        InputError, OutputError: as :func:`written`.
    """
    staging = folder.parent / f".{owned_name()}.dicom"
    try:
        staging.mkdir()
        yield from _write_all(export, staging)
        if os.path.lexists(folder):
            raise OutputError(f"The DICOM folder '{folder}' exists already.", "Choose another folder.")
        os.rename(staging, folder)
    except OSError as problem:
        raise OutputError(
            f"The DICOM objects cannot be written to '{folder.parent}': {reason_of(problem)}.",
            "Free some space or choose another folder; nothing incomplete was left behind.",
        ) from problem
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return export.written


def _write_all(export: Export, staging: Path) -> Steps:
    """Images first: everything else refers to them."""
    study = yield from _study(export, staging)
    outputs = {name: export.task.output(name) for name in export.result.volumes}
    images = [name for name, output in outputs.items() if output.kind in _IMAGES]
    others = [name for name in outputs if name not in images]
    for name in images:
        made = yield from _save(export, staging, name, _IMAGES[outputs[name].kind](export, study, outputs[name]))
        if not study.images and outputs[name].kind is OutputKind.CT:
            study.images = made
        elif outputs[name].kind is OutputKind.XRAY:
            study.pictures += made
    for name in others:
        for objects in _OTHERS[outputs[name].kind](export, study, outputs[name]):
            yield from _save(export, staging, name, objects)
    for name, rows in export.result.tables.items():
        for objects in _table(export, study, export.task.output(name), rows):
            yield from _save(export, staging, name, objects)
    for name, text in export.result.texts.items():
        if text.strip():
            made = text_report(text, study, export.purpose(export.task.output(name)))
            yield from _save(export, staging, name, [made])
    export.notes += study.notes


def _study(export: Export, staging: Path) -> Steps:
    """The study of the scan; a new one, with the scan in it, where it came without DICOM."""
    if export.source:
        return study_of(export.source)
    study, scan = new_study(export.name, synthetic=export.synthetic and export.volume is None), export.volume
    if scan is None or scan.modality not in (CT, MR, XR):
        return study
    purpose = replace(
        export.purpose(Output("source", OutputKind.CT, "source")), task="Only the format was changed.",
        model="no model", parameters={}, seed=0, invented=scan.synthetic,
    )  # fmt: skip
    if scan.modality == XR:
        window = float(scan.voxels.min()), float(scan.voxels.max())
        picture = radiograph(scan, study, purpose, window, calculated=False)
        study.pictures = yield from _save(export, staging, "source", [picture])
    else:
        study.images = yield from _save(export, staging, "source", image_series(scan, study, purpose, None))
    return study


def _save(export: Export, staging: Path, name: str, objects: Iterable[Any]) -> Steps:
    """Write one series into a folder of its own; gives its headers."""
    headers: list[Any] = []
    folder = ""
    for number, made in enumerate(objects, 1):
        if not headers:
            folder = f"{len(export.written) + 1:02d}_{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:40]}_{made.Modality}"
            (staging / folder).mkdir()
        with (staging / folder / f"{number:05d}.dcm").open("xb") as file:
            made.save_as(file, enforce_file_format=True)
        if "PixelData" in made and made.Modality in (CT, MR):
            del made.PixelData
        headers.append(made)
        yield
    first = headers[0]
    described = str(first.Modality), str(first.SeriesDescription), str(first.SeriesInstanceUID)
    export.written.append(Exported(name, *described, folder, len(headers)))
    return headers


# By kind


def _ct(export: Export, study: Study, output: Output) -> Iterable[Any]:
    volume = export.place(output.name)
    resampled = export.volume is not None and not volume.same_geometry(export.volume)
    return image_series(
        replace(volume, modality=CT), study, export.purpose(output), RESAMPLED if resampled else RESTORED
    )


def _difference(export: Export, study: Study, output: Output) -> Iterable[Any]:
    volume = replace(export.place(output.name), modality=CT)
    return image_series(volume, study, export.purpose(output), SUBTRACTED, "difference")


def _mr(export: Export, study: Study, output: Output) -> Iterable[Any]:
    return image_series(replace(export.place(output.name), modality=MR), study, export.purpose(output), RESTORED)


def _xray(export: Export, study: Study, output: Output) -> Iterable[Any]:
    volume = export.place(output.name)
    voxels = volume.voxels
    window = export.result.facts.get("windows", {}).get(output.name) or (float(voxels.min()), float(voxels.max()))
    return [radiograph(volume, study, export.purpose(output), (float(window[0]), float(window[1])))]


def _map(export: Export, study: Study, output: Output) -> list[list[Any]]:
    unit, quantity = _MAPS[output.kind]
    return [[parametric_map(export.place(output.name), study, export.purpose(output), unit, quantity)]]


def _labels(export: Export, study: Study, output: Output) -> Iterator[list[Any]]:
    """Segments and contours; none where nothing was found."""
    labels = export.place(output.name)
    labels = labels.with_voxels(labels.voxels.astype(np.uint16, copy=False))
    values = [int(value) for value in np.unique(labels.voxels) if value]
    if not values:
        export.notes.append(f"{output.words}: nothing is marked, so there is no DICOM object of it.")
        return
    if not study.images:
        export.notes.append(f"{output.words}: a radiograph lies in no frame of reference, so it has no segments.")
        return
    facts = export.result.facts.get("labels")
    segments = segments_of(values, output.words, facts if isinstance(facts, list) else [])
    purpose = export.purpose(output)
    yield [segmentation(labels, segments, study, purpose)]
    yield [structure_set(labels, segments, study, purpose)]


def _table(export: Export, study: Study, output: Output, rows: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """A report, with a segmentation where the rows' regions are known; nothing for an empty table."""
    if not rows:
        export.notes.append(f"{output.words}: the table is empty, so there is no DICOM object of it.")
        return
    regions, segments = None, []
    numbered = export.result.regions.get(output.name)
    if numbered is not None and export.volume is not None:
        segments = [_found(row) for row in rows]
        regions = segmentation(export.volume.with_voxels(numbered), segments, study, export.purpose(output))
        yield [regions]
    are_findings = output.kind is OutputKind.POINTS
    yield [measurement_report(rows, study, export.purpose(output), are_findings, regions, segments)]


def _found(row: dict[str, Any]) -> Segment:
    number = int(row["number"])
    return Segment(number, f"Finding {number}", (220, 60, 60), *FINDING, tracking=new_uid())


_IMAGES: dict[OutputKind, Callable[[Export, Study, Output], Iterable[Any]]] = {
    OutputKind.CT: _ct,
    OutputKind.DIFFERENCE: _difference,
    OutputKind.MR: _mr,
    OutputKind.XRAY: _xray,
}
_OTHERS: dict[OutputKind, Callable[[Export, Study, Output], Iterable[list[Any]]]] = {
    **dict.fromkeys(_MAPS, _map),
    OutputKind.MASK: _labels,
    OutputKind.LABELS: _labels,
}
