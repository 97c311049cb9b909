"""Datalists: MONAI decathlon JSON with the CTs of a training run and their metadata."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.safe_load import plain_path, read_json
from .nnunet import is_nnunet, nnunet_rows

SPLITS = ("training", "validation")
_EXAMPLE = 'Expected {"training": [{"image": "ct.nii.gz"}, ...], "validation": [...]}.'
_FILE_KEYS = ("label", "anatomy", "mr")
_LONGEST_NAME = 120
"""Bytes; file systems take 255, and temporary names are longer."""
_SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip", ".dcm")


@dataclass(frozen=True)
class Entry:
    """One CT of a datalist.

    Attributes:
        name: unique, fit for a folder name.
        split: key of the datalist it stands under.
        image: file or DICOM folder.
        patient: cases of one patient must stay in one split; the name where the datalist does not say.
        region: region class, "none" for no single one, None for an automatic guess.
        files: paths of the datalist's other keys by key, such as "label", "anatomy" and "mr".
        native: whether the voxels are a scanner's own, neither resampled nor smoothed.
    """

    name: str
    split: str
    image: Path
    patient: str
    region: str | None
    files: dict[str, Path]
    native: bool = True

    def file(self, key: str) -> Path | None:
        """Path under a key, None where there is none."""
        return self.files.get(key)


def read_datalist(path: str | Path, splits: tuple[str, ...] = SPLITS) -> list[Entry]:
    """The CTs of some splits of a datalist, in its order; relative paths count from the datalist's folder.

    The ``dataset.json`` of a raw dataset of nnU-Net is a datalist, too.

    Raises:
        InputError: not a datalist, a row without image, two cases of one name, or no case at all.
    """
    path = Path(path)
    content = _read_json(path)
    if is_nnunet(content):
        content = nnunet_rows(path.parent, content)
    rows: list[tuple[str, dict[str, Any]]] = []
    for split in splits:
        part = content.get(split, [])
        if not isinstance(part, list):
            raise InputError(f"'{split}' in {path.name} is not a list.", _EXAMPLE)
        for row in part:
            row = {"image": row} if isinstance(row, str) else row
            if not isinstance(row, dict) or not plain_path(row.get("image")):
                raise InputError(f"Row {len(rows) + 1} of {path.name} ('{split}') names no image.", _EXAMPLE)
            odd = [key for key in _FILE_KEYS if row.get(key) and not plain_path(row[key])]
            if odd:
                raise InputError(f"Row {len(rows) + 1} of {path.name} ('{split}') has no file as '{odd[0]}'.", _EXAMPLE)
            if not isinstance(row.get("native", True), bool):
                raise InputError(
                    f"Row {len(rows) + 1} of {path.name} ('{split}') says neither true nor false for 'native'.",
                    _EXAMPLE,
                )
            rows.append((split, row))
    if not rows:
        raise InputError(f"{path.name} names no CT under {' or '.join(splits)}.", _EXAMPLE)
    stems = Counter(_stem(row) for _, row in rows)
    entries = [_entry(path.parent, split, row, stems[_stem(row)] > 1) for split, row in rows]
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            raise InputError(
                f"{path.name} names {count} cases '{name}'.", 'Name each CT once, or give each its own "name".'
            )
    return entries


def refuse_shared_patients(entries: list[Entry]) -> None:
    """Raise InputError if a patient or an image file stands in two splits: validation would measure memory."""
    for shared, key in (("Patient", lambda e: e.patient), ("The image", lambda e: str(e.image.resolve()))):
        seen: dict[str, Entry] = {}
        for entry in entries:
            first = seen.setdefault(key(entry), entry)
            if first.split != entry.split:
                raise InputError(
                    f"{shared} '{key(entry)}' is in two splits: {first.name} in {first.split}, "
                    f"{entry.name} in {entry.split}.",
                    "Keep all cases of a patient in one split.",
                )


def _read_json(path: Path) -> dict[str, Any]:
    """The datalist's top level."""
    try:
        content = read_json(path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"The datalist {path} cannot be read: {reason}.", "Check the path.") from error
    except ValueError as error:
        raise InputError(f"The datalist {path.name} is not JSON ({error}).", _EXAMPLE) from error
    if not isinstance(content, dict):
        raise InputError(f"The datalist {path.name} has no splits.", _EXAMPLE)
    return content


def _entry(folder: Path, split: str, row: dict[str, Any], ambiguous: bool) -> Entry:
    """One row; files that share a name in different folders are distinguished by their whole path."""
    name = folder_name(str(row.get("name") or (row["image"] if ambiguous else _stem(row))))
    region = None if row.get("region") is None else str(row["region"])
    patient = str(row.get("patient") or name)
    files = {key: folder / value for key, value in row.items() if key in _FILE_KEYS and value}
    return Entry(name, split, folder / row["image"], patient, region, files, row.get("native", True))


def folder_name(name: str) -> str:
    """A case's name with only what every file system takes; a very long one is cut and gets a hash."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "case"
    encoded = plain.encode()
    if len(encoded) <= _LONGEST_NAME:
        return plain
    return f"{encoded[: _LONGEST_NAME - 13].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _stem(row: dict[str, Any]) -> str:
    """File name without the suffix of a known format."""
    name = Path(row["image"]).name
    return next((name[: -len(suffix)] for suffix in _SUFFIXES if name.lower().endswith(suffix)), name)
