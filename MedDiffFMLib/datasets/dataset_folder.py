"""Dataset folders: cases gathered for fine-tuning.

::

    FOLDER/dataset.json               title, which patients validate, and names for labels that no case names
    FOLDER/cases/NAME/case.json       patient, region, labels and what they are called, SHA-256 of the files
    FOLDER/cases/NAME/image.nrrd      the CT
    FOLDER/cases/NAME/label.nrrd      mask on the CT's grid (may be absent)
    FOLDER/cases/NAME/anatomy.nrrd    organ labels on the CT's grid (may be absent)
    FOLDER/datalist.json              the same cases as a MONAI decathlon datalist, for other programs

The case folders are the truth: each appears complete, by one renaming, or not at all, and ``datalist.json`` is written
anew from them after each change. No file holds a path outside of the folder, so it can be moved and copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.atomic_files import owned_name, sweep
from ..core.errors import InputError, OutputError, reason_of
from ..core.file_hash import file_sha256
from ..core.json_files import write_json
from ..core.safe_load import check_fields, plain_path, read_json
from ..imaging.io import write_volume
from ..imaging.segments import listed
from ..imaging.volume import Volume, check_ct, geometry
from .datalist import SPLITS, Entry, folder_name
from .labels import SegmentLabel, labels_in, shared_numbers

FORMAT = "meddifffm-dataset-1"
IMAGE, LABEL, ANATOMY = "image", "label", "anatomy"
LARGEST_LABEL = 32767
NUMBERING_SECONDS = 60.0
"""Longest wait for another process that writes a case."""


@dataclass(frozen=True)
class DatasetCase:
    """One case of a dataset.

    Attributes:
        split: "training" or "validation".
        region: region class, "none" for no single one, None for an automatic guess.
        files: paths by kind: "image", "label", "anatomy".
        labels: numbers in the mask without 0.
        named: what the numbers stand for, as far as known.
        hashes: SHA-256 of the files by kind.
        source: SHA-256 of the files that the case was made from, "" for arrays.
    """

    name: str
    patient: str
    split: str
    region: str | None
    files: dict[str, Path]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    labels: tuple[int, ...] = ()
    named: tuple[SegmentLabel, ...] = ()
    hashes: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For an answer in JSON."""
        return {**vars(self), "named": [label.as_dict() for label in self.named]}

    def entry(self) -> Entry:
        """As a row of a datalist."""
        others = {kind: path for kind, path in self.files.items() if kind != IMAGE}
        return Entry(self.name, self.split, self.files[IMAGE], self.patient, self.region, others)


