"""Datasets of nnU-Net (version 2, ``nnUNet_raw/DatasetXXX_Name``): read as a datalist, and written.

::

    dataset.json                channels, names and numbers of the labels, file ending
    imagesTr/CASE_0000.nii.gz   the CT; further channels are not read
    labelsTr/CASE.nii.gz        label map, numbers without a gap
    splits_final.json           written beside, for nnUNet_preprocessed/DatasetXXX_Name: one fold, our split
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, OutputError, reason_of
from ..core.json_files import write_json
from ..core.safe_load import read_json
from ..imaging.io import read_volume, write_volume
from ..imaging.volume import Volume

ENDING = ".nii.gz"
_FOLDER = re.compile(r"Dataset\d{3}_\w+")
_CT = ("ct", "CT")


def is_nnunet(content: Mapping[str, Any]) -> bool:
    """Whether a ``dataset.json`` is one of nnU-Net's, of version 2."""
    return "channel_names" in content and isinstance(content.get("file_ending"), str)


def nnunet_rows(folder: Path, content: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The cases of a dataset as a datalist: all for training, or as ``splits_final.json`` beside it splits them.

    Raises:
        InputError: the first channel is no CT, or there are no images.
    """
    channels, ending = content["channel_names"], content["file_ending"]
    first = str(channels.get("0", "")) if isinstance(channels, Mapping) else ""
    if first not in _CT:
        raise InputError(f"Channel 0 of {folder.name} is {first!r:.40}, not CT.", "Use a dataset of CTs.")
    mark = f"_0000{ending}"
    images = sorted(path for path in (folder / "imagesTr").glob(f"*{mark}"))
    if not images:
        raise InputError(f"There is no *{mark} in {folder / 'imagesTr'}.", "Name the folder of a raw dataset.")
    validating = _validating(folder)
    rows: dict[str, list[dict[str, Any]]] = {"training": [], "validation": []}
    for image in images:
        name = image.name.removesuffix(mark)
        label = folder / "labelsTr" / f"{name}{ending}"
        row = {"image": image.relative_to(folder).as_posix(), "name": name}
        row |= {"label": label.relative_to(folder).as_posix()} if label.is_file() else {}
        rows["validation" if name in validating else "training"].append(row)
    return rows


def _validating(folder: Path) -> set[str]:
    """Cases of the first fold's validation; none where no split is given."""
    try:
        return {str(name) for name in read_json(folder / "splits_final.json")[0]["val"]}
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return set()


def label_names(labels: Mapping[str, Any]) -> dict[int, str]:
    """Number -> name from ``labels`` of nnU-Net, which has it the other way around.

    Regions, that is several numbers for one name, name none of them.
    """
    return {value: str(name) for name, value in labels.items() if isinstance(value, int) and value > 0}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        cases: with a label map.
        left_out: names of those without one, which nnU-Net cannot use.
        labels: name -> number.
    """

    cases: int
    left_out: tuple[str, ...]
    labels: dict[str, int]


def write_nnunet(
    cases: Sequence[Any],
    names: Mapping[int, str],
    folder: Path,
    title: str = "",
    report: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write a raw dataset; ``dataset.json`` comes last, so where it exists everything does.

    Args:
        cases: with ``name``, ``split``, ``files`` (paths under "image" and "label") and ``labels`` (numbers).
        names: what the numbers stand for, as far as known.
        folder: called ``DatasetXXX_Name``, which must not exist.

    Raises:
        InputError: no case has a label map, or the folder has another name.
        OutputError: it exists, or cannot be written.
    """
    if not _FOLDER.fullmatch(folder.name):
        raise InputError(f"'{folder.name}' is no name of nnU-Net's.", "Call the folder as in Dataset501_Lesions.")
    used = [case for case in cases if "label" in case.files]
    numbers = sorted({number for case in used for number in case.labels})
    if not numbers:
        raise InputError("No case has a label.", "Add masks first.")
    table = np.zeros(max(numbers) + 1, np.uint8)
    table[numbers] = np.arange(1, len(numbers) + 1)
    labels = {"background": 0, **{_label(number, names): int(table[number]) for number in numbers}}
    try:
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True)
        for case in used:
            image, mask = read_volume(case.files["image"]), read_volume(case.files["label"], "mask")
            write_volume(image, folder / "imagesTr" / f"{case.name}_0000{ENDING}")
            label = Volume(table[np.asarray(mask.voxels)], image.ijk_to_ras, "mask")
            write_volume(label, folder / "labelsTr" / f"{case.name}{ENDING}", mask=True)
            report(f"{case.name}: written")
        split = {name: [c.name for c in used if c.split == ours] for name, ours in _SPLIT_NAMES.items()}
        if split["val"]:
            write_json([split], folder / "splits_final.json")  # type: ignore[arg-type]
        description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(used), "file_ending": ENDING}
        write_json({"name": title or folder.name, **description}, folder / "dataset.json")
    except OSError as problem:
        remedy = "Remove it, or choose another folder."
        raise OutputError(f"'{folder}' cannot be written: {reason_of(problem)}.", remedy) from problem
    left_out = tuple(case.name for case in cases if case not in used)
    return Exported(len(used), left_out, labels)


_SPLIT_NAMES = {"train": "training", "val": "validation"}


def _label(number: int, names: Mapping[int, str]) -> str:
    return names.get(number, f"label {number}")
