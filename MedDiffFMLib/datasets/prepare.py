"""Preparation: from a datalist to the cache of training; read, checked, turned to LPS, at two resolutions.

One case is in memory at a time. A finished case is kept for the next call as long as its files have the same SHA-256,
so a call that was stopped goes on where it was. A case that cannot be used is listed with the reason and left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..conditioning.anatomy import BODY_LABEL
from ..conditioning.region import body_box, body_mask
from ..conditioning.tissue import classify_tissue
from ..core.atomic_files import owned_name, sweep
from ..core.errors import InputError, MedDiffFMError, OutputError, expected, log_defect, reason_of
from ..core.json_files import write_json
from ..core.parts import WHOLE, Part
from ..core.progress import CancelToken
from ..imaging.grid import to_grid, working_grid
from ..imaging.io import read_unchanged, source_of
from ..imaging.resampling import resample_box
from ..imaging.volume import Volume, check_ct
from ..preprocessing.body_localization import choose_region, localize_body
from .body_regions import body_parts
from .datalist import SPLITS, Entry, read_datalist, refuse_shared_patients
from .prepared_cases import COARSE_SPACING_MM

FORMAT = "meddifffm-cache-3"
FINE_ENOUGH_MM = 2.9
"""A coarse level is made where every voxel edge is shorter; else it would hardly differ from the acquisition."""


@dataclass
class CaseSummary:
    """Outcome of preparing one case.

    Attributes:
        state: "prepared", "kept" (was there already) or "skipped".
        reason: why it was skipped.
        shape: (i, j, k).
        spacing: (i, j, k) in mm.
        levels: number of resolutions.
        native: whether the voxels are a scanner's own, as the datalist says.
        parts: regions that a whole body was cut into.
        exit_code: what the case alone would have given on the command line.
    """

    name: str
    split: str
    state: str
    reason: str = ""
    region: str = ""
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    levels: int = 0
    native: bool = True
    parts: tuple[str, ...] = ()
    exit_code: int = 0
    warnings: list[str] = field(default_factory=list)


def prepare(
    datalist: str | Path,
    folder: str | Path,
    *,
    anatomy_key: str = "anatomy",
    part: Part = WHOLE,
    tissue: bool = True,
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> list[CaseSummary]:
    """Make or complete the cache in ``folder``.

    Args:
        datalist: MONAI decathlon JSON, ``{"training": [{"image": "a.nii.gz", "anatomy": "a_organs.nii.gz",
            "region": "chest", "patient": "p1", "name": "a", "native": true}, ...], "validation": [...]}``; only
            ``image`` is needed.
        anatomy_key: key of the organ label maps (TotalSegmentator numbers, on the CT's grid). "label" is the other
            usual name, but may as well hold lesions.
        part: which of the cases; one of several parts writes no ``cases.json``, which a last call for all does at once.
        tissue: classify the voxels' tissue too, which only the training of a prior reads.
        report: receives a line for each case.

    Returns:
        What became of each case. ``cases.json`` lists the usable ones by split, and the others with the reason.

    Raises:
        InputError: not a datalist, or a patient in two splits; nothing is written then.
        OutputError: the cache cannot be written.
    """
    folder = Path(folder)
    entries = read_datalist(datalist, SPLITS)
    refuse_shared_patients(entries)
    entries = part.of(entries)
    sweep(folder)
    split_of: dict[str, str] = {}  # by SHA-256 of the image
    summaries = []
    for number, entry in enumerate(entries):
        if cancel is not None:
            cancel.check()
        summary = _prepare_or_skip(entry, folder, anatomy_key, tissue, split_of)
        summaries.append(summary)
        report(f"{number + 1} of {len(entries)}  {summary.name}: {summary.reason or summary.state}")
    if part != WHOLE:
        return summaries
    index: dict[str, Any] = {s: [c.name for c in summaries if c.split == s and c.state != "skipped"] for s in SPLITS}
    index["skipped"] = {case.name: case.reason for case in summaries if case.state == "skipped"}
    write_json(index, folder / "cases.json", overwrite=True)
    return summaries


def _prepare_or_skip(
    entry: Entry, folder: Path, anatomy_key: str, tissue: bool, split_of: dict[str, str]
) -> CaseSummary:
    """Prepare one case unless it is there; only a failure to write ends the whole call."""
    try:
        source = _source(entry, anatomy_key)
        if split_of.setdefault(source["image"], entry.split) != entry.split:
            raise InputError("The same file is in the other split.", "Keep all cases of a patient in one split.")
        summary = _finished(folder / entry.name, entry, tissue, source)
        return summary or _prepare_case(entry, folder, anatomy_key, tissue, source)
    except Exception as problem:
        failure = expected(problem)
        if isinstance(failure, OutputError):
            raise failure from problem
        if failure is None:
            failure = MedDiffFMError(f"Unexpected failure: {log_defect(problem)}.", "Please report it with that file.")
            failure.exit_code = 1
        return CaseSummary(entry.name, entry.split, "skipped", str(failure), exit_code=failure.exit_code)


def _source(entry: Entry, anatomy_key: str) -> dict[str, Any]:
    """Everything that decides about the prepared case."""
    anatomy = entry.file(anatomy_key)
    for path in (entry.image, anatomy):
        if path is not None and not path.exists():
            raise InputError(f"There is no file or folder '{path}'.", "Check the path.")
    return {
        "format": FORMAT,
        "image": source_of(entry.image).sha256,
        "anatomy": None if anatomy is None else source_of(anatomy).sha256,
        "region": entry.region,
        "patient": entry.patient,
        "native": entry.native,
    }


def _finished(case: Path, entry: Entry, tissue: bool, source: dict[str, Any]) -> CaseSummary | None:
    """The summary of a case that was prepared from the same files before, with its tissue if that is asked for."""
    try:
        record = json.loads((case / "case.json").read_text(encoding="utf-8"))
        if record["source"] != source or (tissue and not (case / "acquisition_tissue.npy").exists()):
            return None
        summary = CaseSummary(**{**record["summary"], "split": entry.split, "state": "kept"})
        summary.shape, summary.spacing = tuple(summary.shape), tuple(summary.spacing)
        summary.parts = tuple(summary.parts)
        return summary
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _prepare_case(entry: Entry, folder: Path, anatomy_key: str, tissue: bool, source: dict[str, Any]) -> CaseSummary:
    """Read, check and write one case; its folder appears complete or not at all."""
    volume = read_unchanged(entry.image, source["image"])
    warnings = check_ct(volume)
    region = choose_region(entry.region, localize_body(volume)) or ""
    grid = working_grid(volume, None)
    spacing = np.array(grid.spacing[::-1])
    limits = np.iinfo(np.int16)
    voxels = np.clip(np.rint(to_grid(volume, grid)), limits.min, limits.max).astype(np.int16)
    path = entry.file(anatomy_key)
    labels = None if path is None else _labels(path, volume, source["anatomy"])
    summary = CaseSummary(
        entry.name,
        entry.split,
        "prepared",
        region=region,
        shape=voxels.shape[::-1],
        spacing=tuple(round(s, 4) for s in grid.spacing),
        native=entry.native,
        warnings=warnings,
    )
    del volume
    arrays, record = build_case(voxels, spacing, labels, whole_body=region == "whole-body", tissue=tissue)
    summary.levels, summary.parts = len(record["levels"]), tuple(part["region"] for part in record["parts"])
    record = {"name": entry.name, "patient": entry.patient, "region": region, "native": entry.native, **record}
    _write_case(folder / entry.name, arrays, {**record, "source": source, "summary": asdict(summary)})
    return summary


def build_case(
    voxels: np.ndarray,
    spacing: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    whole_body: bool = False,
    tissue: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The levels of a case.

    Args:
        voxels: (k, j, i) int16 HU along superior, posterior, left.
        spacing: (3,) mm, order (k, j, i).
        labels: uint8 organ labels on the same grid; the body alone (label 118) where they are not known.
        whole_body: cut it into regions.
        tissue: classify it.

    Returns:
        Arrays by file name, and the geometry part of ``case.json``: positions in mm from the center of the first
        acquisition voxel, the body box out to the outer edges of its voxels.
    """
    body = body_mask(voxels)
    first, last = body_box(body)
    arrays = {"acquisition": voxels, "acquisition_anatomy": _or_body(labels, body)}
    if tissue:
        arrays["acquisition_tissue"] = classify_tissue(voxels, _kji(spacing), body)
    levels: list[dict[str, Any]] = [{"name": "acquisition", "spacing": spacing.tolist(), "origin": [0.0, 0.0, 0.0]}]
    if (spacing < FINE_ENOUGH_MM).all():
        step = np.full(3, COARSE_SPACING_MM)
        count = np.maximum(1, np.floor(np.array(voxels.shape) * spacing / step + 1e-6)).astype(int)
        origin = (step - spacing) / 2
        size = (int(count[0]), int(count[1]), int(count[2]))
        coarse = np.rint(resample_box(voxels, origin / spacing, step / spacing, size)).astype(np.int16)
        body = body_mask(coarse)
        nearest = None
        if labels is not None:
            index = [np.rint((origin[a] + step[a] * np.arange(size[a])) / spacing[a]).astype(int) for a in range(3)]
            nearest = labels[np.ix_(*(np.minimum(line, labels.shape[a] - 1) for a, line in enumerate(index)))]
        arrays["coarse"] = coarse
        arrays["coarse_anatomy"] = _or_body(nearest, body)
        if tissue:  # classified anew: the nearest voxel of the fine level would keep its speckle
            arrays["coarse_tissue"] = classify_tissue(coarse, _kji(step), body)
        levels.append({"name": "coarse", "spacing": step.tolist(), "origin": origin.tolist()})
    record: dict[str, Any] = {"levels": levels, "body_box": _box_of(first, last, spacing, 0.0), "parts": []}
    if whole_body:
        record["parts"] = _parts(arrays, levels[-1], labels is not None)
    return arrays, record


def _box_of(first: np.ndarray, last: np.ndarray, spacing: np.ndarray, origin: np.ndarray | float) -> list[list[float]]:
    """Corners of the box of some voxels in mm, out to their outer edges."""
    return [(origin + (first - 0.5) * spacing).tolist(), (origin + (last + 0.5) * spacing).tolist()]


def _parts(arrays: dict[str, np.ndarray], level: dict[str, Any], labeled: bool) -> list[dict[str, Any]]:
    """Region and body box of each part of a whole body, seen at its coarsest level."""
    spacing, origin = np.array(level["spacing"]), np.array(level["origin"])
    voxels, anatomy = arrays[level["name"]], arrays[f"{level['name']}_anatomy"]
    body = body_mask(voxels)
    parts = []
    for region, bottom, top in body_parts(voxels, spacing, body, anatomy if labeled else None):
        first, last = body_box(body[bottom : top + 1])
        lift = np.array([bottom, 0, 0])
        parts.append({"region": region, "body_box": _box_of(first + lift, last + lift, spacing, origin)})
    return parts


def _kji(spacing: np.ndarray) -> tuple[float, float, float]:
    k, j, i = (float(edge) for edge in spacing)
    return k, j, i


def _or_body(labels: np.ndarray | None, body: np.ndarray) -> np.ndarray:
    """Given labels, else the body."""
    if labels is not None:
        return labels
    return body.astype(np.uint8) * np.uint8(BODY_LABEL)


def _labels(path: Path, volume: Volume, sha256: str) -> np.ndarray:
    """Organ labels of a file on the CT's acquisition grid.

    Raises:
        InputError: other geometry than the CT, or values that are no label numbers.
    """
    from ..conditioning.anatomy import check_anatomy

    anatomy = check_anatomy(read_unchanged(path, sha256, "mask"), volume)
    on_ct = Volume(anatomy, volume.ijk_to_ras, "mask")
    return to_grid(on_ct, working_grid(volume, None), order=0, fill=0).astype(np.uint8)


def _write_case(case: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Write into a folder of another name, then rename it."""
    partial = case.with_name(f".{owned_name()}.partial")
    try:
        case.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array)
        (partial / "case.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        _put_in_place(partial, case)
    except OSError as error:
        raise OutputError(
            f"The case '{case.name}' cannot be written to '{case.parent}': {reason_of(error)}.",
            "Free some space, or choose another folder; finished cases are kept.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, case: Path) -> None:
    """Rename a finished case; one that is there already, of other files or another process, makes room."""
    for attempt in range(5):
        try:
            os.rename(partial, case)
            return
        except OSError:
            if attempt == 4 or not case.exists():
                raise
        gone = case.with_name(f".{owned_name()}.replaced")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.rename(case, gone)
        shutil.rmtree(gone, ignore_errors=True)
