"""What is attacked: one reader with the valid input that attacks start from."""

from __future__ import annotations

import random
from pathlib import Path

Files = dict[str, bytes]


class Target:
    """One reader.

    Args:
        folder: for valid files, made once.

    Attributes:
        name: on the command line and in the tables.
        weight: how often it is attacked, compared with the others.
    """

    name = ""
    weight = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def make(self, rng: random.Random) -> Files:
        """A hostile input as files by their path below the input's folder."""
        raise NotImplementedError

    def read(self, folder: Path) -> None:
        """Do with the input what the program does; a result or a MedDiffFMError, nothing else."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what :meth:`read` keeps from input to input."""
