"""What the encoders are trained for: three links, two of them between parts too, and the same vectors for the same
anatomy. CT and X-ray, text and MR, MR and X-ray are never compared: what they have in common comes through the middle.
"""

from __future__ import annotations

import torch
from torch import nn

from ...multimodal.aligned import AlignedEncoders
from ...multimodal.alignment import fit_of, info_nce
from ...multimodal.encoders import ImageEncoder, Vectors
from ...multimodal.fact_encoder import Told
from ...multimodal.invariant import invariant_loss
from ...multimodal.sentence_encoder import Spoken
from ..processes import Processes
from .align_batches import AlignBatch

INVARIANT = 0.5
"""Weight of the sum of the invariant losses."""
TWICE_SHARE = 0.33
"""Of a batch are shown in two acquisitions."""
PARTS = 6
"""Parts of each box whose CT and MR are drawn together."""
AIR = 0.98
"""Share of air from which on a part is empty: all such are alike."""


class AlignLoss(nn.Module):
    """Forward returns the loss of a batch, so that one call holds the whole step.

    Args:
        links, invariant: whether the losses of alignment, and of the invariant, count.
        processes: that share a batch: each encodes some rows, and has the loss of all.
    """

    def __init__(
        self, encoders: AlignedEncoders, links: bool = True, invariant: bool = True, processes: Processes | None = None
    ) -> None:
        super().__init__()
        self.encoders = encoders
        self.links, self.invariant = links, invariant
        self.processes = processes or Processes()

    def forward(self, batch: AlignBatch, generator: torch.Generator) -> torch.Tensor:
        """Mean loss; the generator draws parts."""
        encoders = self.encoders
        bodies = {"ct": encoders.volumes, "mr": encoders.volumes, "xray": encoders.pictures}
        twice = max(2, round(TWICE_SHARE * len(batch.part)))
        first = {name: self._image(bodies[name], seen.first, name) for name, seen in batch.seen.items()}
        text, part_text = self._text(batch.text), self._text(batch.part_text)
        second = {
            name: self._image(bodies[name], seen.second[:twice], name)
            for name, seen in batch.seen.items()
            if self.invariant
        }
        loss = text.new_zeros(())
        if self.links:
            loss = loss + self._links(batch, first["ct"], first["mr"], first["xray"], text, part_text, generator)
        for name, other in second.items():
            loss = loss + INVARIANT * invariant_loss(first[name].parts[:twice], other.parts)
        return loss

    def _image(self, body: ImageEncoder, cells: torch.Tensor, name: str) -> Vectors:
        """Vectors of all rows, of which this process computes its share."""
        rows = len(cells)
        whole, each = body.features(cells[self.processes.share(rows)], name)
        return body.centered(self.processes.gathered(whole, rows), self.processes.gathered(each, rows), name)

    def _text(self, told: Told | Spoken) -> torch.Tensor:
        rows = len(told[0])
        mine = type(told)(*(part[self.processes.share(rows)] for part in told))
        features = self.encoders.texts.features(mine)  # type: ignore[arg-type]
        return self.encoders.texts.centered(self.processes.gathered(features, rows))

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
        row = torch.arange(len(batch.part), device=batch.part.device)
        parts = torch.randperm(ct.parts.shape[1], generator=generator)[:PARTS].to(row.device)
        empty = (batch.seen["ct"].first[:, parts, :, 0].mean(-1) > AIR).flatten().float()
        part_alike = torch.outer(empty, empty).fill_diagonal_(1.0)
        return (
            info_nce(text, ct.whole, scales["text_ct"](), fits)
            + info_nce(text, xray.whole, scales["text_xray"](), fits)
            + info_nce(ct.whole, mr.whole, scales["ct_mr"](), alike)
            + info_nce(part_text, ct.parts[row, batch.part], scales["text_part"](), part_fits)
            + info_nce(
                ct.parts[:, parts].flatten(0, 1), mr.parts[:, parts].flatten(0, 1), scales["ct_mr_part"](), part_alike
            )
        )
