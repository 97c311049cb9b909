"""Small U-Net for denoising, on pixels folded two by two into channels.

Convolutions on the scanner's own pixels cost most and see least. Folded, the first ones have a quarter of the places,
and two halvings more, within slices alone, show what lies 40 pixels away. Kernels across slices see one column,
but for the first and the last: in the middle 3x3x3 took nearly half of the work.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from .plane_stream import PlaneStream, across, wait

FOLD = 2
"""Pixels along an edge of those that become the channels of one."""
DIVISOR = 8
"""What rows and columns must be multiples of."""
FACTS = 3
REACH = 7
"""Planes on either side that a plane of the result depends on."""


class FoldedUNet(nn.Module):
    """Noisy image and facts about it -> image without the noise.

    Args:
        widths: channels at 2, 4 and 8 pixels.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 64)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        pixels = FOLD * FOLD
        self.widths = widths
        self.enter = nn.Conv3d(pixels + FACTS, fine, 3, padding=1)
        self.fine = _within_slices(fine)
        self.to_middle = nn.Conv3d(fine, middle, (1, 2, 2), stride=(1, 2, 2))
        self.middle = nn.ModuleList([_Residual(middle), _Residual(middle)])
        self.to_coarse = nn.Conv3d(middle, coarse, (1, 2, 2), stride=(1, 2, 2))
        self.coarse = nn.ModuleList([_Residual(coarse), _Residual(coarse)])
        self.from_coarse = nn.ConvTranspose3d(coarse, middle, (1, 2, 2), stride=(1, 2, 2))
        self.after_coarse = _Residual(middle)
        self.from_middle = nn.ConvTranspose3d(middle, fine, (1, 2, 2), stride=(1, 2, 2))
        self.after_middle = _within_slices(fine)
        self.out = nn.Conv3d(fine, pixels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def config(self) -> dict[str, Any]:
        """JSON-ready; ``FoldedUNet(**config)`` is the same network."""
        return {"widths": list(self.widths)}

    def forward(self, noisy: torch.Tensor, facts: torch.Tensor, stream: PlaneStream | None = None) -> torch.Tensor:
        """Take away the noise.

        Args:
            noisy: (B, 1, D, H, W), HU / 1000; H and W multiples of 8.
            facts: (B, 3), logarithms of the noise's level (HU / 1000) and of pixel and slice thickness (mm).
            stream: of a pass whose planes come some at a time, more than ``REACH`` the first time; the same for all.

        Returns:
            The same without its noise; the untrained network gives it back as it is. From a stream, the planes that
            can be told by now: the last ``REACH`` come with the next, or at the end.
        """
        batch, _, depth, height, width = noisy.shape
        known = facts.view(batch, FACTS, 1, 1, 1).expand(-1, -1, depth, height // FOLD, width // FOLD)
        image = torch.cat([fold(noisy), known], 1).contiguous(memory_format=torch.channels_last_3d)
        fine = across(self.enter, image, stream, rectified=False)
        fine = self.fine(functional.relu(fine)).add_(fine)
        middle = self.to_middle(functional.relu(fine))
        for block in self.middle:
            middle = block(middle, stream)
        coarse = self.to_coarse(functional.relu(middle))
        for block in self.coarse:
            coarse = block(coarse, stream)
        back = self.from_coarse(functional.relu(coarse))
        middle = self.after_coarse(back.add_(wait(self.from_coarse, middle, back, stream)), stream)
        back = self.from_middle(functional.relu(middle))
        fine = back.add_(wait(self.from_middle, fine, back, stream))
        fine = self.after_middle(functional.relu(fine)).add_(fine)
        noise = _unfold(across(self.out, fine, stream))
        # Noise is told in units of its level, so that loud and quiet scans look alike to the last layer.
        return wait(self.out, noisy, noise, stream) - noise * facts[:, 0].exp().view(-1, 1, 1, 1, 1)


class _Residual(nn.Module):
    """A convolution within slices and one across them, added to what they are given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.within = _within_slices(channels)
        self.across = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
        nn.init.zeros_(self.across.weight)
        nn.init.zeros_(self.across.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor, stream: PlaneStream | None = None) -> torch.Tensor:
        change = across(self.across, self.within(functional.relu(x)), stream)
        return change.add_(wait(self, x, change, stream))


def _within_slices(channels: int) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))


def fold(x: torch.Tensor) -> torch.Tensor:
    """(B, 1, D, H, W) -> (B, 4, D, H / 2, W / 2)."""
    b, _, d, h, w = x.shape
    pixels = x.reshape(b, d, h // FOLD, FOLD, w // FOLD, FOLD).permute(0, 3, 5, 1, 2, 4)
    return pixels.reshape(b, FOLD * FOLD, d, h // FOLD, w // FOLD)


def _unfold(x: torch.Tensor) -> torch.Tensor:
    """(B, 4, D, h, w) -> (B, 1, D, 2 h, 2 w)."""
    b, _, d, h, w = x.shape
    pixels = x.reshape(b, FOLD, FOLD, d, h, w).permute(0, 3, 4, 1, 5, 2)
    return pixels.reshape(b, 1, d, h * FOLD, w * FOLD)