class Dataset:
    """A dataset folder.

    Args:
        folder: as made by :meth:`create`.

    Raises:
        InputError: ``folder`` is not a dataset.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not is_dataset(self.folder):
            raise InputError(
                f"'{self.folder}' is no dataset folder.", "Make one with `meddifffm dataset create FOLDER`."
            )

    @classmethod
    def create(cls, folder: str | Path, title: str = "") -> Dataset:
        """Make a dataset, or open the one that is there.

        Raises:
            OutputError: the folder holds something else, or cannot be written.
        """
        folder = Path(folder)
        if not is_dataset(folder):
            with _writing(folder):
                if folder.exists() and any(folder.iterdir()):
                    raise OutputError(f"'{folder}' is not empty and no dataset.", "Choose another folder.")
                (folder / "cases").mkdir(parents=True, exist_ok=True)
            dataset = {"format": FORMAT, "title": title or folder.name, "validation": []}
            write_json(dataset, folder / "dataset.json", overwrite=True)
        return cls(folder)

    @property
    def title(self) -> str:
        """For cards and panels."""
        return str(self._settings().get("title") or self.folder.name)

    def cases(self) -> list[DatasetCase]:
        """All undamaged cases by name."""
        return self.scan()[0]

    def scan(self) -> tuple[list[DatasetCase], dict[str, str]]:
        """The cases, and for each damaged one the reason by name."""
        cases, damaged = [], {}
        validating = self._validating()
        for folder in sorted((self.folder / "cases").iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                cases.append(_read_case(folder, validating))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, InputError) as error:
                damaged[folder.name] = f"{type(error).__name__}: {error}"
        return cases, damaged

    def entries(self) -> list[Entry]:
        """The cases as rows of a datalist, training first."""
        return sorted((case.entry() for case in self.cases()), key=lambda entry: SPLITS.index(entry.split))

    def add(
        self,
        name: str,
        image: Volume,
        label: Volume | np.ndarray | None = None,
        *,
        anatomy: Volume | np.ndarray | None = None,
        patient: str | None = None,
        region: str | None = None,
        source: str = "",
        labels: Mapping[int, Any] | None = None,
    ) -> DatasetCase:
        """Add a case; after a crash at any moment it is there whole or not at all.

        Args:
            name: unique; characters that not every file system takes become hyphens.
            image: a CT.
            label: mask on the CT's grid; an array (k, j, i) is taken to be on it. 0 is none, other numbers lesions.
            anatomy: organ labels (TotalSegmentator numbers), in the same way.
            patient: cases of one patient are never split; ``name`` where it is not given.
            region: region class, "none", or None for an automatic guess.
            source: SHA-256 of the files it comes from, if it comes from files.
            labels: what the numbers in the mask stand for, as in a datalist: a name, or an object with ``name``,
                ``color``, ``terminology``. The same name has the same number in all cases, so numbers of the mask may
                change. Without it they stay as they are.

        Raises:
            InputError: no CT, a mask on another grid or of values that are no labels, or the name is taken.
            OutputError: the folder cannot be written.
        """
        name = folder_name(name)
        check_ct(image)
        volumes = {IMAGE: image}
        for kind, source_map in ((LABEL, label), (ANATOMY, anatomy)):
            if source_map is not None:
                volumes[kind] = check_label_map(source_map, image, "organ map" if kind == ANATOMY else "mask")
        self._refuse_taken(name)
        record: dict[str, Any] = {
            "format": FORMAT,
            "name": name,
            "patient": patient or name,
            "region": region,
            "source": source,
        }
        sweep(self.folder)
        sweep(self.folder / "cases")
        if labels and LABEL in volumes:
            with self._numbering():
                volumes[LABEL], record["named"] = self._numbered(volumes[LABEL], labels)
                self._publish(name, volumes, record)
        else:
            self._publish(name, volumes, record)
        self._write_index()
        return _read_case(self.folder / "cases" / name, self._validating())

    def labels(self) -> dict[int, SegmentLabel]:
        """Names of the label numbers, as far as any case or ``dataset.json`` says.

        Raises:
            InputError: ``dataset.json`` names a label in a way that cannot be understood.
        """
        labels: dict[int, SegmentLabel] = {}
        for case in self.cases():
            for label in case.named:
                known = labels.setdefault(label.value, label)
                labels[label.value] = replace(known, terminology=known.terminology or label.terminology)
        named = labels_in(self.folder / "dataset.json")
        return {**labels, **{value: SegmentLabel.from_dict(value, row) for value, row in named.items()}}

    @contextlib.contextmanager
    def _numbering(self) -> Iterator[None]:
        """Two processes that add cases at the same time must not give one number to two names."""
        from ..core.file_lock import locked

        try:
            with locked(self.folder, ".numbering.lock", NUMBERING_SECONDS):
                yield
        except BlockingIOError as error:
            raise OutputError(f"Another process is adding cases to {self.folder}.", "Try again.") from error

    def _numbered(self, label: Volume, label_names: Mapping[int, Any]) -> tuple[Volume, dict[str, Any]]:
        """The mask with the numbers that its labels have in all cases, and what they stand for."""
        present = [int(n) for n in np.unique(label.voxels) if n]
        own = {number: SegmentLabel.from_dict(number, label_names.get(number)) for number in present}
        taken = {number for case in self.cases() for number in case.labels}
        numbers = shared_numbers(own, self.labels(), taken)
        table = np.zeros(max(present, default=0) + 1, np.int16)
        for number, shared in numbers.items():
            table[number] = shared.value
        named = {str(shared.value): shared.as_dict() for shared in numbers.values()}
        return label.with_voxels(table[label.voxels]), named

    def remove(self, name: str) -> None:
        """Remove a case with its files.

        Raises:
            InputError: there is none of that name.
            OutputError: no permission.
        """
        case = self.folder / "cases" / folder_name(name)
        if folder_name(name) != name or not case.is_dir():
            raise InputError(f"There is no case '{name}' in {self.folder}.", "See `meddifffm dataset list`.")
        with _writing(self.folder):
            gone = case.with_name(f".{owned_name()}.removed")
            os.replace(case, gone)
            shutil.rmtree(gone)
        self._write_index()

    def split(self, validation: float = 0.2, seed: int = 0) -> dict[str, list[str]]:
        """Choose patients for validation; a patient's cases stay together, new patients train until the next split.

        The same patients, share and seed always give the same split, in whatever order the cases were added.

        Args:
            validation: share of the patients, at least one of them.

        Returns:
            Names of the cases by split.

        Raises:
            InputError: fewer than two patients, or a share that is not between 0 and 1.
        """
        chosen = choose_patients([case.patient for case in self.cases()], validation, seed)
        self.set_validation(chosen)
        return {split: [case.name for case in self.cases() if case.split == split] for split in SPLITS}

    def set_validation(self, patients: list[str]) -> None:
        """Let these patients validate and all others train."""
        write_json({**self._settings(), "validation": sorted(patients)}, self.folder / "dataset.json", overwrite=True)
        self._write_index()

    def _settings(self) -> dict[str, Any]:
        """``dataset.json``; a lost one costs the title and the split, not the cases."""
        try:
            content = read_json(self.folder / "dataset.json")
        except (OSError, ValueError):
            content = None
        content = content if isinstance(content, dict) else {}
        named = content.get("validation")
        patients = [patient for patient in named if plain_path(patient)] if isinstance(named, list) else []
        title = content["title"] if plain_path(content.get("title")) else self.folder.name
        names = {"labels": content["labels"]} if isinstance(content.get("labels"), dict) else {}
        return {"format": FORMAT, "title": title, "validation": patients, **names}

    def _validating(self) -> set[str]:
        return set(self._settings()["validation"])

    def _refuse_taken(self, name: str) -> None:
        """Some file systems do not tell upper from lower case."""
        for path in (self.folder / "cases").iterdir():
            if path.name.lower() == name.lower():
                raise InputError(
                    f"There is a case '{path.name}' in {self.folder} already.",
                    "Choose another name, or remove that case first.",
                )

    def _publish(self, name: str, volumes: dict[str, Volume], record: dict[str, Any]) -> None:
        """Write a case into a hidden folder, then rename it."""
        cases = self.folder / "cases"
        partial = cases / f".{owned_name()}.partial"
        try:
            with _writing(self.folder):
                partial.mkdir()
                hashes = {}
                for kind, volume in volumes.items():
                    write_volume(volume, partial / f"{kind}.nrrd", mask=kind != IMAGE)
                    hashes[kind] = file_sha256(partial / f"{kind}.nrrd")
                labels = [int(n) for n in np.unique(volumes[LABEL].voxels) if n] if LABEL in volumes else []
                shape = {k: v for k, v in geometry(volumes[IMAGE]).items() if k != "ijk_to_ras"}
                write_json({**record, "hashes": hashes, "labels": labels, **shape}, partial / "case.json")
                for path in (*partial.iterdir(), partial):
                    _flush(path)
                try:
                    os.rename(partial, cases / name)
                except OSError:
                    self._refuse_taken(name)  # another process was faster
                    raise
                _flush(cases)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _write_index(self) -> None:
        """``datalist.json`` from the case folders."""
        rows: dict[str, Any] = {split: [] for split in SPLITS}
        for case in self.cases():
            files = {kind: path.relative_to(self.folder).as_posix() for kind, path in case.files.items()}
            row = {**files, "name": case.name, "patient": case.patient}
            rows[case.split].append(row if case.region is None else {**row, "region": case.region})
        labels = {str(value): label.as_dict() for value, label in self.labels().items()}
        write_json({**({"labels": labels} if labels else {}), **rows}, self.folder / "datalist.json", overwrite=True)


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a dataset; one whose ``dataset.json`` was lost still is."""
    return (folder / "cases").is_dir()


