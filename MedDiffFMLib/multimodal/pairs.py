"""CT and MR of one patient on one grid: what translation is trained and judged on.

The two images of a session lie some millimeters apart, for the patient moved; they are refined rigidly once, when a
pair is prepared. What the MR did not see, and the table, teach nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.atomic_files import atomic_path
from ..core.errors import InputError
from ..core.file_hash import file_sha256
from .mutual_information import normalized_mutual_information

if TYPE_CHECKING:
    from ..datasets.datalist import Entry
    from ..imaging.grid import Grid
    from ..imaging.volume import Volume
    from .mr_intensity import MRScale

SPACING_MM = 2.0
"""Edge of the isotropic voxels on which translation works."""
BODY_RIM_MM = 4.0
"""Around the body a CT is kept as it is; beyond that is the table, which an MR does not show, and becomes air."""
AIR_HU = -1000
FAT_HU, BRIGHT = (-130, -70), 0.6
"""Fat in a CT, and the signal that it has in an MR at least, in units of fat."""
VERSION = 2
"""Of prepared pairs; raise it when preparation changes."""


@dataclass(frozen=True)
class Pair:
    """One patient on the working grid, all arrays (k, j, i).

    Attributes:
        name, patient: identifiers.
        hounsfield: int16 HU, air beyond the body's rim.
        mr: float16 signal in units of fat.
        seen: bool, where both scanners saw something.
        body: bool.
        fat_from_peak: whether the MR's scale rests on a peak of fat.
        shift_mm, angle_degrees: of the refinement.
    """

    name: str
    patient: str
    hounsfield: np.ndarray
    mr: np.ndarray
    seen: np.ndarray
    body: np.ndarray
    fat_from_peak: bool = True
    shift_mm: float = 0.0
    angle_degrees: float = 0.0


def prepare_pairs(
    entries: Sequence[Entry], folder: Path, report: Callable[[str], None] = lambda line: None
) -> list[Pair]:
    """Pairs of a datalist (``image`` is the CT, ``mr`` the MR), aligned; finished ones are kept in ``folder``.

    Raises:
        InputError: a row without MR, or one that cannot be read.
    """
    from ..imaging.io import read_volume

    pairs = []
    for entry in entries:
        mr_file = entry.file("mr")
        if mr_file is None:
            raise InputError(f"{entry.name} has no MR.", 'Give each row "image" (CT) and "mr".')
        sources: list[int | str] = [VERSION, file_sha256(entry.image), file_sha256(mr_file)]
        place = folder / f"{entry.name}.npz"
        pair = _stored(place, sources)
        if pair is None:
            pair = pair_of(read_volume(entry.image), read_volume(mr_file, "MR"), entry.name, entry.patient)
            _store(place, pair, sources)
            report(f"{entry.name}: CT moved by {pair.shift_mm:.1f} mm and {pair.angle_degrees:.1f} degrees")
        pairs.append(pair)
    return pairs


def pair_of(ct: Volume, mr: Volume, name: str, patient: str, refine: bool = True) -> Pair:
    """CT and MR of one patient on the MR's working grid.

    Args:
        refine: align them first, where that finds a motion of a patient's size that makes them more alike.
    """
    from .field_of_view import field_of_view
    from .mr_intensity import mr_scale
    from .rigid_registration import align

    scanned = field_of_view(mr.voxels)
    scale = mr_scale(mr.voxels, scanned)
    given = _on_grid(ct, mr, scanned, scale, name, patient)
    if not refine:
        return given
    try:
        motion = align(mr, ct, fixed_mask=scanned)
    except InputError:  # no motion of a patient's size: where they are given is the best that is known
        return given
    moved = _on_grid(motion.moved(ct), mr, scanned, scale, name, patient)
    if likeness(moved) <= likeness(given):
        return given
    return replace(moved, shift_mm=round(motion.shift_mm, 2), angle_degrees=round(motion.angle_degrees, 2))


def likeness(pair: Pair) -> float:
    """Normalized mutual information of CT and MR in the body."""
    used = pair.seen & pair.body
    return normalized_mutual_information(np.clip(pair.hounsfield[used], AIR_HU, -AIR_HU), pair.mr[used])


def fat_agreement(pair: Pair) -> float:
    """Share of what is fat in the CT that is bright in the MR: low where the two do not lie on each other."""
    fat = pair.seen & pair.body & (pair.hounsfield > FAT_HU[0]) & (pair.hounsfield < FAT_HU[1])
    return float(np.mean(pair.mr[fat] > BRIGHT)) if fat.any() else 0.0


def _on_grid(ct: Volume, mr: Volume, scanned: np.ndarray, scale: MRScale, name: str, patient: str) -> Pair:
    """Both where they lie."""
    from ..imaging.grid import working_grid

    grid = working_grid(mr, SPACING_MM)
    hounsfield, body, covered = ct_on_grid(ct, grid)
    signal, reached = mr_on_grid(mr, scanned, grid)
    in_fat = (signal / scale.fat).astype(np.float16)
    return Pair(name, patient, hounsfield, in_fat, reached & covered, body & covered, scale.from_peak)


def ct_on_grid(ct: Volume, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A CT on a grid: int16 HU without the table, the body, and where the CT reaches; (k, j, i) each."""
    from ..conditioning.region import body_mask, grown
    from ..imaging.grid import to_grid
    from ..imaging.volume import in_patient_axes

    ct = in_patient_axes(ct)
    hounsfield = to_grid(ct, grid)
    body = to_grid(ct.with_voxels(body_mask(ct.voxels).astype(np.uint8)), grid, fill=0) > 0.5
    covered = to_grid(ct.with_voxels(np.ones(ct.voxels.shape, np.uint8)), grid, order=0, fill=0) > 0
    edges = grid.spacing[::-1]
    kept = grown(body, BODY_RIM_MM, edges)
    return np.rint(np.where(kept & covered, hounsfield, AIR_HU)).astype(np.int16), body, covered


def mr_on_grid(mr: Volume, scanned: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """An MR on a grid: float32 signal in its own unit, 0 beyond the field of view, and that field; (k, j, i) each."""
    from ..imaging.grid import to_grid

    reached = to_grid(mr.with_voxels(scanned.astype(np.float32)), grid, fill=0) > 0.99
    signal = to_grid(mr.with_voxels(np.where(scanned, mr.voxels, 0)), grid, fill=0)
    return np.where(reached, np.clip(signal, 0, None), 0).astype(np.float32), reached


_ARRAYS = ("hounsfield", "mr", "seen", "body")


def _store(place: Path, pair: Pair, sources: list[int | str]) -> None:
    """Write one pair, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    record = {**{k: v for k, v in asdict(pair).items() if k not in _ARRAYS}, "sources": sources}
    with atomic_path(place, overwrite=True) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream, record=np.array(json.dumps(record)), **{name: getattr(pair, name) for name in _ARRAYS}
        )


def _stored(place: Path, sources: list[int | str]) -> Pair | None:
    """The pair of these files that was prepared before, None where there is none."""
    try:
        with np.load(place, allow_pickle=False) as content:
            record = json.loads(str(content["record"]))
            if record.pop("sources") != sources:
                return None
            return Pair(**record, **{name: content[name] for name in _ARRAYS})
    except (OSError, ValueError, KeyError, TypeError):
        return None
