"""Batches of boxes in all modalities, and what is said about them; batch n is a pure function of (seed, n).

What the encoders see of an image needs no training, so it is computed once, in several acquisitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ...multimodal.acquisitions import another_ct, another_mr, another_xray
from ...multimodal.boxes import byte_input, ct_input
from ...multimodal.encoders import cells_of
from ...multimodal.fact_encoder import MOST, SLOTS, FactEncoder, Told
from ...multimodal.facts.fact import Statement
from ...multimodal.sentence_encoder import WORDINGS, SentenceEncoder, Spoken
from ...multimodal.spoken_facts import ITEMS, SAID, item_columns, sentence_of
from .box_pool import VIEWS, Boxes

TAKES = 3
"""Acquisitions of each CT, the first as it is."""
VIEW_SHARES = (0.5, 0.25, 0.25)
"""How often each view of a box is drawn. It is compared with texts as it is, for its shadow tells the mass, and with
other exposures of itself."""
ALL, DROPPED, SLOT_DROPPED = 0.6, 0.2, 0.08
"""How often a text says nearly all there is, less what is dropped; else it says one to four things."""


class Twice(NamedTuple):
    """Cells of two acquisitions, of the second for the first boxes only."""

    first: torch.Tensor
    second: torch.Tensor


@dataclass(frozen=True)
class AlignBatch:
    """Rows belong together: one box, all that shows it, and all that is said about it.

    Attributes:
        seen: cells of two acquisitions by modality: "ct", "mr" and "xray".
        text, part_text: what is said about the boxes, and about one part of each.
        said, true: (B, ITEMS) of the texts and of the boxes.
        part: (B,) number of that part; what is said and true of it follows.
    """

    seen: dict[str, Twice]
    text: Told | Spoken
    said: torch.Tensor
    true: torch.Tensor
    part: torch.Tensor
    part_text: Told | Spoken
    part_said: torch.Tensor
    part_true: torch.Tensor

    def to(self, device: torch.device) -> AlignBatch:
        """Copy on a device."""
        return AlignBatch(**{name: _moved(value, device) for name, value in vars(self).items()})


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors in tuples with names and in dictionaries, on a device."""
    if isinstance(value, dict):
        return {name: _moved(part, device) for name, part in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else type(value)(*(_moved(p, device) for p in value))


class Speech:
    """Texts of many images, of which some facts are said.

    Args:
        texts: facts of each image.
    """

    slot_dropped = 0.0
    """How often a slot of a fact that is said is left out."""

    def __init__(self, texts: Sequence[Sequence[Statement]]) -> None:
        self.columns = np.full((len(texts), MOST, SLOTS), -1, np.int64)
        self.facts = np.zeros((len(texts), MOST), bool)
        for row, text in enumerate(texts):
            self.columns[row] = item_columns(text)
            self.facts[row, : sum(said.kind in SAID for said in text)] = True

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Told | Spoken, torch.Tensor, torch.Tensor]:
        """Texts about some images, what they say, and what is true: (B, ITEMS) each."""
        facts = self.facts[rows]
        kept = facts & (rng.random(facts.shape) >= DROPPED)
        order = np.where(facts, rng.random(facts.shape), 2).argsort(1).argsort(1)
        few = facts & (order < rng.integers(1, 5, (len(rows), 1)))
        kept = np.where((rng.random((len(rows), 1)) < ALL) & kept.any(1, keepdims=True), kept, few)
        slots = kept[..., None] & (rng.random((*kept.shape, SLOTS)) >= self.slot_dropped)
        columns = self.columns[rows]
        text = self.shown(rows, kept, slots, rng)
        return text, _table(np.where(slots, columns, -1)), _table(columns)

    def shown(self, rows: np.ndarray, kept: np.ndarray, slots: np.ndarray, rng: np.random.Generator) -> Told | Spoken:
        """What the encoder gets of some texts.

        Args:
            kept: (B, MOST) bool, facts that are said.
            slots: (B, MOST, SLOTS) bool, slots that are.
        """
        raise NotImplementedError


class FactSpeech(Speech):
    """As facts.

    Args:
        encoder: that reads them.
    """

    slot_dropped = SLOT_DROPPED

    def __init__(self, texts: Sequence[Sequence[Statement]], encoder: FactEncoder) -> None:
        super().__init__(texts)
        self.told = encoder.told(texts)

    def shown(self, rows: np.ndarray, kept: np.ndarray, slots: np.ndarray, rng: np.random.Generator) -> Told:
        """Rows and weights of the facts and slots that are said."""
        shown = torch.from_numpy(np.concatenate([kept[..., None], np.repeat(slots, 2, -1)], -1))
        return Told(self.told.rows[rows], self.told.weights[rows] * shown)


