"""Dataset check: everything that can be wrong, found in minutes instead of after hours of training.

Every case is read once. All findings come in one report, so that all can be mended at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.errors import InputError, MedDiffFMError, expected
from ..core.file_hash import file_sha256
from ..core.progress import CancelToken
from ..imaging.grid import to_grid, working_grid
from ..imaging.io import read_volume
from ..imaging.volume import Volume, check_ct
from .check_report import CaseFacts, CheckReport
from .datalist import SPLITS, Entry, read_datalist
from .dataset_folder import ANATOMY, LABEL, Dataset, check_label_map, choose_patients, is_dataset

FEW_PATIENTS = 5
FEW_VOXELS = 8
MANY_LABELS = 20
AIR_HU = -900.0
SLICE_BODY_SHARE = 0.05
"""Slices with less than this share of body are alike in many scans and tell nothing about leaks."""


@dataclass(frozen=True)
class Needs:
    """Requirements of a task on its cases.

    Attributes:
        task: name of the fine-tuning task.
        mask: whether every split needs masks that mark something.
        window: edge of the training windows in voxels.
        labels: numbers in the masks that count; empty for all of them.
        validation: share of the patients that is taken for validation where none is named.
        seed: of that choice.
        few: whether a handful of patients is enough; then none is chosen to validate unless there are more.
    """

    task: str
    mask: bool
    window: int = 64
    labels: tuple[int, ...] = ()
    validation: float = 0.2
    seed: int = 0
    few: bool = False


def read_entries(data: str | Path, needs: Needs) -> list[Entry]:
    """The cases of a dataset folder or a datalist; without validation cases, some patients are chosen for it.

    Raises:
        InputError: neither a dataset nor a datalist, or it names no case.
    """
    return _with_validation(_listed(Path(data)), needs)


def check_dataset(
    data: str | Path,
    needs: Needs,
    *,
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> CheckReport:
    """Check a dataset folder or a decathlon datalist for a task; nothing is written.

    Args:
        report: receives a line for each case.
    """
    checked = CheckReport(str(data), needs.task)
    try:
        listed = _listed(Path(data))
        entries = _with_validation(listed, needs)
    except MedDiffFMError as problem:
        checked.add("error", "list", "", problem.cause, problem.remedy)
        return checked
    checked.validation = [entry.name for entry in entries if entry.split == "validation"]
    if entries != listed:
        checked.add(
            "warning",
            "auto-split",
            "",
            f"No case is named to validate; chosen: {', '.join(checked.validation)}.",
            "Choose others with `meddifffm dataset split`, or in the datalist.",
        )
    _check_folder(Path(data), checked)
    _check_counts(entries, needs, checked)
    _check_patients(entries, checked)
    slices: dict[str, set[bytes]] = {}
    for number, entry in enumerate(entries):
        if cancel is not None:
            cancel.check()
        report(f"Checking {number + 1} of {len(entries)}  {entry.name}")
        facts, slices[entry.name] = _check_case(entry, needs, checked)
        checked.cases.append(facts)
    _check_voxels(entries, slices, checked)
    if needs.mask:
        _check_marked(checked)
    return checked


def _listed(data: Path) -> list[Entry]:
    """The cases as the data name them."""
    entries = Dataset(data).entries() if data.is_dir() else read_datalist(data, SPLITS)
    if not entries:
        raise InputError(f"The dataset {data} has no cases.", "Add some with `meddifffm dataset add`.")
    return entries


def _with_validation(entries: list[Entry], needs: Needs) -> list[Entry]:
    """The same cases, with some patients moved to validation where it has none."""
    patients = sorted({entry.patient for entry in entries})
    least = FEW_PATIENTS if needs.few else 2
    if len(patients) < least or any(entry.split == "validation" for entry in entries):
        return entries
    chosen = choose_patients(patients, needs.validation, needs.seed)
    return [replace(entry, split="validation" if entry.patient in chosen else "training") for entry in entries]


def _check_folder(data: Path, checked: CheckReport) -> None:
    """Damaged or changed cases of a dataset folder."""
    if not is_dataset(data):
        return
    cases, damaged = Dataset(data).scan()
    for name, reason in damaged.items():
        checked.add(
            "error",
            "damaged-case",
            name,
            f"The case folder is damaged ({reason}).",
            "Remove it with `meddifffm dataset remove` and add the case again.",
        )
    for case in cases:
        for kind, path in case.files.items():
            if file_sha256(path) != case.hashes[kind]:
                checked.add(
                    "warning",
                    "changed",
                    case.name,
                    f"{path.name} was changed after the case was added.",
                    "If you did not do it, remove the case and add it again.",
                )


def _check_counts(entries: list[Entry], needs: Needs, checked: CheckReport) -> None:
    """Enough patients to train and to validate."""
    patients = {split: {entry.patient for entry in entries if entry.split == split} for split in SPLITS}
    if needs.few and patients["training"] and not patients["validation"]:
        checked.add(
            "warning",
            "none-validates",
            "",
            "No patient validates; the training cases do.",
            "The figure says how well these are remembered; look at the result on other scans.",
        )
        return
    everyone = patients["training"] | patients["validation"]
    remedy = "Add cases of other patients; training and validation need at least one patient each."
    if len(everyone) < 2:
        checked.add("error", "too-few", "", f"There is only one patient ({len(entries)} cases).", remedy)
        return
    for split in SPLITS:
        if not patients[split]:
            checked.add(
                "error",
                "empty-split",
                "",
                f"There is no {split} case.",
                "Move a patient there: `meddifffm dataset split`, or the datalist's splits.",
            )
    if patients["training"] and len(patients["training"]) < FEW_PATIENTS:
        checked.add(
            "warning",
            "few-cases",
            "",
            f"Only {len(patients['training'])} patients to train on.",
            "The result will know these patients; test it on others before you trust it.",
        )
    if len(patients["validation"]) == 1:
        checked.add(
            "warning",
            "one-validates",
            "",
            "Only one patient validates.",
            "The kept checkpoint fits this patient; add others if you can.",
        )


def _check_patients(entries: list[Entry], checked: CheckReport) -> None:
    """No patient and no file in two splits."""
    seen: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        for code, shared, key in (
            ("patient-leak", f"Patient '{entry.patient}'", entry.patient),
            ("file-leak", "The same image file", str(entry.image.resolve())),
        ):
            first = seen.setdefault((code, key), entry)
            if first.split != entry.split:
                cause = f"{shared} is in two splits: {first.name} in {first.split}, {entry.name} in {entry.split}."
                checked.add("error", code, entry.name, cause, "Keep all cases of a patient in one split.")
            elif code == "file-leak" and first is not entry:
                checked.add(
                    "warning",
                    "duplicate",
                    entry.name,
                    f"It has the same image file as {first.name}.",
                    "Keep one of them, unless their masks differ on purpose.",
                )


def _check_case(entry: Entry, needs: Needs, checked: CheckReport) -> tuple[CaseFacts, set[bytes]]:
    """Read one case; its facts and the hashes of its slices."""
    facts = CaseFacts(entry.name, entry.split, entry.patient)

    def refused(code: str, problem: Exception) -> None:
        failure = expected(problem)
        if failure is None:
            raise problem
        checked.add("error", code, entry.name, failure.cause, failure.remedy)

    try:
        image = read_volume(entry.image)
        warnings = check_ct(image)
    except Exception as problem:
        refused("image", problem)
        return facts, set()
    facts.shape, facts.spacing = image.voxels.shape[::-1], tuple(round(s, 4) for s in image.spacing)
    for sentence in warnings:
        checked.add("warning", "ct", entry.name, sentence, "Nothing to do if that is how the scan is.")
    if min(facts.shape) < needs.window:
        checked.add(
            "warning",
            "small-image",
            entry.name,
            f"It has {' x '.join(map(str, facts.shape))} voxels, fewer than a window of {needs.window}.",
            "Windows reach over its borders; use larger images or a smaller window if you can.",
        )
    try:
        if needs.mask:
            _check_mask(entry, image, needs, facts, checked)
    except Exception as problem:
        refused("mask", problem)
    try:
        path = entry.file(ANATOMY)
        if path is not None:
            check_label_map(read_volume(path, modality="mask"), image, "organ map")
    except Exception as problem:
        refused("anatomy", problem)
    return facts, _slice_hashes(image)


def _check_mask(entry: Entry, image: Volume, needs: Needs, facts: CaseFacts, checked: CheckReport) -> None:
    """Grid, values, size and place of a mask; raises InputError for what cannot be used at all."""
    path = entry.file(LABEL)
    if path is None:
        raise InputError("It has no mask.", 'Name one under "label", or remove the case.')
    label = check_label_map(read_volume(path, modality="mask"), image)
    numbers = np.unique(label.voxels)
    facts.labels = tuple(int(n) for n in numbers if n)
    marked = np.isin(label.voxels, needs.labels) if needs.labels else label.voxels > 0
    count = int(np.count_nonzero(marked))
    facts.marked_ml = count * image.voxel_volume / 1000
    if count == marked.size:
        raise InputError("The mask covers the whole image.", "Mark only the lesion; the mask may be inverted.")
    for code, cause, remedy in _doubts(image, marked, count, facts, needs):
        checked.add("warning", code, entry.name, cause, remedy)


def _doubts(
    image: Volume, marked: np.ndarray, count: int, facts: CaseFacts, needs: Needs
) -> list[tuple[str, str, str]]:
    """Code, cause and remedy of what may be a mistake in a mask."""
    doubts = []
    chosen = f" of the labels {', '.join(map(str, needs.labels))}" if needs.labels else ""
    if count == 0:
        return [
            (
                "empty-mask",
                f"The mask is empty: it has no voxel{chosen or ' above 0'}.",
                "The case is left out; mark a lesion, or remove the case.",
            )
        ]
    if count < FEW_VOXELS:
        doubts.append(("tiny-mask", f"The mask marks only {count} voxels.", "Check that this is no stray click."))
    if not needs.labels and len(facts.labels) > MANY_LABELS:
        doubts.append(
            (
                "many-labels",
                f"The mask holds {len(facts.labels)} labels, like an organ map.",
                "All of them count as lesions; choose the right ones with --labels.",
            )
        )
    edges = [int(np.ptp(np.flatnonzero(marked.any(axis=tuple({0, 1, 2} - {a}))))) + 1 for a in range(3)]
    if len(facts.labels) <= 1 and max(edges) > needs.window:
        doubts.append(
            (
                "large-mask",
                f"What the mask marks is up to {max(edges)} voxels long, a window {needs.window}.",
                "Windows show parts of it only, if it is one lesion.",
            )
        )
    if np.mean(image.voxels[marked] < AIR_HU) > 0.5:
        doubts.append(
            (
                "mask-in-air",
                f"More than half of the mask lies in air (below {AIR_HU:g} HU).",
                "Check that mask and image belong together.",
            )
        )
    return doubts


def _slice_hashes(image: Volume) -> set[bytes]:
    """Hashes of the axial slices that show enough of a body."""
    voxels = np.rint(to_grid(image, working_grid(image, None))).astype(np.int32)
    used = [plane for plane in voxels if np.mean(plane > -500) > SLICE_BODY_SHARE]
    return {hashlib.blake2b(plane.tobytes(), digest_size=16).digest() for plane in used}


def _check_voxels(entries: list[Entry], slices: dict[str, set[bytes]], checked: CheckReport) -> None:
    """No scan under two names, found by slices that are equal voxel by voxel."""
    known = {finding.case for finding in checked.findings if finding.code in ("file-leak", "duplicate")}
    owner: dict[bytes, Entry] = {}
    for entry in entries:
        shared: dict[str, int] = {}
        for digest in slices[entry.name]:
            first = owner.setdefault(digest, entry)
            if first is not entry:
                shared[first.name] = shared.get(first.name, 0) + 1
        if not shared or entry.name in known:
            continue
        other = max(shared, key=lambda name: shared[name])
        cause = f"{shared[other]} of its slices are equal to slices of {other}, voxel by voxel."
        crossing = next(e.split for e in entries if e.name == other) != entry.split
        if crossing:
            checked.add(
                "error",
                "voxel-leak",
                entry.name,
                f"{cause} They are in different splits.",
                "Give both the same patient, or remove one.",
            )
        else:
            checked.add("warning", "duplicate", entry.name, cause, "Keep one, unless their masks differ on purpose.")


def _check_marked(checked: CheckReport) -> None:
    """At least one mask that marks something in each split."""
    for split in SPLITS:
        cases = [case for case in checked.cases if case.split == split and case.marked_ml is not None]
        if cases and not any(case.marked_ml for case in cases):
            checked.add(
                "error",
                "all-empty",
                "",
                f"All masks of the {split} cases are empty.",
                "Check the masks' labels (--labels), or move a case with a lesion to this split.",
            )
