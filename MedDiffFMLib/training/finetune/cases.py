"""Cases of a fine-tuning run: the cache of ``prepare``, and the lesions of each mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic_files import atomic_path
from ...core.errors import InputError
from ...core.json_files import write_json
from ...core.progress import CancelToken
from ...core.safe_load import load_array
from ...datasets.datalist import SPLITS, Entry
from ...datasets.dataset_folder import ANATOMY, LABEL
from ...datasets.prepare import prepare
from ...datasets.prepared_cases import open_cases
from ...imaging.grid import to_grid, working_grid
from ...imaging.io import read_unchanged, source_of
from .interface import ControlCase

INDEX = "finetune.json"
MOST_LESIONS = 255


@dataclass(frozen=True)
class StoredMask:
    """A mask that is mapped whenever it is looked at: a map that is kept holds a file descriptor, and is sent to
    other processes as a whole."""

    path: Path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(load_array(self.path, "r"), dtype=dtype)

    def __getitem__(self, part: Any) -> np.ndarray:
        """A part of the mask; no more of the file is read."""
        return np.array(np.load(self.path, mmap_mode="r")[part])


def prepare_cases(
    entries: list[Entry],
    folder: Path,
    labels: tuple[int, ...],
    masks: bool,
    *,
    keep_labels: bool = False,
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> None:
    """Make or complete the cache of a fine-tuning run; finished cases are kept.

    Args:
        labels: numbers in the masks that count; empty for all.
        masks: whether the masks are needed.
        keep_labels: store the masks' own numbers; else those of their connected parts.

    Raises:
        InputError: a case cannot be used after all.
        OutputError: the cache cannot be written.
    """
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for entry in entries:
        row = {"image": str(entry.image.resolve()), "name": entry.name, "patient": entry.patient}
        anatomy = entry.file(ANATOMY)
        row |= {} if anatomy is None else {"anatomy": str(anatomy.resolve())}
        rows[entry.split].append(row | ({} if entry.region is None else {"region": entry.region}))
    write_json(rows, folder / "datalist.json", overwrite=True)
    for summary in prepare(folder / "datalist.json", folder, tissue=False, report=report, cancel=cancel):
        if summary.state == "skipped":
            raise InputError(f"{summary.name} cannot be prepared: {summary.reason}", "Mend the case, or remove it.")
    named = {entry.name: _prepare_mask(entry, folder, labels, keep_labels) for entry in entries} if masks else {}
    described = [
        [e.name, e.split, e.patient, json.loads((folder / e.name / "case.json").read_text(encoding="utf-8"))["source"]]
        for e in entries
    ]
    digest = hashlib.sha256(json.dumps([described, named]).encode()).hexdigest()
    write_json({"sha256": digest, "masks": named}, folder / INDEX, overwrite=True)


def data_sha256(folder: Path) -> str:
    """SHA-256 of everything that decides about the samples."""
    return str(_index(folder)["sha256"])


def open_control_cases(folder: Path, split: str) -> list[ControlCase]:
    """The prepared cases of a split; those with an empty mask are left out.

    Raises:
        InputError: the cache is not complete.
    """
    masks = _index(folder)["masks"]
    if not masks:
        return [ControlCase(case) for case in open_cases(folder, split)]
    cases = []
    for case in open_cases(folder, split):
        mask = StoredMask(folder.absolute() / case.name / masks[case.name])
        if np.asarray(mask).any():
            cases.append(ControlCase(case, mask))
    return cases


def number_lesions(mask: np.ndarray, labels: tuple[int, ...] = ()) -> np.ndarray:
    """Label map -> uint8 in which each connected part of each label has its own number, the largest parts first.

    Args:
        labels: numbers that count; empty for all above 0.
    """
    from scipy import ndimage

    parts = []
    for value in labels or tuple(int(n) for n in np.unique(mask) if n > 0):
        connected, count = ndimage.label(mask == value, structure=np.ones((3, 3, 3)))
        boxes = ndimage.find_objects(connected)
        sizes = np.bincount(connected.ravel(), minlength=count + 1)[1:]
        parts += [(int(sizes[n]), box, connected[box] == n + 1) for n, box in enumerate(boxes)]
    parts.sort(key=lambda part: -part[0])
    numbered = np.zeros(mask.shape, np.uint8)
    for number, (_, box, inside) in enumerate(parts[:MOST_LESIONS], start=1):
        numbered[box][inside] = number
    return numbered


def _prepare_mask(entry: Entry, folder: Path, labels: tuple[int, ...], keep_labels: bool) -> str:
    """Name of the file beside the prepared case that holds its mask, on the grid of its finest level."""
    path = entry.file(LABEL)
    if path is None:
        raise InputError(f"{entry.name} has no mask.", 'Name one under "label".')
    sha256 = source_of(path).sha256
    stamp = f"{sha256} {sorted(labels)}"
    name = f"{'labels' if keep_labels else 'lesions'}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.npy"
    if not (folder / entry.name / name).exists():
        mask = read_unchanged(path, sha256, "mask")
        turned = to_grid(mask, working_grid(mask, None), order=0, fill=0).astype(np.int32)
        with atomic_path(folder / entry.name / name) as temporary, open(temporary, "wb") as stream:
            np.save(stream, _chosen(turned, labels) if keep_labels else number_lesions(turned, labels))
    return name


def _chosen(mask: np.ndarray, labels: tuple[int, ...]) -> np.ndarray:
    """The numbers that count, uint16."""
    return np.where(np.isin(mask, labels) if labels else mask > 0, mask, 0).astype(np.uint16)


def _index(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The prepared cases in {folder} are not complete ({error}).", "Start again; finished cases are kept."
        ) from error
