"""Import into a dataset folder: pairs of images and masks, or a decathlon datalist.

What was added from the same files before is kept, so a call that was stopped goes on where it was. A case that cannot
be used is listed with the reason and left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, OutputError, expected
from ..core.progress import CancelToken
from ..imaging.image_files import stem_of
from ..imaging.io import METAIMAGE_SUFFIXES, NIFTI_SUFFIXES, read_unchanged, source_of
from .datalist import SPLITS, Entry, folder_name, read_datalist, refuse_shared_patients
from .dataset_folder import ANATOMY, LABEL, Dataset
from .labels import labels_in

IMAGE_WORDS = ("image", "images", "imagestr", "img", "ct", "cts", "scan", "scans", "volume", "volumes")
LABEL_WORDS = ("mask", "masks", "label", "labels", "labelstr", "seg", "segmentation", "segmentations", "lesion")
_SUFFIXES = (".nrrd", ".nhdr", *METAIMAGE_SUFFIXES, *NIFTI_SUFFIXES)
_IGNORED = ("imagests", "labelsts")  # nnU-Net's test cases
_LAYOUTS = (
    "Use images/NAME.nii.gz with labels/NAME.nii.gz, NAME.nrrd with NAME_mask.nrrd, or NAME/ct.nii.gz with "
    "NAME/mask.nii.gz."
)


@dataclass
class Added:
    """Outcome of adding one case.

    Attributes:
        state: "added", "kept" (was there already) or "skipped".
        reason: why it was skipped.
        exit_code: what the case alone would have given on the command line.
    """

    name: str
    state: str
    reason: str = ""
    exit_code: int = 0


def find_pairs(folder: str | Path, patient_pattern: str | None = None) -> list[Entry]:
    """Images and their masks below a folder, all of the training split.

    An image and a mask belong together when their paths agree after words like "images", "labels" and "_mask" are
    taken out. Images without a mask are cases without a mask.

    Args:
        patient_pattern: regular expression whose first group is the patient in a case's name, such as ``^(p\\d+)``;
            without it every case is a patient of its own.

    Raises:
        InputError: no images, a mask without an image, two images or masks for one case, or a name without a patient.
    """
    folder = Path(folder)
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.name.lower().endswith(_SUFFIXES) or any(p.startswith(".") or p.lower() in _IGNORED for p in parts):
            continue
        kind, key = _role(path, parts[:-1])
        other = found.setdefault(key, {}).setdefault(kind, path)
        if other != path:
            raise InputError(f"'{other}' and '{path}' are both the {kind} of case '{key}'.", _LAYOUTS)
    lonely = [key for key, files in found.items() if "image" not in files]
    if not found or lonely:
        first = f"The mask '{found[lonely[0]][LABEL]}' has no image." if lonely else f"'{folder}' holds no images."
        raise InputError(first, _LAYOUTS)
    return [_pair(key, files, patient_pattern) for key, files in found.items()]


def add_files(
    dataset: Dataset,
    entries: list[Entry],
    *,
    labels: Mapping[int, Any] | None = None,
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> list[Added]:
    """Add the cases of a list; those that are there from the same files are kept.

    Args:
        labels: what the numbers in the masks stand for, as for :meth:`.dataset_folder.Dataset.add`.
        report: receives a line for each case.

    Raises:
        OutputError: the dataset cannot be written.
    """
    present = {case.name: case.source for case in dataset.cases()}
    added = []
    for number, entry in enumerate(entries):
        if cancel is not None:
            cancel.check()
        added.append(_add_or_skip(dataset, entry, present, labels))
        report(f"{number + 1} of {len(entries)}  {entry.name}: {added[-1].reason or added[-1].state}")
    return added


def add_datalist(
    dataset: Dataset,
    datalist: str | Path,
    *,
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> list[Added]:
    """Add the cases of a decathlon datalist and take over its split; masks stand under "label".

    Raises:
        InputError: not a datalist, or a patient in two splits; nothing is added then.
        OutputError: the dataset cannot be written.
    """
    entries = read_datalist(datalist, SPLITS)
    refuse_shared_patients(entries)
    added = add_files(dataset, entries, labels=labels_in(Path(datalist)), report=report, cancel=cancel)
    validating = {case.patient for case in dataset.cases() if case.split == "validation"}
    for entry in entries:
        (validating.discard if entry.split == "training" else validating.add)(entry.patient)
    dataset.set_validation(sorted(validating))
    return added


def _role(path: Path, folders: tuple[str, ...]) -> tuple[str, str]:
    """Whether a file is an image or a mask, and the name of its case."""
    kind, kept = "image", []
    for name in folders:
        if name.lower() in LABEL_WORDS:
            kind = LABEL
        elif name.lower() not in IMAGE_WORDS:
            kept.append(name)
    stem = re.sub(r"_0000$", "", stem_of(path))  # nnU-Net's first channel
    if stem.lower() in LABEL_WORDS:
        kind, stem = LABEL, ""
    elif stem.lower() in IMAGE_WORDS:
        stem = ""
    else:
        marked = re.fullmatch(rf"(.+)[_.-](?:({'|'.join(LABEL_WORDS)})|({'|'.join(IMAGE_WORDS)}))", stem, re.IGNORECASE)
        if marked:
            stem, kind = marked[1], LABEL if marked[2] else kind
    return kind, "/".join([*kept, stem] if stem else kept) or path.name


def _pair(key: str, files: dict[str, Path], patient_pattern: str | None) -> Entry:
    name = folder_name(key)
    patient = name
    if patient_pattern is not None:
        try:
            match = re.search(patient_pattern, name)
            patient = match[1] if match else ""
        except (re.error, IndexError) as error:
            raise InputError(
                f"The patient pattern {patient_pattern!r} cannot be used ({error}).",
                "Give a regular expression with one group, such as '^(p[0-9]+)'.",
            ) from error
        if not patient:
            raise InputError(f"The patient pattern {patient_pattern!r} finds no patient in '{name}'.", "Correct it.")
    others = {LABEL: files[LABEL]} if LABEL in files else {}
    return Entry(name, "training", files["image"], patient, None, others)


def _add_or_skip(dataset: Dataset, entry: Entry, present: dict[str, str], labels: Mapping[int, Any] | None) -> Added:
    """Add one case unless it is there; only a failure to write ends the whole call."""
    try:
        hashes = _hashes(entry)
        source = _source(entry, hashes)
        if present.get(entry.name) == source:
            return Added(entry.name, "kept")
        if present.get(entry.name):
            raise InputError(
                f"'{entry.name}' was added from other files than these.",
                "Rename one of them, or remove that case first (meddifffm dataset remove).",
            )
        files = _files(entry)
        label, anatomy = (
            read_unchanged(files[kind], hashes[kind], "mask") if kind in files else None for kind in (LABEL, ANATOMY)
        )
        dataset.add(
            entry.name,
            read_unchanged(entry.image, hashes["image"]),
            label,
            anatomy=anatomy,
            patient=entry.patient,
            region=entry.region,
            source=source,
            labels=labels,
        )
        return Added(entry.name, "added")
    except Exception as problem:
        failure = expected(problem)
        if failure is None or isinstance(failure, OutputError):
            raise
        return Added(entry.name, "skipped", str(failure), failure.exit_code)


def _files(entry: Entry) -> dict[str, Path]:
    """The files of a case by kind."""
    named = {"image": entry.image, LABEL: entry.file(LABEL), ANATOMY: entry.file(ANATOMY)}
    return {kind: path for kind, path in named.items() if path is not None}


def _hashes(entry: Entry) -> dict[str, str]:
    """SHA-256 of the files of a case by kind."""
    return {kind: source_of(path).sha256 for kind, path in _files(entry).items()}


def _source(entry: Entry, hashes: Mapping[str, str]) -> str:
    """Everything that decides about a case, as one SHA-256."""
    lines = [entry.patient, str(entry.region), *(f"{kind} {sha256}" for kind, sha256 in hashes.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def labels_of(data: Path) -> dict[int, Any]:
    """Labels as a datalist (key ``labels``, as MONAI's) or a dataset folder describes them, by number.

    Raises:
        InputError: a number that is none.
    """
    from .dataset_folder import Dataset, is_dataset

    if is_dataset(data):
        return {value: label.as_dict() for value, label in Dataset(data).labels().items()}
    return labels_in(data / "dataset.json" if data.is_dir() else data)
