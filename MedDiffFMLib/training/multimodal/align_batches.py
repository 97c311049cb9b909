"""Batches of boxes in all modalities, and what is said about them; sample n is a pure function of (seed, n)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ...multimodal.acquisitions import another_ct, another_mr, another_xray
from ...multimodal.aligned import AlignedEncoders
from ...multimodal.boxes import byte_input, ct_input
from ...multimodal.encoders import PARTS, Features
from ...multimodal.facts.fact import Statement
from ...multimodal.spoken_facts import draw_text, items, say
from ...multimodal.text_encoder import encode_texts
from .box_pool import VIEWS, Boxes

Texts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Twice(NamedTuple):
    """Features of two acquisitions, of the second perhaps for the first boxes only."""

    first: Features
    second: Features


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
        locked: features by modality in place of images, where the bodies of the encoders are not trained.
    """

    ct: torch.Tensor | None
    mr: torch.Tensor | None
    xray: torch.Tensor | None
    text: Texts
    said: torch.Tensor
    true: torch.Tensor
    part: torch.Tensor
    part_text: Texts
    part_said: torch.Tensor
    part_true: torch.Tensor
    locked: dict[str, Twice] | None = None


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
        arrays = {
            name: np.stack([getattr(self.pool[one["case"]], name)[one["row"]] for one in samples])
            for name in ("ct", "mr")
        }
        xray = np.stack([self.pool[one["case"]].xray[one["row"], one["view"] : one["view"] + 2] for one in samples])
        return AlignBatch(
            ct=ct_input(arrays["ct"]),
            mr=torch.stack([byte_input(arrays["mr"][:, n]) for n in range(2)]),
            xray=torch.stack([byte_input(xray[:, n]) for n in range(2)]),
            part=torch.tensor([one["part"] for one in samples]),
            **_said(samples),
        )

    def _sample(self, number: int) -> dict[str, Any]:
        """Which box, view and part, and what is said of them."""
        rng = np.random.default_rng([self.seed, number])
        index = int(rng.integers(len(self.rows)))
        case, row = self.rows[index]
        boxes = self.pool[case]
        text, said = draw_text(boxes.facts[row], rng)
        cells = boxes.cells[row] or [(0, [])]
        # the first one holds a nodule, if any does
        part, facts = cells[0 if rng.random() < 0.5 else int(rng.integers(len(cells)))]
        part_text, part_said = draw_text(facts, rng)
        return {
            "index": index, "case": case, "row": row, "view": 2 * int(rng.integers(len(VIEWS))), "part": part,
            "text": text, "said": items(said), "true": items(boxes.facts[row]),
            "part_text": part_text, "part_said": items(part_said), "part_true": items(facts), "rng": rng,
        }  # fmt: skip


class LockedBatches(BoxBatches):
    """Batches of features, which are computed once: of the images as they are, and of another acquisition.

    Args:
        encoders: their bodies stay as they are.
        parts: of each box are shown, that of the text first.
    """

    def __init__(self, pool: Sequence[Boxes], batch: int, seed: int, encoders: AlignedEncoders, parts: int = 9) -> None:
        super().__init__(pool, batch, seed)
        self.parts = parts
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            found = [_features(encoders, boxes, generator) for boxes in pool]
        self.features = {
            name: [
                Features(*(torch.cat([one[name][n][field] for one in found]) for field in range(2)))
                for n in range(len(found[0][name]))
            ]
            for name in ("ct", "mr", "xray")
        }

    def __call__(self, step: int) -> AlignBatch:
        """The batch of an optimizer step."""
        samples = [self._sample(step * self.batch + n) for n in range(self.batch)]
        rows = torch.tensor([one["index"] for one in samples])
        others = [one["rng"].permutation(PARTS**3)[: self.parts - 1] for one in samples]
        shown = torch.tensor(np.array([[one["part"], *more] for one, more in zip(samples, others, strict=True)]))
        views = torch.tensor([one["view"] for one in samples])
        locked = {name: Twice(*(_of(seen, rows, shown) for seen in self.features[name])) for name in ("ct", "mr")}
        angles = (_of_views(self.features["xray"], rows, views + n) for n in range(2))
        return AlignBatch(
            None, None, None, part=torch.zeros(len(samples), dtype=torch.long), **_said(samples),
            locked={**locked, "xray": Twice(*angles)},
        )  # fmt: skip


def _features(encoders: AlignedEncoders, boxes: Boxes, generator: torch.Generator) -> dict[str, list[Features]]:
    """In half precision, of CT and MR in two acquisitions and of all X-rays, every other one in another."""
    ct = ct_input(boxes.ct)
    mr = [byte_input(boxes.mr[:, n]) for n in range(2)]
    xrays = [byte_input(boxes.xray[:, n]) for n in range(2 * len(VIEWS))]
    xrays[1::2] = [another_xray(image, generator) for image in xrays[1::2]]
    images = {
        "ct": [ct, another_ct(ct, generator)], "mr": [mr[0], another_mr(mr[1], generator)], "xray": xrays,
    }  # fmt: skip
    bodies = {"ct": encoders.volumes, "mr": encoders.volumes, "xray": encoders.pictures}
    return {
        name: [Features(*(field.half() for field in bodies[name].features(one, name))) for one in taken]
        for name, taken in images.items()
    }


def _of(seen: Features, rows: torch.Tensor, parts: torch.Tensor) -> Features:
    """Some boxes, and of each some parts."""
    return Features(seen.summary[rows].float(), seen.parts[rows[:, None], parts].float())


def _of_views(views: list[Features], rows: torch.Tensor, chosen: torch.Tensor) -> Features:
    """Of each box the X-ray that was chosen."""
    summary = torch.stack([views[v].summary[r] for r, v in zip(rows.tolist(), chosen.tolist(), strict=True)])
    parts = torch.stack([views[v].parts[r] for r, v in zip(rows.tolist(), chosen.tolist(), strict=True)])
    return Features(summary.float(), parts.float())


def _said(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Texts and items of a batch."""
    tables = ("said", "true", "part_said", "part_true")
    return {
        **{name: encode_texts([one[name] for one in samples]) for name in ("text", "part_text")},
        **{name: torch.from_numpy(np.stack([one[name] for one in samples])) for name in tables},
    }


def all_said(facts: Sequence[Sequence[Statement]]) -> list[list[str]]:
    """All that is known of each box, in the words of prompts."""
    return [[say(said) for said in box] for box in facts]
