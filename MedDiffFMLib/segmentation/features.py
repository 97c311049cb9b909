"""Feature method: a small head on the features of the frozen prior (arXiv 2501.19265).

The features of a case are computed once. A head without a receptive field learns from single points, so a step costs
milliseconds: most of the points lie in a structure or just outside of it, and weights make up for that, so that the
probabilities are those of whole scans.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import Dataset

from ..core.atomic_files import atomic_path
from ..core.errors import InputError
from ..core.progress import ProgressMeter
from ..imaging.haar import haar_forward
from ..inference.window_plan import extend
from .activations import decoder_channels, volume_activations
from .context import ContextHead
from .inputs import LabeledInput, SegmentationInput, class_shares, mirrored
from .loss import share_entropy
from .method import InferenceBudget, Prediction, Segmenter
from .point_head import PointHead, to_points, to_voxels

OWN_FEATURES = 8 + 6
"""Of each point: eight Haar bands of the image, three body coordinates and their squares."""
SHARES = (0.3, 0.3, 0.4)
"""Of the points: in a structure, within some millimeters around one, anywhere."""
AROUND = 4
"""Cells of half resolution around a structure."""
LARGEST_BANK, ALL_BANKS = 20_000, 400_000
"""Points of one example and of all together whose features are held in memory."""
BANK_SEED = 0
STANDARD_POINTS = 2048
"""Points of each example from which mean and deviation of the features are taken."""
SMOOTHED = 0.75
"""Deviation, in voxels, of the Gaussian by which probabilities are smoothed: a head that sees single points leaves
grain in them. In necks that it did not learn from this takes the calibration error of what is marked from 0.19, 0.16
and 0.11 to 0.04, 0.06 and 0.06 with 1, 2 and 5 cases (docs/results/segment-from-few.md)."""


@dataclass(frozen=True)
class FeatureMethod:
    """See :class:`.method.Method`.

    Attributes:
        window: edge of the windows that the prior is shown.
        head: "linear" or "nonlinear".
        sigmas: noise levels given to the prior, in units of 1000 HU.
        scales: resolutions at which it is shown the CT.
        body: whether the head is given body coordinates.
        points: of one sample.
        hidden, dropout: of the non-linear head.
        flip: learn from each CT mirrored too, for structures without a side; its features take as long again.
        prior: SHA-256 of the prior's weights, and
        precision: of its arithmetic, "float32" or "bfloat16"; filled in by the training, since cached features belong
            to them.
    """

    window: int = 64
    head: str = "nonlinear"
    sigmas: Sequence[float] = (0.05, 0.3)
    scales: Sequence[int] = (1, 2)
    body: bool = True
    points: int = 2048
    hidden: int = 64
    dropout: float = 0.1
    flip: bool = False
    prior: str = ""
    precision: str = ""

    name = "features"
    own_body = False

    def __post_init__(self) -> None:
        if self.head not in ("linear", "nonlinear") or not self.sigmas or not self.scales:
            raise InputError(f"There is no head {self.head!r} with these features.", "Use linear or nonlinear.")

    @property
    def key(self) -> str:
        """Names the features in a case's folder."""
        parts = [self.prior, list(self.sigmas), list(self.scales), self.window, self.precision]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def build(self, classes: int, prior: nn.Module) -> Segmenter:
        return FeatureSegmenter(self, classes, prior)

    def samples(self, examples: Sequence[LabeledInput], seed: int, first: int, count: int) -> Dataset:
        return PointSamples(self, self.shown(examples), seed, first, count)

    def shown(self, examples: Sequence[LabeledInput]) -> list[LabeledInput]:
        """What is learned from: the examples, and their mirror images where they are asked for."""
        return [*examples, *(mirrored(example) for example in examples if self.flip)]

    def collate(self, samples: list[dict[str, Any]]) -> PointBatch:
        names = ("features", "target", "weight", "known")
        return PointBatch(*(torch.stack([sample[name] for sample in samples]) for name in names))


class PointBatch(NamedTuple):
    """Input of one training step.

    Attributes:
        features: (B, N, F).
        target: (B, N, C, 8), 1 inside each class.
        weight: (B, N): how many points of the scan each stands for, mean 1.
        known: (B, C).
    """

    features: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    known: torch.Tensor


