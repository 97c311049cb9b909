"""Facts as a diffusion over slots given images: does it say more than a plain head, and is what it says right?

``python -m Testing.experiments.fact_flow DATA RUN [--pairs JSON] [--weights FILE]``: the encoders of RUN stay as they
are; on the vectors of each training box a flow over presence, words and numbers of its facts is trained (EDM, Karras et
al. 2022), and a head of the same size that gives probabilities at once. Half of the validation patients calibrate the
probability from which on a word is said with a precision of 0.9, the other half judge, and the other way round.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from MedDiffFMLib.multimodal.aligned import AlignedEncoders, load_encoders
from MedDiffFMLib.multimodal.boxes import byte_input, ct_input
from MedDiffFMLib.multimodal.facts.fact import Statement
from MedDiffFMLib.multimodal.facts.kinds import KINDS
from MedDiffFMLib.training.multimodal.align import read_pairs, read_pool
from MedDiffFMLib.training.multimodal.box_pool import Boxes

CHOICES = (("place", "side"), ("place", "depth"), ("region", "region"), ("contrast", "contrast"))
PRESENT = ("lungs", "nodule", "gas")
NUMBERS = (("level", "level"), ("fat", "share"), ("bone", "share"), ("lungs", "volume"), ("soft_density", "hu"))
WIDTH, STEPS, BATCH, SAMPLES, LEVELS = 128, 600, 256, 32, 10
DATA_SIGMA = 0.7
PRECISION = 0.9
MODALITIES = ("ct", "mr", "xray")


class Slots:
    """Facts of boxes as rows: presence and words as bits of -1 and 1, numbers by their standing in the training."""

    def __init__(self, facts: Sequence[Sequence[Statement]]) -> None:
        self.words = {key: KINDS[key[0]].slots[key[1]].choices for key in CHOICES}  # type: ignore[union-attr]
        values = [_values(text) for text in facts]
        self.lines = [np.sort([v[key] for v in values if key in v]) for key in NUMBERS]
        self.spans, start = {}, 0
        for key in CHOICES:
            self.spans[key] = slice(start, start + len(self.words[key]))
            start += len(self.words[key])
        for key in (*PRESENT, *NUMBERS):
            self.spans[key] = slice(start, start + 1)
            start += 1
        self.size = start

    def rows(self, facts: Sequence[Sequence[Statement]]) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, size) values, and 1 where they are known."""
        table, known = np.zeros((len(facts), self.size), np.float32), np.zeros((len(facts), self.size), np.float32)
        for n, text in enumerate(facts):
            values = _values(text)
            for key in CHOICES:
                if key in values:
                    known[n, self.spans[key]], table[n, self.spans[key]] = 1, -1
                    table[n, self.spans[key].start + self.words[key].index(values[key])] = 1
            for kind in PRESENT:
                known[n, self.spans[kind]], table[n, self.spans[kind]] = 1, 2 * any(s.kind == kind for s in text) - 1
            for key, line in zip(NUMBERS, self.lines, strict=True):
                if key in values:
                    known[n, self.spans[key]] = 1
                    table[n, self.spans[key]] = 2 * np.searchsorted(line, values[key]) / len(line) - 1
        return torch.from_numpy(table), torch.from_numpy(known)


def _values(text: Sequence[Statement]) -> dict:  # type: ignore[type-arg]
    return {(said.kind, name): value for said in text for name, value in said.values.items()}