def choose_patients(patients: list[str], share: float, seed: int) -> list[str]:
    """Patients for validation: those first in the order of a hash of seed and name.

    Raises:
        InputError: fewer than two patients, or a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"A share of {share:g} for validation is not possible.", "Give a share such as 0.2.")
    different = sorted(set(patients), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    if len(different) < 2:
        raise InputError(
            f"{len(different)} patient cannot be split." if different else "There is no case to split.",
            "Add cases of at least two patients: one to train, one to validate.",
        )
    return different[: min(max(round(share * len(different)), 1), len(different) - 1)]


def check_label_map(source: Volume | np.ndarray, image: Volume, kind: str = "mask") -> Volume:
    """Labels of any type as integers on the CT's grid.

    Raises:
        InputError: another grid than the CT's, or values that are no labels.
    """
    label = source if isinstance(source, Volume) else Volume(np.asarray(source), image.ijk_to_ras, "mask")
    _check_grid(label, image, kind)
    if any(len(segment.numbers) > 1 for segment in label.segments):
        raise InputError(
            f"Segments of the {kind} overlap: {listed(label.segments)}.",
            "Export it from Slicer as a label map, or give the segments as masks of their own.",
        )
    voxels = np.asarray(label.voxels)
    numbers = voxels.astype(np.uint8) if voxels.dtype == bool else voxels
    if numbers.dtype.kind == "f" and not (np.isfinite(numbers).all() and np.array_equal(numbers, np.rint(numbers))):
        raise InputError(f"The {kind} holds values that are no whole numbers.", "Threshold it, and save it as labels.")
    if numbers.size and (numbers.min() < 0 or numbers.max() > LARGEST_LABEL):
        raise InputError(
            f"The {kind} holds values from {numbers.min():g} to {numbers.max():g}.",
            f"Use 0 for none and label numbers up to {LARGEST_LABEL}; check that it is not the CT itself.",
        )
    return Volume(numbers.astype(np.int16), image.ijk_to_ras, "mask")


def _check_grid(label: Volume, image: Volume, kind: str) -> None:
    """Refuse a mask that lies elsewhere than the CT."""
    remedy = "Resample it onto the CT (nearest neighbor), or export the segmentation with the CT as reference volume."
    if label.voxels.shape != image.voxels.shape:
        sizes = [" x ".join(map(str, volume.voxels.shape[::-1])) for volume in (label, image)]
        raise InputError(f"The {kind} has {sizes[0]} voxels, the CT {sizes[1]}.", remedy)
    if not label.same_geometry(image):
        distance = f"{label.apart(image):.3g} mm away"
        raise InputError(f"The {kind} has the CT's number of voxels but lies elsewhere, up to {distance}.", remedy)


def _read_case(folder: Path, validating: set[str]) -> DatasetCase:
    """A case from its folder."""
    record = read_json(folder / "case.json")
    files = {kind: folder / f"{kind}.nrrd" for kind in record["hashes"]}
    rows = record.get("named", {}).items()  # there is none in datasets of before
    named = tuple(SegmentLabel.from_dict(int(value), row) for value, row in rows)
    if not files.keys() <= {IMAGE, LABEL, ANATOMY}:
        raise ValueError("it names unknown files")
    check_fields(DatasetCase, {name: record[name] for name in ("name", "patient", "source")})
    names = [label.name for label in named]
    texts = (*names, record["patient"], "" if record["region"] is None else record["region"], record["source"])
    if not all(plain_path(text) for text in texts) or any(type(n) is not int for n in record["labels"]):
        raise ValueError("its region or labels are none")
    if IMAGE not in files or not all(path.is_file() for path in files.values()):
        raise ValueError("a file of the case is missing")
    return DatasetCase(
        name=folder.name,
        patient=record["patient"],
        split="validation" if record["patient"] in validating else "training",
        region=record["region"],
        files=files,
        shape=tuple(map(int, record["shape_ijk"])),
        spacing=tuple(map(float, record["spacing_mm"])),
        labels=tuple(record["labels"]),
        named=named,
        hashes=record["hashes"],
        source=record["source"],
    )


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Failures of the file system as an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"The dataset {folder} cannot be changed: {reason_of(error)}.",
            "Free some space or check the permissions; the cases in it are intact.",
        ) from error


def _flush(path: Path) -> None:
    """Make a file, or a folder's list of names, survive a power failure; Windows opens no folders."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
