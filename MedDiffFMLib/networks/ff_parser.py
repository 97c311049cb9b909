"""FF-Parser: a learned frequency filter for features (MedSegDiff, arXiv 2211.00611), for any size of patch.

The paper multiplies the spectrum by a complex map with one number for each frequency of the training patch, so its
weights fit that patch alone. Here the map is a smooth function of the normalized frequency (cycles per voxel): complex
knots on a coarse periodic grid, with linear interpolation between them. A patch of any size and shape evaluates the
same function at its own frequencies; a patch of as many voxels as there are knots has the paper's map.
"""

from __future__ import annotations

import torch
from torch import nn

AXES = (-3, -2, -1)


class FFParser(nn.Module):
    """(B, C, D, H, W) -> the same, each channel filtered by its own learned response; at first the identity.

    Args:
        channels: C.
        knots: along each axis, at multiples of 1 / knots cycles per voxel. A filter's reach is about so many voxels.

    Attributes:
        knot: (2, C, knots, knots, knots) real and imaginary part of what the response differs from 1.
    """

    def __init__(self, channels: int, knots: int = 8) -> None:
        super().__init__()
        self.knot = nn.Parameter(torch.zeros(2, channels, knots, knots, knots))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        shape = features.shape[-3:]
        with torch.autocast(features.device.type, enabled=False):  # a spectrum in bfloat16 would be noise
            exact = features if features.dtype == torch.float64 else features.float()
            spectrum = torch.fft.rfftn(exact, dim=AXES) * self.response(tuple(shape))
            return torch.fft.irfftn(spectrum, s=shape, dim=AXES).to(features.dtype)

    def response(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Complex (C, D, H, W // 2 + 1): the factor of each frequency that ``rfftn`` gives for a patch of ``shape``."""
        knots = torch.complex(self.knot[0], self.knot[1])
        # A real filter treats a frequency and its negative as conjugates.
        opposite = knots.flip(AXES).roll((1, 1, 1), AXES).conj()
        hermitian = torch.view_as_real((knots + opposite) / 2)
        place = {"dtype": self.knot.dtype, "device": self.knot.device}
        k, j = (self._hats(torch.fft.fftfreq(n, **place)) for n in shape[:2])
        i = self._hats(torch.fft.rfftfreq(shape[2], **place))
        values = torch.einsum("ka,jb,ic,nabcz->nkjiz", k, j, i, hermitian)
        return 1 + torch.view_as_complex(values.contiguous())

    def _hats(self, frequency: torch.Tensor) -> torch.Tensor:
        """(n, knots) weights of the linear interpolation, which goes around: frequencies one apart are the same."""
        count = self.knot.shape[-1]
        distance = frequency[:, None] * count - torch.arange(count, device=frequency.device)
        around = (distance + count / 2) % count - count / 2
        return (1 - around.abs()).clamp(min=0)
