"""Loss of the methods that mark voxels: cross-entropy measured by how rare a class is, and Dice where the class is."""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from .point_head import share_logits


def share_entropy(shares: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of one who knows no more than how often each class is (He et al. 2014, 10.1145/2648584.2648589).

    Args:
        shares: (C,) of the voxels that are learned from, 0 to 1.

    Returns:
        (C,) in nats, above 0.
    """
    logits = share_logits(shares)
    return functional.binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="none")


def mask_loss(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy over that of one who knows only the classes' shares, and soft Dice of the batch; (B,).

    Without the division a structure of a ten-thousandth of the voxels counts a three-hundredth of one of a tenth.

    Args:
        logits, target: (B, C, ...).
        known: (B, C), 0 where a class does not count.
        entropy: (C,), see :func:`share_entropy`.
    """
    logits, truth = logits.float().flatten(2), target.float().flatten(2)
    found = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(2) / entropy.to(logits)
    return (found * known).sum(1) / known.sum(1).clamp(min=1) + _dice_where_it_is(logits.sigmoid(), truth, known)


def _dice_where_it_is(probability: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Soft Dice loss over the windows that have a class, mean over the classes that some window has; scalar.

    A window without the class has no overlap to win. Left in, it pushed all logits down several times as hard as
    a window with a small structure pulls its voxels up, and structures of a few voxels were never marked.
    """
    inside = truth.sum(2) * known
    here = (inside > 0).float()
    overlap = 2 * ((probability * truth).sum(2) * here).sum(0) + 1
    loss = 1 - overlap / ((probability.sum(2) * here).sum(0) + inside.sum(0) + 1)
    some = here.amax(0)
    return (loss * some).sum() / some.sum().clamp(min=1)
