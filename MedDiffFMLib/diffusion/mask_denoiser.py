"""Mask diffusion: ``denoiser(x, sigma, guide) -> x0`` for masks of -1 and 1.

The estimate (1 + x0) / 2 is a probability. At a noise that hides the mask it is that of an ordinary segmentation, and
a sample is drawn by following it down to no noise: all voxels then agree on one of the outlines that the image allows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn

from ..networks.medsegdiff import Guide, MedSegDiff
from .denoiser import network_time

SIGMA_DATA = 1.0
"""Root mean square of a mask of -1 and 1."""
ENTROPY_WEIGHT = 10.0
"""V2's beta: weight of cross-entropy beside Dice, and here of the cross-entropy of a mask anyway."""


class NoiseMaskDenoiser(nn.Module):
    """The paper's loss, the squared error of the noise, with EDM's preconditioning and weights (arXiv 2206.00364)."""

    kind = "noise"

    def __init__(self, network: MedSegDiff) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, guide: Guide) -> torch.Tensor:
        """x (B, classes, D, H, W): mask plus noise; sigma (B,); returns x0 in x's shape."""
        s = _column(sigma)
        total = s**2 + SIGMA_DATA**2
        f = self.network(x / total.sqrt(), network_time(sigma), guide)
        return x * (SIGMA_DATA**2 / total) + f * (s * SIGMA_DATA / total.sqrt())

    def loss(
        self, mask: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor, guide: Guide, known: torch.Tensor
    ) -> torch.Tensor:
        """Loss of each sample (B,).

        Args:
            mask: (B, classes, D, H, W), -1 and 1.
            known: (B, classes), 0 where a class does not count.
        """
        s = _column(sigma)
        error = (self(mask + s * noise, sigma, guide) - mask).square()
        weighted = error * (s**2 + SIGMA_DATA**2) / (s * SIGMA_DATA) ** 2
        return _mean_of_known(weighted.mean(dim=(2, 3, 4)), known) + condition_loss(guide, mask, known)


class LogitMaskDenoiser(nn.Module):
    """The network gives the log odds of what the noise leaves open, D = tanh(x / sigma^2 + F); cross-entropy.

    For a voxel that is inside with probability p the posterior mean given x is tanh(x / sigma^2 + logit(p) / 2). So F
    has to know the image and the voxels around, and not how to remove noise from a mask.
    """

    kind = "logit"

    def __init__(self, network: MedSegDiff) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, guide: Guide) -> torch.Tensor:
        """x (B, classes, D, H, W): mask plus noise; sigma (B,); returns x0 in x's shape."""
        return torch.tanh(self._half_logit(x, sigma, guide))

    def loss(
        self, mask: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor, guide: Guide, known: torch.Tensor
    ) -> torch.Tensor:
        """Loss of each sample (B,); arguments as for :meth:`NoiseMaskDenoiser.loss`."""
        logits = 2 * self._half_logit(mask + _column(sigma) * noise, sigma, guide)
        entropy = functional.binary_cross_entropy_with_logits(logits, (mask > 0).float(), reduction="none")
        own = _mean_of_known(ENTROPY_WEIGHT * entropy.mean(dim=(2, 3, 4)), known)
        return own + condition_loss(guide, mask, known)

    def _half_logit(self, x: torch.Tensor, sigma: torch.Tensor, guide: Guide) -> torch.Tensor:
        s = _column(sigma)
        f = self.network(x / (s**2 + SIGMA_DATA**2).sqrt(), network_time(sigma), guide)
        return x.float() / s**2 + f.float()


MASK_DENOISERS: dict[str, type[NoiseMaskDenoiser] | type[LogitMaskDenoiser]] = {
    cls.kind: cls for cls in (LogitMaskDenoiser, NoiseMaskDenoiser)
}


def condition_loss(guide: Guide, mask: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Dice and cross-entropy of V2's condition model (B,), at every step; 0 without one.

    Args:
        mask: (B, classes, D, H, W) of -1 and 1.
        known: (B, classes), 0 where a class does not count.
    """
    if guide.logits is None:
        return mask.new_zeros(len(mask))
    logits, inside = guide.logits.float(), (mask > 0).float()
    chance, axes = torch.sigmoid(logits), (2, 3, 4)
    dice = (2 * (chance * inside).sum(axes) + 1) / (chance.sum(axes) + inside.sum(axes) + 1)
    entropy = functional.binary_cross_entropy_with_logits(logits, inside, reduction="none").mean(axes)
    return _mean_of_known(1 - dice + ENTROPY_WEIGHT * entropy, known)


def _mean_of_known(by_class: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """(B, classes) -> (B,)."""
    return (by_class * known).sum(1) / known.sum(1).clamp(min=1)


def _column(sigma: torch.Tensor) -> torch.Tensor:
    return sigma.reshape(-1, 1, 1, 1, 1)
