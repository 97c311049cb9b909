"""Lesion task of fine-tuning: real lesions are hidden and predicted from their masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ...conditioning.condition import Condition, EncodedCondition, stack
from ...conditioning.control_inputs import MASKS, lesion_control, lesion_guess
from ...conditioning.known_voxels import biharmonic_init
from ...conditioning.regions import NULL_REGION
from ...core.errors import InputError
from ...core.precision import autocast
from ...datasets.prepared_cases import Case
from ...imaging.intensity import to_network
from ...imaging.resampling import resample_box
from ...tasks.generate_lesion.lesion_extent import FITTING_VOXELS, surroundings
from ...tasks.generate_lesion.recipe import sample_lesion
from .interface import VALIDATION_SEED, ControlBatch, ControlCase, NoisyWindows
from .preview import Preview, Slice

if TYPE_CHECKING:
    from ...diffusion.controlled_denoiser import ControlledDenoiser
    from ...networks.controlnet import ControlConfig

SMALLEST_MM3 = 10.0
BORDER = 8
"""Voxels between a lesion and the window's edge, where there is room."""
RIM_MM = (1.0, 5.0)
"""Width around the lesion that is hidden too."""
VALIDATION_LESIONS = 4
VALIDATION_STEPS = 6


class Lesion(NamedTuple):
    """One lesion of a case.

    Attributes:
        label: its number in the mask.
        low, high: (3,) first and last voxel (k, j, i).
    """

    case: Case
    mask: np.ndarray
    label: int
    low: np.ndarray
    high: np.ndarray

    def inside(self) -> np.ndarray:
        """bool (k, j, i)."""
        return np.asarray(self.mask) == self.label

    def share(self, start: np.ndarray, step: np.ndarray, count: tuple[int, int, int]) -> np.ndarray:
        """Share of lesion in each voxel of a grid, see :func:`imaging.resampling.resample_box`; reads it only."""
        box = tuple(slice(low, high + 1) for low, high in zip(self.low, self.high, strict=True))
        border = int(np.ceil(step.max())) + 1  # as far as a voxel of the grid reaches
        inside = np.pad(np.asarray(self.mask[box]) == self.label, border)
        return resample_box(inside, start - (self.low - border), step, count)


