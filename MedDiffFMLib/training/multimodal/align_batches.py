"""Batches of boxes in all modalities, and what is said about them; sample n is a pure function of (seed, n)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...multimodal.boxes import byte_input, ct_input
from ...multimodal.facts.fact import Statement
from ...multimodal.spoken_facts import draw_text, items, say
from ...multimodal.text_encoder import encode_texts
from .box_pool import VIEWS, Boxes

Texts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class AlignBatch:
    """Rows belong together: one box, all that shows it, and all that is said about it.

    Attributes:
        ct: (B, 1, 32, 32, 32).
        mr: (2, B, 1, 32, 32, 32), two acquisitions.
        xray: (2, B, 1, 64, 64), one view at two angles.
        text, part_text: as :func:`encode_texts` gives them; the second about one part of each box.
        said, true: (B, items) of the texts and of the boxes.
        part: (B,) number of that part; what is said and true of it follows.
    """

    ct: torch.Tensor
    mr: torch.Tensor
    xray: torch.Tensor
    text: Texts
    said: torch.Tensor
    true: torch.Tensor
    part: torch.Tensor
    part_text: Texts
    part_said: torch.Tensor
    part_true: torch.Tensor


class BoxBatches:
    """Draws batches.

    Args:
        pool: boxes of the training cases; each box is drawn as often as any other.
    """

    def __init__(self, pool: Sequence[Boxes], batch: int, seed: int) -> None:
        self.pool, self.batch, self.seed = pool, batch, seed
        self.rows = [(case, row) for case, boxes in enumerate(pool) for row in range(len(boxes.ct))]

    def __call__(self, step: int) -> AlignBatch:
        """The batch of an optimizer step."""
        samples = [self._sample(step * self.batch + n) for n in range(self.batch)]
        texts, part_texts = ([sample[name] for sample in samples] for name in ("text", "part_text"))
        arrays = {
            name: np.stack([sample[name] for sample in samples])
            for name in ("ct", "mr", "xray", "said", "true", "part", "part_said", "part_true")
        }
        tables = {name: torch.from_numpy(arrays[name]) for name in ("said", "true", "part_said", "part_true")}
        return AlignBatch(
            ct=ct_input(arrays["ct"]),
            mr=torch.stack([byte_input(arrays["mr"][:, n]) for n in range(2)]),
            xray=torch.stack([byte_input(arrays["xray"][:, n]) for n in range(2)]),
            text=encode_texts(texts),
            part=torch.from_numpy(arrays["part"]),
            part_text=encode_texts(part_texts),
            **tables,
        )

    def _sample(self, number: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, number])
        case, row = self.rows[rng.integers(len(self.rows))]
        boxes = self.pool[case]
        text, said = draw_text(boxes.facts[row], rng)
        cells = boxes.cells[row] or [(0, [])]
        # the first one holds a nodule, if any does
        part, facts = cells[0 if rng.random() < 0.5 else int(rng.integers(len(cells)))]
        part_text, part_said = draw_text(facts, rng)
        view = 2 * int(rng.integers(len(VIEWS)))
        return {
            "ct": boxes.ct[row], "mr": boxes.mr[row], "xray": boxes.xray[row, view : view + 2],
            "text": text, "said": items(said), "true": items(boxes.facts[row]),
            "part": part, "part_text": part_text, "part_said": items(part_said), "part_true": items(facts),
        }  # fmt: skip


def all_said(facts: Sequence[Sequence[Statement]]) -> list[list[str]]:
    """All that is known of each box, in the words of prompts."""
    return [[say(said) for said in box] for box in facts]
