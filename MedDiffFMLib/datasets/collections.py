"""Public collections as they are downloaded: which files of them make a datalist. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.atomic_files import atomic_path
from ..core.errors import InputError

HELD_OUT = 0.1
"""Share of the patients that validate where the collection names none."""
_CT_RATE = re.compile(r"(train|valid)_(\d+)_([a-z]+)_(\d+)\.nii\.gz")
Row = dict[str, Any]


@dataclass(frozen=True)
class Collection:
    """One collection.

    Attributes:
        title: for users.
        layout: where its files lie, for messages.
        rows: of a folder: split ("" where the collection has none) and row of the datalist.
        license: what to know before training on it.
    """

    title: str
    layout: str
    rows: Callable[[Path], list[tuple[str, Row]]]
    license: str


def _synthrad(folder: Path) -> list[tuple[str, Row]]:
    """Folders with an MR and a CT: task 1. Those of task 2 have a cone-beam CT instead."""
    found = []
    for mr in sorted(folder.rglob("mr.mha")):
        ct = mr.with_name("ct.mha")
        if ct.is_file():
            name = mr.parent.name
            found.append(("", {"image": ct, "mr": mr, "patient": name, "name": name, "native": False}))
    return found


def _ct_rate(folder: Path) -> list[tuple[str, Row]]:
    """The first reconstruction of each scan; the collection's own validation patients validate."""
    scans: dict[str, tuple[int, str, Row]] = {}
    for path in sorted(folder.rglob("*.nii.gz")):
        match = _CT_RATE.fullmatch(path.name)
        if match is None:
            continue
        split, number, scan, reconstruction = match.groups()
        name = f"{split}_{number}_{scan}"
        row = {"image": path, "patient": f"{split}_{number}", "name": name, "region": "chest"}
        kept = scans.get(name)
        if kept is None or int(reconstruction) < kept[0]:
            scans[name] = (int(reconstruction), "validation" if split == "valid" else "training", row)
    return [(split, row) for _, split, row in scans.values()]


COLLECTIONS = {
    "synthrad2025": Collection(
        "SynthRAD2025",
        "Task1/REGION/PATIENT/ct.mha and mr.mha",
        _synthrad,
        "CC BY-NC 4.0: not for commercial use; read with care, nor are weights that were trained on it.",
    ),
    "ct-rate": Collection(
        "CT-RATE",
        "dataset/train_fixed/train_1/train_1_a/train_1_a_1.nii.gz",
        _ct_rate,
        "CC BY-NC-SA 4.0 after an agreement with its owners: ask them before weights trained on it leave your house.",
    ),
}


def write_datalist(folder: Path, collection: str, path: Path) -> dict[str, int]:
    """Write the datalist of a collection that was downloaded to a folder; gives the number of rows of each split.

    Where the collection names no patients for validation, a tenth is chosen by a hash of their names, so that the
    choice is the same everywhere.

    Raises:
        InputError: none of the collection's files is there, or all patients validate.
        OutputError: the list cannot be written.
    """
    kind = COLLECTIONS[collection]
    lists: dict[str, list[Row]] = {"training": [], "validation": []}
    for split, row in kind.rows(folder):
        chosen = split or ("validation" if _share(str(row["patient"])) < HELD_OUT else "training")
        lists[chosen].append({key: str(v.resolve()) if isinstance(v, Path) else v for key, v in row.items()})
    if not lists["training"]:
        raise InputError(f"'{folder}' holds no training case of {kind.title}.", f"Name the folder above {kind.layout}.")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(lists, indent=1), encoding="utf-8")
    return {split: len(rows) for split, rows in lists.items()}


def _share(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
