"""Boxes that the encoders are trained and judged on, each as CT, MR and X-rays, with the facts about it.

A box is a cube of 32 voxels of 4 mm out of a scan. Its MR is simulated, or the real one of a pair; its X-rays are
projected. Nodules are put into lungs, so that there are some whose place and size are known. All that is made once
and kept on disk; a case that is there already is not made again.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...conditioning.tissue import LUNG, MUSCLE, OUTSIDE
from ...core.safe_load import load_array, read_json
from ...datasets.prepared_cases import Case
from ...imaging.volume import Box, Volume
from ...multimodal.box_xray import box_xray
from ...multimodal.boxes import SPACING_MM, resampled
from ...multimodal.encoders import EDGE, PARTS
from ...multimodal.facts.fact import Statement
from ...multimodal.facts.part import Part, Spot, Surroundings
from ...multimodal.facts.scan import Scan
from ...multimodal.mr_intensity import TOP
from ...multimodal.names import Angles
from ...multimodal.pairs import SPACING_MM as PAIR_MM
from ...multimodal.pairs import Pair
from ...multimodal.simulate_mr import draw_contrast, simulate_mr

VERSION = 4
"""Of the boxes on disk; raise it when something about them changes."""
BOXES = (16, 64)
"""Least and largest number of boxes of a case, and between them so many for each box that its body would fill:"""
OVERLAP = 10.0
BODY_SHARE = 0.15
CELLS = 4
"""Parts of each box about which facts are told, too."""
MRS = 2
VIEWS = (180.0, 90.0, 45.0)
"""AP, LAT and OBL, degrees to the left; each is taken twice, at most ``TURN`` degrees off."""
TURN = 10.0
NODULES, NODULE_MM, NODULE_HU, ALTERED = 8, (8.0, 30.0), (-40.0, 90.0), 0.5
"""Nodules put into one scan, their size and density, and the share of its boxes that may show them."""
SEEN_SHARE = 0.5
_ARRAYS = ("ct", "mr", "xray")


@dataclass(frozen=True)
class Boxes:
    """The boxes of one case.

    Attributes:
        ct: (n, 32, 32, 32) int16 HU.
        mr: (n, 2, 32, 32, 32) uint8, 0 to 255 for 0 to 1.5 times fat; two acquisitions.
        xray: (n, 6, 64, 64) uint8, 0 to 255 for -1 to 1; AP, LAT, OBL, twice each.
        facts: of each box.
        cells: of each box some of its parts, by number, with the facts about them.
        real: whether the MR is one.
    """

    name: str
    patient: str
    ct: np.ndarray
    mr: np.ndarray
    xray: np.ndarray
    facts: list[list[Statement]]
    cells: list[list[tuple[int, list[Statement]]]]
    real: bool = False


def boxes_of_case(case: Case, folder: Path, seed: int = 0) -> Boxes:
    """Boxes of a prepared CT; kept in ``folder``."""
    kept = _stored(folder / case.name)
    if kept is None:
        level = case.levels[case.level_for(np.full(3, SPACING_MM))]
        hounsfield = resampled(level.voxels, level.spacing)
        kept = _cut(case.name, case.patient, hounsfield, None, np.random.default_rng([seed, case_number(case.name)]))
        _store(folder / case.name, kept)
    return kept


def boxes_of_pair(pair: Pair, folder: Path, seed: int = 0) -> Boxes:
    """Boxes of a CT and the MR of the same patient; kept in ``folder``."""
    name = f"{pair.name}_pair"
    kept = _stored(folder / name)
    if kept is None:
        spacing = np.full(3, PAIR_MM)
        hounsfield = resampled(pair.hounsfield, spacing)
        signal = resampled(np.where(pair.seen, pair.mr, 0), spacing)
        rng = np.random.default_rng([seed, case_number(name)])
        kept = _cut(name, pair.patient, hounsfield, signal, rng)
        _store(folder / name, kept)
    return kept


def prepare_boxes(
    cases: Sequence[Case], pairs: Sequence[Pair], folder: Path, report: Callable[[str], None] = lambda line: None
) -> list[Boxes]:
    """Boxes of all of them; cases in which there is no room for any are left out."""
    found = []
    sources: list[Case | Pair] = [*cases, *pairs]
    for number, source in enumerate(sources, 1):
        boxes = boxes_of_pair(source, folder) if isinstance(source, Pair) else boxes_of_case(source, folder)
        report(f"boxes {number} of {len(sources)}: {source.name}, {len(boxes.ct)}")
        if len(boxes.ct):
            found.append(boxes)
    return found


def case_number(name: str) -> int:
    """Where the random numbers of a case start."""
    return zlib.crc32(name.encode())


def _cut(name: str, patient: str, hounsfield: np.ndarray, signal: np.ndarray | None, rng: np.random.Generator) -> Boxes:
    """Random boxes of a scan at 4 mm, axes along superior, posterior, left."""
    matrix = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    scan = Scan(Volume(np.rint(hounsfield).astype(np.int16), matrix))
    plain = Surroundings(scan)
    changed, spots = with_nodules(plain, rng) if signal is None else (plain, [])
    count = int(np.clip(OVERLAP * scan.body.sum() / EDGE**3, *BOXES))
    rows: list[dict[str, Any]] = []
    for _ in range(3 * count):
        if len(rows) == count:
            break
        source, known = (changed, spots) if spots and rng.random() < ALTERED else (plain, [])
        box = _draw_box(scan, known, rng)
        if (scan.tissue[box] != OUTSIDE).sum() < BODY_SHARE * EDGE**3:
            continue
        if signal is not None and (signal[box] > 0).sum() < SEEN_SHARE * (scan.tissue[box] != OUTSIDE).sum():
            continue
        facts = source.facts(box, known)
        if facts:
            rows.append({"facts": facts, **_seen(source, box, signal, known, rng)})
    arrays = {key: np.stack([row[key] for row in rows]) if rows else np.zeros(0) for key in _ARRAYS}
    return Boxes(
        name, patient, **arrays, facts=[row["facts"] for row in rows], cells=[row["cells"] for row in rows],
        real=signal is not None,
    )  # fmt: skip


def with_nodules(surroundings: Surroundings, rng: np.random.Generator) -> tuple[Surroundings, list[Spot]]:
    """The scan with nodules put into its lungs, and what is known of them; as it is where no lungs are told apart."""
    from ...tasks.generate_lesion.lesion_shape import lesion_shape, overlap

    scan, lungs = surroundings.scan, surroundings.lungs
    if lungs is None or not lungs.sides:
        return surroundings, []
    hounsfield, tissue = scan.hounsfield.astype(np.float32), scan.tissue.copy()
    room = np.argwhere(scan.tissue == LUNG)
    spots, taken = [], np.zeros(hounsfield.shape, bool)
    for _ in range(NODULES):
        size = float(np.exp(rng.uniform(*np.log(NODULE_MM))))
        share, _ = lesion_shape(size, (SPACING_MM,) * 3, rng)
        into, out_of = overlap(tuple(room[rng.integers(len(room))].tolist()), share.shape, hounsfield.shape)
        part, inside = share[out_of], lungs.inside[into] > 0
        if taken[into].any() or (part * inside).sum() < 0.6 * part.sum():
            continue
        density = float(rng.uniform(*NODULE_HU))
        hounsfield[into] += part * np.maximum(density - hounsfield[into], 0)
        core = part > 0.5
        tissue[into][core & (tissue[into] == LUNG)] = MUSCLE
        taken[into] = True
        middle = np.array([s.start for s in into]) + np.argwhere(part == part.max()).mean(0)
        spot = surroundings.spot(scan.ras(middle), size, density)
        assert spot is not None
        spots.append(spot)
    return surroundings.altered(np.rint(hounsfield).astype(np.int16), tissue), spots


def _draw_box(scan: Scan, spots: Sequence[Spot], rng: np.random.Generator) -> Box:
    """A cube of the scan, less along axes that are shorter; around a nodule where there are some."""
    shape = np.array(scan.hounsfield.shape)
    room = np.maximum(shape - EDGE, 0)
    start = np.floor(rng.uniform(0, 1, 3) * (room + 1)).astype(int)
    if spots:
        point = spots[int(rng.integers(len(spots)))].point
        index = (np.linalg.inv(scan.grid.ijk_to_ras) @ [*point, 1.0])[:3][::-1]
        start = np.clip(np.rint(index - rng.uniform(3, EDGE - 3, 3)), 0, room).astype(int)
    k, j, i = (slice(int(a), int(min(a + EDGE, n))) for a, n in zip(start, shape, strict=True))
    return k, j, i


def _seen(
    source: Surroundings, box: Box, signal: np.ndarray | None, spots: Sequence[Spot], rng: np.random.Generator
) -> dict[str, Any]:
    """Pictures of a box, and facts about some of its parts."""
    part = Part(source.scan, box)
    spacing = (SPACING_MM,) * 3
    if signal is None:
        mrs = [simulate_mr(part.hounsfield, part.tissue, spacing, draw_contrast(rng), rng) for _ in range(MRS)]
    else:
        mrs = [signal[box]] * MRS
    angles = [Angles("", left + rng.uniform(-TURN, TURN), rng.uniform(-TURN, TURN)) for left in VIEWS for _ in range(2)]
    xrays = [box_xray(part.hounsfield, part.body, part.grid.ijk_to_ras, one) for one in angles]
    return {
        "ct": _whole(part.hounsfield, -1000),
        "mr": np.stack([_whole(np.clip(np.rint(mr * (255 / TOP)), 0, 255).astype(np.uint8), 0) for mr in mrs]),
        "xray": np.rint((np.stack(xrays) + 1) * 127.5).astype(np.uint8),
        "cells": _cells(source, box, spots, rng),
    }


def _whole(array: np.ndarray, fill: float) -> np.ndarray:
    """A box that the scan is too small for, filled up at the far ends."""
    return np.pad(array, [(0, EDGE - n) for n in array.shape], constant_values=fill)


def _cells(
    source: Surroundings, box: Box, spots: Sequence[Spot], rng: np.random.Generator
) -> list[tuple[int, list[Statement]]]:
    """Numbers of some parts of a box with the facts about them; those with a nodule come first."""
    middles = [np.linalg.inv(source.scan.grid.ijk_to_ras) @ [*spot.point, 1.0] for spot in spots]
    corner = np.array([part.start for part in box])
    places = [(np.rint(middle[:3][::-1]) - corner) // (EDGE // PARTS) for middle in middles]
    shown = [place.astype(int) for place in places if (place >= 0).all() and (place < PARTS).all()]
    first = [int(np.ravel_multi_index(tuple(place), (PARTS,) * 3)) for place in shown]
    told: dict[int, list[Statement]] = {}
    for number in (*first, *rng.permutation(PARTS**3).tolist()):
        cell = cell_of(box, number)
        if len(told) < CELLS and number not in told and all(s.stop > s.start for s in cell):
            facts = source.facts(cell, spots)
            told |= {number: facts} if facts else {}
    return list(told.items())


def cell_of(box: Box, number: int) -> Box:
    """A part of a box, in the order of the encoder's vectors."""
    edge = EDGE // PARTS
    k, j, i = (
        slice(s.start + edge * n, max(min(s.start + edge * (n + 1), s.stop), s.start + edge * n))
        for s, n in zip(box, np.unravel_index(number, (PARTS,) * 3), strict=True)
    )
    return k, j, i