class PointSamples(Dataset):
    """Points of one example a sample, drawn from a bank of some thousand that is filled when it is first needed."""

    def __init__(
        self, method: FeatureMethod, examples: Sequence[LabeledInput], seed: int, first: int, count: int
    ) -> None:
        self.method, self.examples = method, list(examples)
        self.seed, self.first, self.count = seed, first, count
        self._banks: dict[int, Bank] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.first + index])
        chosen = int(rng.integers(len(self.examples)))
        example = self.examples[chosen]
        if chosen not in self._banks:
            size = max(ALL_BANKS // len(self.examples), self.method.points)
            self._banks[chosen] = Bank(self.method, example, min(size, LARGEST_BANK))
        features, target, weight = self._banks[chosen].draw(self.method.points, rng)
        known = torch.tensor(example.known, dtype=torch.float32)
        return {"features": features, "target": target, "weight": weight, "known": known, "case": example.name}


class Bank:
    """Points of an example with their features and truth, the same ones in every process and at every start.

    Args:
        size: points, if the example has as many; as many of each stratum as :data:`SHARES` says.
    """

    def __init__(self, method: FeatureMethod, example: LabeledInput, size: int) -> None:
        rng = np.random.default_rng(BANK_SEED)
        groups = strata(example)
        self.totals = [len(group) for group in groups]
        counts = shared_out(groups, size)
        kept = [rng.permutation(group)[:n] for group, n in zip(groups, counts, strict=True)]
        ends = np.cumsum([0, *map(len, kept)])
        self.groups = [np.arange(low, high) for low, high in zip(ends[:-1], ends[1:], strict=True)]
        points = np.concatenate(kept)
        self.features = StoredFeatures(method, example.inputs).at(points).half()
        self.target = to_points(_even(example.truth()))[points].to(torch.uint8)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features (N, F), truth (N, C, 8) and weights (N,) of some points."""
        rows, weight = draw_points(self.groups, self.totals, count, rng)
        chosen = torch.from_numpy(rows)
        return self.features[chosen].float(), self.target[chosen].float(), weight


def strata(example: LabeledInput) -> list[np.ndarray]:
    """Numbers of the points (cells of half resolution) in each known class, around them, and elsewhere."""
    from scipy.ndimage import binary_dilation

    cells = _even(example.truth()).unfold(1, 2, 2).unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5, 6)).numpy() > 0
    marked = [cells[number] for number, known in enumerate(example.known) if known and cells[number].any()]
    anywhere = np.any(marked, axis=0) if marked else np.zeros(cells.shape[1:], bool)
    around = binary_dilation(anywhere, iterations=AROUND) & ~anywhere
    rest = ~anywhere & ~around
    return [np.flatnonzero(mask) for mask in (*marked, around, rest) if mask.any()]


def shared_out(groups: Sequence[np.ndarray], count: int) -> list[int]:
    """Numbers of points by group, ``count`` in all; the last two groups are those around structures and elsewhere."""
    shares = [1 / len(groups)] * len(groups)
    if len(groups) > 2:
        classes = len(groups) - 2
        shares = [SHARES[0] / classes] * classes + list(SHARES[1:])
    counts = [max(int(share * count), 1) for share in shares]
    counts[-1] += count - sum(counts)
    return counts


def draw_points(
    groups: Sequence[np.ndarray], totals: Sequence[int], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, torch.Tensor]:
    """Points, and how many points of the scan each stands for, 1 on average.

    Args:
        totals: how many points the scan has in each group, of which ``groups`` may hold fewer.
    """
    counts = shared_out(groups, count)
    points = np.concatenate([group[rng.integers(len(group), size=n)] for group, n in zip(groups, counts, strict=True)])
    weights = [np.full(n, total / sum(totals) * count / n) for n, total in zip(counts, totals, strict=True)]
    return points, torch.from_numpy(np.concatenate(weights).astype(np.float32))


class StoredFeatures:
    """The features of a CT, in memory or mapped from its folder.

    Args:
        arrays: what :func:`.activations.volume_activations` gave; read from the folder where they are not given.
    """

    def __init__(
        self, method: FeatureMethod, inputs: SegmentationInput, arrays: list[np.ndarray] | None = None
    ) -> None:
        self.method, self.inputs = method, inputs
        self.shape = tuple(-(-n // 2) for n in inputs.shape)
        self.arrays = _mapped(inputs.folder, method) if arrays is None else arrays
        even = tuple(2 * n for n in self.shape)
        self.bands = haar_forward(extend(inputs.image(), even))[0]  # type: ignore[arg-type]

    def at(self, points: np.ndarray) -> torch.Tensor:
        """(N, F) features of points by number; nothing is read but around them."""
        place = np.unravel_index(points, self.shape)
        k, j, i = (torch.from_numpy(line) for line in place)
        middles = [2 * line + 0.5 for line in place]  # of the cells of half resolution, in voxels
        body = self.inputs.body.at(middles) * float(self.method.body)
        parts = [self.bands[:, k, j, i], body, body.square()]
        for array, cell in zip(self.arrays, self._cells(), strict=True):
            parts.append(_between(array, [(line + 0.5) / cell - 0.5 for line in place]).T)
        return torch.cat(parts).T.contiguous()

    def plane(self, k: int) -> torch.Tensor:
        """(h * w, F) features of all points of a plane: of the voxels, of the place, of each decoder level."""
        _, height, width = self.shape
        parts = [self.bands[:, k], self._place(k)]
        for array, cell in zip(self.arrays, self._cells(), strict=True):
            level = _plane_of(array, (k + 0.5) / cell - 0.5).permute(2, 0, 1)[None]
            if cell > 1:
                level = functional.interpolate(level, scale_factor=cell, mode="bilinear")
            parts.append(level[0, :, :height, :width])
        return torch.cat(parts).flatten(1).T

    def _cells(self) -> list[int]:
        """Edge of each array's cells in cells of half resolution."""
        levels = len(self.arrays) // len(self.method.scales)
        return [scale << level for scale in self.method.scales for level in range(levels)]

    def _place(self, k: int) -> torch.Tensor:
        """(6, h, w) body coordinates and their squares, zeros where the method does without."""
        _, height, width = self.shape
        place = self.inputs.body.window((slice(2 * k, 2 * k + 2), slice(0, 2 * height), slice(0, 2 * width)), 2)[:, 0]
        return torch.cat([place, place.square()]) * float(self.method.body)


def _plane_of(array: np.ndarray, position: float) -> torch.Tensor:
    """(h, w, channels) between two planes of an array, float32."""
    position = min(max(position, 0.0), len(array) - 1.0)
    low = min(int(position), max(len(array) - 2, 0))
    first = torch.from_numpy(np.array(array[low])).float()
    if position == low:
        return first
    return first.lerp(torch.from_numpy(np.array(array[low + 1])).float(), position - low)


def _between(array: np.ndarray, position: Sequence[np.ndarray]) -> torch.Tensor:
    """(N, channels) of an array (d, h, w, channels) between its cells, float32; linear, repeated beyond its ends."""
    corners = []
    for line, size in zip(position, array.shape[:3], strict=True):
        inside = np.clip(line, 0, size - 1)
        low = inside.astype(np.int64)
        corners.append(((low, 1 - (inside - low)), (np.minimum(low + 1, size - 1), inside - low)))
    total = np.zeros((len(position[0]), array.shape[3]), np.float32)
    for (k, share_k), (j, share_j), (i, share_i) in product(*corners):
        share = (share_k * share_j * share_i).astype(np.float32)
        if share.any():
            total += share[:, None] * array[k, j, i]
    return torch.from_numpy(total)


class FeatureSegmenter(Segmenter):
    """The frozen prior and a head.

    Attributes:
        context: looks at the head's map again; None where there were too few patients to learn it from.
    """

    context: ContextHead | None

    def __init__(self, method: FeatureMethod, classes: int, prior: nn.Module) -> None:
        super().__init__()
        self.method, self.classes, self.prior, self.context = method, classes, prior, None
        levels = [len(method.sigmas) * count for count in decoder_channels(prior)]
        widths = [OWN_FEATURES, *(levels * len(method.scales))]
        self.part = PointHead(widths, classes, method.head, method.hidden, method.dropout)
        self.entropy = torch.ones(classes)

    def expect(self, shares: torch.Tensor) -> None:
        """Begin with each class as often as it is, (C,) shares of the voxels, and measure the loss by that."""
        head = self.part
        assert isinstance(head, PointHead)
        head.start_from(shares)
        self.entropy = share_entropy(shares)

    def loss(self, batch: PointBatch) -> torch.Tensor:
        """Cross-entropy as of the whole scans, estimated from weighted points, over that of one who knows no more than
        how often each class is (He et al. 2014, 10.1145/2648584.2648589); (B,).

        Without the division a structure of a ten-thousandth of a scan counts a three-hundredth of one of a tenth in the
        layers that the classes share. Soft Dice, which is no proper score, made the heads too sure and no better.
        """
        count, points = batch.features.shape[:2]
        with torch.autocast(batch.features.device.type, enabled=False):
            logits = self.part(batch.features.flatten(0, 1)).reshape(count, points, self.classes, -1)
        weight = batch.weight[:, :, None, None]
        entropy = functional.binary_cross_entropy_with_logits(logits, batch.target, reduction="none")
        entropy = (entropy * weight).mean((1, 3)) / self.entropy.to(logits)
        return (entropy * batch.known).sum(1) / batch.known.sum(1).clamp(min=1)

    @torch.inference_mode()
    def predict(
        self, inputs: SegmentationInput, budget: InferenceBudget, meter: ProgressMeter | None = None
    ) -> Prediction:
        arrays = None
        if _stored_folder(inputs.folder, self.method) is None:
            arrays = volume_activations(self.prior, inputs, self.method.sigmas, self.method.scales, budget, meter, 0.9)
            if inputs.folder is not None:  # a case of a training is predicted at each validation
                _store(inputs.folder, self.method, arrays)
        stored = StoredFeatures(self.method, inputs, arrays)
        depth, height, width = stored.shape
        slabs = []
        for k in range(depth):
            if meter is not None:
                meter.check()
            logits = self.part(stored.plane(k).to(budget.device)).float().cpu()
            slabs.append(to_voxels(logits, (1, height, width)))
        d, h, w = inputs.shape
        probability = smoothed(torch.cat(slabs, dim=1)[:, :d, :h, :w].sigmoid())
        if self.context is not None:
            probability = self.context.refined(inputs.voxels, probability, meter)
        if meter is not None:
            meter.advance(0.1 if arrays is not None else 1.0)
        return Prediction(probability, (probability * (1 - probability)).sqrt())

    def precompute(self, examples: Sequence[LabeledInput], budget: InferenceBudget, meter: ProgressMeter) -> None:
        """Features of each example into its folder; into the head mean and deviation of the training features, and how
        much of a scan each class is."""
        method, examples = self.method, self.method.shown(examples)
        for number, example in enumerate(examples):
            meter.check()
            folder = example.inputs.folder
            assert folder is not None
            if _stored_folder(folder, method) is None:
                meter.advance(0, f"Features of {number + 1} of {len(examples)}  {example.name}")
                arrays = volume_activations(self.prior, example.inputs, method.sigmas, method.scales, budget, meter)
                _store(folder, method, arrays)
        head = self.part
        assert isinstance(head, PointHead)
        rng = np.random.default_rng(BANK_SEED)
        banks = [Bank(self.method, example, STANDARD_POINTS) for example in examples]
        head.standardize(torch.cat([bank.draw(STANDARD_POINTS, rng)[0] for bank in banks]))
        self.expect(class_shares(examples))


def smoothed(probabilities: torch.Tensor) -> torch.Tensor:
    """Probabilities (C, D, H, W), float32 on the CPU, without the grain of a head that sees single points."""
    from scipy.ndimage import gaussian_filter

    result = torch.empty(probabilities.shape)
    for one, clean in zip(probabilities, result, strict=True):
        gaussian_filter(one.numpy(), SMOOTHED, mode="nearest", truncate=3.0, output=clean.numpy())
    return result


def _even(mask: torch.Tensor) -> torch.Tensor:
    """Zeros after the last three axes, up to even edges."""
    pad = [part for n in reversed(mask.shape[1:]) for part in (0, n % 2)]
    return functional.pad(mask, pad)


def _names(folder: Path, method: FeatureMethod) -> list[Path]:
    return sorted((folder / f"features-{method.key}").glob("*.npy"))


def _stored_folder(folder: Path | None, method: FeatureMethod) -> Path | None:
    """The folder of finished features, None where there is none."""
    if folder is None or not (folder / f"features-{method.key}" / "done.json").exists():
        return None
    return folder / f"features-{method.key}"


def _mapped(folder: Path | None, method: FeatureMethod) -> list[np.ndarray]:
    stored = _stored_folder(folder, method)
    if stored is None:
        raise InputError(f"The features in {folder} are not complete.", "Start again; finished cases are kept.")
    return [np.load(path, mmap_mode="r") for path in sorted(stored.glob("*.npy"))]


def _store(folder: Path, method: FeatureMethod, arrays: list[np.ndarray]) -> None:
    """Write the arrays, and last of all the sign that they are whole."""
    target = folder / f"features-{method.key}"
    target.mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(arrays):
        with atomic_path(target / f"{number:02d}.npy", overwrite=True) as temporary, open(temporary, "wb") as stream:
            np.save(stream, array)
    with atomic_path(target / "done.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(asdict(method)), encoding="utf-8")
