"""Cases with generated lesions, some of which take after real ones, for :mod:`.generated_lesions_help`."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import MedDiffFMLib as mdf
from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.datasets.datalist import Entry
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.tasks.generate_lesion.lesion_extent import distance_around
from MedDiffFMLib.tasks.generate_lesion.lesion_shape import make_lesion_mask
from MedDiffFMLib.tasks.generate_lesion.outline import ball_diameter

ANYWHERE, MUSCLE, OWN = "anywhere", "muscle", "own"
PLACES = {ANYWHERE: (-160.0, 120.0), MUSCLE: (10.0, 90.0), OWN: (-160.0, 120.0)}
"""Where lesions are put, and how dense it is there after smoothing, HU."""
NEAR_SKIN_MM = 70.0
POOL, FEW = LIKE = ("pool", "few")
MUSCLE_MM = (2.0, 12.0)
"""From a lesion's rim: where the muscle around it is measured."""
LEAST_MUSCLE = 200
"""Voxels; fewer tell nothing of it."""
GROWTH = 0.15
"""Of a real lesion's diameter: by so much one that is generated over it reaches farther out, at most."""
GRAIN_VOXELS = 0.7
"""Deviation of the smoothing of painted noise."""
MARGIN_MM = 50.0
"""Of the box around a lesion that a case is, as in the real cases."""
MOST_ATTEMPTS = 3
"""Times as many lesions as are wanted that are drawn at most."""


def room_of(volume: Volume, hounsfield: tuple[float, float], near_skin: float) -> np.ndarray:
    """Tissue of some density at most so many mm under the skin, bool (k, j, i)."""
    from scipy.ndimage import binary_closing, binary_opening, distance_transform_edt, gaussian_filter

    edges = np.array(volume.spacing[::-1])
    body = body_mask(volume.voxels)
    smooth = gaussian_filter(volume.voxels.astype(np.float32), 2.0 / edges)
    soft = body & (smooth > hounsfield[0]) & (smooth < hounsfield[1])
    soft = binary_opening(binary_closing(soft, iterations=1), iterations=2)
    depth = distance_transform_edt(np.pad(body, ((0, 0), (1, 1), (1, 1))), sampling=edges)[:, 1:-1, 1:-1]
    return soft & (depth < near_skin)


