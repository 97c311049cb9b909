"""Slots of a sentence: words to choose from and numbers of a fixed number of decimals; both come back from the text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .fact import Value


@dataclass(frozen=True)
class Words:
    """One of several words or phrases."""

    choices: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """Regular expression of what it may be, the longest first."""
        return "|".join(re.escape(word) for word in sorted(self.choices, key=len, reverse=True))

    def write(self, value: Value) -> str:
        """The word itself.

        Raises:
            ValueError: it is none of the choices.
        """
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {', '.join(self.choices)}")
        return str(value)

    def read(self, text: str) -> Value:
        """The value that was written."""
        return text

    def held(self, value: Value) -> Value:
        """The value as a statement holds it."""
        return value


@dataclass(frozen=True)
class Number:
    """A number.

    Attributes:
        unit: "mm", "HU", "%" ...; "" for counts.
        decimals: that are written and kept.
    """

    unit: str = ""
    decimals: int = 0

    pattern = r"-?\d+(?:\.\d+)?"

    def write(self, value: Value) -> str:
        """With exactly its decimals."""
        return f"{self.held(value):.{self.decimals}f}"

    def read(self, text: str) -> Value:
        """The value that was written."""
        return self.held(text)

    def held(self, value: Value) -> Value:
        """Rounded to its decimals; an int where it has none."""
        rounded = round(float(value), self.decimals) + 0.0  # no minus before zero
        return rounded if self.decimals else int(rounded)


Slot = Words | Number
