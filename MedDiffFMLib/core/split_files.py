"""Split files: pieces of a limited size, for machines and channels that take no larger ones.

``NAME.001``, ``NAME.002`` ... beside ``NAME.pieces.json``, which names them with their SHA-256. Pieces that arrived
damaged, or not at all, are named before anything is joined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .atomic_files import atomic_path
from .errors import InputError
from .json_files import write_json
from .safe_load import plain_name, read_json

BLOCK = 2**20


def split_file(path: Path, folder: Path, most: int) -> Path:
    """Cut a file into pieces of at most ``most`` bytes.

    Returns:
        Path of the list of pieces, in ``folder``.

    Raises:
        OutputError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = hashlib.sha256()
    pieces: list[dict[str, Any]] = []
    with open(path, "rb") as stream:
        while block := stream.read(most):
            whole.update(block)
            name = f"{path.name}.{len(pieces) + 1:03d}"
            with atomic_path(folder / name, overwrite=True) as temporary:
                temporary.write_bytes(block)
            pieces.append({"name": name, "bytes": len(block), "sha256": hashlib.sha256(block).hexdigest()})
    listed = folder / f"{path.name}.pieces.json"
    record = {"name": path.name, "bytes": path.stat().st_size, "sha256": whole.hexdigest(), "pieces": pieces}
    write_json(record, listed, overwrite=True)
    return listed


def join_file(listed: Path, target: Path | None = None, folders: Iterable[Path] = ()) -> Path:
    """Put pieces together again.

    Args:
        listed: ``NAME.pieces.json``.
        target: file to write; ``NAME`` beside the list if not given.
        folders: where else than beside the list pieces may lie.

    Raises:
        InputError: pieces are missing or damaged.
        OutputError: the file cannot be written.
    """
    record = _read(listed)
    pieces, bad = [], []
    for piece in record["pieces"]:
        places = [folder / piece["name"] for folder in (listed.parent, *folders)]
        whole = [place for place in places if place.is_file() and _sha256([place]) == piece["sha256"]]
        pieces += whole[:1]
        bad += [] if whole else [piece["name"]]
    if bad:
        raise InputError(f"Missing or damaged: {', '.join(bad)}.", f"Copy these pieces again to '{listed.parent}'.")
    if _sha256(pieces) != record["sha256"]:
        raise InputError(f"The pieces of {record['name']} are not those of one file.", "Copy all of them again.")
    target = target or listed.parent / record["name"]
    with atomic_path(target, overwrite=True) as temporary, open(temporary, "wb") as stream:
        for path in pieces:
            stream.write(path.read_bytes())
    return target


def _read(listed: Path) -> dict[str, Any]:
    """The list of pieces, checked."""
    try:
        record = read_json(listed)
        names = [record["name"], *(piece["name"] for piece in record["pieces"])]
        if not all(plain_name(name) for name in names):
            raise ValueError("a piece has no name")
        [str(piece["sha256"]) for piece in record["pieces"]], str(record["sha256"])
        return dict(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{listed}' is no list of pieces ({error}).", "Give the .pieces.json file.") from error


def _sha256(paths: Iterable[Path]) -> str:
    """Of what several files hold together."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()
