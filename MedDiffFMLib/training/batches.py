"""Windows and noise as batches. Sample n of a run is a pure function of (seed, n), which makes resuming exact."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ..conditioning.condition import Condition, EncodedCondition, stack
from ..conditioning.regions import NULL_REGION
from ..datasets.prepared_cases import Case
from ..imaging.intensity import to_network
from .noise import NoiseConfig, draw_noise
from .windows import WindowConfig, draw_purpose, draw_window


class TrainingWindows(Dataset):
    """Sample n: purpose, case, window and dropped conditions from a generator seeded with (seed, n).

    Windows for learning to remove noise come from cases with a scanner's own voxels, if there are any.

    Args:
        first, count: the samples [first, first + count) of the run.
        noise: draw a noise level and noise for each window, too; those of sample n depend on ``noise_seed`` + n.
    """

    def __init__(
        self,
        cases: list[Case],
        config: WindowConfig,
        seed: int,
        first: int,
        count: int,
        noise: NoiseConfig | None = None,
        noise_seed: int = 0,
    ) -> None:
        self.cases, self.config, self.seed, self.first, self.count = cases, config, seed, first, count
        self.noise, self.noise_seed = noise, noise_seed
        self.choice = CaseChoice(cases)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.first + index])
        purpose, chosen = self.choice.draw(self.config, rng)
        sample = draw_window(self.cases[chosen], self.config, rng, purpose)
        if self.noise is not None:
            generator = torch.Generator().manual_seed(self.noise_seed + self.first + index)
            shape = (1, *sample["voxels"].shape)
            sample["sigma"], sample["noise"] = draw_noise(shape, purpose, self.noise, generator)
        return sample


class CaseChoice:
    """Draws what a window is for and the case that it shows.

    Windows for learning to remove noise come from cases with a scanner's own voxels, if there are any.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        # Larger volumes hold more distinct windows, but small ones must not vanish: square root of the volume.
        weights = np.array([np.prod(case.levels[0].shape) for case in cases], dtype=float) ** 0.5
        native = weights * [case.native for case in cases]
        self.weights = weights / weights.sum()
        self.native_weights = native / native.sum() if native.any() else self.weights

    def draw(self, config: WindowConfig, rng: np.random.Generator) -> tuple[str, int]:
        """Purpose and number of the case."""
        purpose = draw_purpose(config, rng)
        weights = self.native_weights if purpose == "denoise" else self.weights
        return purpose, int(rng.choice(len(weights), p=weights))


class ProcessShare:
    """Numbers of the samples of each batch that one of several processes computes, from sample 0 of a dataset on.

    Args:
        batch: global batch size, a multiple of ``processes``.
        steps: number of batches.
    """

    def __init__(self, batch: int, processes: int, rank: int, steps: int) -> None:
        self.batch, self.share, self.rank, self.steps = batch, batch // processes, rank, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            first = step * self.batch + self.rank * self.share
            yield list(range(first, first + self.share))


def leave_signals_to_the_loop(worker: int) -> None:
    """For the processes that draw: a signal to the whole group must not end one while the loop finishes its step."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class Batch(NamedTuple):
    """Input of one training step.

    Attributes:
        x0: (B, 1, S, S, S) in the network's range.
        condition: encoded, with ``expected`` and ``hole``.
        purposes: what each sample is for.
        sigma: (B,) noise levels; None where no noise was drawn.
        noise: (B, 1, S, S, S) of unit variance, or None.
    """

    x0: torch.Tensor
    condition: EncodedCondition
    purposes: tuple[str, ...]
    sigma: torch.Tensor | None = None
    noise: torch.Tensor | None = None


def collate(samples: list[dict[str, Any]]) -> Batch:
    """Samples -> a batch."""
    voxels = torch.from_numpy(np.stack([to_network(s["voxels"]) for s in samples]))[:, None]
    condition = stack([sample_condition(s).encode(s["voxels"].shape) for s in samples], holes=True)
    purposes = tuple(s["purpose"] for s in samples)
    if "noise" not in samples[0]:
        return Batch(voxels, condition, purposes)
    sigma, noise = (torch.stack([s[name] for s in samples]) for name in ("sigma", "noise"))
    return Batch(voxels, condition, purposes, sigma, noise)


def sample_condition(sample: dict[str, Any]) -> Condition:
    """The condition of one drawn window."""
    coordinates = sample["coordinates"]
    spacing = tuple(float(s) for s in sample["spacing"])
    condition = Condition(
        spacing=(spacing[0], spacing[1], spacing[2]),
        coordinates=None if coordinates is None else tuple(torch.from_numpy(c) for c in coordinates),  # type: ignore[arg-type]
        region=NULL_REGION if sample["region"] is None else sample["region"],
        anatomy=None if sample["anatomy"] is None else torch.from_numpy(sample["anatomy"].copy()),
        tissue=None if sample["tissue"] is None else torch.from_numpy(sample["tissue"].copy()),
    )
    if sample["hole"] is None:
        return condition
    return condition.filling(torch.from_numpy(to_network(sample["voxels"])), torch.from_numpy(sample["hole"]).float())
