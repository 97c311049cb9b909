"""Refinement of an expected CT by what X-rays made of it: what they cannot correct.

After the least change that meets the X-rays an error is left that they do not show. A few layers read the image before
and after that change, and correct it before it meets the X-rays again (an unrolled step, as of learned iterative
reconstruction: Adler and Öktem 2018, doi 10.1109/TMI.2018.2799231). They are trained by the error in the body after the
X-rays are met, so that they need not learn what X-rays correct.
"""

from __future__ import annotations

import torch
from torch import nn

GIVEN = 4
"""Channels beside the facts: image, probability of the body, image after it met the X-rays, and their difference."""
WIDTH = 16


class Refinement(nn.Module):
    """Changes of an expected image (network range) and of the logit of the body, (B, 2, k, j, i); 0 before training.

    Args:
        facts: channels of what a voxel is judged by.
    """

    def __init__(self, facts: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(facts + GIVEN, WIDTH, 1)
        self.around = nn.Sequential(
            nn.SiLU(), nn.Conv3d(WIDTH, WIDTH, 3, padding=1),
            nn.SiLU(), nn.Conv3d(WIDTH, WIDTH, 3, padding=2, dilation=2),
            nn.SiLU(), nn.Conv3d(WIDTH, WIDTH, 3, padding=1),
            nn.SiLU(),
        )  # fmt: skip
        self.out = nn.Conv3d(2 * WIDTH, 2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, facts: torch.Tensor, image: torch.Tensor, body: torch.Tensor, met: torch.Tensor) -> torch.Tensor:
        """Of facts (B, c, k, j, i); image, probability of the body, and image that met the X-rays, (B, 1, k, j, i)."""
        alone = self.first(torch.cat([facts, image, body, met, met - image], 1))
        return self.out(torch.cat([alone, self.around(alone)], 1))
