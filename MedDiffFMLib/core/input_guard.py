"""Guard of what is read: no output may take the place of an input, however either of them is named."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import OutputError

Identity = tuple[int, int]
"""Device and number of a file."""


class InputGuard:
    """The inputs of a run, or of many; they are looked at when an output exists already, and then once.

    Args:
        inputs: files.
    """

    def __init__(self, inputs: Iterable[Path]) -> None:
        self._inputs = inputs
        self._identities: set[Identity] | None = None

    def refuse(self, outputs: Iterable[Path]) -> None:
        """Refuse outputs that are inputs, also through links and names that a disk takes for the same.

        Raises:
            OutputError: one of the outputs is an input.
        """
        for output in outputs:
            identity = _identity(output)
            if identity is not None and identity in self._known():
                raise OutputError(
                    f"The output '{output}' is one of the inputs.",
                    "Choose another output: what is read is never overwritten.",
                )

    def _known(self) -> set[Identity]:
        if self._identities is None:
            identities = (_identity(path) for path in self._inputs)
            self._identities = {identity for identity in identities if identity is not None}
        return self._identities


def _identity(path: Path) -> Identity | None:
    """Identity by which files are told apart whatever their names are; None where there is no file."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino
