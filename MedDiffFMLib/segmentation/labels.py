"""What a segmentation's label numbers mean: name, colour and terminology, as Slicer's segments carry them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

_COLORS = (
    (128, 174, 128), (241, 214, 145), (177, 122, 101), (111, 184, 210), (216, 101, 79), (221, 130, 101),
    (144, 238, 144), (192, 104, 88), (220, 245, 20), (78, 63, 0),
)  # fmt: skip
"""The first colours of Slicer's generic anatomy table."""


@dataclass(frozen=True)
class SegmentLabel:
    """One structure.

    Attributes:
        value: number in label maps, at least 1.
        name: for the user.
        color: red, green, blue, 0 to 255.
        terminology: Slicer's serialised terminology entry, "" where none was chosen.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    terminology: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "color": list(self.color)}

    @classmethod
    def from_dict(cls, value: int, given: str | Mapping[str, Any] | None) -> SegmentLabel:
        """A label from a datalist's entry: a name, or an object with ``name``, ``color``, ``terminology``.

        Raises:
            InputError: something else.
        """
        row = {"name": given} if isinstance(given, str) else dict(given or {})
        color = row.get("color") or _COLORS[(value - 1) % len(_COLORS)]
        try:
            red, green, blue = (int(part) for part in color)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The colour of label {value} is {color!r}.", "Give red, green and blue from 0 to 255."
            ) from error
        if value < 1 or not all(0 <= part <= 255 for part in (red, green, blue)):
            raise InputError(f"Label {value} has the colour {color!r}.", "Labels count from 1, colours from 0 to 255.")
        name = str(row.get("name") or f"label {value}")
        return cls(value, name, (red, green, blue), str(row.get("terminology") or ""))


def label_table(values: Iterable[int], given: Mapping[int, Any]) -> tuple[SegmentLabel, ...]:
    """The labels of some numbers, in order; what is not given gets a plain name and a colour."""
    return tuple(SegmentLabel.from_dict(value, given.get(value)) for value in sorted(values))


def labels_of(data: Path) -> dict[int, Any]:
    """What a datalist (key ``labels``, as MONAI's) or a dataset folder says about its labels, by number.

    Raises:
        InputError: a number that is none.
    """
    path = data / "dataset.json" if data.is_dir() else data
    try:
        content = json.loads(path.read_text(encoding="utf-8")).get("labels") or {}
        return {int(key): row for key, row in dict(content).items() if int(key) > 0}
    except (OSError, AttributeError):
        return {}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"'labels' in {path.name} cannot be read ({error}).", 'Expected {"1": "tumour", "2": "liver"}.'
        ) from error
