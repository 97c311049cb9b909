"""Packed cases: a prepared cache as one small file, for a machine that is rented by the minute.

Of each case only the box of the body is kept, and of its HU their differences along the rows, low and high bytes
apart, which bzip2 makes a third of: a hundred CTs take some 80 MB. What is unpacked is a cache like any other; inside
the box it holds the same numbers, unless HU were rounded on request.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.atomic_files import atomic_path
from ..core.errors import InputError
from ..core.safe_load import load_array, plain_name, read_json
from .datalist import SPLITS

MARGIN_SHARE, MARGIN_MM = 0.15, 10.0
"""Kept around the body: what a window of the whole body may show beyond it, and a little more."""


@dataclass
class Packed:
    """Contents of a pack.

    Attributes:
        cases: names by split.
        left_out: names for which there was no room.
        bytes: of the file.
        voxels: of all levels.
    """

    cases: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    bytes: int = 0
    voxels: int = 0


def pack_cache(
    cache: Path, target: Path, *, most: int | None = None, rounded: int = 1, splits: Sequence[str] = SPLITS
) -> Packed:
    """Write ``target``.

    Args:
        cache: folder made by ``meddifffm prepare``.
        most: bytes that it may have. Half of them are for cases with a scanner's own voxels, the smallest first, and
            what is left for the others, the smallest first: as many patients as possible.
        rounded: keep HU in steps of so many; 4 adds an error of 1.2 HU and halves what noisy scans take.

        splits: which to take along. Those of the validation are never left out for want of room.

    Raises:
        InputError: ``cache`` is none.
        OutputError: the file cannot be written.
    """
    index = {split: names if split in splits else [] for split, names in _index(cache).items()}
    names = [name for split in SPLITS for name in index[split]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        members = dict(zip(names, pool.map(lambda name: _case(cache / name, rounded), names), strict=True))
    taken = _taken(index, members, most)
    packed = Packed({split: [name for name in index[split] if name in taken] for split in SPLITS})
    packed.left_out = [name for name in names if name not in taken]
    with atomic_path(target, overwrite=True) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("cases.json", json.dumps(packed.cases))
        for name in (name for names in packed.cases.values() for name in names):
            packed.voxels += members[name].voxels
            for part, data in members[name].files.items():
                archive.writestr(f"{name}/{part}", data)
    packed.bytes = target.stat().st_size
    return packed


def unpack_cache(pack: Path, cache: Path) -> list[str]:
    """Make a cache in ``cache``; returns the names of its cases.

    Raises:
        InputError: ``pack`` is damaged or none.
    """
    try:
        with zipfile.ZipFile(pack) as archive:
            index = json.loads(archive.read("cases.json"))
            names = [name for split in SPLITS for name in index[split]]
            members = [info.filename for info in archive.infolist() if "/" in info.filename]
            if not all(len(parts := m.split("/")) == 2 and parts[0] in names for m in members):
                raise ValueError("a file is of no case")
            if not all(plain_name(part) for m in members for part in m.split("/")):
                raise ValueError("a file has no name")
        for name in names:
            (cache / name).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda member: _unpack(pack, member, cache), members))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"'{pack}' is no packed cache, or damaged ({error}).", "Pack the cache again.") from error
    (cache / "cases.json").write_text(json.dumps({**index, "skipped": {}}), encoding="utf-8")
    return names


def _index(cache: Path) -> dict[str, list[str]]:
    try:
        index = read_json(cache / "cases.json")
        return {split: [str(name) for name in index[split]] for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{cache}' is no folder made by `meddifffm prepare`.", "Prepare a datalist first.") from error


def _taken(index: dict[str, list[str]], members: dict[str, _Member], most: int | None) -> set[str]:
    """Names of the cases for which there is room; those of the validation come first."""
    taken = set(index["validation"])
    if most is None:
        return set(members)
    room = most - 4096 - 64 * len(members) - sum(members[name].bytes for name in taken)
    ordered = sorted(index["training"], key=lambda name: members[name].bytes)
    for native, share in ((True, room / 2), (False, room), (True, room)):
        for name in (name for name in ordered if members[name].native == native and name not in taken):
            used = sum(members[other].bytes for other in taken - set(index["validation"]))
            if used + members[name].bytes <= share:
                taken.add(name)
    return taken


@dataclass
class _Member:
    """A compressed case: files by name, voxels, whether the finest are a scanner's own."""

    files: dict[str, bytes]
    voxels: int
    native: bool

    @property
    def bytes(self) -> int:
        """With the archive's entries."""
        return sum(len(data) + 2 * len(name) + 256 for name, data in self.files.items())


def _case(folder: Path, rounded: int) -> _Member:
    """Compress a case."""
    record = read_json(folder / "case.json")
    low, high = np.array(record["body_box"], dtype=float)
    margin = MARGIN_SHARE * (high - low) + MARGIN_MM
    members, voxels = {}, 0
    for level in record["levels"]:
        spacing, origin = np.array(level["spacing"]), np.array(level["origin"])
        hounsfield = load_array(folder / f"{level['name']}.npy", "r")
        first = np.clip(np.floor((low - margin - origin) / spacing), 0, np.array(hounsfield.shape) - 1).astype(int)
        last = np.clip(np.ceil((high + margin - origin) / spacing), first + 1, hounsfield.shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        level["origin"] = (origin + first * spacing).tolist()
        for path in sorted(folder.glob(f"{level['name']}*.npy")):
            array = np.asarray(load_array(path, "r")[box])
            if array.dtype == np.int16:
                voxels += array.size
                array = _differences(array, rounded)
            members[path.name] = _compressed(array)
    record.pop("source", None)  # no `prepare` may take it for its own
    members["case.json"] = json.dumps(record).encode()
    return _Member(members, voxels, bool(record.get("native", True)))


def _differences(hounsfield: np.ndarray, rounded: int) -> np.ndarray:
    """int16 (k, j, i) -> uint8 (2, k, j, i): low and high bytes of differences along i."""
    values = (hounsfield + np.int16(rounded // 2)) // np.int16(rounded) * np.int16(rounded)
    steps = np.diff(values, axis=2, prepend=np.int16(0))
    folded = (steps << 1) ^ (steps >> 15)  # small numbers of both signs have no high byte
    return np.stack([folded & 255, folded.view(np.uint16) >> 8]).astype(np.uint8)


def _sums(parts: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_differences`."""
    folded = parts[0] | (parts[1].astype(np.uint16) << 8)
    steps = (folded >> 1).view(np.int16) ^ -(folded & 1).astype(np.int16)
    return np.cumsum(steps, axis=2, dtype=np.int16)


def _compressed(array: np.ndarray) -> bytes:
    import bz2

    stream = io.BytesIO()
    np.save(stream, array)
    return bz2.compress(stream.getvalue())


def _unpack(pack: Path, member: str, cache: Path) -> None:
    """One file of a case."""
    import bz2

    with zipfile.ZipFile(pack) as archive:
        data = archive.read(member)
    if not member.endswith(".npy"):
        (cache / member).write_bytes(data)
        return
    array: Any = np.load(io.BytesIO(bz2.decompress(data)), allow_pickle=False)
    np.save(cache / member, _sums(array) if array.ndim == 4 else array)
