"""A prepared cache as one small file, for a machine that is rented by the minute.

Of each case only the box of the body is kept, and of its HU their differences along the rows, low and high bytes
apart, which bzip2 makes a third of: a hundred CTs take some 80 MB. What is unpacked is a cache like any other; inside
the box it holds the same numbers, unless HU were rounded on request.
"""

from __future__ import annotations

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import atomic_path
from ..errors import InputError
from ..foreign import load_array, plain_name, read_json

MARGIN_SHARE, MARGIN_MM = 0.15, 10.0
"""Kept around the body: what a window of the whole body may show beyond it, and a little more."""
SPLITS = ("training", "validation")


@dataclass
class Packed:
    """What went into a pack.

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


def pack_cache(cache: Path, target: Path, *, most: int | None = None, rounded: int = 1) -> Packed:
    """Write ``target``.

    Args:
        cache: folder made by ``meddifffm prepare``.
        most: bytes that it may have. Training cases that take most room for what they show are left out, one by one.
        rounded: keep HU in steps of so many; 4 adds an error of 1.2 HU and halves what noisy scans take.

    Raises:
        InputError: ``cache`` is none.
        OutputError: the file cannot be written.
    """
    index = _index(cache)
    with ThreadPoolExecutor() as pool:
        names = [name for split in SPLITS for name in index[split]]
        members = dict(zip(names, pool.map(lambda name: _case(cache / name, rounded), names), strict=True))
    sizes = {name: sum(len(data) for data in parts.values()) for name, (parts, _) in members.items()}
    voxels = {name: count for name, (_, count) in members.items()}
    packed = Packed(left_out=_left_out(index["training"], sizes, voxels, most))
    packed.cases = {split: [name for name in index[split] if name not in packed.left_out] for split in SPLITS}
    with atomic_path(target, overwrite=True) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("cases.json", json.dumps(packed.cases))
        for name in (name for names in packed.cases.values() for name in names):
            packed.voxels += voxels[name]
            for part, data in members[name][0].items():
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
        with ThreadPoolExecutor() as pool:
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


def _left_out(names: list[str], sizes: dict[str, int], voxels: dict[str, int], most: int | None) -> list[str]:
    """Those with most bytes for their weight in training, which is the square root of the volume."""
    if most is None:
        return []
    room, gone = most - 4096 - 256 * len(sizes) * 8, []
    total = sum(sizes.values())
    for name in sorted(names, key=lambda n: sizes[n] / voxels[n] ** 0.5, reverse=True):
        if total <= room:
            break
        gone.append(name)
        total -= sizes[name]
    return gone


def _case(folder: Path, rounded: int) -> tuple[dict[str, bytes], int]:
    """Compressed members of a case, and its voxels."""
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
    return members, voxels


def _differences(hounsfield: np.ndarray, rounded: int) -> np.ndarray:
    """int16 (k, j, i) -> uint8 (2, k, j, i): low and high bytes of differences along i."""
    values = np.rint(hounsfield / rounded).astype(np.int16) * np.int16(rounded) if rounded > 1 else hounsfield
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
