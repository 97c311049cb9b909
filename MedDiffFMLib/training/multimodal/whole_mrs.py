"""Whole MRs with the facts about them, on which it is calibrated what may be said of one.

Of a CT two MRs are simulated; of a pair there is the real one. Facts are measured in the CT, of all that the MR shows.
The MR goes the way that one of a user goes: its scale is found in it, and so are its body and its tiles. All that is
made once and kept on disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic_files import atomic_path
from ...datasets.prepared_cases import Case
from ...imaging.volume import Volume
from ...multimodal.boxes import SPACING_MM, resampled
from ...multimodal.facts.fact import Statement
from ...multimodal.facts.part import Surroundings
from ...multimodal.facts.scan import Scan
from ...multimodal.mr_intensity import mr_scale
from ...multimodal.mr_tiles import Tiles, tiles_of
from ...multimodal.pairs import SPACING_MM as PAIR_MM
from ...multimodal.pairs import Pair
from ...multimodal.simulate_mr import draw_contrast, simulate_mr
from .box_pool import case_number

VERSION = 1
MRS = 2
SEEN = 0.8
"""Share of the body in a pair's CT that its MR has to show; else facts about the CT are not about the MR."""


@dataclass(frozen=True)
class WholeMR:
    """One MR on voxels of 4 mm.

    Attributes:
        signal: (k, j, i) in units of fat, as its own scale has it; float16.
        facts: of all that it shows.
        real: whether a scanner made it.
    """

    name: str
    patient: str
    signal: np.ndarray
    facts: list[Statement]
    real: bool

    @property
    def tiles(self) -> Tiles | None:
        """As the encoders see it."""
        return tiles_of(self.signal.astype(np.float32))


def whole_mrs(
    sources: Sequence[Case | Pair], folder: Path, report: Callable[[str], None] = lambda line: None
) -> list[WholeMR]:
    """MRs of cases and pairs; those without a peak of fat, or that show too little of the body, are left out."""
    found = []
    for number, source in enumerate(sources, 1):
        name = f"{source.name}_pair" if isinstance(source, Pair) else source.name
        kept = _stored(folder / f"{name}.npz")
        if kept is None:
            kept = _of_pair(source, name) if isinstance(source, Pair) else _of_case(source, name)
            _store(folder / f"{name}.npz", kept)
        report(f"MR {number} of {len(sources)}: {name}, {len(kept)}")
        found += kept
    return found


def _of_case(case: Case, name: str) -> list[WholeMR]:
    level = case.levels[case.level_for(np.full(3, SPACING_MM))]
    scan = _scan(resampled(level.voxels, level.spacing))
    facts = _facts(scan)
    rng = np.random.default_rng(case_number(name))
    made = [simulate_mr(scan.hounsfield, scan.tissue, scan.spacing, draw_contrast(rng), rng) for _ in range(MRS)]
    return [one for signal in made for one in _scaled(name, case.patient, signal, facts, False)]


def _of_pair(pair: Pair, name: str) -> list[WholeMR]:
    if not pair.fat_from_peak or pair.seen[pair.body].mean() < SEEN:
        return []
    spacing = np.full(3, PAIR_MM)
    hounsfield = np.where(pair.seen, pair.hounsfield, -1000)
    facts = _facts(_scan(resampled(hounsfield, spacing)))
    signal = resampled(np.where(pair.seen, pair.mr, 0), spacing).astype(np.float16)
    return [WholeMR(name, pair.patient, signal, facts, True)] if facts else []


def _scan(hounsfield: np.ndarray) -> Scan:
    return Scan(Volume(np.rint(hounsfield).astype(np.int16), np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])))


def _facts(scan: Scan) -> list[Statement]:
    """Facts about the whole of a scan, as a box of it would have them."""
    k, j, i = (slice(0, n) for n in scan.hounsfield.shape)
    return Surroundings(scan).facts((k, j, i))


def _scaled(name: str, patient: str, signal: np.ndarray, facts: list[Statement], real: bool) -> list[WholeMR]:
    """The MR in the unit that is found in it; none where no fat is."""
    try:
        scale = mr_scale(signal)
    except ValueError:
        return []
    if not scale.from_peak or not facts:
        return []
    return [WholeMR(name, patient, (signal / scale.fat).astype(np.float16), facts, real)]


def _store(place: Path, kept: Sequence[WholeMR]) -> None:
    """Write the MRs of a case, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"version": VERSION, "mrs": []}
    arrays: dict[str, Any] = {}
    for number, one in enumerate(kept):
        said = [[fact.kind, fact.values] for fact in one.facts]
        record["mrs"].append({"name": one.name, "patient": one.patient, "real": one.real, "facts": said})
        arrays[f"signal{number}"] = one.signal
    with atomic_path(place, overwrite=True) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, record=np.array(json.dumps(record)), **arrays)


def _stored(place: Path) -> list[WholeMR] | None:
    """MRs that were made before; None where there are none of this version."""
    try:
        with np.load(place, allow_pickle=False) as content:
            record = json.loads(str(content["record"]))
            if record["version"] != VERSION:
                return None
            return [
                WholeMR(
                    one["name"], one["patient"], content[f"signal{number}"],
                    [Statement(kind, values) for kind, values in one["facts"]], one["real"],
                )
                for number, one in enumerate(record["mrs"])
            ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None
