"""First guess of a CT from an MR by a small network that looks at the features of each voxel by itself.

It takes seconds to train, knows bone by its shape where the table of intensities knows none, and is what the flow
corrects: an untrained flow is this guess.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .local_features import COUNT, local_features

HIDDEN = 64
BLUR = 0.15
"""Noise on the features in training, in units of their spread: few patients must not be learned by heart."""
ROWS = 65_536
"""Voxels at a time."""


class LocalGuess(nn.Module):
    """Features (n, 21) -> values in the network's range (n,)."""

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(COUNT))
        self.register_buffer("scale", torch.ones(COUNT))
        self.layers = nn.Sequential(
            nn.Linear(COUNT, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers((features - self.center) / self.scale)[:, 0]

    def of_image(self, image: np.ndarray, body: np.ndarray, spacing_mm: float) -> np.ndarray:
        """Guess (k, j, i) float32 in the body, -1 (air) outside.

        Args:
            image: MR (k, j, i), network range, isotropic voxels.
            body: bool.
        """
        result = np.full(image.shape, -1.0, np.float32)
        if body.any():
            rows = local_features(image, body, spacing_mm)[body]
            with torch.inference_mode():
                parts = [self(torch.from_numpy(rows[n : n + ROWS])) for n in range(0, len(rows), ROWS)]
            result[body] = torch.cat(parts).clamp(-1, 1).numpy()
        return result


def fit_local_guess(
    samples: list[tuple[np.ndarray, np.ndarray]],
    steps: int = 1000,
    bone_weight: float = 2.0,
    bone: float = 0.15,
    seed: int = 0,
) -> LocalGuess:
    """A guess that is trained to the least absolute error.

    Args:
        samples: features (n, 21) and values (n,) of each patient.
        bone_weight: of values above ``bone``, which are few.
    """
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(len(values))[:60_000] for _, values in samples]
    rows = torch.from_numpy(np.concatenate([f[n] for (f, _), n in zip(samples, chosen, strict=True)]))
    truth = torch.from_numpy(
        np.concatenate([v[n] for (_, v), n in zip(samples, chosen, strict=True)]).astype(np.float32)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guess = LocalGuess()
    guess.center.copy_(rows.mean(0))
    guess.scale.copy_(rows.std(0) + 1e-3)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(guess.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps + 1)
    for _ in range(steps):
        index = torch.randint(len(rows), (2048,), generator=generator)
        target = truth[index]
        blurred = rows[index] + BLUR * guess.scale * torch.randn(len(index), COUNT, generator=generator)
        loss = ((guess(blurred) - target).abs() * (1 + (bone_weight - 1) * (target > bone))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return guess.eval().requires_grad_(False)