@dataclass(frozen=True)
class LesionTask(NoisyWindows):
    """See :class:`.interface.ControlTask`.

    Attributes:
        own_share: share of windows with the scanner's own voxels, where the lesion fits into them.
        log_mean, log_std: normal distribution of log sigma, in units of 1000 HU.
        drop_region, drop_position: probability of hiding that condition.
        inside_share: share of the loss that falls on the lesion, however small it is beside its rim; 0 counts all
            hidden voxels alike.
    """

    window: int = 64
    own_share: float = 0.6
    log_mean: float = -0.7
    log_std: float = 1.4
    drop_region: float = 0.15
    drop_position: float = 0.15
    inside_share: float = 0.7

    name = "lesion"
    needs_mask = True
    metric = "hu_distance"
    higher_is_better = False

    def __post_init__(self) -> None:
        if not 0 <= self.inside_share < 1:
            raise InputError(f"inside_share is {self.inside_share}.", "Give 0 or more, and less than 1.")

    def network(self) -> ControlConfig:
        from ...networks.controlnet import ControlConfig

        return ControlConfig(masks=MASKS, blocks=1)

    def check(self, cases: Sequence[ControlCase]) -> list[str]:
        counts = {case.case.name: len(lesions_of(case)) for case in cases}
        if not any(counts.values()):
            raise InputError("No case has a lesion in its mask.", "Give masks that mark lesions.")
        return [f"{name} is left out: its mask marks no lesion." for name, count in counts.items() if not count]

    def samples(self, cases: Sequence[ControlCase], seed: int, first: int, count: int) -> Dataset:
        return _Windows([lesion for case in cases for lesion in lesions_of(case)], self, seed, first, count)

    def loss(self, denoiser: ControlledDenoiser, batch: ControlBatch) -> torch.Tensor:
        weight = inside_weight(batch.condition, self.inside_share)
        return denoiser.loss(batch.x0, batch.sigma, batch.noise, batch.condition, weight)

    def settings(self, cases: Sequence[ControlCase]) -> dict[str, Any]:
        """``lesions``: of each one the surroundings' median and the mean, HU."""
        lesions = [lesion for case in cases for lesion in lesions_of(case)]
        return {"lesions": [[round(value, 1) for value in density(lesion)] for lesion in lesions]}

    @torch.no_grad()
    def validate(
        self,
        denoiser: ControlledDenoiser,
        cases: Sequence[ControlCase],
        preview: Preview | None = None,
        precision: str = "auto",
    ) -> dict[str, float]:
        """Generated lesions against the real ones in the same masks, of the same mean.

        ``hu_distance``: Wasserstein distance between the histograms of HU inside the mask, mean over the lesions;
        ``flat_hu_distance``: that of a lesion without texture; ``rmse_hu``: voxel by voxel; ``outside_hu``: largest
        change outside of what was hidden.
        """
        from scipy.stats import wasserstein_distance

        device = next(denoiser.parameters()).device
        lesions = [lesion for case in cases for lesion in lesions_of(case)]
        chosen = lesions[:: max(len(lesions) // VALIDATION_LESIONS, 1)][:VALIDATION_LESIONS]
        rows = []
        for number, lesion in enumerate(chosen):
            drawn = draw_lesion(lesion, self.window, 1.0, np.random.default_rng([VALIDATION_SEED, number]))
            condition = drawn.condition(0.0, 0.0, np.random.default_rng(0))
            assert condition.known is not None and condition.hole is not None
            encoded = stack([condition.encode(drawn.voxels.shape).to(device)])
            truth = torch.from_numpy(to_network(drawn.voxels))
            images = (truth, condition.hole, condition.known, torch.from_numpy(drawn.share))
            known, hole, guess, share = (image[None, None].to(device) for image in images)

            def denoise(x: torch.Tensor, sigma: float, encoded: Any = encoded) -> torch.Tensor:
                with autocast(device, precision):
                    return denoiser(x, torch.full((1,), sigma, device=device), encoded).float()

            generator = torch.Generator().manual_seed(number)
            generated = sample_lesion(denoise, known, hole, guess, share, drawn.mean, VALIDATION_STEPS, 1.0, generator)[
                0, 0
            ].cpu()
            inside = drawn.share > 0.5
            if preview is not None:
                preview.add(*_axial(drawn, generated.numpy(), inside))
            real, predicted = (1000 * image.numpy()[inside] for image in (truth, generated))
            rows.append(
                {
                    "hu_distance": wasserstein_distance(predicted, real),
                    "flat_hu_distance": wasserstein_distance(1000 * condition.known.numpy()[inside], real),
                    "rmse_hu": float(np.sqrt(np.mean((predicted - real) ** 2))),
                    "outside_hu": 1000 * float((generated - truth)[condition.hole == 0].abs().max()),
                }
            )
        figures = {name: round(float(np.mean([row[name] for row in rows])), 2) for name in rows[0]} if rows else {}
        if rows:
            figures["outside_hu"] = max(row["outside_hu"] for row in rows)
        return figures


def inside_weight(condition: EncodedCondition, least: float) -> torch.Tensor:
    """Weight of each voxel, (B, 1, D, H, W), by which the share ``least`` of the hidden ones' falls on the lesion.

    A nodule of 5 mm fills a tenth of what is hidden with it: unweighted, its rim, which is good from the start,
    decides what is learned. Voxels that are partly lesion count partly, so a small one gets a little less than its
    share; a large one that has more by itself keeps it.
    """
    assert condition.control is not None and condition.hole is not None
    share = condition.control[:, :1]
    inside = (share * condition.hole).sum(dim=(1, 2, 3, 4), keepdim=True)
    around = condition.hole.sum(dim=(1, 2, 3, 4), keepdim=True) - inside
    factor = least / (1 - least) * around / inside.clamp(min=1)
    return 1 + (factor.clamp(min=1) - 1) * share


def _axial(drawn: Drawn, generated: np.ndarray, inside: np.ndarray) -> list[Slice]:
    """The slice that shows most of the lesion: its outline in what the network sees, what it made, and the truth."""
    k = int(inside.sum((1, 2)).argmax())
    aspect = drawn.spacing[1] / drawn.spacing[2]
    around = np.where(drawn.hole, -1024.0, drawn.voxels)[k]
    return [
        Slice("outline", around, ((inside[k], "yellow"),), aspect),
        Slice("now", 1000 * generated[k], (), aspect),
        Slice("real lesion", drawn.voxels[k], (), aspect),
    ]


def lesions_of(case: ControlCase) -> list[Lesion]:
    """The lesions that a case's mask marks, those too small to be seen left out."""
    from scipy.ndimage import find_objects

    if case.mask is None:
        return []
    mask = np.asarray(case.mask)
    voxel = float(np.prod(case.case.levels[0].spacing))
    lesions = []
    for label, box in enumerate(find_objects(mask), start=1):
        if box is not None and np.count_nonzero(mask[box] == label) * voxel >= SMALLEST_MM3:
            low, high = (np.array([edge(part) for part in box]) for edge in (lambda p: p.start, lambda p: p.stop - 1))
            lesions.append(Lesion(case.case, case.mask, label, low, high))
    return lesions


def density(lesion: Lesion) -> tuple[float, float]:
    """Median HU of a lesion's surroundings and its own mean."""
    inside = lesion.inside()
    k, j, i = (float(s) for s in lesion.case.levels[0].spacing)
    voxels = lesion.case.levels[0].voxels
    return surroundings(voxels, inside, (i, j, k)), float(voxels[inside].mean())


@dataclass(frozen=True)
class Drawn:
    """A window around a lesion; arrays (S, S, S).

    Attributes:
        voxels: HU.
        share: share of lesion in each voxel, float32.
        hole: bool, what is hidden.
        mean: of the lesion, network range.
        coordinates: (3, S) in the body box.
        spacing: mm (k, j, i).
        region: class index.
    """

    voxels: np.ndarray
    share: np.ndarray
    hole: np.ndarray
    mean: float
    coordinates: np.ndarray
    spacing: tuple[float, float, float]
    region: int

    def condition(self, drop_region: float, drop_position: float, rng: np.random.Generator) -> Condition:
        """Condition of the network, parts of it dropped at random."""
        hole, share = torch.from_numpy(self.hole).float(), torch.from_numpy(self.share)
        around = biharmonic_init(torch.from_numpy(to_network(self.voxels)), hole, self.spacing)
        keep_region, keep_position = rng.random() >= drop_region, rng.random() >= drop_position
        position = tuple(torch.from_numpy(line.astype(np.float32)) for line in self.coordinates)
        return Condition(
            spacing=self.spacing,
            coordinates=position if keep_position else None,  # type: ignore[arg-type]
            region=self.region if keep_region else NULL_REGION,
            known=lesion_guess(around, share, self.mean),
            hole=hole,
            control=lesion_control(share, self.mean),
        )


def draw_lesion(lesion: Lesion, size: int, own_share: float, rng: np.random.Generator) -> Drawn:
    """A random window that holds a lesion whole, as the task will see it."""
    source = lesion.case.levels[0]
    spacing = _voxel_size(lesion, size, own_share, rng)
    first, last = (lesion.low - 0.5) * source.spacing, (lesion.high + 0.5) * source.spacing
    reach, limit = size * spacing, np.array(source.voxels.shape) * source.spacing
    border = np.minimum(BORDER * spacing, np.maximum(reach - (last - first), 0) / 2)
    start = last + border - reach + np.maximum(reach - (last - first) - 2 * border, 0) * rng.uniform(0, 1, 3)
    # Inside the scan where it is large enough: beyond it there are only repeated edge voxels.
    start = np.where(limit >= reach, np.clip(start, 0, np.maximum(limit - reach, 0)), (limit - reach) / 2)
    if np.allclose(spacing, source.spacing):
        start = np.rint(start / spacing) * spacing
    begin, step = start / source.spacing + (spacing / source.spacing - 1) / 2, spacing / source.spacing
    count = (size, size, size)
    voxels = resample_box(source.voxels, begin, step, count)
    share = lesion.share(begin, step, count)
    hole = _hidden(share, spacing, float(rng.uniform(*RIM_MM)))
    share = np.where(hole, share, 0).astype(np.float32)
    mean = float((share * to_network(voxels)).sum() / max(share.sum(), 1e-6))
    coordinates = lesion.case.coordinates(source.origin + begin * source.spacing, spacing, count)
    k, j, i = (float(s) for s in spacing)
    return Drawn(voxels, share, hole, mean, coordinates, (k, j, i), lesion.case.region_of(coordinates))


def _voxel_size(lesion: Lesion, size: int, own_share: float, rng: np.random.Generator) -> np.ndarray:
    """Voxel edges (k, j, i) in mm at which the lesion fits: the scanner's own, or isotropic ones."""
    own = lesion.case.levels[0].spacing
    extent = (lesion.high - lesion.low + 1) * own
    fitting = FITTING_VOXELS * size / 64
    least = float(extent.max() / fitting)
    if (extent / own <= fitting).all():
        if rng.random() < own_share:
            return own.copy()
        least = max(least, 0.8 * float(own.min()))
    return np.full(3, least * np.exp(rng.uniform(0, np.log(1.6))))


def _hidden(share: np.ndarray, spacing: np.ndarray, rim: float) -> np.ndarray:
    """Voxels that touch the lesion, grown by ``rim`` mm; never the whole window."""
    from scipy.ndimage import distance_transform_edt

    touched = share > 0.01
    hole = distance_transform_edt(~touched, sampling=spacing) <= rim
    return touched if hole.all() else hole


class _Windows(Dataset):
    """Sample n of a run, see :meth:`LesionTask.samples`."""

    def __init__(self, lesions: list[Lesion], task: LesionTask, seed: int, first: int, count: int) -> None:
        self.lesions, self.task, self.seed, self.first, self.count = lesions, task, seed, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        task, rng = self.task, np.random.default_rng([self.seed, self.first + index])
        lesion = self.lesions[rng.integers(len(self.lesions))]
        drawn = draw_lesion(lesion, task.window, task.own_share, rng)
        sigma = float(np.clip(np.exp(rng.normal(task.log_mean, task.log_std)), 0.005, 20.0))
        return {
            "case": lesion.case.name,
            "x0": torch.from_numpy(to_network(drawn.voxels))[None, None],
            "sigma": sigma,
            "noise": torch.from_numpy(rng.standard_normal((1, 1, *drawn.voxels.shape), dtype=np.float32)),
            "condition": drawn.condition(task.drop_region, task.drop_position, rng),
        }
