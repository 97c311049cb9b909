"""First guess of a CT from an MR by two small networks that look at the features of each voxel by itself.

The first sees the MR around a voxel, the second also what the first made of the surroundings (auto-context, Tu and Bai,
IEEE TPAMI 2010). They take a minute to train, know bone by its shape where the table of intensities knows none, and
are what the flow corrects: an untrained flow is this guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .local_features import CONTEXT, COUNT, context_features, local_features

HIDDEN = 64
BLUR = 0.15
"""Noise on the features in training, in units of their spread: few patients must not be learned by heart."""
FARTHEST = 3.0
"""Standard deviations from the mean by which a feature counts at most: beyond is where networks invent."""
STEPS = 1500
ROWS = 65_536
"""Voxels at a time."""
FOLDS = 4
"""Parts of the patients; the second network learns on guesses of first networks that trained on the other parts. A
network that knows a patient by heart errs less on that patient than it will on a new one."""
MOST_VOXELS = 60_000
"""Of one patient that are trained on."""


@dataclass(frozen=True)
class Example:
    """One patient to train on.

    Attributes:
        image: MR (k, j, i), network range, isotropic voxels.
        body: bool (k, j, i), as the MR shows it.
        used: bool (k, j, i), part of the body that teaches.
        hounsfield: CT (k, j, i), network range.
        patient: identifier.
    """

    image: np.ndarray
    body: np.ndarray
    used: np.ndarray
    hounsfield: np.ndarray
    patient: str


class VoxelNetwork(nn.Module):
    """Features (n, count) -> values in the network's range (n,)."""

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.layers = nn.Sequential(
            nn.Linear(count, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(((features - self.center) / self.scale).clamp(-FARTHEST, FARTHEST))[:, 0]

    def values(self, rows: np.ndarray) -> np.ndarray:
        """Values (n,) float32 in [-1, 1] of features (n, count), some at a time."""
        with torch.inference_mode():
            parts = [self(torch.from_numpy(rows[n : n + ROWS])) for n in range(0, len(rows), ROWS)]
        return torch.cat(parts).clamp(-1, 1).numpy()


class LocalGuess(nn.Module):
    """Both networks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = VoxelNetwork(COUNT), VoxelNetwork(COUNT + CONTEXT)

    def of_image(self, image: np.ndarray, body: np.ndarray, spacing_mm: float) -> np.ndarray:
        """Guess (k, j, i) float32 in the body, -1 (air) outside.

        Args:
            image: MR (k, j, i), network range, isotropic voxels.
            body: bool.
        """
        if not body.any():
            return np.full(image.shape, -1.0, np.float32)
        rows = local_features(image, body, spacing_mm)[body]
        first = _placed(self.first.values(rows), body)
        return _placed(self.second.values(_with_context(rows, first, body, body, spacing_mm)), body)


def fit_local_guess(
    examples: Sequence[Example], spacing_mm: float, seed: int = 0, steps: int = STEPS
) -> tuple[LocalGuess, dict[str, LocalGuess]]:
    """A guess that is trained to the least absolute error.

    Args:
        examples: one or more patients.
        spacing_mm: edge of their voxels.
        steps: of each network.

    Returns:
        The guess, and for each patient one whose networks did not train on that patient; the same for all where
        there are fewer patients than folds.
    """
    rows = [local_features(e.image, e.body, spacing_mm)[e.body] for e in examples]
    samples = [(own[e.used[e.body]], e.hounsfield[e.used]) for e, own in zip(examples, rows, strict=True)]
    fold, folds = _folds(examples)
    first, firsts = _networks(samples, folds, seed, steps)
    seconds = []
    for example, number, own, (features, truth) in zip(examples, folds, rows, samples, strict=True):
        seen = _placed(firsts[number].values(own), example.body)
        seconds.append((_with_context(features, seen, example.body, example.used, spacing_mm), truth))
    second, others = _networks(seconds, folds, seed, steps)
    return _guess(first, second), {patient: _guess(firsts[n], others[n]) for patient, n in fold.items()}


def _folds(examples: Sequence[Example]) -> tuple[dict[str, int], list[int]]:
    """Part of each patient, and of each example."""
    patients = sorted({example.patient for example in examples})
    parts = FOLDS if len(patients) >= FOLDS else 1
    fold = {patient: number % parts for number, patient in enumerate(patients)}
    return fold, [fold[example.patient] for example in examples]


def _networks(
    samples: Sequence[tuple[np.ndarray, np.ndarray]], folds: Sequence[int], seed: int, steps: int
) -> tuple[VoxelNetwork, dict[int, VoxelNetwork]]:
    """A network of all samples, and for each part one of the others'."""
    whole = fit_voxel_network(samples, seed, steps)
    if len(set(folds)) == 1:
        return whole, {folds[0]: whole}
    return whole, {
        part: fit_voxel_network([s for s, own in zip(samples, folds, strict=True) if own != part], seed, steps)
        for part in sorted(set(folds))
    }


def _guess(first: VoxelNetwork, second: VoxelNetwork) -> LocalGuess:
    guess = LocalGuess()
    guess.first, guess.second = first, second
    return guess.eval().requires_grad_(False)


def fit_voxel_network(
    samples: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int = 0,
    steps: int = STEPS,
    bone_weight: float = 2.0,
    bone: float = 0.15,
) -> VoxelNetwork:
    """A network that is trained to the least absolute error.

    Args:
        samples: features (n, count) and values (n,) of each patient.
        bone_weight: of values above ``bone``, which are few.
    """
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(len(values))[:MOST_VOXELS] for _, values in samples]
    rows = torch.from_numpy(np.concatenate([f[n] for (f, _), n in zip(samples, chosen, strict=True)]))
    truth = torch.from_numpy(
        np.concatenate([v[n] for (_, v), n in zip(samples, chosen, strict=True)]).astype(np.float32)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VoxelNetwork(rows.shape[1])
    network.center.copy_(rows.mean(0))
    network.scale.copy_(rows.std(0) + 1e-3)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps + 1)
    for _ in range(steps):
        index = torch.randint(len(rows), (2048,), generator=generator)
        target = truth[index]
        blurred = rows[index] + BLUR * network.scale * torch.randn(len(index), rows.shape[1], generator=generator)
        loss = ((network(blurred) - target).abs() * (1 + (bone_weight - 1) * (target > bone))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _with_context(
    rows: np.ndarray, first: np.ndarray, body: np.ndarray, used: np.ndarray, spacing_mm: float
) -> np.ndarray:
    """Features of the second network for the voxels in ``used``, in whose order ``rows`` of the first one's are."""
    return np.concatenate([rows, context_features(first, body, spacing_mm)[used]], axis=1)


def _placed(values: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Values of the body's voxels as an image, air around."""
    image = np.full(body.shape, -1.0, np.float32)
    image[body] = values
    return image
