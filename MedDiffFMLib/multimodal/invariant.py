"""Visual invariant (MedM2G, arXiv 2403.04290): one anatomy has the same vectors however it was taken.

Barlow Twins (Zbontar et al., ICML 2021): the cross-correlation of the vectors of two acquisitions should be the
identity; the diagonal asks for sameness, the rest for vectors that do not collapse. It needs no wrong partners. The
samples are local vectors, some sixty of each box: normalized over the eight boxes of a small batch it would be noise.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ..core.lean_monai import lean_monai

REDUNDANCY = 5e-3
"""Weight of what is not on the diagonal."""


def invariant_loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Barlow Twins' loss, divided by the number of dimensions so that it is about 1 for unrelated vectors.

    Args:
        first, second: (..., d), local vectors of the same places in two acquisitions; at least two.
    """
    lean_monai()
    from monai.losses import BarlowTwinsLoss

    d = first.shape[-1]
    loss: torch.Tensor = BarlowTwinsLoss(REDUNDANCY)(first.reshape(-1, d).float(), second.reshape(-1, d).float())
    return loss / d


def sameness(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean cosine between the vectors (..., d) of two acquisitions."""
    return float(functional.cosine_similarity(first, second, dim=-1).mean())


def effective_rank(vectors: torch.Tensor) -> float:
    """How many directions vectors use: the exponential of the entropy of their covariance's eigenvalues.

    Roy and Vetterli, The effective rank, EUSIPCO 2007; of d for vectors that vary alike in all directions, 1 for a
    line.

    Args:
        vectors: (..., d), more than d of them.
    """
    rows = vectors.reshape(-1, vectors.shape[-1]).double()
    values = torch.linalg.eigvalsh(torch.cov(rows.T)).clamp(min=0)
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.special.entr(shares).sum().exp())
