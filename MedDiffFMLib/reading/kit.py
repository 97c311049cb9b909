"""Files of a reading kit.

A kit is a folder for readers: ``kit.json`` and two NIfTI files a pair, which only their voxels tell apart. Which
of them is real stands in a key of its own, beside the folder and not in it.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, OutputError
from ..core.json_files import write_json
from ..core.safe_load import check_fields, read_json

FORMAT, KEY_FORMAT = "meddifffm-reading-1", "meddifffm-reading-key-1"
KIT_FILE = "kit.json"
LETTERS: tuple[str, str] = ("a", "b")
MOST_PAIRS = 500


@dataclass(frozen=True)
class Pair:
    """One pair.

    Attributes:
        pair: number, from 1.
        window, level: in which both are shown, HU.
    """

    pair: int
    window: float
    level: float

    def file(self, letter: str) -> str:
        """Name of one of the two files."""
        return f"{self.pair:03d}{letter}.nii"


@dataclass(frozen=True)
class Kit:
    """A kit as its readers see it.

    Attributes:
        folder: where the files are.
        id: of this very kit; the key has the same.
        seed: of the order in which a reader sees it.
        question: what readers are asked.
    """

    folder: Path
    id: str
    seed: int
    question: str
    pairs: tuple[Pair, ...]

    def order(self, reader: str) -> list[tuple[Pair, tuple[str, str]]]:
        """The pairs in a reader's order, each with the letters of what is left and right; always the same ones."""
        name = int.from_bytes(hashlib.sha256(reader.encode()).digest()[:8], "big")
        rng = np.random.default_rng([self.seed, name])
        numbers = rng.permutation(len(self.pairs))
        sides = rng.random(len(self.pairs)) < 0.5
        return [
            (self.pairs[number], LETTERS if side else (LETTERS[1], LETTERS[0]))
            for number, side in zip(numbers, sides, strict=True)
        ]


def write_kit(folder: Path, seed: int, question: str, pairs: list[Pair]) -> str:
    """Write what tells readers about the pairs, whose files are there already; gives the kit's id."""
    names = [pair.file(letter) for pair in pairs for letter in LETTERS]
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    content = {"format": FORMAT, "id": digest.hexdigest()[:16], "seed": seed, "question": question}
    write_json({**content, "pairs": [asdict(pair) for pair in pairs]}, folder / KIT_FILE)
    return str(content["id"])


def read_kit(folder: str | Path) -> Kit:
    """The kit of a folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    folder = Path(folder)
    content = _read(folder / KIT_FILE, FORMAT, "a reading kit", "Choose the folder with kit.json.")
    try:
        for row in content["pairs"]:
            check_fields(Pair, row)
        pairs = tuple(Pair(**row) for row in content["pairs"])
        kit = Kit(folder, str(content["id"]), int(content["seed"]), str(content["question"]), pairs)
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(f"'{folder / KIT_FILE}' is damaged: {problem}.", "Copy the kit again.") from problem
    missing = [pair.file(letter) for pair in pairs for letter in LETTERS if not (folder / pair.file(letter)).is_file()]
    if missing or not 0 < len(pairs) <= MOST_PAIRS:
        raise InputError(f"The kit lacks {missing[0] if missing else 'its pairs'}.", "Copy the whole folder again.")
    return kit


def key_path(folder: str | Path) -> Path:
    """The key's usual place: beside the kit's folder."""
    folder = Path(folder).resolve()
    return folder.with_name(f"{folder.name}-key.json")


def write_key(path: Path, kit: str, real: dict[int, str], facts: dict[str, Any]) -> None:
    """Write which letter of each pair is real.

    Raises:
        OutputError: the key exists, or it cannot be written.
    """
    if path.exists():
        raise OutputError(f"'{path}' exists.", "Give another folder: a key must never be lost.")
    rows = [{"pair": pair, "real": letter} for pair, letter in real.items()]
    write_json({"format": KEY_FORMAT, "kit": kit, "pairs": rows, **facts}, path)


def read_key(path: str | Path) -> tuple[str, dict[int, str]]:
    """Id of the kit, and the letter that is real by the number of the pair.

    Raises:
        InputError: no key.
    """
    content = _read(Path(path), KEY_FORMAT, "the key of a reading kit", "It lies beside the kit's folder.")
    try:
        real = {int(row["pair"]): str(row["real"]) for row in content["pairs"]}
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(f"'{path}' is damaged: {problem}.", "Copy the key again.") from problem
    return str(content.get("kit")), real


def _read(path: Path, kind: str, words: str, remedy: str) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as problem:
        raise InputError(f"'{path}' is not {words}.", remedy) from problem
    if not isinstance(content, dict) or content.get("format") != kind:
        raise InputError(f"'{path}' is not {words}.", remedy)
    return content