class FactFlow(nn.Module):
    """Noisy slots, their noise level and an image's vectors -> clean slots; the head where the slots are all zero.

    Args:
        given: length of what is known of an image.
    """

    def __init__(self, size: int, given: int) -> None:
        super().__init__()
        self.enter = nn.Linear(size + 1 + given, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(3)
        )
        self.out = nn.Linear(WIDTH, size)

    def forward(self, slots: torch.Tensor, sigma: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """(B, size), (B, 1), (B, given) -> (B, size)."""
        total = (sigma**2 + DATA_SIGMA**2).sqrt()
        x = self.enter(torch.cat([slots / total, sigma.log() / 4, given], 1))
        for block in self.blocks:
            x = x + block(x)
        return DATA_SIGMA**2 / total**2 * slots + sigma * DATA_SIGMA / total * self.out(x)


def train(given: torch.Tensor, slots: torch.Tensor, known: torch.Tensor, diffusion: bool, seed: int) -> FactFlow:
    """The flow, or with the same network a head that sees no slots."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = FactFlow(slots.shape[1], given.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (STEPS - step) / (STEPS / 2))
        rows = torch.randint(len(given), (BATCH,), generator=generator)
        x, seen, image = slots[rows], known[rows], given[rows]
        if diffusion:
            sigma = (1.2 * torch.randn((BATCH, 1), generator=generator) - 0.6).exp()
            noisy = (x + sigma * torch.randn(x.shape, generator=generator)) * seen
            weight = (sigma**2 + DATA_SIGMA**2) / (sigma * DATA_SIGMA) ** 2
            loss = (weight * seen * (network(noisy, sigma, image) - x) ** 2).sum() / seen.sum()
        else:
            loss = (seen * (_head(network, image, x.shape[1]) - x) ** 2).sum() / seen.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def _head(network: FactFlow, image: torch.Tensor, size: int) -> torch.Tensor:
    """What the network says of an image alone."""
    x = network.enter(torch.cat([torch.zeros(len(image), size + 1), image], 1))
    for block in network.blocks:
        x = x + block(x)
    return network.out(x)  # type: ignore[no-any-return]


@torch.inference_mode()
def draw(network: FactFlow, given: torch.Tensor, size: int, seed: int = 0) -> torch.Tensor:
    """(SAMPLES, n, size) by Euler's method."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.linspace(20 ** (1 / 5), 0.02 ** (1 / 5), LEVELS) ** 5
    image = given.repeat(SAMPLES, 1)
    x = levels[0] * torch.randn((len(image), size), generator=generator)
    for now, after in zip(levels, [*levels[1:], torch.tensor(0.0)], strict=True):
        sigma = now.expand(len(x), 1)
        x = x + (after - now) * (x - network(x, sigma, image)) / now
    return x.reshape(SAMPLES, len(given), size)


def said_words(probability: np.ndarray, right: np.ndarray, calibrates: np.ndarray) -> tuple[float, float]:
    """Precision and share of what is said in the boxes that do not calibrate; NaN where nothing is said."""
    order = np.argsort(-probability[calibrates])
    precision = np.cumsum(right[calibrates][order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(precision >= PRECISION)
    threshold = probability[calibrates][order][good[-1]] if len(good) else np.inf
    said = probability[~calibrates] >= threshold
    return (float(right[~calibrates][said].mean()) if said.any() else float("nan")), float(said.mean())


def judge(name: str, slots: Slots, values: np.ndarray, spread: np.ndarray, truth: tuple[torch.Tensor, torch.Tensor],
          patient: np.ndarray, majority: torch.Tensor) -> None:  # fmt: skip
    """Print precision and share of what is said of words, and the error of numbers beside the training's median.

    Args:
        values: (n, size) most likely bits and numbers.
        spread: (n, size) probability of a bit.
    """
    table, known = (one.numpy() for one in truth)
    for key in (*CHOICES, *PRESENT):
        span = slots.spans[key]
        rows = known[:, span.start] > 0
        if key in CHOICES:
            chosen, true = spread[rows, span].argmax(1), table[rows, span].argmax(1)
            sure, right = spread[rows, span].max(1), chosen == true
            usual = (majority[span].argmax().item() == true).mean()
        else:
            bit = spread[rows, span.start]
            right, sure = (bit > 0.5) == (table[rows, span.start] > 0), np.maximum(bit, 1 - bit)
            usual = ((majority[span] > 0).item() == (table[rows, span.start] > 0)).mean()
        both = [said_words(sure, right, (patient[rows] % 2 == half)) for half in range(2)]
        precision, share = np.nanmean([p for p, _ in both]), np.mean([s for _, s in both])
        print(f"{name} {key}: n {rows.sum()}, right {right.mean():.2f} (most frequent {usual:.2f}), said {share:.2f} "
              f"with precision {precision:.2f}")  # fmt: skip
    for key, line in zip(NUMBERS, slots.lines, strict=True):
        span = slots.spans[key]
        rows = known[:, span.start] > 0
        number = [np.quantile(line, np.clip((one[rows, span.start] + 1) / 2, 0, 1)) for one in (values, table)]
        error, usual = np.abs(number[0] - number[1]).mean(), np.abs(np.median(line) - number[1]).mean()
        print(f"{name} {'.'.join(key)}: n {rows.sum()}, mean error {error:.1f} (median of the training {usual:.1f})")


@torch.inference_mode()
def vectors(encoders: AlignedEncoders, pool: Sequence[Boxes], modality: str, local: bool) -> torch.Tensor:
    """What is known of each box of a pool: its one vector, with ``local`` also those of its parts, in their order."""
    if modality == "ct":
        images = [ct_input(boxes.ct) for boxes in pool]
    else:
        images = [byte_input(getattr(boxes, modality)[:, 0]) for boxes in pool]
    found = [getattr(encoders, modality)(part) for image in images for part in image.split(64)]
    whole = torch.cat([one.whole for one in found])
    if not local:
        return 8 * whole
    parts = torch.cat([one.parts for one in found])
    narrow = functional.avg_pool1d(parts, 8) if modality != "xray" else functional.avg_pool1d(parts, 4)
    return torch.cat([8 * whole, 8 * narrow.flatten(1)], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--local", action="store_true", help="the vectors of the parts, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoders = load_encoders(args.weights or args.run / "model.safetensors")
    training, validation = read_pool(args.data, read_pairs(args.pairs, args.run / "pairs"), args.run / "boxes")
    facts, others = ([text for boxes in pool for text in boxes.facts] for pool in (training, validation))
    slots = Slots(facts)
    rows, known = slots.rows(facts)
    majority = (rows * known).sum(0) / known.sum(0).clamp(min=1)
    truth = slots.rows(others)
    names = sorted({boxes.patient for boxes in validation})
    patient = np.concatenate([np.full(len(boxes.ct), names.index(boxes.patient)) for boxes in validation])
    for modality in MODALITIES:
        given, asked = (vectors(encoders, pool, modality, args.local) for pool in (training, validation))
        flow = train(given, rows, known, True, 0)
        drawn = draw(flow, asked, slots.size)
        bits = (drawn > 0).float().mean(0)
        for key in CHOICES:
            chosen = functional.one_hot(drawn[..., slots.spans[key]].argmax(-1), len(slots.words[key]))
            bits[:, slots.spans[key]] = chosen.float().mean(0)
        judge(f"flow {modality}", slots, drawn.median(0).values.numpy(), bits.numpy(), truth, patient, majority)
        head = train(given, rows, known, False, 0)
        with torch.inference_mode():
            told = _head(head, asked, slots.size)
        judge(f"head {modality}", slots, told.numpy(), ((told + 1) / 2).numpy(), truth, patient, majority)


if __name__ == "__main__":
    main()
