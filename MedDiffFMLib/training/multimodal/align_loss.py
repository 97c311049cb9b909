"""What the encoders are trained for: three links, two of them between parts too, and the same vectors for the same
anatomy. CT and X-ray, text and MR, MR and X-ray are never compared: what they have in common comes through the middle.
"""

from __future__ import annotations

import torch
from torch import nn

from ...core.precision import autocast
from ...multimodal.acquisitions import another_ct, another_mr, another_xray
from ...multimodal.aligned import AlignedEncoders
from ...multimodal.alignment import fit_of, info_nce
from ...multimodal.encoders import Vectors
from ...multimodal.invariant import invariant_loss
from .align_batches import AlignBatch, Twice

INVARIANT = 0.5
"""Weight of the sum of the invariant losses."""
MR_SHARE, TWICE_SHARE = 0.75, 0.33
"""Of a batch are shown as MR, and as two acquisitions of CT and of MR; X-rays always are: they cost little."""
PARTS = 6
"""Parts of each box whose CT and MR are drawn together."""


class AlignLoss(nn.Module):
    """Forward returns the loss of a batch, so that one call holds the whole step.

    Args:
        links, invariant: whether the losses of alignment, and of the invariant, count.
    """

    def __init__(
        self, encoders: AlignedEncoders, in_bfloat16: bool, links: bool = True, invariant: bool = True
    ) -> None:
        super().__init__()
        self.encoders, self.in_bfloat16 = encoders, in_bfloat16
        self.links, self.invariant = links, invariant

    def forward(self, batch: AlignBatch, generator: torch.Generator) -> torch.Tensor:
        """Mean loss; the generator draws acquisitions."""
        encoders = self.encoders
        with autocast(batch.said.device, "auto" if self.in_bfloat16 else "float32"):
            seen = batch.locked or self._seen(batch, generator)
            bodies = {"ct": encoders.volumes, "mr": encoders.volumes, "xray": encoders.pictures}
            vectors = {name: [bodies[name].vectors(one, name) for one in seen[name]] for name in bodies}
            text, part_text = encoders.texts(*batch.text), encoders.texts(*batch.part_text)
        loss = torch.zeros(())
        if self.links:
            ct, mr, xray = (vectors[name][0] for name in ("ct", "mr", "xray"))
            loss = loss + self._links(batch, ct, mr, xray, text, part_text, generator)
        if self.invariant:
            loss = loss + INVARIANT * sum(
                invariant_loss(one.parts[: len(other.parts)], other.parts) for one, other in vectors.values()
            )
        return loss

    def _seen(self, batch: AlignBatch, generator: torch.Generator) -> dict[str, Twice]:
        """Features of two acquisitions of the images."""
        assert batch.ct is not None and batch.mr is not None and batch.xray is not None
        volumes, pictures, n = self.encoders.volumes, self.encoders.pictures, len(batch.ct)
        twice, some = max(2, round(TWICE_SHARE * n)), max(2, round(MR_SHARE * n))
        return {
            "ct": Twice(*(volumes.features(another_ct(x, generator), "ct") for x in (batch.ct, batch.ct[:twice]))),
            "mr": Twice(
                *(volumes.features(another_mr(x, generator), "mr") for x in (batch.mr[0, :some], batch.mr[1, :twice]))
            ),
            "xray": Twice(*(pictures.features(another_xray(x, generator), "xray") for x in batch.xray)),
        }

    def _links(
        self,
        batch: AlignBatch,
        ct: Vectors,
        mr: Vectors,
        xray: Vectors,
        text: torch.Tensor,
        part_text: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        scales = self.encoders.scales
        fits, part_fits = fit_of(batch.said, batch.true), fit_of(batch.part_said, batch.part_true)
        alike = fit_of(batch.true, batch.true)
        some = len(mr.whole)
        row = torch.arange(len(batch.part))
        parts = torch.randperm(ct.parts.shape[1], generator=generator)[:PARTS]
        return (
            info_nce(text, ct.whole, scales["text_ct"](), fits)
            + info_nce(text, xray.whole, scales["text_xray"](), fits)
            + info_nce(ct.whole[:some], mr.whole, scales["ct_mr"](), alike[:some, :some])
            + info_nce(part_text, ct.parts[row, batch.part], scales["text_part"](), part_fits)
            + info_nce(ct.parts[:some, parts].flatten(0, 1), mr.parts[:, parts].flatten(0, 1), scales["ct_mr_part"]())
        )
