"""Tasks that make a CT."""

from __future__ import annotations

from MedDiffFMLib.runner.case import checked_case
from MedDiffFMLib.tasks.synthesize.spec import Synthesize
from Testing.unit.phantoms import body

from .rows import case


@case(
    "synthesis of nothing",
    "size is 0.0 mm. Allowed are 20 to 2000 mm.",
)
def _no_size(*_: object) -> None:
    Synthesize(size=(300.0, 300.0, 0.0))


@case(
    "synthesis with voxels larger than the volume",
    "A size of 20 x 300 x 300 mm holds only 2 x 30 x 30 voxels of 10 mm; at least 8 are needed along each edge. "
    "Give a larger size or a finer spacing.",
)
def _large_voxels(*_: object) -> None:
    Synthesize(size=(20.0, 300.0, 300.0), spacing=10.0)


@case(
    "synthesis of more than fits into memory",
    "The result would have 8000 million voxels, more than 400 million. Choose a coarser spacing or a smaller size.",
)
def _large_synthesis(*_: object) -> None:
    Synthesize(size=(1000.0, 1000.0, 1000.0), spacing=0.5)


@case(
    "a CT given to a task that makes one",
    "synthesize makes a CT and takes none. Leave the input and --batch out; run it once for each seed.",
)
def _useless_input(*_: object) -> None:
    checked_case("synthesize", {"volume": body()})
