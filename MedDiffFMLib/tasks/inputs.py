"""Inputs of a task: scans by modality, masks, organ maps, texts. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from ..core.errors import InputError
from ..imaging.modality import CT, WITH_ARTICLE


class Need(Enum):
    """Whether an input is given."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


NONE, OPTIONAL, REQUIRED = Need


@dataclass(frozen=True)
class Named:
    """Fields common to :class:`Scan` and :class:`Text`.

    Attributes:
        name: of the option, the argument in Python, the column in a batch list.
        help: one sentence.
        title: what a user reads; the name where it is left out.
    """

    name: str
    help: str
    need: Need = REQUIRED
    title: str = ""

    @property
    def caption(self) -> str:
        """Title, else the name in words."""
        return self.title or self.name.replace("_", " ").capitalize()

    @property
    def words(self) -> str:
        """Description for sentences."""
        return f"a text ({self.name})"


@dataclass(frozen=True)
class Text(Named):
    """A text that the user writes.

    Attributes:
        example: shown in the empty field.
        facts: written in the words of ``multimodal/facts``, which the panel completes and tells back.
        steers: kinds of those facts that the task can bring about; it measures all others only.
    """

    example: str = ""
    facts: bool = False
    steers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scan(Named):
    """A scan besides the one that the task works on, on a grid of its own; its modality decides how it is checked.

    Attributes:
        first: given before the one that the task works on, in Python and on the command line.
        on: name of the scan on whose grid it lies; then it is a label map of that.
    """

    modality: str = CT
    first: bool = False
    on: str = ""

    @property
    def words(self) -> str:
        return f"{'a label map' if self.on else WITH_ARTICLE[self.modality]} ({self.name})"


@dataclass(frozen=True)
class Inputs:
    """Everything that a task takes besides its parameters.

    Attributes:
        volume: the scan that it works on, which is given first and whose grid results have unless they say otherwise.
        modality: of that scan.
        mask: on the volume's grid.
        paints: whether the mask is what is changed, and painted in the panel; else it is a search area.
        anatomy: organ labels on the volume's grid; without a volume the result takes the grid of the map.
        scans, texts: more, by name.
    """

    volume: Need = REQUIRED
    modality: str = CT
    mask: Need = NONE
    paints: bool = False
    anatomy: Need = OPTIONAL
    scans: tuple[Scan, ...] = ()
    texts: tuple[Text, ...] = ()

    @property
    def modalities(self) -> dict[str, str]:
        """Name of each input with voxels -> what it is read and checked as."""
        scans = {scan.name: "mask" if scan.on else scan.modality for scan in self.scans}
        return {"volume": self.modality, "mask": "mask", "anatomy": "mask", **scans}

    def grid_of(self, name: str) -> str:
        """The scan on whose grid a label map lies."""
        return next((scan.on for scan in self.scans if scan.name == name and scan.on), "volume")

    @property
    def named(self) -> list[Named]:
        """Scans and texts."""
        return [*self.scans, *self.texts]

    def check(self, task: str, names: Collection[str]) -> None:
        """Refuse what is missing, and what would be ignored.

        Args:
            task: its name, for the sentence.
            names: inputs and texts that are given.

        Raises:
            InputError: one of them.
        """
        scan = WITH_ARTICLE[self.modality]
        if self.volume is REQUIRED and "volume" not in names:
            raise InputError(f"{task} needs {scan} to work on.", "Give one.")
        if self.volume is NONE and "volume" in names:
            remedy = "Leave the input and --batch out; run it once for each seed."
            raise InputError(f"{task} makes {scan} and takes none.", remedy)
        rows = [
            ("mask", self.mask, "a mask of what to change"),
            ("anatomy", self.anatomy, "an organ map"),
            *((row.name, row.need, row.words) for row in self.named),
        ]
        for name, need, words in rows:
            option = f"--{name.replace('_', '-')}"
            if need is REQUIRED and name not in names:
                raise InputError(f"{task} needs {words}.", f"Give one with {option}.")
            if need is NONE and name in names:
                raise InputError(f"{task} uses no {name}.", f"Leave {option} out.")
        known = ["volume", *(name for name, need, _ in rows if need is not NONE)]
        for name in sorted(set(names).difference(known)):
            raise InputError(f"{task} has no input {name!r:.80}.", f"Known are: {', '.join(known)}.")
