"""Facts as a diffusion over slots, given the vectors of an image.

Rows of :mod:`.fact_slots` are drawn by Euler's method from a small network that removes noise from them (EDM, Karras et
al., NeurIPS 2022), given the vectors of the whole image and of its parts in their places: what lies where pays. Draws
differ where the image leaves a fact open, which tells how sure one may be; how sure one has to be is calibrated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .encoders import PARTS, Vectors
from .encoders import SIZE as VECTOR
from .fact_slots import SIZE

WIDTH, BLOCKS, NARROW = 28, 2, 3
"""Of the network; numbers that are kept of the vector of each part."""
DATA_SIGMA = 0.7
"""Standard deviation of rows."""
HIGHEST, LOWEST, LEVELS, DRAWS = 20.0, 0.02, 12, 32
"""Noise levels of the sampler, and rows that are drawn for an image."""
MODALITIES = {"mr": PARTS**3, "xray": PARTS**2}
"""Images that facts are drawn for, and how many parts each has. A CT is measured."""

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Noisy rows (B, SIZE) and their noise level (B, 1) -> rows."""


class FactFlow(nn.Module):
    """Noisy rows, their noise level, and the vectors of images -> rows without noise."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.ModuleDict({name: nn.Linear(VECTOR, NARROW, bias=False) for name in MODALITIES})
        self.given = nn.ModuleDict({name: nn.Linear(VECTOR + NARROW * n, WIDTH) for name, n in MODALITIES.items()})
        self.enter = nn.Linear(SIZE + 1, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(BLOCKS)
        )
        self.out = nn.Linear(WIDTH, SIZE)

    def seen(self, vectors: Vectors, modality: str) -> torch.Tensor:
        """What is known of images (B, WIDTH); vectors of length 1 have entries of about an eighth."""
        parts = self.narrow[modality](8 * vectors.parts).flatten(1)
        known: torch.Tensor = self.given[modality](torch.cat([8 * vectors.whole, parts], 1))
        return known

    def forward(self, rows: torch.Tensor, sigma: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """(B, SIZE), (B, 1) and what is known of the images -> (B, SIZE)."""
        total = (sigma**2 + DATA_SIGMA**2).sqrt()
        x = self.enter(torch.cat([rows / total, sigma.log() / 4], 1)) + seen
        for block in self.blocks:
            x = x + block(x)
        denoised: torch.Tensor = DATA_SIGMA**2 / total**2 * rows + sigma * DATA_SIGMA / total * self.out(x)
        return denoised


def flow_loss(
    network: FactFlow, vectors: Vectors, modality: str, rows: torch.Tensor, known: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Weighted square error of the denoised rows where they are known, with one noise level for each image.

    Args:
        rows, known: (B, SIZE).
    """
    sigma = (1.2 * torch.randn((len(rows), 1), generator=generator) - 0.6).exp().to(rows)
    noise = torch.randn(rows.shape, generator=generator).to(rows)
    denoised = network((rows + sigma * noise) * known, sigma, network.seen(vectors, modality))
    weight = (sigma**2 + DATA_SIGMA**2) / (sigma * DATA_SIGMA) ** 2
    return (weight * known * (denoised - rows) ** 2).sum() / known.sum()


def solve(denoise: Denoiser, noise: torch.Tensor, levels: int = LEVELS) -> torch.Tensor:
    """Rows (B, any) by Euler's method from standard normal noise of that shape.

    Args:
        levels: noise levels, evenly along their fifth root.
    """
    sigmas = torch.linspace(HIGHEST ** (1 / 5), LOWEST ** (1 / 5), levels) ** 5
    rows = sigmas[0] * noise
    for now, after in zip(sigmas, [*sigmas[1:], torch.tensor(0.0)], strict=True):
        slope = (rows - denoise(rows, now.expand(len(rows), 1))) / now
        rows = rows + (after - now) * slope
    return rows


@torch.no_grad()
def draw_rows(network: FactFlow, vectors: Vectors, modality: str, seed: int = 0) -> torch.Tensor:
    """Rows (DRAWS, n, SIZE) of n images; those of one are the same whatever images stand beside it."""
    count = len(vectors.whole)
    seen = network.seen(vectors, modality).repeat_interleave(DRAWS, 0)
    noise = torch.randn((DRAWS, SIZE), generator=torch.Generator().manual_seed(seed))
    rows = solve(lambda rows, sigma: network(rows, sigma, seen), noise.repeat(count, 1))
    return rows.reshape(count, DRAWS, SIZE).transpose(0, 1)