def _store(place: Path, boxes: Boxes) -> None:
    """Write a case's boxes; the record comes last, so that one that was interrupted is made again."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in _ARRAYS:
        np.save(place / f"{name}.npy", getattr(boxes, name))
    record = {
        "version": VERSION, "name": boxes.name, "patient": boxes.patient, "real": boxes.real,
        "facts": [[_packed(said) for said in box] for box in boxes.facts],
        "cells": [[[number, [_packed(said) for said in facts]] for number, facts in box] for box in boxes.cells],
    }  # fmt: skip
    (place / "boxes.json").write_text(json.dumps(record), encoding="utf-8")


def _stored(place: Path) -> Boxes | None:
    """Boxes that were made before, mapped from disk; None where there are none of this version."""
    try:
        record = read_json(place / "boxes.json")
        if record.pop("version") != VERSION:
            return None
        arrays = {name: load_array(place / f"{name}.npy", "r") for name in _ARRAYS}
        facts = [[_unpacked(said) for said in box] for box in record["facts"]]
        cells = [[(number, [_unpacked(said) for said in box]) for number, box in cell] for cell in record["cells"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Boxes(record["name"], record["patient"], **arrays, facts=facts, cells=cells, real=record["real"])


def _packed(said: Statement) -> list[Any]:
    return [said.kind, said.values]


def _unpacked(packed: list[Any]) -> Statement:
    return Statement(packed[0], packed[1])