def regrown(lesion: np.ndarray, room: np.ndarray, edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A lesion with all of another one in it that reaches farther out here and there, bool (k, j, i).

    Args:
        room: where it may grow.
        edges: of a voxel (k, j, i), mm.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from scipy.stats import norm

    diameter = np.cbrt(6 / np.pi * lesion.sum() * edges.prod())
    field = gaussian_filter(rng.standard_normal(lesion.shape), diameter / 5 / edges)
    reach = GROWTH * diameter * norm.cdf(field / field.std())
    return lesion | (room & (distance_transform_edt(~lesion, sampling=edges) <= reach))


def muscle_around(volume: Volume, lesion: np.ndarray) -> tuple[float, float] | None:
    """Median and spread of the HU of the muscle around a lesion, None where there is none."""
    from scipy.ndimage import gaussian_filter

    edges = np.array(volume.spacing[::-1])
    distance, box = distance_around(lesion, volume.spacing, MUSCLE_MM[1])
    smooth = gaussian_filter(volume.voxels[box].astype(np.float32), 2.0 / edges)
    dense = (smooth > PLACES[MUSCLE][0]) & (smooth < PLACES[MUSCLE][1])
    values = volume.voxels[box][dense & (distance > MUSCLE_MM[0]) & (distance <= MUSCLE_MM[1])]
    return None if values.size < LEAST_MUSCLE else (float(np.median(values)), spread_of(values))


def spread_of(values: np.ndarray) -> float:
    """Half of what the middle 68 % of some HU span: the standard deviation, were it not for a few others."""
    return float(np.ptp(np.percentile(values, (16, 84)))) / 2


@dataclass(frozen=True)
class Look:
    """How a real lesion looks.

    Attributes:
        diameter: of the ball of its volume, mm.
        contrast: of its core's mean over the muscle around it, HU.
        roughness: spread of its core over that of the muscle around it.
    """

    diameter: float
    contrast: float
    roughness: float


def look_of(entry: Entry) -> Look | None:
    """Look of a real lesion, None where no muscle is around it."""
    from scipy.ndimage import binary_erosion

    volume, lesion = _read(entry)
    around = muscle_around(volume, lesion)
    if around is None:
        return None
    core = volume.voxels[binary_erosion(lesion)]
    return Look(ball_diameter(lesion, volume.spacing), float(core.mean()) - around[0], spread_of(core) / around[1])


def density_like(volume: Volume, lesion: np.ndarray, look: Look) -> dict[str, Any]:
    """Parameters of the task by which a lesion is as dense and as rough beside its muscle as a real one was.

    Raises:
        InputError: there is no muscle around it.
    """
    around = muscle_around(volume, lesion)
    if around is None:
        raise InputError("There is no muscle around the lesion.", "Choose another place.")
    spread = max(look.roughness * around[1], 1.0)
    return {"mean": round(around[0] + look.contrast, 1), "spread": round(spread, 1), "tries": 1}


def painted(volume: Volume, lesion: np.ndarray, wishes: dict[str, Any], rng: np.random.Generator) -> Volume:
    """CT with noise of the wished mean and spread in the lesion, as grainy as a CT's is."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(lesion.shape), GRAIN_VOXELS)[lesion]
    voxels = volume.voxels.copy()
    voxels[lesion] = np.round(wishes["mean"] + wishes["spread"] * (noise - noise.mean()) / noise.std())
    return replace(volume, voxels=voxels)


def _read(entry: Entry) -> tuple[Volume, np.ndarray]:
    return mdf.read_volume(entry.image), mdf.read_volume(entry.files["label"]).voxels > 0


def cropped(volume: Volume, mask: np.ndarray) -> tuple[Volume, Volume]:
    """CT and mask, cut to MARGIN_MM around what is marked."""
    from scipy.ndimage import find_objects

    (whole,) = find_objects(mask.astype(np.uint8))
    margin = np.ceil(MARGIN_MM / np.array(volume.spacing[::-1])).astype(int)
    box = tuple(slice(max(p.start - m, 0), p.stop + m) for p, m in zip(whole, margin, strict=True))
    ijk_to_ras = volume.ijk_to_ras.copy()
    ijk_to_ras[:3, 3] += volume.ijk_to_ras[:3, :3] @ np.array([part.start for part in box[::-1]])
    return (
        Volume(volume.voxels[box], ijk_to_ras, "image"),
        Volume(mask[box].astype(np.uint8), ijk_to_ras, "mask"),
    )


@dataclass(frozen=True)
class Maker:
    """Makes cases with a generated lesion, as files and a line of facts each.

    Attributes:
        diameters: least and largest, mm; drawn evenly in their logarithm.
        place: one of PLACES.
        looks: of the real lesions that they take after in turn; empty for the task's own density and texture.
        like: whose the looks are, one of LIKE; empty without looks.
        seed: of the few real cases, None where the lesions are the same for all seeds.
        painted: fill them with noise instead of what the networks draw; needs looks.
    """

    folder: Path
    model: Any
    diameters: tuple[float, float]
    place: str = ANYWHERE
    looks: tuple[Look, ...] = ()
    like: str = ""
    seed: int | None = None
    painted: bool = False

    @property
    def kind(self) -> str:
        """What is told of its cases."""
        place = {ANYWHERE: "free"}.get(self.place, self.place)
        return place + {POOL: "-like", FEW: "-few"}.get(self.like, "") + ("-painted" if self.painted else "")

    def cases(self, sources: Sequence[Entry], count: int) -> list[Entry]:
        """So many good lesions in the sources, in turn; those of an earlier run are used again."""
        made: list[Entry] = []
        for number in range(MOST_ATTEMPTS * count):
            if len(made) == count:
                break
            source = sources[number % len(sources)]
            turn = number // len(sources)
            begin = self.kind if self.seed is None else f"{self.kind}{len(self.looks)}-seed{self.seed}"
            name = f"{begin}-{source.name}-{turn}" if self.place == OWN else f"{begin}-{number:02d}"
            facts = self._fact(name, source, turn if self.place == OWN else number)
            if facts["good"]:
                made.append(_entry(self.folder / facts["name"]))
        return made

    def _fact(self, name: str, source: Entry, number: int) -> dict[str, Any]:
        log = self.folder / f"{name}.json"
        if not log.exists():
            begin = time.process_time()
            facts = {"name": name, "source": source.name, **self._make(name, source, number)}
            facts["seconds"] = round(time.process_time() - begin, 1)
            print(facts, flush=True)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(json.dumps(facts), encoding="utf-8")
        return dict(json.loads(log.read_text(encoding="utf-8")))

    def _make(self, name: str, source: Entry, number: int) -> dict[str, Any]:
        # The lesions of own scans are drawn anew in each, and take after other real ones in each.
        origin = (zlib.crc32(source.name.encode()),) if self.place == OWN else ()
        rng = np.random.default_rng([7, number, *origin])
        look = self.looks[(number + sum(origin)) % len(self.looks)] if self.looks else None
        low, high = np.log(self.diameters)
        diameter = round(float(np.exp(rng.uniform(low, high))) if look is None else look.diameter, 1)
        volume = mdf.read_volume(source.image)
        try:
            mask, wishes = self._wishes(volume, source, look, diameter, rng)
            if self.painted:
                return self._write(name, painted(volume, mask, wishes, rng), mask) | {"good": True, "wishes": wishes}
            marked = Volume(mask.astype(np.uint8), volume.ijk_to_ras, "mask")
            result = mdf.generate_lesion(volume, self.model, mask=marked, seed=number, **wishes)
        except InputError as error:  # no room for one of this size, or no muscle around it
            return {"good": False, "diameter": diameter, "reason": str(error)}
        made = self._write(name, result.volumes["with_lesion"], result.volumes["lesion"].voxels > 0)
        facts = result.facts
        return made | {
            "good": look is not None or bool(facts["check"]["good"]), "diameter": diameter,
            "mean_hu": facts["mean_hu_after"], "spread_hu": facts["spread_hu_after"],
            "around_hu": facts["surroundings_hu"], "check": facts["check"],
        }  # fmt: skip

    def _write(self, name: str, volume: Volume, lesion: np.ndarray) -> dict[str, Any]:
        """The case's files; how large its lesion is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part, suffix in zip(cropped(volume, lesion), ("", "_mask"), strict=True):
            write_volume(part, self.folder / f"{name}{suffix}.nrrd", overwrite=True)
        return {"made_mm": round(ball_diameter(lesion, volume.spacing), 1)}

    def _wishes(
        self, volume: Volume, source: Entry, look: Look | None, diameter: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Mask and parameters for the task: of the lesion, or of where it may be and how large it shall be."""
        room = room_of(volume, PLACES[self.place], np.inf if self.place == OWN else NEAR_SKIN_MM)
        if self.place == OWN:
            lesion = regrown(_read(source)[1], room, np.array(volume.spacing[::-1]), rng)
        elif look is None:
            return room, {"diameter": diameter}
        else:
            lesion = make_lesion_mask(room, volume.spacing, diameter, rng)
        return lesion, {} if look is None else density_like(volume, lesion, look)


def _entry(stem: Path) -> Entry:
    image, mask = stem.with_name(f"{stem.name}.nrrd"), stem.with_name(f"{stem.name}_mask.nrrd")
    return Entry(stem.name, "training", image, stem.name, None, {"label": mask})
