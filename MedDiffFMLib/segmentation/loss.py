"""Mask loss: soft Dice and cross-entropy of each known class."""

from __future__ import annotations

import torch
import torch.nn.functional as functional


def mask_loss(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Dice loss + binary cross-entropy, mean over the classes that are known; (B,).

    Args:
        logits, target: (B, C, ...).
        known: (B, C), 0 where a class does not count.
    """
    logits = logits.float().flatten(2)
    truth = target.float().flatten(2)
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum(2) + 1.0
    soft_dice = 1 - overlap / (probability.sum(2) + truth.sum(2) + 1.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(2)
    return ((soft_dice + entropy) * known).sum(1) / known.sum(1).clamp(min=1)
