"""The cases of an evaluation, from a datalist or a folder, cut to a slab that a CPU can work through."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...core.errors import InputError
from ...imaging.volume import Volume
from .ldct_benchmark import WINDOWS

IMAGE_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")


@dataclass(frozen=True)
class Case:
    """One CT to evaluate on.

    Attributes:
        name: unique; also the seed of everything random about the case.
        image: file or DICOM folder.
        patient: cases of one patient are no independent evidence and are drawn together by the bootstrap.
        lesion: label file on the image's grid, None where no real lesion is outlined.
        lesion_labels: values of ``lesion`` that are lesions, empty for all above 0.
        region: region class; None for a guess from the image.
        window: display window of :mod:`.ldct_benchmark`; that of the region when not given.
        mr: T1-weighted MR of the same patient, for translation.
    """

    name: str
    image: Path
    patient: str = ""
    lesion: Path | None = None
    lesion_labels: tuple[int, ...] = ()
    region: str | None = None
    window: str | None = None
    mr: Path | None = None


@dataclass(frozen=True)
class LoadedCase:
    """A case's voxels on a grid whose k axis runs along the patient.

    Attributes:
        volume: CT, float32 HU, (k, j, i), LPS.
        lesions: uint8 labels of real lesions on the same grid, 0 everywhere where none is outlined.
        body: bool, under the skin.
    """

    case: Case
    volume: Volume
    lesions: np.ndarray
    body: np.ndarray

    @cached_property
    def digest(self) -> str:
        """Short hash of voxels, lesions and geometry."""
        digest = hashlib.sha256()
        for array in (self.volume.voxels, self.lesions, self.volume.ijk_to_ras):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def read_cases(source: str | Path) -> list[Case]:
    """Cases from a datalist or a folder.

    A datalist is MONAI decathlon JSON: ``{"testing": [{"image": "a.nrrd", "lesion": "a_mask.nrrd",
    "lesion_labels": [1], "name": "a", "patient": "p1", "region": "chest"}, ...]}``; only ``image`` is needed, paths are
    relative to the file, and a list alone or the keys ``test`` and ``validation`` are read too. A folder gives every
    volume in it; ``X_lesion.nrrd`` beside ``X.nrrd`` outlines its real lesions.
    """
    source = Path(source)
    if source.is_dir():
        cases = _folder_cases(source)
    elif source.suffix == ".json" and source.is_file():
        cases = _datalist_cases(source)
    else:
        raise InputError(f"{source} is neither a folder nor a datalist.", "Give a folder of CTs or a .json datalist.")
    if not cases:
        raise InputError(f"{source} names no CT.", f"Expected files ending in {', '.join(IMAGE_SUFFIXES)}.")
    names = [case.name for case in cases]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise InputError(f"Two cases in {source} are called {double}.", "Give each case its own name.")
    return cases


def load_case(case: Case, slab_mm: float | None) -> LoadedCase:
    """Read a case and keep a slab of ``slab_mm`` along the patient around its real lesion, else around its middle."""
    from ...imaging.grid import to_grid, working_grid
    from ...imaging.io import read_volume
    from .regions import body_mask

    original = read_volume(case.image)
    grid = working_grid(original, None)
    volume = Volume(to_grid(original, grid).astype(np.float32), grid.ijk_to_ras)
    lesions = np.zeros(volume.voxels.shape, dtype=np.uint8)
    if case.lesion is not None:
        outlined = read_volume(case.lesion, modality="mask")
        if not outlined.same_geometry(original):
            raise InputError(f"{case.lesion} is not on the grid of {case.image}.", "Resample the mask to the CT.")
        labels = to_grid(replace(outlined, voxels=outlined.voxels.astype(np.float32)), grid, order=0, fill=0)
        lesions = np.rint(labels).astype(np.uint8)
        if case.lesion_labels:
            lesions[~np.isin(lesions, case.lesion_labels)] = 0
    if slab_mm is not None:
        volume, lesions = _slab(volume, lesions, slab_mm)
    return LoadedCase(case, volume, lesions, body_mask(volume.voxels, volume.spacing))


def _slab(volume: Volume, lesions: np.ndarray, slab_mm: float) -> tuple[Volume, np.ndarray]:
    """Slices of at most ``slab_mm``, around the lesions or the middle."""
    slices = volume.voxels.shape[0]
    kept = min(slices, max(1, int(slab_mm / volume.spacing[2] + 1e-3)))
    marked = np.flatnonzero(lesions.any(axis=(1, 2)))
    middle = (marked[0] + marked[-1] + 1) / 2 if marked.size else slices / 2
    start = int(np.clip(round(middle - kept / 2), 0, slices - kept))
    moved = volume.ijk_to_ras.copy()
    moved[:3, 3] += start * volume.ijk_to_ras[:3, 2]
    part = np.ascontiguousarray(volume.voxels[start : start + kept])
    return Volume(part, moved, volume.modality), np.ascontiguousarray(lesions[start : start + kept])


def _folder_cases(folder: Path) -> list[Case]:
    files = [f for f in sorted(folder.iterdir()) if f.name.lower().endswith(IMAGE_SUFFIXES)]
    stems = {_stem(f): f for f in files}
    return [
        Case(stem, file, patient=stem, lesion=stems.get(f"{stem}_lesion"))
        for stem, file in stems.items()
        if not stem.endswith(("_lesion", "_mask", "_seg"))
    ]


def _datalist_cases(file: Path) -> list[Case]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}).", "Give a MONAI decathlon datalist.") from error
    if isinstance(content, dict):
        content = [row for key in ("testing", "test", "validation") for row in content.get(key, [])]
    if not isinstance(content, list) or not all(isinstance(row, dict | str) for row in content):
        raise InputError(f"{file} has no list of cases.", 'Expected {"testing": [{"image": ...}, ...]}.')
    rows = [{"image": row} if isinstance(row, str) else row for row in content]
    if not all("image" in row for row in rows):
        raise InputError(f"A case in {file} has no image.", 'Each case needs at least {"image": path}.')
    cases = []
    for row in rows:
        image = file.parent / row["image"]
        name = str(row.get("name") or _stem(image))
        lesion = file.parent / row["lesion"] if row.get("lesion") else None
        labels = tuple(int(v) for v in row.get("lesion_labels", ()))
        window = row.get("window")
        if window not in (None, *WINDOWS):
            raise InputError(f"{name} in {file} has a window called {window!r}.", f"Choose from: {', '.join(WINDOWS)}.")
        mr = file.parent / row["mr"] if row.get("mr") else None
        cases.append(Case(name, image, str(row.get("patient") or name), lesion, labels, row.get("region"), window, mr))
    return cases


def _stem(file: Path) -> str:
    name = file.name
    suffix = next((s for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), file.suffix)
    return name[: len(name) - len(suffix)] if suffix else name