class SentenceSpeech(Speech):
    """As sentences, each in one of several wordings.

    Args:
        encoder: that reads them.
    """

    def __init__(self, texts: Sequence[Sequence[Statement]], encoder: SentenceEncoder) -> None:
        super().__init__(texts)
        self.reader = encoder.reader
        self.rows = np.zeros((len(texts), MOST, WORDINGS), np.int64)
        ways = range(WORDINGS)
        known = [[said for said in text if said.kind in SAID][:MOST] for text in texts]
        sentences = [sentence_of(said, way) for text in known for said in text for way in ways]
        self.rows[self.facts] = self.reader.rows(sentences).reshape(-1, WORDINGS)  # all in one call: it grows once

    def shown(self, rows: np.ndarray, kept: np.ndarray, slots: np.ndarray, rng: np.random.Generator) -> Spoken:
        """Vectors of the sentences that are said."""
        wording = rng.integers(WORDINGS, size=(*kept.shape, 1))
        chosen = np.take_along_axis(self.rows[rows], wording, 2)[..., 0]
        said = torch.from_numpy(kept.astype(np.float32))
        return Spoken(torch.from_numpy(self.reader.table[chosen]) * said[..., None], said)


def speech_of(texts: Sequence[Sequence[Statement]], encoder: FactEncoder | SentenceEncoder) -> Speech:
    """Texts as an encoder takes them."""
    if isinstance(encoder, SentenceEncoder):
        return SentenceSpeech(texts, encoder)
    return FactSpeech(texts, encoder)


def _table(columns: np.ndarray) -> torch.Tensor:
    """Columns that hold, -1 for none, (B, ...) -> (B, ITEMS) of 0 and 1."""
    table = np.zeros((len(columns), ITEMS + 1), np.float32)
    flat = columns.reshape(len(columns), -1)
    table[np.arange(len(table))[:, None], flat] = 1
    return torch.from_numpy(table[:, :ITEMS])


class BoxBatches:
    """Draws batches.

    Args:
        pool: boxes of the training cases; each box is drawn as often as any other.
        encoder: of texts, which is measured on the pool's.
    """

    def __init__(self, pool: Sequence[Boxes], batch: int, seed: int, encoder: FactEncoder | SentenceEncoder) -> None:
        self.batch, self.seed = batch, seed
        facts = [facts for boxes in pool for facts in boxes.facts]
        cells = [cells or [(0, [])] for boxes in pool for cells in boxes.cells]
        self.count = len(facts)
        self.parts = np.array([part for one in cells for part, _ in one])
        self.first_part = np.cumsum([0, *(len(one) for one in cells)])
        encoder.measure(facts)
        self.texts = speech_of(facts, encoder)
        self.part_texts = speech_of([said for one in cells for _, said in one], encoder)
        generator = torch.Generator().manual_seed(seed)
        found = [_cells(boxes, generator) for boxes in pool]
        self.cells = {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def __call__(self, step: int) -> AlignBatch:
        """The batch of an optimizer step."""
        rng = np.random.default_rng([self.seed, step])
        rows = rng.choice(self.count, self.batch, replace=self.count < self.batch)
        # the first part holds a nodule, if any does
        low, high = self.first_part[rows], self.first_part[rows + 1]
        parts = np.where(rng.random(len(rows)) < 0.5, low, rng.integers(low, high))
        text, said, true = self.texts.draw(rows, rng)
        part_text, part_said, part_true = self.part_texts.draw(parts, rng)
        view = 2 * rng.choice(len(VIEWS), size=len(rows), p=VIEW_SHARES)
        turned = rng.random(len(rows)) < 0.5
        seen = {name: self._pair(name, rows, rng) for name in ("ct", "mr")}
        xray = self.cells["xray"]
        exposed = xray[rows, view + ~turned + 2 * len(VIEWS)]
        seen["xray"] = Twice(xray[rows, view + turned].float(), exposed.float())
        return AlignBatch(
            seen, text, said, true, torch.from_numpy(self.parts[parts]), part_text, part_said, part_true
        )  # fmt: skip

    def _pair(self, name: str, rows: np.ndarray, rng: np.random.Generator) -> Twice:
        """Two acquisitions of boxes."""
        takes = self.cells[name]
        first = rng.integers(takes.shape[1], size=len(rows))
        second = (first + rng.integers(1, takes.shape[1], size=len(rows))) % takes.shape[1]
        return Twice(takes[rows, first].float(), takes[rows, second].float())


def _cells(boxes: Boxes, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """In half precision (n, acquisitions, parts, cells, knots), of CT, MR and all X-rays."""
    ct = ct_input(boxes.ct)
    mr = [byte_input(boxes.mr[:, n]) for n in range(2)]
    xrays = [byte_input(boxes.xray[:, n]) for n in range(2 * len(VIEWS))]
    images = {
        "ct": [ct, *(another_ct(ct, generator) for _ in range(TAKES - 1))],
        "mr": [*mr, *(another_mr(one, generator) for one in mr)],
        "xray": [*xrays, *(another_xray(one, generator) for one in xrays)],
    }
    return {name: torch.stack([cells_of(one, name).half() for one in taken], 1) for name, taken in images.items()}
