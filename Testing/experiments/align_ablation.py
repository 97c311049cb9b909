"""The ideas of the alignment one by one, at equal computing, on folds of the training patients alone.

``python -m Testing.experiments.align_ablation DATA RUN [--pairs JSON] [--steps 100] [--folds 3]``: each variant is
trained for the same steps on the same boxes, and judged on the patients of the fold that was left out.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from MedDiffFMLib.multimodal import alignment
from MedDiffFMLib.multimodal.aligned import AlignedEncoders
from MedDiffFMLib.training.averages import ExponentialAverage
from MedDiffFMLib.training.multimodal.align import LOOP, read_pairs, read_pool
from MedDiffFMLib.training.multimodal.align_batches import BoxBatches
from MedDiffFMLib.training.multimodal.align_loss import AlignLoss
from MedDiffFMLib.training.multimodal.box_pool import Boxes
from MedDiffFMLib.training.multimodal.retrieval import embed, figures

HARD = 1e3
"""Exponent with which only texts that are wholly true count as right."""
VARIANTS = {
    "all": (True, True, alignment.SHARPNESS),
    "no invariant": (True, False, alignment.SHARPNESS),
    "no soft targets": (True, True, HARD),
    "no alignment": (False, True, alignment.SHARPNESS),
}
BATCH = 128


def trained(
    batches: BoxBatches, first: AlignedEncoders, steps: int, links: bool, invariant: bool, sharpness: float
) -> AlignedEncoders:
    """Averaged encoders after so many steps from the same first weights."""
    alignment.SHARPNESS = sharpness
    module = AlignLoss(copy.deepcopy(first), links, invariant).train()
    average = ExponentialAverage(module, LOOP.ema)
    optimizer = torch.optim.AdamW(module.parameters(), LOOP.learning_rate, weight_decay=LOOP.weight_decay)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LOOP.learning_rate * min(1, (step + 1) / 20, 2 * (steps - step) / steps)
        optimizer.zero_grad()
        module(batches(step), torch.Generator().manual_seed(step)).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), LOOP.clip)
        optimizer.step()
        average.update(module, step)
    return average.module.encoders  # type: ignore[return-value]


def folds_of(pool: Sequence[Boxes], folds: int) -> list[tuple[list[Boxes], list[Boxes]]]:
    """Boxes to train and to judge on, by patient."""
    patients = sorted({boxes.patient for boxes in pool})
    order = np.random.default_rng(0).permutation(len(patients))
    fold = {patients[n]: position % folds for position, n in enumerate(order)}
    return [
        ([b for b in pool if fold[b.patient] != number], [b for b in pool if fold[b.patient] == number])
        for number in range(folds)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pool, _ = read_pool(args.data, read_pairs(args.pairs, args.run / "pairs"), args.run / "boxes")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for number, (known, held_out) in enumerate(folds_of(pool, args.folds)):
        torch.manual_seed(number)
        first = AlignedEncoders()
        batches = BoxBatches(known, BATCH, number, first.texts)
        for name, (links, invariant, sharpness) in VARIANTS.items():
            encoders = trained(batches, first, args.steps, links, invariant, sharpness)
            rows[name].append(figures(embed(encoders, held_out)))
            print(number, name, {key: round(value, 3) for key, value in rows[name][-1].items()}, flush=True)
    for name, found in rows.items():
        print(name, {key: round(float(np.mean([row[key] for row in found])), 3) for key in found[0]})


if __name__ == "__main__":
    main()
