"""Making of a reading kit: pieces of local CTs, beside each the same piece with part of it made by the prior."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.atomic_files import owned_name
from ..core.errors import InputError, OutputError
from ..core.progress import CancelToken, ProgressCallback, ProgressMeter
from ..imaging.io import read_volume, write_volume
from ..imaging.volume import Volume
from ..models.names import DEFAULT_MODEL
from .kit import KIT_FILE, LETTERS, MOST_PAIRS, Pair, key_path, write_key, write_kit
from .places import balls, crop, lesions

QUESTIONS = {
    "inpaint": "In one of the two, tissue was taken out and made anew where the views open. Which one is real?",
    "generate_lesion": "In one of the two the lesion where the views open was made by software. Which one is real?",
}
"""What readers are asked, by the task that makes the other one."""
LUNG, SOFT = (1400.0, -500.0), (400.0, 40.0)
"""Window and level."""
LUNG_BELOW_HU = -400.0


@dataclass(frozen=True)
class Source:
    """A CT to make pairs of, with its lesions where they are what is asked about."""

    image: Path
    mask: Path | None = None


@dataclass(frozen=True)
class KitPlan:
    """Everything that decides about a kit.

    Attributes:
        task: "inpaint" (a ball of untouched tissue is filled) or "generate_lesion" (a lesion is made anew).
        pairs: how many.
        seed: of places, sides and what is made.
        diameter: of the balls, mm.
        edge: of the pieces, mm.
        steps: network evaluations of one sample of what is made; None for what the task does by itself.
    """

    task: str = "inpaint"
    pairs: int = 20
    seed: int = 0
    diameter: float = 20.0
    edge: float = 90.0
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.task not in QUESTIONS:
            raise InputError(f"A kit cannot be made by {self.task}.", f"Choose {' or '.join(QUESTIONS)}.")
        if not 1 <= self.pairs <= MOST_PAIRS or not 4 <= self.diameter <= 60 or not 1 <= (self.steps or 1) <= 200:
            raise InputError(
                "Number of pairs, diameter or steps are out of range.",
                f"Give 1 to {MOST_PAIRS} pairs, 4 to 60 mm, 1 to 200 steps.",
            )
        if not 2 * self.diameter <= self.edge <= 300:
            raise InputError(f"Pieces of {self.edge:g} mm do not fit.", "Give two diameters to 300 mm.")


def make_kit(
    sources: Sequence[Source],
    folder: str | Path,
    plan: KitPlan,
    *,
    model: str = DEFAULT_MODEL,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Path:
    """Write a kit into a new folder and its key beside it.

    The same CTs, plan and model give the same places and sides, and on the same device the same voxels.

    Returns:
        The key's path.

    Raises:
        InputError: too few places or lesions for the pairs, or a CT that cannot be used.
        OutputError: the folder is not empty, the key exists, or something cannot be written.
    """
    from ..models.checkpoint import load_model

    folder = Path(folder)
    key = key_path(folder)
    if key.exists() or (folder.exists() and any(folder.iterdir())):
        raise OutputError(f"'{folder}' or its key has something in it.", "Give a new folder.")
    meter = ProgressMeter(plan.pairs, progress, cancel)
    loaded = load_model(model, device=device)
    rng = np.random.default_rng([plan.seed, 1])
    real, facts = {}, []
    with _new_folder(folder) as unfinished:
        rows = []
        for number, place in enumerate(_places(sources, plan), start=1):
            meter.check()
            letter = LETTERS[int(rng.integers(2))]
            rows.append(_write_pair(unfinished, number, letter, place, plan, loaded))
            real[number] = letter
            facts.append({"pair": number, "image": place.source.image.name, "center_ras_mm": place.center().round(1)})
            meter.advance(1, f"pair {number} of {plan.pairs}")
        _same_times(unfinished)
        kit = write_kit(unfinished, plan.seed, QUESTIONS[plan.task], rows)
        write_key(key, kit, real, {"task": plan.task, "model": loaded.name, "plan": vars(plan), "places": facts})
    return key


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when it is complete, and goes when it does not get so far."""
    unfinished = folder.with_name(f".{owned_name()}.{folder.name}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if folder.exists():
            folder.rmdir()
        unfinished.replace(folder)
    except OSError as problem:
        raise OutputError(f"'{folder}' cannot be written: {problem.strerror or problem}.", "Give another.") from problem
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@dataclass(frozen=True)
class _Place:
    """Where a pair comes from."""

    source: Source
    volume: Volume
    mask: np.ndarray

    def center(self) -> np.ndarray:
        """Middle of the mask, RAS mm."""
        k, j, i = np.argwhere(self.mask).mean(axis=0)
        return np.asarray((self.volume.ijk_to_ras @ [i, j, k, 1.0])[:3])


def _places(sources: Sequence[Source], plan: KitPlan) -> Iterator[_Place]:
    """As many places as pairs, CT after CT, as evenly as their lesions or their room allow."""
    found = 0
    for number, source in enumerate(sources):
        share = -(-(plan.pairs - found) // (len(sources) - number))
        for place in _places_of(source, plan, number, share):
            found += 1
            yield place
    if found < plan.pairs:
        what = "places for such a ball" if plan.task == "inpaint" else "lesions of 4 to 60 mm"
        raise InputError(f"The CTs have {found} {what}, not {plan.pairs}.", "Give more CTs, or --pairs for fewer.")


def _places_of(source: Source, plan: KitPlan, number: int, count: int) -> Iterator[_Place]:
    volume = read_volume(source.image)
    rng = np.random.default_rng([plan.seed, 0, number])
    if plan.task == "inpaint":
        masks = balls(volume, plan.diameter, rng)
    else:
        if source.mask is None:
            raise InputError(f"'{source.image.name}' has no mask of lesions.", "Give a datalist with masks.")
        marked = read_volume(source.mask, modality="mask")
        if not marked.same_geometry(volume):
            raise InputError(f"'{source.mask.name}' lies on another grid than its CT.", "Resample it to the CT.")
        masks = lesions(volume, marked.voxels > 0, rng)
    for _n, mask in zip(range(count), masks):  # noqa: B905  # there may be more or fewer
        yield _Place(source, volume, mask)


def _write_pair(folder: Path, number: int, letter: str, place: _Place, plan: KitPlan, model: Any) -> Pair:
    """Both pieces, alike in all but the voxels; ``letter`` is the real one's."""
    made = _made(place, plan, model, number)
    box = crop(place.volume, place.mask, plan.edge)
    near_lung = float(np.median(place.volume.voxels[_shell(place, plan)])) < LUNG_BELOW_HU
    pair = Pair(number, *(LUNG if near_lung else SOFT))
    for name in LETTERS:
        voxels = place.volume.voxels if name == letter else made
        write_volume(_piece(place, voxels, box), folder / pair.file(name))
    return pair


def _made(place: _Place, plan: KitPlan, model: Any, number: int) -> np.ndarray:
    """The CT with the mask's content made anew."""
    from ..api import tasks

    seed = plan.seed * MOST_PAIRS + number
    chosen: dict[str, Any] = {} if plan.steps is None else {"steps": plan.steps}
    if plan.task == "inpaint":
        chosen |= {"samples": 1} if chosen else {}
        result = tasks.inpaint(place.volume, model, mask=place.mask, seed=seed, **chosen)
    else:
        mean = float(np.clip(place.volume.voxels[place.mask].mean(), -1000, 1000))
        result = tasks.generate_lesion(place.volume, model, mask=place.mask, mean=mean, seed=seed, **chosen)
    return next(iter(result.volumes.values())).voxels


def _shell(place: _Place, plan: KitPlan) -> np.ndarray:
    """Voxels within half a diameter around the mask, which are the same in both."""
    from scipy.ndimage import binary_dilation

    box = crop(place.volume, place.mask, plan.edge)
    near = np.zeros(place.mask.shape, bool)
    steps = max(1, round(plan.diameter / 4 / max(place.volume.spacing)))
    near[box] = binary_dilation(place.mask[box], iterations=steps) & ~place.mask[box]
    return near if near.any() else ~place.mask


def _piece(place: _Place, voxels: np.ndarray, box: tuple[slice, slice, slice]) -> Volume:
    """A piece that tells nothing of the patient: the middle of what is asked about is the origin.

    Both of a pair are marked as synthetic, as one is, and both hold whole HU, as scanners give them.
    """
    piece = np.clip(np.rint(voxels[box]), -32768, 32767).astype(np.int16)
    matrix = place.volume.ijk_to_ras.copy()
    first = [part.start for part in reversed(box)]
    matrix[:3, 3] = (matrix @ [*first, 1.0])[:3] - place.center()
    return Volume(np.ascontiguousarray(piece), matrix, synthetic=True)


def _same_times(folder: Path) -> None:
    """One time of change for all files, which else would tell what was written first."""
    files = sorted(path for path in folder.iterdir() if path.name != KIT_FILE)
    moment = max((path.stat().st_mtime for path in files), default=0.0)
    for path in files:
        os.utime(path, (moment, moment))
