"""Label table of a segmentation: name, color and terminology, as in Slicer's segments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.safe_load import parse_json
from .nnunet import is_nnunet, label_names

_COLORS = (
    (128, 174, 128), (241, 214, 145), (177, 122, 101), (111, 184, 210), (216, 101, 79), (221, 130, 101),
    (144, 238, 144), (192, 104, 88), (220, 245, 20), (78, 63, 0),
)  # fmt: skip
"""The first colors of Slicer's generic anatomy table."""


@dataclass(frozen=True)
class SegmentLabel:
    """One structure.

    Attributes:
        value: number in label maps, at least 1.
        name: for the user.
        color: red, green, blue, 0 to 255.
        terminology: Slicer's serialized terminology entry, "" where none was chosen.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    terminology: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "color": list(self.color)}

    @classmethod
    def from_dict(cls, value: int, fields: str | Mapping[str, Any] | None) -> SegmentLabel:
        """A label from a datalist's entry: a name, or an object with ``name``, ``color``, ``terminology``.

        Raises:
            InputError: something else.
        """
        try:
            row = {"name": fields} if isinstance(fields, str) else dict(fields or {})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"Label {value} is {fields!r}.", "Give its name, or name, color and terminology."
            ) from error
        color = row.get("color") or _COLORS[(value - 1) % len(_COLORS)]
        try:
            red, green, blue = (int(part) for part in color)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"The color of label {value} is {color!r}.", "Give red, green and blue from 0 to 255."
            ) from error
        if value < 1 or not all(0 <= part <= 255 for part in (red, green, blue)):
            raise InputError(f"Label {value} has the color {color!r}.", "Labels count from 1, colors from 0 to 255.")
        name = str(row.get("name") or f"label {value}")
        return cls(value, name, (red, green, blue), str(row.get("terminology") or ""))


def label_table(values: Iterable[int], named: Mapping[int, Any]) -> tuple[SegmentLabel, ...]:
    """The labels of some numbers, in order; what is not given gets a plain name and a color."""
    return tuple(SegmentLabel.from_dict(value, named.get(value)) for value in sorted(values))


def labels_in(path: Path) -> dict[int, Any]:
    """Rows under ``labels`` in a JSON file, by number; none where there is no file or no such key.

    Raises:
        InputError: a number that is none.
    """
    try:
        whole = parse_json(path.read_text(encoding="utf-8"))
        content = whole.get("labels") or {}
        if is_nnunet(whole):
            return dict(label_names(content))
        return {int(key): row for key, row in dict(content).items() if int(key) > 0}
    except (OSError, AttributeError):
        return {}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"'labels' in {path.name} cannot be read ({error}).", 'Expected {"1": "tumor", "2": "liver"}.'
        ) from error


def shared_numbers(
    own: Mapping[int, SegmentLabel], known: Mapping[int, SegmentLabel], taken: Iterable[int]
) -> dict[int, SegmentLabel]:
    """The labels of one more case, by their number in it, with the numbers that they have in all cases.

    A name that is known, in whatever case of letters, has the number, the color and the terminology that it has
    there; a new one keeps its number where that is free.

    Args:
        known: labels of the other cases by number.
        taken: all numbers in masks of the other cases, named or not.

    Raises:
        InputError: a name is given twice.
    """
    words = [label.name.casefold() for label in own.values()]
    twice = next((label.name for label in own.values() if words.count(label.name.casefold()) > 1), None)
    if twice is not None:
        raise InputError(f"Two labels have the name {twice!r}.", "Give each structure a name of its own.")
    by_name = {label.name.casefold(): label for label in known.values()}
    used = {*known, *taken}
    numbered: dict[int, SegmentLabel] = {}
    later = []
    for number, label in own.items():
        same = by_name.get(label.name.casefold())
        if same is not None:
            numbered[number] = replace(same, terminology=same.terminology or label.terminology)
        elif number in used:
            later.append(number)
        else:
            numbered[number] = replace(label, value=number)
            used.add(number)
    for number in later:
        free = next(value for value in count(1) if value not in used)
        numbered[number] = replace(own[number], value=free)
        used.add(free)
    return numbered
